"""fit.png: losses over parameters and over tokens, with the fitted law between them."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.ablation.report import drawing, text
from purelm.ablation.table import Table

_AXES = (("parameters", "parameters without embeddings (N)", "D"), ("tokens", "tokens of training (D)", "N"))
_MAX_LINES = 6


def draw_fit(table: Table, path: pathlib.Path) -> bool:
    """Table.fit (see scaling.fit_of_cells): left, loss over parameters, a line of the law for each number of tokens;
    right, loss over tokens, a line for each number of parameters. Returns whether there was a fit to draw."""
    if not table.fit:
        return False
    with drawing.figure(11, 4.6, path) as figure:
        figure.suptitle(drawing.plain(table.title, 100))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (over, name, other_letter) in zip(panels, _AXES):
            _panel(axes, table.fit, over, other_letter)
            axes.set_xlabel(name)
        panels[0].set_ylabel(drawing.plain(text.heading(table.metrics[0]), 40))
    return True


def _panel(axes: Any, fit: Mapping[str, Any], over: str, other_letter: str) -> None:
    points = fit["points"]
    other = "tokens" if over == "parameters" else "parameters"
    losses = [point["loss"] for point in points]
    xs = [point[over] for point in points]
    end_x = _grid(xs)
    levels = _levels([point[other] for point in points])
    irreducible = fit["parameters"]["E"]
    reach = max(losses) - min(losses)
    # E far below the losses would flatten them: then it is left to the caption.
    shown_E = min(losses) - irreducible < 1.5 * reach
    curves = [[_law(fit["parameters"], over, x, level) for x in end_x] for level in levels]
    bottom = min([*losses, *(curve[-1] for curve in curves), *([irreducible] if shown_E else [])])
    top = max(losses)
    limits = (bottom - 0.06 * (top - bottom), top + 0.08 * (top - bottom))
    axes.set_xscale("log")
    lines = [drawing.Line(f"{other_letter} = {text.quantity(level)}", tuple(end_x), tuple(curve))
             for level, curve in zip(levels, curves)]
    drawing.draw_lines(axes, lines, None, limits=limits, markers=False)
    for point in points:
        nearest = min(range(len(levels)), key=lambda index: abs(math.log(levels[index] / point[other])))
        color, marker = drawing.STYLES[nearest]
        axes.plot(point[over], point["loss"], marker=marker, color=color, markersize=5, linestyle="", alpha=0.8,
                  zorder=4)
    if shown_E:
        axes.axhline(irreducible, color="#666666", linestyle="--", linewidth=0.9)
        axes.annotate(f"E = {irreducible:.3g}", (0.01, irreducible), xycoords=("axes fraction", "data"), va="bottom",
                      fontsize=8, color="#444444")


def _levels(values: Sequence[float]) -> list[float]:
    """All different values, or six of them, spread evenly."""
    different = sorted(set(values))
    if len(different) <= _MAX_LINES:
        return different
    return [different[round(index * (len(different) - 1) / (_MAX_LINES - 1))] for index in range(_MAX_LINES)]


def _grid(values: Sequence[float], count: int = 100) -> list[float]:
    """From the smallest to the largest value, evenly on a logarithmic axis."""
    low, high = math.log(min(values)), math.log(max(values))
    return [math.exp(low + (high - low) * index / (count - 1)) for index in range(count)]


def _law(fitted: Mapping[str, float], over: str, x: float, other: float) -> float:
    parameters, tokens = (x, other) if over == "parameters" else (other, x)
    return fitted["E"] + fitted["A"] / parameters ** fitted["a"] + fitted["B"] / tokens ** fitted["b"]
