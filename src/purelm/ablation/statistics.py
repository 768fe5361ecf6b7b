"""Differences between rows of a table and what chance makes of them: pure functions of numbers, over SciPy.

Values of a row are a mapping from its seed (as text) to a finite number. Two rows are compared over the seeds that both
have. What the degenerate cases give:

- no shared seed, or one: there is no test, interval or spread; p-values are None ("too few seeds").
- two: the tests hold, with one degree of freedom; there is no bootstrap interval, for it takes three differences.
- every difference the same (to 1e-12 of the values, where only rounding is left): SciPy's p is nan, or 0, or what
  rounding makes of it. Where the differences are zero, p is 1. Where they are not, p is 2^(1 - n), the exact one under
  flips of their signs, and not the limit 0 of the t-test: metrics that count examples tie by chance, and a tie has no
  spread to trust. The interval is the difference itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from purelm.ablation.table import Verdict

Values = Mapping[str, float]
_ROUNDING = 1e-12
_RESAMPLES = 9999


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A row minus the row it is compared with.

    Attributes:
      seeds: how many both have.
      difference: mean over them (by dunnett, the least-squares estimate: the same where no cell is missing).
      interval: of the difference; None where there is none.
      p_value: two-sided, of no difference, for this row alone.
      p_adjusted: for the whole family; None from `paired`, which knows of no family (see holm).
      constant: every difference is the same, so that there is no spread to test against.
    """

    seeds: int
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    constant: bool = False


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean (None of nothing) and sample standard deviation (n - 1; None of fewer than two)."""
    if not len(values):
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired(row: Values, other: Values, *, confidence: float, interval: str = "t") -> Comparison:
    """The paired t-test over shared seeds (scipy.stats.ttest_rel), with an interval of the mean difference.

    Args:
      row, other: seed -> value.
      confidence: of the interval.
      interval: "t", ttest_rel's own, or "bootstrap" (bootstrap_interval).
    """
    from scipy import stats

    seeds = [seed for seed in row if seed in other]
    if not seeds:
        return Comparison(0)
    of_row, of_other = (np.array([values[seed] for seed in seeds]) for values in (row, other))
    difference = float(np.mean(of_row - of_other))
    if len(seeds) == 1:
        return Comparison(1, difference)
    if _is_constant(of_row - of_other, of_row, of_other):
        return _constant(len(seeds), difference, of_row, of_other)
    test = stats.ttest_rel(of_row, of_other)
    if interval == "bootstrap":
        between = bootstrap_interval(of_row - of_other, confidence=confidence)
    else:
        between = tuple(map(float, test.confidence_interval(confidence)))
    return Comparison(len(seeds), difference, between, float(test.pvalue))


def bootstrap_interval(differences: Sequence[float], *, confidence: float) -> tuple[float, float] | None:
    """Interval of the mean by the bias-corrected and accelerated bootstrap (scipy.stats.bootstrap, BCa; Efron 1987).

    9,999 resamples from a fixed generator. None of fewer than three differences, whose resampled means take three
    values at most. It is too narrow for few seeds: of 95 % intervals of normal differences, 3 seeds cover about 72 %,
    5 seeds 85 % and 10 seeds 90 %.
    """
    from scipy import stats

    differences = np.asarray(differences, float)
    if len(differences) < 3:
        return None
    if _is_constant(differences, differences):
        return float(differences[0]), float(differences[0])
    result = stats.bootstrap((differences,), np.mean, n_resamples=_RESAMPLES, confidence_level=confidence,
                             method="BCa", rng=np.random.default_rng(0))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979) over those that are not None, in their order."""
    known = [index for index, p_value in enumerate(p_values) if p_value is not None]
    order = sorted(known, key=lambda index: p_values[index])
    steps = np.array([p_values[index] for index in order]) * np.arange(len(order), 0, -1)
    adjusted: list[float | None] = [None] * len(p_values)
    for index, value in zip(order, np.minimum(np.maximum.accumulate(steps), 1) if order else ()):
        adjusted[index] = float(value)
    return adjusted


def dunnett(rows: Mapping[str, Values], control: Values, *, confidence: float) -> dict[str, Comparison]:
    """Dunnett's test of many rows against one control (Dunnett 1955) over shared seeds, with simultaneous intervals.

    The variance is pooled over all cells: all rows are taken to have the same (see wide_rows). scipy.stats.dunnett
    knows of no shared seeds: where a seed moves all rows alike it is almost blind (of identical rows it flags 0 to 1 %
    of tables at 5 %), so here the seed's effect is taken out of every row first (row and seed effects by least
    squares, missing cells allowed). The rest is Dunnett's: the multivariate t distribution (scipy.stats.multivariate_t,
    by quasi-Monte Carlo from a fixed generator: good to three digits). Of one row without missing cells it is the
    paired t-test.

    Args:
      rows: row -> seed -> value.
      control: seed -> value.
      confidence: of the intervals, all at once.

    Returns:
      row -> Comparison; rows with fewer than two seeds in common with the control are not in the family.
    """
    shared = {name: sum(seed in control for seed in values) for name, values in rows.items()}
    family = [name for name in rows if shared[name] >= 2]
    results = {name: paired(rows[name], control, confidence=confidence) for name in rows if name not in family}
    if not family:
        return results
    estimate_R, covariance_RR, variance, freedom = _least_squares([control, *(rows[name] for name in family)])
    scale = max(abs(value) for values in (control, *rows.values()) for value in values.values())
    if freedom == 0 or variance <= (_ROUNDING * scale) ** 2:
        constant = [_constant(shared[name], float(difference), np.array([scale]))
                    for name, difference in zip(family, estimate_R)]
        adjusted = holm([comparison.p_value for comparison in constant])
        results |= {name: dataclasses.replace(comparison, p_adjusted=p_adjusted)
                    for name, comparison, p_adjusted in zip(family, constant, adjusted)}
        return {name: results[name] for name in rows}
    error_R = np.sqrt(variance * np.diag(covariance_RR))
    root_R = np.sqrt(np.diag(covariance_RR))
    correlation_RR = covariance_RR / np.outer(root_R, root_R)
    critical = _critical(correlation_RR, freedom, confidence)
    for name, difference, error in zip(family, estimate_R, error_R):
        alone, adjusted = _two_sided(abs(difference / error), correlation_RR, freedom)
        results[name] = Comparison(shared[name], float(difference), (float(difference - critical * error),
                                                                    float(difference + critical * error)),
                                   alone, adjusted)
    return {name: results[name] for name in rows}


def wide_rows(rows: Mapping[str, Values], *, level: float) -> list[str]:
    """Rows whose spread is larger than the others' together (F-test of variances, Holm's correction over the rows).

    Dunnett's test, which pools, flags such rows too readily: of identical rows of which one has a spread of 3 times the
    others', 14 % of tables at 5 %.
    """
    from scipy import stats

    parts = {row: (np.var(list(values.values()), ddof=1), len(values) - 1)
             for row, values in rows.items() if len(values) > 1}
    squares, freedom = (sum(part) for part in zip(*((v * f, f) for v, f in parts.values()), (0, 0)))
    p_values = []
    for variance, own in parts.values():
        others = (squares - variance * own) / (freedom - own) if freedom > own else 0.0
        p_values.append(float(stats.f.sf(variance / others, own, freedom - own)) if others > 0 else None)
    return [row for row, p_value in zip(parts, holm(p_values)) if p_value is not None and p_value < level]


def detectable_difference(spread: float, seeds: int, *, level: float, power: float) -> float | None:
    """The smallest difference that a two-sided t-test of two rows of so many seeds each finds with this power.

    Exact, by the noncentral t distribution; both rows have this standard deviation, and the test is of one row alone
    (uncorrected, unpaired). None of fewer than two seeds.
    """
    from scipy import optimize, stats

    if seeds < 2:
        return None
    freedom = 2 * seeds - 2
    critical = stats.t.isf(level / 2, freedom)

    def missing_power(noncentrality: float) -> float:
        found = stats.nct.sf(critical, freedom, noncentrality) + stats.nct.cdf(-critical, freedom, noncentrality)
        return float(found) - power

    upper = 1.0
    while missing_power(upper) < 0:
        upper *= 2
    noncentrality = optimize.brentq(missing_power, 0.0, upper, xtol=1e-12, rtol=1e-14)
    return float(noncentrality * np.sqrt(2 / seeds) * spread)


def verdict_of(comparison: Comparison, p_adjusted: float | None, *, direction: str, level: float) -> Verdict:
    """What the difference says: significant at this level, and then which way."""
    if comparison.seeds < 2 or p_adjusted is None:
        return "too few seeds"
    if p_adjusted >= level or comparison.difference == 0:
        return "within noise"
    return "better" if (comparison.difference < 0) == (direction == "lower") else "worse"


def _is_constant(differences: np.ndarray, *values: np.ndarray) -> bool:
    return bool(np.ptp(differences) <= _ROUNDING * max(np.max(np.abs(part)) for part in values))


def _constant(seeds: int, difference: float, *values: np.ndarray) -> Comparison:
    zero = abs(difference) <= _ROUNDING * max(np.max(np.abs(part)) for part in values)
    difference = 0.0 if zero else difference
    return Comparison(seeds, difference, (difference, difference), 1.0 if zero else 2.0 ** (1 - seeds), constant=True)


def _least_squares(rows: Sequence[Values]) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Differences of all rows but the first to the first, their covariance by the variance, it, degrees of freedom."""
    cells = [(index, seed, value) for index, values in enumerate(rows) for seed, value in values.items()]
    seeds = sorted({seed for _, seed, _ in cells})
    design_CP = np.zeros((len(cells), len(rows) + len(seeds) - 1))
    for cell, (row, seed, _) in enumerate(cells):
        design_CP[cell, 0] = 1  # The first row; the others are differences to it.
        if row:
            design_CP[cell, row] = 1
        if place := seeds.index(seed):
            design_CP[cell, len(rows) - 1 + place] = 1
    value_C = np.array([value for *_, value in cells])
    center = value_C.mean()  # Of large values, differences are small: centered, they keep their digits.
    inverse_PP = np.linalg.pinv(design_CP.T @ design_CP)
    estimate_P = np.linalg.lstsq(design_CP, value_C - center, rcond=None)[0]
    residual_C = value_C - center - design_CP @ estimate_P
    freedom = len(cells) - int(np.linalg.matrix_rank(design_CP))
    variance = float(residual_C @ residual_C) / freedom if freedom else 0.0
    tested = slice(1, len(rows))
    return estimate_P[tested], inverse_PP[tested, tested], variance, freedom


def _two_sided(statistic: float, correlation_RR: np.ndarray, freedom: int) -> tuple[float, float]:
    """(p of this statistic alone, p of a largest one as large in the family)."""
    from scipy import stats

    alone = float(2 * stats.t.sf(statistic, freedom))
    if len(correlation_RR) == 1:
        return alone, alone
    return alone, float(np.clip(1 - _all_below(statistic, correlation_RR, freedom), alone, 1))


def _all_below(bound: float, correlation_RR: np.ndarray, freedom: int) -> float:
    """Probability that no statistic of the family is further from 0 than `bound`."""
    from scipy import stats

    bound_R = np.full(len(correlation_RR), bound)
    return float(stats.multivariate_t.cdf(bound_R, shape=correlation_RR, df=freedom, lower_limit=-bound_R,
                                          random_state=np.random.default_rng(0)))


def _critical(correlation_RR: np.ndarray, freedom: int, confidence: float) -> float:
    """The bound that all statistics of the family stay below with probability `confidence`."""
    from scipy import optimize, stats

    lower = float(stats.t.isf((1 - confidence) / 2, freedom))  # Of one row; of all of them by Bonferroni:
    upper = float(stats.t.isf((1 - confidence) / 2 / len(correlation_RR), freedom))
    if len(correlation_RR) == 1:
        return lower
    return float(optimize.brentq(lambda bound: _all_below(bound, correlation_RR, freedom) - confidence,
                                 0.9 * lower, 1.1 * upper, xtol=1e-6))
