"""A table's cells: each row with each seed, as the configs that are trained."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from purelm.ablation.fingerprints import evaluation_fingerprint, training_fingerprint
from purelm.ablation.rows import (
    ResolvedRow,
    expanded_rows,
    point_name,
    points,
    resolved_rows,
    row_where,
    stage_configs,
)
from purelm.ablation.serialize import evaluation_of
from purelm.ablation.spec import Ablation, Evaluation, Row
from purelm.config import Config, from_dict, validate
from purelm.config.changes import diff_configs
from purelm.errors import UserError, did_you_mean
from purelm.training.lifted import program_key
from purelm.training.run_folder import write_atomically

__all__ = ["Cell", "ResolvedRow", "choose", "diff_configs", "plan_cells", "read_plan", "resolved_rows",
           "search_points", "seeds_of", "write_plan"]
# Metrics that the loss gives, without a written answer.
_OF_THE_LOSS = ("loss", "perplexity", "bits_per_byte")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A row with a seed.

    Attributes:
      row: its name; of a point of a search ROW@FIELD=VALUE.
      stages: (name, config) in the order they are trained, validated and not finalized; init_from of those after the
        first is not set.
      evaluations: of the last stage.
      training_fingerprint, evaluation_fingerprint: see fingerprints.py.
      program: equal for cells that one compiled program can train.
    """

    row: str
    seed: int
    stages: tuple[tuple[str, Config], ...]
    evaluations: tuple[Evaluation, ...]
    training_fingerprint: str
    evaluation_fingerprint: str
    program: str

    @property
    def key(self) -> str:
        return f"{self.row}/{self.seed}"

    @property
    def config(self) -> Config:
        """Of the last stage."""
        return self.stages[-1][1]

    @property
    def folder(self) -> str:
        """Of its run, in the work folder."""
        return f"runs/{self.key}"


def seeds_of(ablation: Ablation) -> tuple[int, ...]:
    """The seeds of each row."""
    return tuple(range(ablation.seeds)) if isinstance(ablation.seeds, int) else ablation.seeds


def plan_cells(ablation: Ablation, *, rows: Sequence[str] | None = None,
               chosen: Mapping[str, Mapping[str, Any]] | None = None) -> list[Cell]:
    """The cells that can be planned now: of a row with a search its search's, until `chosen` has the row's best point.

    Args:
      rows: names; a row with a grid stands for all of its points; None is all.
      chosen: row -> changes of the best point of its search.

    Raises:
      UserError: a row that there is not ("did you mean"), or a config that `validate` refuses.
    """
    chosen = {} if chosen is None else chosen
    cells = []
    for row, resolved in zip(expanded_rows(ablation), resolved_rows(ablation)):
        if rows is not None and resolved.name not in _wanted(ablation, rows):
            continue
        if not resolved.search or resolved.name in chosen:
            more = chosen[resolved.name] if resolved.search else {}
            cells += _cells(ablation, row, resolved.name, more, seeds_of(ablation), ablation.evaluations)
        else:
            for name, more in search_points(ablation, resolved):
                cells += _cells(ablation, row, name, more, ablation.search_seeds, _search_evaluations(ablation))
    return cells


def search_points(ablation: Ablation, row: ResolvedRow) -> list[tuple[str, dict[str, Any]]]:
    """(name of the point's cells, changes) of a row's search, in order; none where it has no search."""
    return [(f"{row.name}@{point_name(point)}", point) for point in points(row.search)] if row.search else []


def choose(ablation: Ablation, row: str, values: Mapping[str, float | None]) -> dict[str, Any] | None:
    """The best point of a row's search by the first metric, the first of equals; None where none has a value.

    Args:
      values: by the names of `search_points`; None and NaN have failed.
    """
    resolved = next(found for found in resolved_rows(ablation) if found.name == row)
    found = [(values[name], point) for name, point in search_points(ablation, resolved)
             if values[name] is not None and not math.isnan(values[name])]
    if not found:
        return None
    sign = 1 if ablation.metrics[0].direction == "lower" else -1
    return min(found, key=lambda pair: sign * pair[0])[1]


def config_differences(ablation: Ablation) -> dict[str, dict[str, tuple[Any, Any]]]:
    """row -> path -> (the base's value, the row's), of the last stage."""
    base, *others = resolved_rows(ablation)
    return {base.name: {}} | {row.name: diff_configs(base.stage_configs[-1][1], row.stage_configs[-1][1])
                              for row in others}


def write_plan(workdir: str, cells: Sequence[Cell]) -> None:
    """Writes plan.json; cells planned before, of other rows and seeds, are kept."""
    try:
        before = read_plan(workdir)
    except UserError:  # None yet, or damaged: it holds nothing that cannot be planned again.
        before = {}
    plan = [dataclasses.asdict(cell) for cell in {**before, **{cell.key: cell for cell in cells}}.values()]
    write_atomically(pathlib.Path(workdir) / "plan.json", json.dumps(plan, ensure_ascii=False) + "\n")


def read_plan(workdir: str) -> dict[str, Cell]:
    """The cells planned so far, by their keys.

    Raises:
      UserError: there is no plan, or it cannot be read.
    """
    path = pathlib.Path(workdir) / "plan.json"
    try:
        cells = [_cell_of(values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{path}: missing or damaged ({' '.join(str(error).split())}); run the table again, which "
                        "writes it") from error
    return {cell.key: cell for cell in cells}


def _cells(ablation: Ablation, row: Row, name: str, more: Mapping[str, Any], seeds: Sequence[int],
           evaluations: tuple[Evaluation, ...]) -> Iterator[Cell]:
    configs = stage_configs(ablation, row, more, row_where("", name))
    for _, config in configs:
        validate(config)
    program = "+".join(program_key(config) for _, config in configs)
    best = any(evaluation.checkpoint == "best" for evaluation in evaluations)
    for seed in seeds:
        stages = tuple((stage, dataclasses.replace(config, seed=seed)) for stage, config in configs)
        training = training_fingerprint(stages, best=best)
        yield Cell(name, seed, stages, evaluations, training,
                   evaluation_fingerprint(training, stages[-1][1], evaluations), program)


def _search_evaluations(ablation: Ablation) -> tuple[Evaluation, ...]:
    """What a search needs: the first metric, and no answers where it is a loss."""
    evaluation, metric = ablation.metrics[0].name.split("/", 1)
    found = next(candidate for candidate in ablation.evaluations if candidate.name == evaluation)
    return (dataclasses.replace(found, answers=found.answers and metric not in _OF_THE_LOSS),)


def _wanted(ablation: Ablation, rows: Sequence[str]) -> set[str]:
    names = [row.name for row in expanded_rows(ablation)]
    found: set[str] = set()
    for wanted in rows:
        matching = {name for name in names if name == wanted or name.startswith(f"{wanted},")}
        if not matching:
            raise UserError(f"--rows={wanted}: the table has no such row{did_you_mean(wanted, names)}")
        found |= matching
    return found


def _cell_of(values: Mapping[str, Any]) -> Cell:
    return Cell(**{**values, "stages": tuple((name, from_dict(config, Config)) for name, config in values["stages"]),
                   "evaluations": tuple(evaluation_of(evaluation) for evaluation in values["evaluations"])})
