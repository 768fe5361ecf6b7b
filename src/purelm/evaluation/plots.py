"""A confusion matrix and a reliability diagram, drawn without a display."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

# Fonts with Chinese, in the order tried, as matplotlib's own has none.
_WIDE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
               "PingFang SC", "Microsoft YaHei", "SimHei", "Arial Unicode MS")
_MOST_NUMBERED_CLASSES = 30


def draw_confusion_matrix(matrix_CC: np.ndarray, labels: Sequence[str], path: pathlib.Path) -> None:
    """Rows are the right class, columns the answer; colors by row, counts in the cells of up to 30 classes.

    Classes whose names no font here can write are shown by their number in the order of `labels`.
    """
    count = len(labels)
    side = min(4.5 + 0.26 * count, 24)
    figure = _figure((side, side))
    axes = figure.subplots()
    part_CC = matrix_CC / np.maximum(matrix_CC.sum(axis=1, keepdims=True), 1)
    axes.imshow(part_CC, cmap="Blues", vmin=0, vmax=1)
    font = _font_of(labels)
    names = list(labels) if font is not None else [str(number) for number in range(count)]
    style = {"fontsize": 10 if count <= 30 else 7, "fontfamily": font or "DejaVu Sans"}
    axes.set_xticks(range(count), names, rotation=90 if count > 3 else 0, **style)
    axes.set_yticks(range(count), names, **style)
    if count <= _MOST_NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(matrix_CC)):
            axes.text(column, row, str(matrix_CC[row, column]), ha="center", va="center",
                      fontsize=10 if count < 10 else 7, color="white" if part_CC[row, column] > 0.5 else "black")
    hits, total = int(np.trace(matrix_CC)), int(matrix_CC.sum())
    axes.set(xlabel="answer", ylabel="right class", title=f"{hits:,} of {total:,} right ({hits / max(total, 1):.1%})")
    _save(figure, path)


def draw_calibration(bins: Sequence[tuple[int, float, float]], error: float, path: pathlib.Path) -> None:
    """Reliability diagram (Guo et al. 2017, figure 1): how often answers of a probability are right; counts below.

    bins: (answers, their mean probability, part that is right) of equal bins of (0, 1].
    """
    figure = _figure((5.5, 6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    edges = np.linspace(0, 1, len(bins) + 1)
    middles, width = (edges[:-1] + edges[1:]) / 2, 1 / len(bins)
    counts, confidence, hits = (np.array(column, float) for column in zip(*bins))
    upper.bar(middles, np.nan_to_num(hits), width, color="tab:blue", edgecolor="white", label="right")
    upper.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", label="as probable as said")
    upper.plot(confidence[counts > 0], hits[counts > 0], color="tab:orange", marker="o", markersize=4)
    upper.set(ylabel="part that is right", ylim=(0, 1), title=f"expected calibration error {error:.3f}")
    upper.legend(loc="upper left")
    lower.bar(middles, counts, width, color="tab:gray", edgecolor="white")
    lower.set(xlabel="probability of the answer", ylabel="answers", xlim=(0, 1))
    _save(figure, path)


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: pathlib.Path) -> None:
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)


def _font_of(labels: Sequence[str]) -> str | None:
    """A font of this machine that has every character of `labels`, or None."""
    from matplotlib import font_manager

    wanted = {ord(character) for label in labels for character in label}
    installed = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    for name in ("DejaVu Sans", *_WIDE_FONTS):
        if name in installed and wanted <= set(font_manager.get_font(installed[name]).get_charmap()):
            return name
    return None
