r"""table.tex: two tables for \input in a paper, results and costs, with the rules of the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from purelm.ablation.report import text
from purelm.ablation.spec import Metric
from purelm.ablation.table import Result, Table, TableRow

_ESCAPES = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
            "%": r"\%", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
            ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
            "`": r"\textasciigrave{}"}
_SYMBOLS = {"±": r"$\pm$", "—": "---", "–": "--", "−": "$-$", "≈": r"$\approx$", "×": r"$\times$", "≤": r"$\le$",
            "≥": r"$\ge$", "≠": r"$\neq$", "∞": r"$\infty$", "↓": r"$\downarrow$", "↑": r"$\uparrow$",
            "→": r"$\rightarrow$", "▲": r"$\bigtriangleup$", "▼": r"$\bigtriangledown$", "●": r"$\bullet$",
            "✓": r"$\surd$", "✗": r"$\times$", "·": r"$\cdot$", "…": r"\dots{}", "∈": r"$\in$", "√": r"$\surd$",
            "‘": "`", "’": "'", "“": "``", "”": "''", "\u00a0": "~",
            "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "°": r"$^\circ$", "µ": r"$\mu$",
            "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\epsilon$", "ζ": r"$\zeta$",
            "η": r"$\eta$", "θ": r"$\theta$", "κ": r"$\kappa$", "λ": r"$\lambda$", "μ": r"$\mu$", "ν": r"$\nu$",
            "ξ": r"$\xi$", "π": r"$\pi$", "ρ": r"$\rho$", "σ": r"$\sigma$", "τ": r"$\tau$", "φ": r"$\phi$",
            "χ": r"$\chi$", "ψ": r"$\psi$", "ω": r"$\omega$", "Γ": r"$\Gamma$", "Δ": r"$\Delta$", "Θ": r"$\Theta$",
            "Λ": r"$\Lambda$", "Π": r"$\Pi$", "Σ": r"$\Sigma$", "Φ": r"$\Phi$", "Ψ": r"$\Psi$", "Ω": r"$\Omega$"}
_TABLE = str.maketrans(_ESCAPES | _SYMBOLS)
_MINUS = re.compile(r"(?<![\w.])-(?=[\d∞])")


def to_latex(table: Table) -> str:
    r"""Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}; where a label has letters beyond Latin and Greek, a
    comment says so: those need XeLaTeX or LuaLaTeX and a font that has them."""
    body = _results(table)
    if names := text.measured_costs(table.rows):
        body += "\n" + _costs(table, names)
    lines = [r"% Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}."]
    known = dict(text.made(table.made))
    if "command" in known:
        lines.append(f"% {' '.join(known['command'].split())}")
    if foreign := sorted({letter for letter in body if ord(letter) > 0x17f}):
        lines.append(f"% XeLaTeX or LuaLaTeX with a font that has: {' '.join(foreign)}")
    return "\n".join(lines) + "\n" + body


def escape(line: str) -> str:
    """`line` as plain text inside LaTeX."""
    return _MINUS.sub("−", " ".join(line.split())).translate(_TABLE)


def _results(table: Table) -> str:
    columns = {metric.name: _columns(table, metric) for metric in table.metrics}
    width = 1 + sum(len(names) for names in columns.values())
    top, rules, second, at = [""], [], [""], 2
    for metric in table.metrics:
        count = len(columns[metric.name])
        top.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(text.heading(metric))}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + count - 1}}}")
        second += columns[metric.name]
        at += count
    lines = [_line(top), " ".join(rules), _line(second)]
    for group, rows in text.groups(table.rows):
        lines.append(r"\midrule")
        if group:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape(group)}}}}} \\")
        lines += [_result_line(row, table, columns) for row in rows]
    return _environment(lines, "l" + "".join("r" * len(names) for names in columns.values()), _caption(table),
                        "ablation")


def _columns(table: Table, metric: Metric) -> list[str]:
    results = [row.results[metric.name] for row in table.rows]
    return ["measured", "difference"] + ["published"] * any(result.published is not None for result in results)


def _result_line(row: TableRow, table: Table, columns: dict[str, list[str]]) -> str:
    line = [text.label(row)]
    for metric in table.metrics:
        result = row.results[metric.name]
        line += [text.measured(result, metric.digits), _difference(result, metric.digits)]
        line += [text.published(result, metric.digits)] if "published" in columns[metric.name] else []
    return _line([escape(part) for part in line])


def _difference(result: Result, digits: int) -> str:
    said = text.difference(result, digits)
    return said if result.verdict in ("base", "missing") else f"{said} {text.MARKS[result.verdict]}"


def _caption(table: Table) -> str:
    """All that a reader needs to read the table by itself."""
    metrics = {metric.name: metric for metric in table.metrics}
    level = text.level(table.confidence)
    marks = ", ".join(f"{text.MARKS[name]} {name}" for name in ("better", "worse", "within noise", "too few seeds"))
    sentences = [f"{table.title} ({table.source}).", table.compute, text.method(table.test, table.interval,
                                                                                table.confidence), f"{marks}.",
                 *(text.noise(noise, metrics[name], level) for name, noise in table.noise.items()),
                 *(text.agreement(each, metrics[each.metric]) for each in table.agreement),
                 *(f"{text.label(row)}: {note}." for row in table.rows for note in text.notes(row))]
    return " ".join(escape(sentence) for sentence in sentences if sentence)


def _costs(table: Table, names: Sequence[str]) -> str:
    lines = [_line(["", *(escape(text.COSTS[name]) for name in names)])]
    for _, rows in text.groups(table.rows):
        lines.append(r"\midrule")
        lines += [_line([escape(part) for part in (text.label(row), *text.costs(row.costs, names))]) for row in rows]
    return _environment(lines, "l" + "r" * len(names), escape(f"What each row of {table.title} costs."),
                        "ablation-costs")


def _line(cells: Sequence[str]) -> str:
    # A star or a bracket would be read as an argument of the line break before it.
    guard = "{}" if cells[0].startswith(("*", "[")) else ""
    return f"{guard}{' & '.join(cells)} \\\\"


def _environment(lines: Sequence[str], columns: str, caption: str, label: str) -> str:
    return "\n".join([r"\begin{table}", r"\centering", r"\small", r"\setlength{\tabcolsep}{4pt}",
                      rf"\caption{{{caption}}}", rf"\label{{tab:{label}}}", rf"\begin{{tabular}}{{{columns}}}",
                      r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])
