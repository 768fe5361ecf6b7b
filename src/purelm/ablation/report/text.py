"""Where the numbers of a table become text, the same in every form of the report.

Nothing here is escaped: each form escapes for itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.ablation.spec import Metric
from purelm.ablation.table import Agreement, Costs, Noise, Result, Search, TableRow

MISSING = "—"
# Marks have shapes of their own, so that no verdict needs color.
MARKS = {"base": "●", "better": "▲", "worse": "▼", "within noise": "≈", "too few seeds": "?", "missing": MISSING}
ARROWS = {"lower": "↓", "higher": "↑"}
CORRECTIONS = {"paired_t": "Holm", "dunnett": "Dunnett"}
COSTS = {"parameters": "parameters", "flops_per_token": "FLOPs/token", "seconds_per_step": "ms/step",
         "memory_bytes": "MiB/step", "cache_bytes_per_token": "cache bytes/token", "train_seconds": "time/cell"}
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None, digits: int) -> str:
    """ "4.92"; never "-0.00"."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}[value] if math.isinf(value) else "NaN"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float | None, digits: int) -> str:
    """ "+0.31"; what rounds to zero has no sign."""
    text = number(value, digits)
    if value is None or not math.isfinite(value):
        return text if value != math.inf else "+∞"
    return f"+{text}" if float(text) > 0 else text


def measured(result: Result, digits: int) -> str:
    """ "4.92 ± 0.03 (3)": mean, standard deviation and number of seeds; "4.92 (1)" of one seed."""
    if result.mean is None:
        return MISSING
    spread = "" if result.spread is None else f" ± {_above_zero(result.spread, digits)}"
    return f"{number(result.mean, digits)}{spread} ({len(result.values)})"


def interval(ends: tuple[float, float] | None, digits: int) -> str:
    """ "[0.20, 0.42]", or nothing."""
    return "" if ends is None else f"[{number(ends[0], digits)}, {number(ends[1], digits)}]"


def difference(result: Result, digits: int) -> str:
    """ "+0.31 [0.20, 0.42]"; empty for the base."""
    if result.difference is None:
        return "" if result.verdict == "base" else MISSING
    return f"{signed(result.difference, digits)} {interval(result.interval, digits)}".rstrip()


def probability(value: float) -> str:
    """ "0.004", "0.35", "<0.001"."""
    return "<0.001" if value < 0.001 else f"{value:.1g}" if value < 0.01 else f"{value:.2g}"


def p_value(result: Result, test: str) -> str:
    """ "p 0.004 (Holm 0.04)": alone, and corrected for the table; or nothing."""
    if result.p_value is None:
        return "" if result.p_adjusted is None else f"p {probability(result.p_adjusted)} ({CORRECTIONS[test]})"
    if result.p_adjusted is None:
        return f"p {probability(result.p_value)} (not corrected)"
    return f"p {probability(result.p_value)} ({CORRECTIONS[test]} {probability(result.p_adjusted)})"


def verdict(result: Result) -> str:
    """ "▲ better", "▼ worse", "≈ within noise", ..."""
    return f"{MARKS[result.verdict]} {result.verdict}" if result.verdict != "missing" else MISSING


def published(result: Result, digits: int) -> str:
    """ "5.29 (+0.37)": the paper's number, and its difference to the paper's base; whether it was reproduced, where
    the table claims that."""
    if result.published is None:
        return ""
    gap = "" if result.published_difference is None else f" ({signed(result.published_difference, digits)})"
    mark = "" if result.reproduced is None else " ✓" if result.reproduced else " ✗"
    return f"{number(result.published, digits)}{gap}{mark}"


def heading(metric: Metric) -> str:
    """ "validation loss ↓": the arrow shows which way is better."""
    return f"{metric.label} {ARROWS[metric.direction]}"


def quantity(value: float) -> str:
    """ "1.95 M", "213 k", "11.7 G": three digits."""
    for size, unit in _UNITS:
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def cost(name: str, value: float | None) -> str:
    """A cost of COSTS as its column prints it."""
    if value is None:
        return MISSING
    if name == "seconds_per_step":
        milliseconds = value * 1e3
        return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:.1f}" if milliseconds < 100 else (
            f"{milliseconds:,.0f}")
    if name == "memory_bytes":
        mebibytes = value / 2**20
        return f"{mebibytes:.1f}" if mebibytes < 10 else f"{mebibytes:,.0f}"
    if name == "cache_bytes_per_token":
        return f"{value:,.0f}"
    return duration(value) if name == "train_seconds" else quantity(value)


def measured_costs(rows: Sequence[TableRow]) -> list[str]:
    """The costs that any row has, in the order of COSTS."""
    return [name for name in COSTS if any(getattr(row.costs, name) is not None for row in rows)]


def costs(of: Costs, names: Sequence[str]) -> list[str]:
    return [cost(name, getattr(of, name)) for name in names]


def label(row: TableRow) -> str:
    return row.label or row.name


def groups(rows: Sequence[TableRow]) -> list[tuple[str, list[TableRow]]]:
    """Neighbors of one group together, in the order of the table."""
    parts: list[tuple[str, list[TableRow]]] = []
    for row in rows:
        if not parts or parts[-1][0] != row.group:
            parts.append((row.group, []))
        parts[-1][1].append(row)
    return parts


def folders(row: TableRow) -> list[str]:
    """Where the row's runs lie: their common folder, where each is named by its seed in it; else each of them."""
    found = [folder.rpartition("/") for folder in row.runs.values()]
    if len({parent for parent, _, _ in found}) == 1 and [name for _, _, name in found] == list(row.runs):
        return [found[0][0]]
    return list(row.runs.values())


def change_items(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(path, value as text) of a row's changes."""
    return [(path, _plain(value)) for path, value in values.items()]


def changes(values: Mapping[str, Any]) -> str:
    """ "model.num_heads=1, model.head_size=128"."""
    return ", ".join(f"{path}={value}" for path, value in change_items(values))


def unfinished(row: TableRow) -> str:
    """ "seeds 1 and 2 failed, seed 3 missing", or nothing where every cell is done."""
    states: dict[str, list[str]] = {}
    for seed, state in row.cells.items():
        if state != "done":
            states.setdefault(state, []).append(seed)
    return ", ".join(f"seed{'s' if len(seeds) > 1 else ''} {_list(seeds)} {state}" for state, seeds in states.items())


def notes(row: TableRow) -> list[str]:
    """What a reader must know of a row; its unfinished cells, where its notes say nothing of them."""
    said_elsewhere = row.notes and any(state != "missing" for state in row.cells.values())
    return [*([] if said_elsewhere or not unfinished(row) else [unfinished(row)]), *row.notes]


def search_lines(search: Search, digits: int) -> list[tuple[str, str, str]]:
    """(changes, value, mark) of each point, "chosen" and whether at the edge of what was searched. A point without a
    value has failed if a choice was made without it; before, it may be on its way."""
    absent = MISSING if search.chosen is None else "failed"
    lines = []
    for point, value in search.points:
        mark = ""
        if search.chosen is not None and dict(point) == dict(search.chosen):
            mark = "chosen, at the edge" if search.at_edge else "chosen"
        lines.append((changes(point), absent if value is None else number(value, digits), mark))
    return lines


def sensitivity(search: Search, metric: Metric) -> str:
    """What follows a row's name above its search."""
    if search.sensitivity is None:
        return ""
    return f": a value of the search is {number(search.sensitivity, metric.digits)} worse than the best, on average"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_plain(part) for part in value)}]"
    return str(value)


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# Sentences


def noise(of: Noise, metric: Metric, level: float) -> str:
    """The noise floor: what two rows must differ by to be told apart."""
    if of.detectable is None:
        return f"{metric.label}: the base has {of.seeds} seed{'s' if of.seeds != 1 else ''}, too few to know the noise."
    return (f"{metric.label}: two rows of {of.seeds} seeds must differ by {_above_zero(of.detectable, metric.digits)} "
            f"to be told apart with power {of.power:g} at level {level:g} (the base's seeds spread by "
            f"{_above_zero(of.spread, metric.digits)}).")


def agreement(of: Agreement, metric: Metric) -> str:
    """Whether our order is the paper's."""
    against = "the published" if of.against == "published" else "the expected order"
    if of.tau is None:
        return f"{metric.label} against {against}: too few rows ({of.rows}) for a rank correlation."
    ends = "" if of.interval is None else f" [{of.interval[0]:.2f}, {of.interval[1]:.2f}]"
    chance = "" if of.p_value is None else f", p {probability(of.p_value)}"
    signs = ""
    if of.same_sign is not None:
        signs = f"; {of.same_sign[0]} of {of.same_sign[1]} differences to the base have the published sign"
    return f"{metric.label} against {against}: Kendall's tau {of.tau:.2f}{ends} over {of.rows} rows{chance}{signs}."


def method(test: str, intervals: str, confidence: float) -> str:
    """How differences, intervals and verdicts were made."""
    how = {"paired_t": "a paired t-test with Holm's correction over the table",
           "dunnett": "Dunnett's test, with seeds as blocks,"}[test]
    what = {"t": "simultaneous" if test == "dunnett" else "Student's t", "bootstrap": "bootstrap"}[intervals]
    return ("Values are mean ± standard deviation (seeds). Differences are to the base (or the row that a note names) "
            f"over shared seeds, with {confidence * 100:g}% intervals ({what}); verdicts by {how} at level "
            f"{level(confidence):g}.")


def level(confidence: float) -> float:
    return round(1 - confidence, 12)


def made(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, text) of Table.made, those that are known."""
    lines = []
    for name, value in values.items():
        if value is None or value == "" or (isinstance(value, (Mapping, list, tuple)) and not value):
            continue
        if name == "seconds":
            lines.append(("time of all cells", duration(value)))
        elif isinstance(value, Mapping):
            lines.append((name, ", ".join(f"{key} {part}" for key, part in value.items())))
        elif isinstance(value, (list, tuple)):
            lines.append((name, ", ".join(str(part)[:10] if name == "commits" else str(part) for part in value)))
        else:
            lines.append((name, str(value)))
    return lines


def _above_zero(value: float | None, digits: int) -> str:
    """A size that must not be printed as zero: one digit of it at least."""
    if value is None or value == 0 or round(value, digits) != 0:
        return number(value, digits)
    return f"{value:.1g}"


def fit(of: Mapping[str, Any] | None) -> list[str]:
    """Table.fit (see scaling.fit_of_cells) in sentences; none where there is no fit."""
    if not of:
        return []
    values = ", ".join(f"{name} = {_fitted(of, name)}" for name in of["parameters"] if name != "a_compute")
    how = f"{of['confidence'] * 100:g}% intervals: {of['interval_method']}" if of["intervals"] else "no intervals"
    lines = [f"Fit of {len(of['points'])} cells: {of['law']} with {values} ({how}; N parameters without embeddings, D "
             f"tokens); {of['residual']:.2g} root mean square error of log(loss)."]
    if "a_compute" in of["parameters"]:
        lines.append(f"Compute-optimal parameters grow as compute to the power {_fitted(of, 'a_compute')}.")
    return lines


def _fitted(of: Mapping[str, Any], name: str) -> str:
    ends = f" [{of['intervals'][name][0]:.3g}, {of['intervals'][name][1]:.3g}]" if name in of["intervals"] else ""
    return f"{of['parameters'][name]:.3g}{ends}"
