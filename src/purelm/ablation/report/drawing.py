"""What every picture of a report shares: figures, fonts that have the letters, lines that carry their own labels."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from purelm.ablation.report import text
from purelm.ablation.table import TableRow
from purelm.errors import UserError

# Okabe & Ito 2008 (jfly.uni-koeln.de/color): told apart by people with any kind of color blindness; each color has a
# marker of its own besides.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
STYLES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"))
GREY = "#8a8a8a"
LINES_A_PANEL = len(STYLES)
_MORE_LETTERS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
                 "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei",
                 "SimHei", "Arial Unicode MS")


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a panel: y over x, a band or None, the index of a point to mark or None, and x at which it failed."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    marked: int | None = None
    failed: tuple[float, ...] = ()


@contextlib.contextmanager
def figure(width: float, height: float, path: pathlib.Path) -> Iterator[Any]:
    """A figure of so many inches, written to `path` at the end, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.family": list(_families()), "axes.spines.top": False,
                                "axes.spines.right": False, "font.size": 9, "axes.titlesize": 10}):
        drawn = Figure(figsize=(width, height), dpi=120, layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            drawn.savefig(temporary, format="png")
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def label(row: TableRow, length: int = 38) -> str:
    """A row's label as a picture can show it: its name where no font here has the label's letters; cut if long."""
    return plain(text.label(row), length, instead=row.name)


def plain(line: str, length: int, instead: str = "") -> str:
    """`line` as matplotlib shows it word by word: no letter that no font here has (`instead` as a whole, or left out),
    no mathematics between its dollars, not longer than `length`."""
    line = " ".join(line.split())
    if not set(line) <= _letters():
        line = instead or "".join(letter for letter in line if letter in _letters())
    line = line if len(line) <= length else f"{line[:length - 1].rstrip()}…"
    return line.replace("$", r"\$")


@functools.cache
def _families() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _MORE_LETTERS if name in installed))


@functools.cache
def _letters() -> frozenset[str]:
    """All that the fonts here can draw."""
    from matplotlib import font_manager

    return frozenset(chr(code) for name in _families()
                     for code in font_manager.get_font(font_manager.findfont(name)).get_charmap())


def panel_grid(drawn: Any, count: int, columns: int) -> list[Any]:
    """`count` axes in rows of `columns`, all with the same x and y; ticks only at the left and at the bottom."""
    rows = -(-count // columns)
    grid = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = [each for line in grid for each in line]
    for empty in axes[count:]:
        empty.set_visible(False)
    for each in axes[max(0, count - columns):count]:
        each.tick_params(labelbottom=True)
    return axes[:count]


def draw_lines(axes: Any, lines: Sequence[Line], base: Line | None, *, limits: tuple[float, float],
               markers: bool = True, failing: int = 0) -> None:
    """Lines in colors and markers of their own, the base in grey below them, each labelled at its right end; above
    them a strip with room for so many `failing` lines' crosses."""
    if base is not None:
        _draw_line(axes, base, GREY, "", order=1)
    for line, (color, marker) in zip(lines, STYLES, strict=False):
        _draw_line(axes, line, color, marker if markers else "", order=3)
    limits = _draw_failed(axes, [] if base is None else [base], lines, limits, failing)
    axes.set_ylim(*limits)
    axes.margins(x=0.02)
    axes.grid(alpha=0.25)
    named = [(line, color) for line, (color, _) in zip(lines, STYLES, strict=False) if line.x]
    named += [] if base is None or not base.x else [(base, "#555555")]
    if named:
        _label_ends(axes, named, limits)


def _draw_line(axes: Any, line: Line, color: str, marker: str, *, order: int) -> None:
    if not line.x:
        return
    if line.low is not None:
        axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, linewidth=0, zorder=order)
    axes.plot(line.x, line.y, color=color, marker=marker, markersize=3.5, markevery=max(1, len(line.x) // 8),
              linewidth=1.4, zorder=order)
    if line.marked is not None:
        axes.plot(line.x[line.marked], line.y[line.marked], marker="o", markersize=10, markerfacecolor="none",
                  markeredgecolor=color, markeredgewidth=1.6, clip_on=False, zorder=order + 1)


def _draw_failed(axes: Any, base: Sequence[Line], lines: Sequence[Line], limits: tuple[float, float],
                 room: int) -> tuple[float, float]:
    """Crosses in a strip above the values, each line's at a height of its own. Returns the limits with the strip."""
    bottom, top = limits
    if not room:
        return limits
    apart_by = 0.07 * (top - bottom)
    axes.axhspan(top, top + apart_by * (room + 0.5), color="#000000", alpha=0.05, linewidth=0)
    colored = [(line, GREY) for line in base] + [(line, color) for line, (color, _) in zip(lines, STYLES, strict=False)]
    for rank, (line, color) in enumerate((line, color) for line, color in colored if line.failed):
        axes.plot(line.failed, [top + apart_by * (rank + 0.75)] * len(line.failed), color=color, marker="x",
                  linestyle="", markersize=6, markeredgewidth=1.6, zorder=4)
    return bottom, top + apart_by * (room + 0.5)


def _label_ends(axes: Any, named: Sequence[tuple[Line, str]], limits: tuple[float, float]) -> None:
    """Labels right of the axes, as near to the lines' ends as they can be without covering each other."""
    bottom, top = limits
    ends = [min(max((line.y[-1] - bottom) / (top - bottom), 0.0), 1.0) for line, _ in named]
    height = axes.figure.get_size_inches()[1] / axes.get_gridspec().nrows * 0.75
    right = max(x for line, _ in named for x in (*line.x, *line.failed))
    for (line, color), end, place in zip(named, ends, apart(ends, 0.15 / height)):
        if line.x[-1] < right:  # A line that ends early is led to its label.
            axes.plot((line.x[-1], right), (line.y[-1],) * 2, color=color, linewidth=0.8, linestyle=":", zorder=1)
        shown = line.label if line.y[-1] <= top else f"{line.label} ↑"
        axes.annotate(shown, xy=(1.0, end), xytext=(1.05, place), xycoords="axes fraction",
                      textcoords="axes fraction", va="center", ha="left", fontsize=8, color=color,
                      annotation_clip=False, arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6,
                                                         "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)})


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Each place moved as little as it takes that neighbors are `gap` apart, in the same order."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    # Blocks of neighbors that touch, each centered on the mean of what its members wanted.
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and (_start(blocks[-2], places, gap) + gap * len(blocks[-2])
                                   > _start(blocks[-1], places, gap)):
            last = blocks.pop()
            blocks[-1] += last
    moved = [0.0] * len(places)
    for block in blocks:
        start = _start(block, places, gap)
        for rank, index in enumerate(block):
            moved[index] = start + rank * gap
    return moved


def _start(block: Sequence[int], places: Sequence[float], gap: float) -> float:
    return sum(places[index] for index in block) / len(block) - gap * (len(block) - 1) / 2
