"""A work folder as a measured table: what its cells hold, tested, with what a reader must know besides."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import statistics as numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purelm.ablation import agreement, provenance, scaling
from purelm.ablation.comparisons import Rules, noise_of, notes_of_rules, results_of
from purelm.ablation.search_results import search_of
from purelm.ablation.spec import BASE, Ablation
from purelm.ablation.store import CellRecord, read_record
from purelm.ablation.table import Costs, Result, Table, TableRow

if TYPE_CHECKING:
    from purelm.ablation.plan import Cell, ResolvedRow

Records = Mapping[str, CellRecord | None]  # Of a row: seed -> record.
_STATES = {"running": "running", "trained": "running", "done": "done", "failed": "failed"}
_OTHER_TRAINING = "trained by another config or code than today's"
_OTHER_EVALUATION = "measured by other evaluations or code than today's"


def table_of(ablation: Ablation, workdir: str, *, command: str | None = None) -> Table:
    """The table as far as its work folder has it; rows without any finished cell are there as missing.

    Args:
      ablation: the table; it decides rows, seeds and metrics, whatever else lies in the folder.
      workdir: the work folder.
      command: that the report says it was made with.

    Raises:
      UserError: the table is wrong.
    """
    from purelm.ablation.plan import plan_cells, resolved_rows, seeds_of

    rows = resolved_rows(ablation)
    seeds = [str(seed) for seed in seeds_of(ablation)]
    records = {row.name: {seed: read_record(workdir, f"{row.name}/{seed}") for seed in seeds} for row in rows}
    searches = {row.name: search_of(ablation, row, workdir) for row in rows if row.search}
    chosen = {row: search.chosen for row, (search, _, _) in searches.items() if search.chosen is not None}
    planned = {cell.key: cell for cell in plan_cells(ablation, chosen=chosen)}
    results, notes = _results(ablation, rows, records)
    table_rows = tuple(TableRow(
        row.name, row.label, row.group, dict(row.changes),
        {metric.name: results[metric.name][row.name] for metric in ablation.metrics},
        costs_of(records[row.name].values()),
        {seed: "missing" if record is None else _STATES[record.state] for seed, record in records[row.name].items()},
        {seed: f"runs/{row.name}/{seed}" for seed, record in records[row.name].items() if record is not None},
        searches[row.name][0] if row.name in searches else None,
        (*([] if row.compare_to == BASE else [f"compared with {row.compare_to}"]),
         *_notes_of_cells(ablation, records[row.name], planned),
         *(searches[row.name][2] if row.name in searches else ()), *notes[row.name]),
    ) for row in rows)
    table_rows, of_all = _said_once(table_rows)
    everything = {f"{row}/{seed}": record for row, of_row in records.items() for seed, record in of_row.items()}
    fit, fit_notes = scaling.fit_of_cells(ablation, workdir, everything)
    searched = {key: record for _, found, _ in searches.values() for key, record in found.items()}
    made, made_notes = provenance.made_of(workdir, everything | searched, command)
    rules = _rules(ablation)
    return Table(
        ablation.title, ablation.source, ablation.compute, ablation.metrics, table_rows,
        {metric.name: noise_of(results[metric.name][rows[0].name].values, rules) for metric in ablation.metrics},
        tuple(_agreements(ablation, results)), fit, ablation.test, ablation.interval, ablation.confidence, made,
        (*of_all, *notes_of_rules(rules, {row.name: row.compare_to for row in rows}, len(seeds)), *fit_notes,
         *made_notes))


def curves_of(table: Table, workdir: str, *, split: str = "validation") -> dict[str, dict[str, list]]:
    """row -> seed -> [(step, loss), ...] of each run that has any, from its metrics.jsonl.

    Args:
      table: whose runs they are.
      workdir: what the runs' folders are relative to.
      split: "validation" or "train".

    Raises:
      UserError: a metrics.jsonl is damaged.
    """
    from purelm.training.metrics import read_rows

    curves: dict[str, dict[str, list]] = {}
    for row in table.rows:
        for seed, folder in row.runs.items():
            points = [(int(point["step"]), float(point["loss"]))
                      for point in read_rows(pathlib.Path(workdir) / folder / "metrics.jsonl")
                      if point["split"] == split and point["loss"] is not None]
            if points:
                curves.setdefault(row.name, {})[seed] = points
    return curves


def errors_of(table: Table, workdir: str) -> dict[str, dict[str, str]]:
    """row -> seed -> why the cell failed, of those that did."""
    errors: dict[str, dict[str, str]] = {}
    for row in table.rows:
        for seed in row.runs:
            record = read_record(workdir, f"{row.name}/{seed}", announce=False)
            if record is not None and record.state == "failed":
                errors.setdefault(row.name, {})[seed] = record.error or "no reason was recorded"
    return errors


def costs_of(records: Iterable[CellRecord | None]) -> Costs:
    """Medians over those that are done."""
    done = [record.costs for record in records if record is not None and record.state == "done"]

    def median(name: str) -> float | None:
        known = [costs[name] for costs in done if costs.get(name) is not None]
        return numbers.median(known) if known else None

    def whole(name: str) -> int | None:
        return None if median(name) is None else round(median(name))

    return Costs(whole("parameters"), whole("flops_per_token"), median("seconds_per_step"), whole("memory_bytes"),
                 whole("cache_bytes_per_token"), median("train_seconds"))


def _rules(ablation: Ablation) -> Rules:
    return Rules(ablation.test, ablation.interval, ablation.confidence)


def _results(ablation: Ablation, rows: Sequence[ResolvedRow],
             records: Mapping[str, Records]) -> tuple[dict[str, dict[str, Result]], dict[str, list[str]]]:
    """(metric -> row -> result, row -> notes)."""
    results, notes = {}, {row.name: [] for row in rows}
    for metric in ablation.metrics:
        values = {row.name: {seed: record.metrics[metric.name] for seed, record in records[row.name].items()
                             if record is not None and record.state == "done" and metric.name in record.metrics
                             and math.isfinite(record.metrics[metric.name])} for row in rows}
        published = {row.name: row.published[metric.name] for row in rows if metric.name in row.published}
        results[metric.name], said = results_of(
            metric, values, {row.name: row.compare_to for row in rows}, published, _rules(ablation))
        for row, lines in said.items():
            notes[row] += lines
    return results, notes


def _agreements(ablation: Ablation, results: Mapping[str, Mapping[str, Result]]) -> Iterable[Any]:
    for metric in ablation.metrics:
        found = agreement.with_published(metric, results[metric.name], ablation.confidence)
        if found is not None:
            yield found
    if ablation.expected_order:
        metric = ablation.metrics[0]
        yield agreement.with_order(metric, results[metric.name], ablation.expected_order, ablation.confidence)


def _notes_of_cells(ablation: Ablation, records: Records, planned: Mapping[str, Cell]) -> list[str]:
    said: dict[str, list[str]] = {}  # What -> seeds.
    for seed, record in records.items():
        if record is None:
            what = ["not run"] if any(records.values()) else []
        elif record.state == "failed":
            what = [f"failed: {' '.join((record.error or 'no reason was recorded').split())}"]
        elif record.state != "done":
            what = ["not finished"]
        else:
            what = [*_unavailable(ablation, record), *_stale(record, planned.get(record.key))]
        for line in what:
            said.setdefault(line, []).append(seed)
    return [line if len(seeds) == len(records) > 1 else f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {line}"
            for line, seeds in said.items()]


def _said_once(rows: tuple[TableRow, ...]) -> tuple[tuple[TableRow, ...], list[str]]:
    """(rows, notes of the table): what is old in all rows that were run, as after an update, is said of the table."""
    run = [row for row in rows if row.runs]
    of_all = [line for line in (_OTHER_TRAINING, _OTHER_EVALUATION)
              if len(run) > 1 and all(line in row.notes for row in run)]
    return tuple(dataclasses.replace(row, notes=tuple(note for note in row.notes if note not in of_all))
                 for row in rows), [f"all rows: {line}" for line in of_all]


def _unavailable(ablation: Ablation, record: CellRecord) -> list[str]:
    """Why metrics of the table are not there, once for each reason."""
    missing = [metric.name for metric in ablation.metrics if metric.name not in record.metrics]
    reasons: dict[str, list[str]] = {}
    for name in missing:
        evaluation = name.split("/")[0]
        reason = record.unavailable.get(name, record.unavailable.get(evaluation, f"{evaluation} has no such metric"))
        reasons.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: not measured: {reason}" for reason, names in reasons.items()]


def _stale(record: CellRecord, cell: Cell | None) -> list[str]:
    if cell is None:
        return []
    if record.training_fingerprint != cell.training_fingerprint:
        return [_OTHER_TRAINING]
    if record.evaluation_fingerprint != cell.evaluation_fingerprint:
        return [_OTHER_EVALUATION]
    return []
