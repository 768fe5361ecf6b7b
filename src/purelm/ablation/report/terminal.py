"""The table on a terminal, within its width."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from purelm.ablation.report import text
from purelm.ablation.spec import Metric
from purelm.ablation.table import Result, Table

if TYPE_CHECKING:
    from rich.console import Console

MAX_WIDTH = 110
WORDS_WIDTH = 96  # Where verdicts are words; below that, marks.
_STYLES = {"better": "green", "worse": "red", "within noise": "dim", "too few seeds": "dim", "missing": "dim",
           "base": ""}


def show(table: Table, console: Console | None = None) -> None:
    """Prints the table: a part for each metric, costs, and what the numbers can and cannot say."""
    from rich.console import Console
    from rich.text import Text

    console = Console() if console is None else console
    width = min(console.width, MAX_WIDTH)

    def say(line: Any, style: str = "") -> None:
        console.print(Text(line, style=style) if isinstance(line, str) else line, width=width)

    say(table.title, "bold")
    say(table.source, "dim")
    if table.compute:
        say(table.compute)
    metrics = {metric.name: metric for metric in table.metrics}
    for metric in table.metrics:
        say("")
        say(_results(table, metric, words=width >= WORDS_WIDTH))
    if width < WORDS_WIDTH:
        say(", ".join(f"{text.MARKS[name]} {name}" for name in ("better", "worse", "within noise", "too few seeds")),
            "dim")
    if names := text.measured_costs(table.rows):
        say("")
        say(_costs(table, names))
    say("")
    say(text.method(table.test, table.interval, table.confidence), "dim")
    level = text.level(table.confidence)
    for name, noise in table.noise.items():
        say(text.noise(noise, metrics[name], level))
    for each in table.agreement:
        say(text.agreement(each, metrics[each.metric]))
    for line in (*text.fit(table.fit), *table.notes, *_row_lines(table)):
        say(line)


def to_text(table: Table, width: int = 100) -> str:
    """What `show` prints, without colors."""
    from rich.console import Console

    stream = io.StringIO()
    show(table, Console(file=stream, width=width, force_terminal=False, color_system=None, legacy_windows=False))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _results(table: Table, metric: Metric, *, words: bool) -> Any:
    from rich.text import Text

    results = [row.results[metric.name] for row in table.rows]
    with_published = any(result.published is not None for result in results)
    grid = _grid(["row", text.heading(metric), "difference", "verdict" if words else "",
                  *(["published"] if with_published else [])], words=(0, 3))
    for group, rows in text.groups(table.rows):
        _begin_group(grid, group)
        for row in rows:
            result = row.results[metric.name]
            cells = [_indented(text.label(row), group), Text(text.measured(result, metric.digits)),
                     Text(text.difference(result, metric.digits)),
                     Text(_verdict(result, words), style=_STYLES[result.verdict])]
            cells += [Text(text.published(result, metric.digits))] if with_published else []
            grid.add_row(*cells)
    return grid


def _verdict(result: Result, words: bool) -> str:
    return text.verdict(result) if words else text.MARKS[result.verdict]


def _costs(table: Table, names: Sequence[str]) -> Any:
    from rich.text import Text

    grid = _grid(["row", *(text.COSTS[name].replace(" ", "\n").replace("/", "\n/") for name in names)], words=(0,))
    for group, rows in text.groups(table.rows):
        _begin_group(grid, group)
        for row in rows:
            grid.add_row(_indented(text.label(row), group), *(Text(cell) for cell in text.costs(row.costs, names)))
    return grid


def _row_lines(table: Table) -> list[str]:
    """Notes and searches, a line each."""
    lines = []
    for row in table.rows:
        lines += [f"{text.label(row)}: {note}" for note in text.notes(row)]
        if row.search is not None:
            chosen = "nothing" if row.search.chosen is None else text.changes(row.search.chosen)
            edge = ", at the edge of the search" if row.search.at_edge else ""
            lines.append(f"{text.label(row)}: chose {chosen} of {len(row.search.points)}{edge}"
                         f"{text.sensitivity(row.search, table.metrics[0]).replace(':', ';', 1)}")
    return lines


def _grid(headings: Sequence[str], words: tuple[int, ...]) -> Any:
    """Words to the left and folded, numbers to the right and whole."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for index, heading in enumerate(headings):
        grid.add_column(Text(heading), justify="left" if index in words else "right", no_wrap=index > 0,
                        overflow="fold", vertical="top", min_width=12 if index == 0 else None)
    return grid


def _begin_group(grid: Any, group: str) -> None:
    from rich.text import Text

    if grid.row_count:
        grid.add_section()
    if group:
        grid.add_row(Text(group, style="bold"))


def _indented(label: str, group: str) -> Any:
    """A label, below its group's name where it has one; all its lines, where it needs several."""
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(label), (0, 0, 0, 1 if group else 0))
