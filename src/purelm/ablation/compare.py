"""A table of any run folders: grouped by what differs but the seed."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from purelm.ablation import provenance
from purelm.ablation.cell_work import model_costs
from purelm.ablation.comparisons import Rules, noise_of, results_of
from purelm.ablation.found_runs import FoundRun, comparable, read_run
from purelm.ablation.results import costs_of
from purelm.ablation.spec import BASE, Metric
from purelm.ablation.store import read_record
from purelm.ablation.table import Costs, Table, TableRow
from purelm.errors import UserError, did_you_mean

_RULES = Rules("paired_t", "t", 0.95)
_MOST_FIELDS = 6  # Of a name.
# What a metric's last part tells of its direction; others are higher where they are better.
_LOWER = ("loss", "perplexity", "bits_per_byte", "objective", "wer", "ter", "error", "unparsed", "timed_out")


@dataclasses.dataclass(frozen=True)
class _Group:
    """Runs that differ by their seed alone: seed -> run. `fields` are path -> value of what decides the result."""

    fields: Mapping[str, Any]
    runs: Mapping[str, FoundRun]


def table_of_runs(patterns: Sequence[str], *, base: str | None = None, metric: str = "validation/loss",
                  command: str | None = None) -> Table:
    """A table of run folders, a row for each config without its seed.

    Runs of other data or another task than the base's are left out with a note: their numbers do not compare. Runs that
    are not finished are listed and do not count. Of runs with the same config and seed, which are no independent ones,
    the last begun counts.

    Args:
      patterns: run folders, globs of them ("**" too), or folders with runs somewhere below, such as work folders.
      base: a run of the group that others are compared with; None takes the group that differs least from all others
        (of two seeds or more, where there is one).
      metric: the first column. Others are whatever numbers the runs have: of the last validation row of metrics.jsonl
        ("validation/loss"), and of evaluation.json ("test/bleu").
      command: that the report says it was made with.

    Raises:
      UserError: a pattern matches no run, no run has the metric, or `base` is not one of them.
    """
    runs, notes = _read(_folders(patterns))
    wanted = _named(runs, base) if base is not None else None
    runs, more = _comparable(runs, wanted)
    notes += more
    groups, more = _groups(runs)
    notes += more
    first = next(group for group in groups if group.fields == wanted.fields) if wanted else _nearest(groups)
    groups = [first, *(group for group in groups if group is not first)]
    names = _names(groups)
    metrics = _metrics(runs, metric)
    results = {}
    for column in metrics:
        values = {name: {seed: run.metrics[column.name] for seed, run in group.runs.items()
                         if run.finished and column.name in run.metrics} for name, group in zip(names, groups)}
        results[column.name], _ = results_of(column, values, dict.fromkeys(names, BASE), {}, _RULES)
    rows = tuple(TableRow(
        name, _label(first) if name == BASE else name, "", _changes(first, group),
        {column.name: results[column.name][name] for column in metrics}, _costs(group),
        {seed: "done" if run.finished else "running" for seed, run in group.runs.items()},
        {seed: str(run.folder) for seed, run in group.runs.items()}, None,
        tuple(_notes(group, first))) for name, group in zip(names, groups))
    made, made_notes = provenance.made_of_runs(run.folder for run in runs)
    return Table(
        f"{len(runs)} runs of {', '.join(patterns)}", "run folders, compared as they are", "", metrics, rows,
        {column.name: noise_of(results[column.name][BASE].values, _RULES) for column in metrics}, (), None,
        _RULES.test, _RULES.interval, _RULES.confidence, made | {"command": command}, (*notes, *made_notes))


def relative_to(table: Table, workdir: str) -> Table:
    """The table with the paths of its runs from a folder, where its report will lie."""
    return dataclasses.replace(table, rows=tuple(dataclasses.replace(
        row, runs={seed: os.path.relpath(folder, workdir) for seed, folder in row.runs.items()}) for row in table.rows))


def _folders(patterns: Sequence[str]) -> list[pathlib.Path]:
    """Run folders that the patterns match, or that lie below what they match; there, runs of stages, of searches, and
    replaced ones are left out."""
    found: dict[pathlib.Path, None] = {}
    for pattern in patterns:
        matched = [pathlib.Path(path) for path in sorted(glob.glob(str(pathlib.Path(pattern).expanduser()),
                                                                   recursive=True))]
        if not matched:
            raise UserError(f"--runs={pattern}: nothing matches; give run folders or a pattern in quotes, such as "
                            "'runs/*'")
        runs = [run for path in matched for run in _below(path)]
        if not runs:
            raise UserError(f"--runs={pattern}: no run folder there (config.json and metrics.jsonl); give folders that "
                            "train.py wrote")
        found |= dict.fromkeys(runs)
    return list(found)


def _below(path: pathlib.Path) -> list[pathlib.Path]:
    if (path / "config.json").is_file() and (path / "metrics.jsonl").is_file():
        return [path]
    if not path.is_dir():
        return []
    inside = sorted(file.parent for file in path.rglob("metrics.jsonl") if (file.parent / "config.json").is_file())
    return [run for run in inside if not {"stages", "replaced"} & set(run.relative_to(path).parts)
            and "@" not in run.parent.name]  # A point of a search chose its row, which its value would flatter.


def _read(folders: Sequence[pathlib.Path]) -> tuple[list[FoundRun], list[str]]:
    runs, notes = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            notes.append(f"left out: {error}")
    if not runs:
        raise UserError(f"--runs: none of {len(folders)} runs can be read; {notes[0].removeprefix('left out: ')}")
    return runs, notes


def _named(runs: Sequence[FoundRun], base: str) -> FoundRun:
    wanted = pathlib.Path(base).expanduser()
    for run in runs:
        if run.folder == wanted or run.folder.resolve() == wanted.resolve() or str(run.folder).endswith(f"/{base}"):
            return run
    raise UserError(f"--base={base}: is none of the runs{did_you_mean(base, [str(run.folder) for run in runs])}")


def _comparable(runs: Sequence[FoundRun], wanted: FoundRun | None) -> tuple[list[FoundRun], list[str]]:
    """The runs of the base's task and data (of the commonest, where no base is named), and which others there are."""
    kinds: dict[Any, list[FoundRun]] = {}
    for run in runs:
        kinds.setdefault(comparable(run), []).append(run)
    kept = comparable(wanted) if wanted else max(kinds, key=lambda kind: len(kinds[kind]))
    notes = [f"left out, of other data or another task than the base ({others[0].config['task.name']}): "
             f"{_listed(run.folder for run in others)}; compare them by themselves"
             for kind, others in kinds.items() if kind != kept]
    return kinds[kept], notes


def _groups(runs: Sequence[FoundRun]) -> tuple[list[_Group], list[str]]:
    fields, members = {}, {}
    notes = []
    for run in sorted(runs, key=lambda run: run.started):
        key = json.dumps(run.fields, sort_keys=True)
        fields[key] = run.fields
        seeds = members.setdefault(key, {})
        if run.seed in seeds:
            notes.append(f"{seeds[run.seed].folder}: left out, {run.folder} is the same with the same seed and newer")
        seeds[run.seed] = run
    order = {key: min(str(run.folder) for run in seeds.values()) for key, seeds in members.items()}
    return [_Group(fields[key], dict(sorted(members[key].items(), key=lambda item: int(item[0]))))
            for key in sorted(members, key=order.__getitem__)], notes


def _nearest(groups: Sequence[_Group]) -> _Group:
    """The group that differs from all others in the fewest fields; of equals, the one of most seeds, then the first.
    A group of one seed, which no test can be made against, only where there is no other."""
    def distance(group: _Group) -> tuple[bool, int, int]:
        return len(group.runs) < 2, sum(len(_changes(group, other)) for other in groups), -len(group.runs)

    return min(groups, key=distance)


def _changes(first: _Group, group: _Group) -> dict[str, Any]:
    """path -> the group's value, where it is not the first's."""
    paths = {**first.fields, **group.fields}
    return {path: group.fields.get(path) for path in paths if first.fields.get(path) != group.fields.get(path)}


def _names(groups: Sequence[_Group]) -> list[str]:
    """The base's name, then what differs from it, by fields' last parts where those are clear."""
    changes = [_changes(groups[0], group) for group in groups[1:]]
    short = _short_paths({path for change in changes for path in change})
    names = [BASE]
    for change in changes:
        parts = [f"{short[path]}={_shown(value)}" for path, value in change.items()]
        name = ", ".join(parts[:_MOST_FIELDS])
        if len(parts) > _MOST_FIELDS:
            name += f" and {len(parts) - _MOST_FIELDS} more"
        alike = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({alike + 1})" if alike else name)
    return names


def _short_paths(paths: set[str]) -> dict[str, str]:
    """path -> its last part, or "optimizer" of "optimizer.name"; the whole path where two would be the same."""
    short = {path: path.removesuffix(".name").rpartition(".")[2] for path in paths}
    names = list(short.values())
    return {path: path if names.count(name) > 1 else name for path, name in short.items()}


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _label(group: _Group) -> str:
    return f"base ({next(iter(group.runs.values())).folder})"


def _metrics(runs: Sequence[FoundRun], first: str) -> tuple[Metric, ...]:
    finished = [run for run in runs if run.finished] or runs
    names = dict.fromkeys(name for run in finished for name in run.metrics)
    if first not in names:
        raise UserError(f"no run has the metric {first}{did_you_mean(first, names)}")
    return tuple(Metric(name, name, "lower" if name.split("/")[-1].endswith(_LOWER) else "higher")
                 for name in (first, *(name for name in names if name != first)))


def _costs(group: _Group) -> Costs:
    """Of cells of a work folder, what was measured; of other runs, what their config tells."""
    measured = []
    for run in group.runs.values():
        if (run.folder / "cell.json").is_file():
            work, row, seed = run.folder.parents[2], run.folder.parent.name, run.folder.name
            measured.append(read_record(str(work), f"{row}/{seed}", announce=False))
    costs = costs_of(measured)
    if costs.parameters is not None:
        return costs
    try:
        return dataclasses.replace(costs, **model_costs(next(iter(group.runs.values())).folder))
    except (UserError, TypeError, ValueError):  # A config that today's code takes no more.
        return costs


def _notes(group: _Group, first: _Group) -> list[str]:
    notes = [f"seed {seed}: at step {run.step} of {run.num_steps}, not finished, so it does not count"
             for seed, run in group.runs.items() if not run.finished]
    notes += [note for run in group.runs.values() for note in run.notes]
    theirs, ours = (next(iter(part.runs.values())).data for part in (first, group))
    if ours.get("tokenizer") != theirs.get("tokenizer"):
        notes.append("another tokenizer than the base's: losses and accuracies of tokens do not compare, bits_per_byte "
                     "does")
    if ours.get("validation") != theirs.get("validation"):
        notes.append("another validation split than the base's")
    return notes


def _listed(folders: Iterable[pathlib.Path]) -> str:
    names = [str(folder) for folder in folders]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
