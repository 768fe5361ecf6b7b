"""The searches of a table's rows: each point's value, what was chosen, and how much the choice matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purelm.ablation.rows import ResolvedRow
from purelm.ablation.spec import Ablation
from purelm.ablation.store import CellRecord, read_record
from purelm.ablation.table import Search


def search_of(ablation: Ablation, row: ResolvedRow,
              workdir: str) -> tuple[Search, dict[str, CellRecord | None], list[str]]:
    """A row's search as far as it is: nothing is chosen before all of its cells are done or failed.

    Returns:
      (the search, POINT/SEED -> record, notes).
    """
    from purelm.ablation.plan import choose, search_points

    metric = ablation.metrics[0]
    points = search_points(ablation, row.name)
    records = {f"{name}/{seed}": read_record(workdir, f"{name}/{seed}")
               for name, _ in points for seed in ablation.search_seeds}
    values = values_of(ablation, row.name, records)
    ended = all(record is not None and record.state in ("done", "failed") for record in records.values())
    chosen = choose(ablation, row.name, values) if ended else None
    edges = [path for path in chosen or {} if _at_edge(chosen[path], [changes[path] for _, changes in points])]
    search = Search(tuple((dict(changes), values[name]) for name, changes in points), chosen, bool(edges),
                    sensitivity_of(list(values.values()), metric.direction) if ended else None)
    return search, records, _notes(search, records, ended, edges)


def sensitivity_of(values: Sequence[float | None], direction: str) -> float | None:
    """Mean over a search's points of how much worse than the best each is; a failed one is as the worst that is not.

    After Wortsman et al. 2023, arXiv 2309.14322, section 2.2, where the loss at the start takes that place. None of
    fewer than two points, or where all failed.
    """
    finite = [value for value in values if value is not None]
    if len(values) < 2 or not finite:
        return None
    worst, best = (max(finite), min(finite)) if direction == "lower" else (min(finite), max(finite))
    return sum(abs((worst if value is None else value) - best) for value in values) / len(values)


def values_of(ablation: Ablation, row: str, records: Mapping[str, CellRecord | None]) -> dict[str, float | None]:
    """Point of a row's search -> mean of the first metric over the search's seeds; None where a seed has none."""
    from purelm.ablation.plan import search_points

    metric, seeds = ablation.metrics[0].name, ablation.search_seeds
    found = {}
    for name, _ in search_points(ablation, row):
        values = [record.metrics[metric] for seed in seeds if (record := records[f"{name}/{seed}"]) is not None
                  and record.state == "done" and metric in record.metrics]
        found[name] = sum(values) / len(values) if len(values) == len(seeds) else None
    return found


def _at_edge(value: Any, searched: Sequence[Any]) -> bool:
    numbers = {other for other in searched if isinstance(other, (int, float)) and not isinstance(other, bool)}
    return value in numbers and len(numbers) > 1 and value in (min(numbers), max(numbers))


def _notes(search: Search, records: Mapping[str, CellRecord | None], ended: bool, edges: Sequence[str]) -> list[str]:
    errors: dict[str, list[str]] = {}
    for key, record in records.items():
        if record is not None and record.state == "failed":
            errors.setdefault(" ".join((record.error or "no reason was recorded").split()), []).append(key)
    notes = [f"search: {', '.join(keys)} failed: {error}" for error, keys in errors.items()]
    if ended and search.chosen is None:
        notes.append("no point of its search could be trained")
    elif not ended and any(records.values()):
        notes.append("its search has not ended")
    notes += [f"the best of the search, {path}={search.chosen[path]}, is at its edge: search further"
              for path in edges]
    return notes
