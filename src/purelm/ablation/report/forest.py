"""forest.png: the difference of each row with its interval, the noise floor behind, the paper's own beside it."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from purelm.ablation.report import drawing, text
from purelm.ablation.spec import Metric
from purelm.ablation.table import Result, Table, TableRow

# Verdict -> (color, marker, filled): told apart without color.
_LOOKS = {"better": (drawing.BLUE, "^", True), "worse": (drawing.VERMILION, "v", True),
          "within noise": ("#666666", "o", True), "too few seeds": ("#666666", "o", False)}
_PUBLISHED = ("black", "s", "published")
_MAX_METRICS = 3


def draw_forest(table: Table, path: pathlib.Path) -> bool:
    """A line for each row but the base, in the order of the table; a panel for each of the first three metrics.

    Returns whether there was a difference to draw, measured or published.
    """
    metrics = [metric for metric in table.metrics[:_MAX_METRICS]
               if any(_drawn(row.results[metric.name]) for row in table.rows)]
    places, headings = _places(table.rows)
    if not metrics or not places:
        return False
    height = 0.27 * (len(places) + len(headings)) + 1.7
    with drawing.figure(2.6 + 4.2 * len(metrics), height, path) as figure:
        figure.suptitle(drawing.plain(table.title, 50 * len(metrics)))
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, metrics):
            _panel(axes, table, metric, places)
        names = [(place, drawing.label(row), False) for row, place in places]
        names += [(place, drawing.plain(group, 38), True) for group, place in headings]
        panels[0].set_yticks([place for place, _, _ in names], [name for _, name, _ in names])
        for tick, (_, _, is_group) in zip(panels[0].get_yticklabels(), names):
            tick.set_fontweight("bold" if is_group else "normal")
        panels[0].set_ylim(max(place for place, _, _ in names) + 0.8, min(place for place, _, _ in names) - 0.8)
        for axes in panels:
            axes.tick_params(axis="y", length=0)
        _legend(figure, table)
    return True


def _drawn(result: Result) -> bool:
    return result.difference is not None or result.published_difference is not None


def _places(rows: Sequence[TableRow]) -> tuple[list[tuple[TableRow, float]], list[tuple[str, float]]]:
    """(row, y) of each row but the base, and (group, y) of each group's name, from the top down."""
    places, headings, at = [], [], 0.0
    for group, members in text.groups(rows[1:]):
        at += 0.5 if at else 0
        if group:
            headings.append((group, at))
            at += 1
        for row in members:
            places.append((row, at))
            at += 1
    return places, headings


def _panel(axes: Any, table: Table, metric: Metric, places: Sequence[tuple[TableRow, float]]) -> None:
    results = [(row.results[metric.name], place) for row, place in places]
    noise = table.noise[metric.name].detectable if metric.name in table.noise else None
    low, high = _limits([result for result, _ in results], noise)
    if noise is not None:
        axes.axvspan(-noise, noise, color="#000000", alpha=0.09, linewidth=0, zorder=0)
    axes.axvline(0, color="black", linewidth=0.9, zorder=1)
    for result, place in results:
        with_both = result.difference is not None and result.published_difference is not None
        if result.difference is not None:
            _measured(axes, result, place - (0.14 if with_both else 0), (low, high), metric.digits)
        if result.published_difference is not None:
            shown = min(max(result.published_difference, low), high)
            axes.plot(shown, place + (0.2 if with_both else 0), marker=_PUBLISHED[1], markersize=4.5,
                      markerfacecolor="none", markeredgecolor=_PUBLISHED[0], linestyle="", clip_on=False, zorder=4)
            _beyond(axes, result.published_difference, place + 0.2, (low, high), metric.digits)
        if result.difference is None:
            axes.annotate("not measured", (1, place), xycoords=("axes fraction", "data"), ha="right", va="center",
                          fontsize=7, color=drawing.GREY)
    axes.set_xlim(low, high)
    axes.grid(axis="x", alpha=0.25)
    axes.spines["left"].set_visible(False)
    way = "◂ better" if metric.direction == "lower" else "better ▸"
    axes.set_xlabel(f"{drawing.plain(metric.label, 40)}, difference\n{way}")


def _measured(axes: Any, result: Result, place: float, limits: tuple[float, float], digits: int) -> None:
    color, marker, filled = _LOOKS[result.verdict]
    if result.interval is not None:
        axes.plot(result.interval, (place, place), color=color, linewidth=1.5, solid_capstyle="butt", zorder=2)
    shown = min(max(result.difference, limits[0]), limits[1])
    axes.plot(shown, place, marker=marker, markersize=6, color=color, linestyle="", clip_on=False,
              markerfacecolor=color if filled else "white", zorder=5)
    _beyond(axes, result.difference, place, limits, digits)


def _beyond(axes: Any, value: float, place: float, limits: tuple[float, float], digits: int) -> None:
    """The number of a marker that stands at the edge, because its place is beyond it."""
    if not limits[0] <= value <= limits[1]:
        right = value > limits[1]
        axes.annotate(f"{text.signed(value, digits)} →" if right else f"← {text.signed(value, digits)}",
                      (limits[1] if right else limits[0], place), xytext=(-7 if right else 7, 0),
                      textcoords="offset points", ha="right" if right else "left", va="center", fontsize=7,
                      zorder=6, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1})


def _limits(results: Sequence[Result], noise: float | None) -> tuple[float, float]:
    """Wide enough for the markers and for intervals about as long; what is far beyond the others (a run that diverged,
    the interval of two seeds) does not flatten the rest."""
    markers = [value for result in results for value in (result.difference, result.published_difference)
               if value is not None and math.isfinite(value)]
    sizes = sorted(abs(value) for value in markers)
    usual = max(3 * sizes[len(sizes) * 3 // 4], 1.1 * (noise or 0), 1e-9)
    kept = [value for value in markers if abs(value) <= usual] + ([-noise, noise] if noise else [])
    reach = max((abs(value) for value in kept), default=usual)
    ends = [end for result in results if result.interval is not None for end in result.interval
            if math.isfinite(end) and abs(end) <= 1.8 * reach]
    low, high = min([0.0, *kept, *ends]), max([0.0, *kept, *ends])
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _legend(figure: Any, table: Table) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    results = [row.results[metric.name] for row in table.rows for metric in table.metrics[:_MAX_METRICS]]
    verdicts = {result.verdict for result in results if result.difference is not None}
    handles = [Line2D([], [], color=color, marker=marker, markerfacecolor=color if filled else "white", label=verdict)
               for verdict, (color, marker, filled) in _LOOKS.items() if verdict in verdicts]
    if any(result.published_difference is not None for result in results):
        handles.append(Line2D([], [], color=_PUBLISHED[0], marker=_PUBLISHED[1], markerfacecolor="none", linestyle="",
                              markersize=4.5, label=_PUBLISHED[2]))
    known = [noise for noise in table.noise.values() if noise.detectable is not None]
    if known:
        handles.append(Patch(color="#000000", alpha=0.09,
                             label=f"noise floor ({known[0].seeds} seeds, power {known[0].power:g})"))
    if any(result.interval is not None for result in results):
        handles.append(Line2D([], [], color="#666666", linewidth=1.5, label=f"{table.confidence * 100:g}% interval"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3), fontsize=8, frameon=False)
