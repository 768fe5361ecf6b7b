"""table.md: the table as GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from purelm.ablation.report import text
from purelm.ablation.spec import Metric
from purelm.ablation.table import Table, TableRow

# What has a meaning inside a line of Markdown, a table's cell or HTML, and what has one at the beginning of a line.
_SPECIAL = re.compile(r"([\\`*_\[\]|<>~$&])")
_FIRST = re.compile(r"^(\d*)([#+=.)-])")


def to_markdown(table: Table, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole report; `pictures` are (file name, what it shows)."""
    metrics = {metric.name: metric for metric in table.metrics}
    level = text.level(table.confidence)
    known = dict(text.made(table.made))
    parts = [f"# {escape(table.title)}", f"Source: {escape(table.source)}"]
    if table.compute:
        parts.append(f"Scale: {escape(table.compute)}")
    if "command" in known:
        parts.append(_code_block(known["command"]))
    parts += [_results(table), escape(text.method(table.test, table.interval, table.confidence))]
    parts.append(_list(text.noise(noise, metrics[name], level) for name, noise in table.noise.items()))
    if table.agreement:
        parts.append(_list(text.agreement(each, metrics[each.metric]) for each in table.agreement))
    if table.fit:
        parts.append(_list(text.fit(table.fit)))
    if table.notes:
        parts.append(_list(table.notes))
    parts += [f"![{escape(what)}]({name})" for name, what in pictures]
    if names := text.measured_costs(table.rows):
        parts += ["## Costs", _costs(table, names)]
    parts += ["## Rows", _changes(table)]
    searches = [row for row in table.rows if row.search is not None]
    if searches:
        parts += ["## Search", _searches(searches, table.metrics[0])]
    parts += ["## Made", _list(f"{name}: {value}" for name, value in known.items() if name != "command")]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(line: str) -> str:
    """`line` as plain text inside Markdown, in a table too."""
    line = _SPECIAL.sub(r"\\\1", " ".join(line.split()))
    return _FIRST.sub(r"\1\\\2", line)


def _results(table: Table) -> str:
    """The table itself, grouped as in the paper."""
    published = {metric.name: any(row.results[metric.name].published is not None for row in table.rows)
                 for metric in table.metrics}
    header = ["row"]
    for metric in table.metrics:
        header += [escape(text.heading(metric)), "difference", "verdict"]
        header += ["published"] if published[metric.name] else []
    lines = []
    for group, rows in text.groups(table.rows):
        if group or lines:
            lines.append([f"**{escape(group)}**" if group else "", *[""] * (len(header) - 1)])
        lines += [_result_line(row, table, published) for row in rows]
    return _table(header, lines)


def _result_line(row: TableRow, table: Table, published: Mapping[str, bool]) -> list[str]:
    line = [escape(text.label(row))]
    for metric in table.metrics:
        result = row.results[metric.name]
        said = ", ".join(part for part in (text.verdict(result), text.p_value(result, table.test)) if part)
        line += [text.measured(result, metric.digits), text.difference(result, metric.digits), said]
        line += [text.published(result, metric.digits)] if published[metric.name] else []
    return [line[0], *(part.replace("<", "&lt;") for part in line[1:])]


def _costs(table: Table, names: Sequence[str]) -> str:
    return _table(["row", *(text.COSTS[name] for name in names)],
                  [[escape(text.label(row)), *text.costs(row.costs, names)] for row in table.rows])


def _changes(table: Table) -> str:
    """What each row is: its folder, what differs from the base, and what a reader must know."""
    lines = []
    for row in table.rows:
        what = ", ".join(_code(f"{path}={value}") for path, value in text.change_items(row.changes))
        lines.append([escape(text.label(row)), ", ".join(_code(folder) for folder in text.folders(row)), what,
                      "; ".join(escape(note) for note in text.notes(row))])
    return _table(["row", "runs", "changes", "notes"], lines)


def _searches(rows: Sequence[TableRow], metric: Metric) -> str:
    parts = []
    for row in rows:
        lines = [[_code(changes), value, mark] for changes, value, mark in text.search_lines(row.search, metric.digits)]
        parts += [f"**{escape(text.label(row))}**{escape(text.sensitivity(row.search, metric))}",
                  _table(["tried", escape(text.heading(metric)), ""], lines)]
    return "\n\n".join(parts)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Words to the left, numbers to the right."""
    rule = ["---" if name in ("row", "runs", "changes", "notes", "verdict", "tried", "") else "---:" for name in header]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def _code(value: str) -> str:
    """`value` as code in a table's cell, where a backslash before | is the only escape that is read."""
    value = " ".join(value.split()).replace("|", "\\|")
    longest = max((len(ticks) for ticks in re.findall("`+", value)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{value}{space}{fence}"


def _code_block(value: str) -> str:
    fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall("`+", value)), default=0))
    return f"{fence}\n{value}\n{fence}"


def _list(lines) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
