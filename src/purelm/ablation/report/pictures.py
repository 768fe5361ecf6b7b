"""curves.png and search.png: a table's losses over steps and over what was searched, small panels a group."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.ablation.report import drawing, text
from purelm.ablation.report.drawing import Line
from purelm.ablation.table import Search, Table, TableRow

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]


def draw_curves(table: Table, curves: Curves, path: pathlib.Path) -> bool:
    """Validation loss over steps: mean and range over seeds, a panel for each group with the base in grey.

    `curves` are row -> seed -> points (step, loss). Returns whether there was anything to draw.
    """
    lines = {row.name: line for row in table.rows if (line := _curve(row, curves)) is not None}
    if not lines:
        return False
    base = lines.get(table.rows[0].name)
    panels = _panels(table, lines)
    limits = _late_limits(list(lines.values()))
    columns = min(len(panels), 2 if len(panels) <= 4 else 3)
    rows = -(-len(panels) // columns)
    with drawing.figure(5.8 * columns + 0.4, 3.1 * rows + 0.7, path) as figure:
        figure.suptitle(drawing.plain(table.title, 100))
        for axes, (group, members) in zip(drawing.panel_grid(figure, len(panels), columns), panels):
            axes.set_title(drawing.plain(group, 50), loc="left")
            drawing.draw_lines(axes, members, base, limits=limits)
        figure.supxlabel("step", fontsize=9)
        figure.supylabel("validation loss (mean and range over seeds)", fontsize=9)
    return True


def _curve(row: TableRow, curves: Curves) -> Line | None:
    """The row's mean over seeds at the steps that all of them have; finished seeds alone where there are any, so that
    one that failed early does not shorten the line."""
    if row.name not in curves:
        return None
    finished = {seed for seed, state in row.cells.items() if state == "done"}
    points = {seed: {step: loss for step, loss in values if loss is not None and math.isfinite(loss)}
              for seed, values in curves[row.name].items()}
    points = {seed: values for seed, values in points.items() if values}
    points = {seed: values for seed, values in points.items() if seed in finished} or points
    if not points:
        return None
    shared = set.intersection(*(set(values) for values in points.values()))
    if not shared:
        points = dict([max(points.items(), key=lambda item: len(item[1]))])
        shared = set(*points.values())
    steps = sorted(shared)
    losses = [[values[step] for values in points.values()] for step in steps]
    return Line(drawing.label(row), tuple(steps), tuple(sum(each) / len(each) for each in losses),
                tuple(min(each) for each in losses), tuple(max(each) for each in losses))


def _panels(table: Table, lines: Mapping[str, Line]) -> list[tuple[str, list[Line]]]:
    """(title, lines) of each panel: a group, or parts of a large one; the base alone if there is nothing else."""
    members: dict[str, list[Line]] = {}
    for row in table.rows[1:]:
        if row.name in lines:
            members.setdefault(row.group, []).append(lines[row.name])
    panels = []
    for group, all_lines in members.items():
        parts = -(-len(all_lines) // drawing.LINES_A_PANEL)
        size = -(-len(all_lines) // parts)
        panels += [(f"{group} {part + 1}/{parts}".strip() if parts > 1 else group,
                    all_lines[part * size:(part + 1) * size]) for part in range(parts)]
    return panels or [("", [])]


def _late_limits(lines: Sequence[Line]) -> tuple[float, float]:
    """Where the lines are after three tenths of the steps, so that the start does not flatten what differs at the end;
    and without the highest lines, where those are far from the others (a run that diverged)."""
    late = [[y for x, y in zip(line.x, line.y) if x >= 0.3 * line.x[-1]] for line in lines]
    bottom = min(min(values) for values in late)
    tops = sorted(max(values) for values in late)
    typical = tops[len(tops) // 2] - bottom
    top = max(each for each in tops if each - bottom <= 3 * typical)
    return _padded(bottom, top)


def _padded(bottom: float, top: float) -> tuple[float, float]:
    margin = 0.05 * (top - bottom) or max(abs(top) * 0.01, 1e-6)
    return bottom - margin, top + margin


def draw_search(table: Table, path: pathlib.Path) -> bool:
    """The first metric over what was searched (the learning rate, if it was), a line for each row, the chosen value in
    a ring; of several fields, the best over the others. Returns whether there was a search to draw."""
    metric = table.metrics[0]
    field = _search_field([row.search for row in table.rows if row.search is not None])
    if field is None:
        return False
    lines = {row.name: _search_line(row, row.search, field, metric.direction) for row in table.rows
             if row.search is not None}
    lines = {name: line for name, line in lines.items() if line.x}
    if not lines:
        return False
    panels = _panels(table, lines)
    if sum(len(members) for _, members in panels) <= drawing.LINES_A_PANEL:
        panels = [("", [line for _, members in panels for line in members])]
    columns = min(len(panels), 2)
    base = lines.get(table.rows[0].name)
    failing = max(sum(bool(line.failed) for line in (*members, *([] if base is None else [base])))
                  for _, members in panels)
    limits = _search_limits(list(lines.values()), metric.direction)
    with drawing.figure(5.6 * columns + 0.4, 3.4 * -(-len(panels) // columns) + 0.7, path) as figure:
        figure.suptitle(drawing.plain(table.title, 100))
        for axes, (group, members) in zip(drawing.panel_grid(figure, len(panels), columns), panels):
            axes.set_title(drawing.plain(group, 50), loc="left")
            _search_axis(axes, list(lines.values()))
            drawing.draw_lines(axes, members, base, limits=limits, failing=failing)
        figure.supxlabel(f"{field} (○ chosen, × failed)", fontsize=9)
        figure.supylabel(text.heading(metric), fontsize=9)
    return True


def _search_field(searches: Sequence[Search]) -> str | None:
    """The learning rate, or else the field of numbers with most values."""
    values: dict[str, set[float]] = {}
    for search in searches:
        for changes, _ in search.points:
            for field, value in changes.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    values.setdefault(field, set()).add(float(value))
    return max(values, key=lambda field: (field.endswith("learning_rate"), len(values[field])), default=None)


def _search_line(row: TableRow, search: Search, field: str, direction: str) -> Line:
    better = min if direction == "lower" else max
    best: dict[float, float] = {}
    for changes, value in search.points:
        if field in changes and value is not None and math.isfinite(value):
            best[float(changes[field])] = better(value, best.get(float(changes[field]), value))
    # Before a choice was made, what has no value may be on its way.
    failed = set() if search.chosen is None else {
        float(changes[field]) for changes, _ in search.points if field in changes} - set(best)
    x = tuple(sorted(best))
    chosen = None if search.chosen is None or field not in search.chosen else float(search.chosen[field])
    return Line(drawing.label(row), x, tuple(best[each] for each in x),
                marked=x.index(chosen) if chosen in x else None, failed=tuple(sorted(failed)))


def _search_limits(lines: Sequence[Line], direction: str) -> tuple[float, float]:
    """From the best to where most points are: a point that nearly diverged does not flatten the others."""
    values = sorted((y for line in lines for y in line.y), reverse=direction == "higher")
    typical = abs(values[len(values) // 2] - values[0])
    kept = [value for value in values if abs(value - values[0]) <= max(8 * typical, 1e-12)]
    kept += [line.y[line.marked] for line in lines if line.marked is not None]
    return _padded(min(kept), max(kept))


def _search_axis(axes: Any, lines: Sequence[Line]) -> None:
    """Logarithmic where the values are apart by factors; ticks are the values, where there is room for them."""
    from matplotlib import ticker

    values = sorted({x for line in lines for x in (*line.x, *line.failed)})
    if values[0] > 0 and values[-1] / values[0] >= 5:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    if len(values) <= 9:
        axes.set_xticks(values, [f"{value:g}" for value in values], fontsize=8)
