"""Every row of a table under one metric: values, difference to the row it is compared with, and a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from purelm.ablation import statistics
from purelm.ablation.spec import Metric
from purelm.ablation.statistics import Comparison, Values
from purelm.ablation.table import Noise, Result, Verdict

POWER = 0.8


@dataclasses.dataclass(frozen=True)
class Rules:
    """How differences are tested: as the fields of an Ablation."""

    test: str
    interval: str
    confidence: float


def results_of(metric: Metric, values: Mapping[str, Values], compare_to: Mapping[str, str],
               published: Mapping[str, float], rules: Rules) -> tuple[dict[str, Result], dict[str, list[str]]]:
    """Each row's result, and what must be said of it besides.

    Args:
      metric: whose values they are.
      values: row -> seed -> value, finite; rows without any are missing.
      compare_to: row -> the row that it is compared with; the base with itself.
      published: row -> the paper's number.
      rules: of the test.

    Returns:
      (row -> result, row -> notes).
    """
    compared = {row: other for row, other in compare_to.items() if row != other}
    if rules.test == "dunnett":
        comparisons = _by_dunnett(values, compared, rules)
    else:
        comparisons = _by_pairs(values, compared, rules)
    results = {row: _result(metric, row, values[row], comparisons.get(row), compare_to, published, rules)
               for row in compare_to}
    notes: dict[str, list[str]] = {row: [] for row in compare_to}
    for row, found in comparisons.items():
        if found.constant and found.difference:
            notes[row].append(f"{metric.name}: all {found.seeds} differences are {found.difference:.4g}, without any "
                              f"spread to test against; p is that of flips of their signs, 2^(1 - {found.seeds})")
    for row in statistics.wide_rows(values, level=1 - rules.confidence) if rules.test == "dunnett" else ():
        notes[row].append(f"{metric.name}: its spread is larger than other rows', which Dunnett's test takes to be "
                          "alike: see its values")
    return results, notes


def noise_of(values: Values, rules: Rules) -> Noise:
    """What the base's seeds say of a metric."""
    _, spread = statistics.mean_and_spread(list(values.values()))
    detectable = None if spread is None else statistics.detectable_difference(
        spread, len(values), level=1 - rules.confidence, power=POWER)
    return Noise(spread, len(values), detectable, POWER)


def notes_of_rules(rules: Rules, compare_to: Mapping[str, str], seeds: int) -> list[str]:
    """What a reader must know of the test, a line each."""
    notes = []
    controls = {other for row, other in compare_to.items() if row != other}
    if rules.test == "dunnett" and len(controls) > 1:
        notes.append(f"Dunnett's test once for each of {len(controls)} rows compared with, corrected for their number "
                     "(Bonferroni)")
    if rules.interval == "bootstrap" and seeds < 10:
        notes.append(f"bootstrap intervals (BCa) of {seeds} seeds are too narrow: of 95 % intervals, 3 seeds cover "
                     "about 72 %, 5 seeds 85 %")
    return notes


def _by_pairs(values: Mapping[str, Values], compared: Mapping[str, str], rules: Rules) -> dict[str, Comparison]:
    found = {row: statistics.paired(values[row], values[other], confidence=rules.confidence, interval=rules.interval)
             for row, other in compared.items()}
    adjusted = statistics.holm([comparison.p_value for comparison in found.values()])
    return {row: dataclasses.replace(comparison, p_adjusted=p_adjusted)
            for (row, comparison), p_adjusted in zip(found.items(), adjusted)}


def _by_dunnett(values: Mapping[str, Values], compared: Mapping[str, str], rules: Rules) -> dict[str, Comparison]:
    controls = list(dict.fromkeys(compared.values()))
    level = (1 - rules.confidence) / max(len(controls), 1)
    found = {}
    for control in controls:
        rows = {row: values[row] for row, other in compared.items() if other == control}
        found |= statistics.dunnett(rows, values[control], confidence=1 - level)
    for row, comparison in found.items():
        if comparison.p_adjusted is not None:
            found[row] = dataclasses.replace(comparison, p_adjusted=min(1.0, comparison.p_adjusted * len(controls)))
        if rules.interval == "bootstrap":
            interval = statistics.paired(values[row], values[compared[row]], confidence=rules.confidence,
                                         interval="bootstrap").interval
            found[row] = dataclasses.replace(found[row], interval=interval)
    return found


def _result(metric: Metric, row: str, values: Values, comparison: Comparison | None, compare_to: Mapping[str, str],
            published: Mapping[str, float], rules: Rules) -> Result:
    mean, spread = statistics.mean_and_spread(list(values.values()))
    ours, other = published.get(row), published.get(compare_to[row])
    reproduced = None
    if None not in (mean, ours, metric.tolerance):
        reproduced = abs(mean - ours) <= metric.tolerance
    comparison = comparison or Comparison(0)
    return Result(dict(values), mean, spread, comparison.difference, comparison.interval, comparison.p_value,
                  comparison.p_adjusted, _verdict(metric, row, mean, comparison, compare_to, rules), ours,
                  None if None in (ours, other) or compare_to[row] == row else ours - other, reproduced)


def _verdict(metric: Metric, row: str, mean: float | None, comparison: Comparison, compare_to: Mapping[str, str],
             rules: Rules) -> Verdict:
    if mean is None:
        return "missing"
    if compare_to[row] == row:
        return "base"
    return statistics.verdict_of(comparison, comparison.p_adjusted, direction=metric.direction,
                                 level=1 - rules.confidence)
