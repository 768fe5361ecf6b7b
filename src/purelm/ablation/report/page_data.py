"""What the HTML page knows of a table: numbers to sort and draw by, and beside each the text that is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.ablation.report import text
from purelm.ablation.spec import Metric
from purelm.ablation.table import Result, Search, Table, TableRow

# Points of a curve that a screen can tell apart; the last one is always kept.
MOST_POINTS = 240
COST_HINTS = {
    "parameters": "all parameters",
    "flops_per_token": "forward and backward",
    "seconds_per_step": "of a training step, in milliseconds, without compilation and evaluation",
    "memory_bytes": "of a training step on a device, in MiB",
    "cache_bytes_per_token": "keys and values kept for each token when generating",
    "train_seconds": "of a cell, everything included",
}


def page_data(table: Table, curves: Mapping[str, Any], configs: Mapping[str, Mapping[str, Mapping[str, Any]]],
              errors: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Everything on the page as JSON-able values; see page.page for the arguments."""
    level = text.level(table.confidence)
    costs = text.measured_costs(table.rows)
    metrics = {metric.name: metric for metric in table.metrics}
    return {
        "title": table.title,
        "source": table.source,
        "compute": table.compute,
        "made": text.made(table.made),
        "notes": list(table.notes),
        "method": text.method(table.test, table.interval, table.confidence),
        "test": text.CORRECTIONS[table.test],
        "confidence": f"{table.confidence * 100:g} %",
        "marks": {verdict: mark for verdict, mark in text.MARKS.items() if verdict not in ("base", "missing")},
        "metrics": [_metric(metric, table, level) for metric in table.metrics],
        "agreement": [text.agreement(one, metrics[one.metric]) for one in table.agreement],
        "costs": [{"key": key, "head": text.COSTS[key], "hint": COST_HINTS[key]} for key in costs],
        "rows": [_row(row, table, costs, configs, errors) for row in table.rows],
        "curves": {name: {row: _curve(seeds) for row, seeds in rows.items() if any(seeds.values())}
                   for name, rows in _losses(curves).items()},
        "fit": None if table.fit is None else {"lines": text.fit(table.fit), "series": _fit_series(table.fit)},
    }


def _base(rows: Sequence[TableRow]) -> str | None:
    """The row that the others are compared with; before any of its cells is done, the first."""
    named = (row.name for row in rows if any(result.verdict == "base" for result in row.results.values()))
    return next(named, rows[0].name if rows else None)


def _metric(metric: Metric, table: Table, level: float) -> dict[str, Any]:
    noise = table.noise.get(metric.name)
    return {
        "name": metric.name, "label": metric.label, "direction": metric.direction, "digits": metric.digits,
        "tolerance": metric.tolerance,
        "published": any(row.results[metric.name].published is not None for row in table.rows
                         if metric.name in row.results),
        "noise": {"detectable": None if noise is None else _finite(noise.detectable),
                  "text": None if noise is None else text.noise(noise, metric, level)},
    }


def _row(row: TableRow, table: Table, costs: Sequence[str], configs: Mapping[str, Any],
         errors: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    changes = _changes(row, configs.get(row.name, {}))
    label = text.label(row)
    words = [row.name, label, row.group, *(f"{path} {value}" for path, _, value, _ in changes)]
    return {
        "name": row.name, "label": label, "group": row.group,
        "base": row.name == _base(table.rows),
        "changes": changes,
        "results": {metric.name: _result(row.results[metric.name], metric, table) for metric in table.metrics
                    if metric.name in row.results},
        "costs": {key: {"value": _finite(getattr(row.costs, key)), "text": text.cost(key, getattr(row.costs, key))}
                  for key in costs},
        "seeds": _seeds(row, table, errors.get(row.name, {})),
        "search": None if row.search is None else _search(row.search, table.metrics[0]),
        "notes": list(row.notes),
        "words": " ".join(words).lower(),
    }


def _result(result: Result, metric: Metric, table: Table) -> dict[str, Any]:
    digits = metric.digits
    ends = result.interval
    compared = result.difference is not None
    return {
        "mean": _finite(result.mean), "difference": _finite(result.difference), "n": len(result.values),
        "low": None if ends is None else _finite(ends[0]), "high": None if ends is None else _finite(ends[1]),
        "p_adjusted": result.p_adjusted, "verdict": result.verdict, "published": _finite(result.published),
        "published_difference": _finite(result.published_difference), "reproduced": result.reproduced,
        "text": {
            "measured": _minus(text.measured(result, digits)),
            "difference": _minus(text.signed(result.difference, digits)) if compared else "",
            "interval": _minus(text.interval(ends, digits)),
            "p": text.p_value(result, table.test),
            "published": "" if result.published is None else _minus(text.number(result.published, digits)),
            "published_difference": "" if result.published_difference is None
            else _minus(text.signed(result.published_difference, digits)),
        },
    }


def _seeds(row: TableRow, table: Table, errors: Mapping[str, str]) -> list[dict[str, Any]]:
    found = {seed: None for seed in (*row.cells, *(s for result in row.results.values() for s in result.values))}
    return [{
        "seed": seed,
        "state": row.cells.get(seed, "missing"),
        "run": row.runs.get(seed),
        "error": errors.get(seed),
        "values": {metric.name: _minus(text.number(row.results[metric.name].values[seed], metric.digits))
                   for metric in table.metrics
                   if metric.name in row.results and seed in row.results[metric.name].values},
    } for seed in found]


def _changes(row: TableRow, configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """[path, value in the base, value in the row, seeds]: seeds is "" where all have it alike. Without configs, what
    the row itself says, and "" for what the base has."""
    if not configs:
        return [[path, "", repr(value), ""] for path, value in row.changes.items()]
    seeds_of: dict[tuple[str, str, str], list[str]] = {}
    for seed, paths in configs.items():
        for path, (base, value) in paths.items():
            seeds_of.setdefault((path, repr(base), repr(value)), []).append(str(seed))
    return [[*key, "" if len(seeds) == len(configs) else ", ".join(seeds)] for key, seeds in seeds_of.items()]


def _search(search: Search, metric: Metric) -> dict[str, Any]:
    lines = text.search_lines(search, metric.digits)
    fields = {path for changes, _ in search.points for path in changes}
    field = next(iter(fields)) if len(fields) == 1 else None
    return {
        "points": [{
            "text": line, "value": _finite(value), "value_text": _minus(value_text), "mark": mark,
            "chosen": bool(mark), "x": _finite(changes[field]) if field in changes else None,
        } for (changes, value), (line, value_text, mark) in zip(search.points, lines, strict=True)],
        "field": field, "at_edge": search.at_edge,
        "sensitivity": None if search.sensitivity is None else text.number(search.sensitivity, metric.digits),
    }


def _losses(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Name of a loss -> row -> seed -> points, whether or not the curves came with such names."""
    if any(isinstance(points, Mapping) for rows in curves.values() for points in rows.values()):
        return dict(curves)
    return {"validation loss": curves}


def _curve(seeds: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, Any]:
    """Steps that any seed has, thinned alike for all, and each seed's loss at them (None where it has none)."""
    values = {str(seed): {int(step): _finite(loss) for step, loss in points} for seed, points in seeds.items()}
    steps = sorted({step for points in values.values() for step in points})
    stride = math.ceil(len(steps) / MOST_POINTS) or 1
    kept = sorted({*steps[::stride], *steps[-1:]})
    return {"steps": kept, "seeds": {seed: [_six_digits(points[step]) if step in points else None for step in kept]
                                     for seed, points in values.items()}}


def _fit_series(fit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each size of model: (tokens, losses of its runs, what the law predicts)."""
    sizes: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for point in fit["points"]:
        sizes.setdefault(point["parameters"], {}).setdefault(point["tokens"], []).append(point)
    return [{"label": f"{text.quantity(size)} parameters",
             "points": [[tokens, [_finite(point["loss"]) for point in points], _finite(points[0]["predicted"])]
                        for tokens, points in sorted(of_size.items())]}
            for size, of_size in sorted(sizes.items())]


def _finite(value: Any) -> float | int | None:
    """Numbers as they are; None for what JSON cannot hold and nothing can be drawn or sorted by."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def _six_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _minus(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}")
