"""Whether the order of our rows is the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from purelm.ablation.spec import Metric
from purelm.ablation.table import Agreement, Result

_RESAMPLES = 1000


def with_published(metric: Metric, results: Mapping[str, Result], confidence: float) -> Agreement | None:
    """Our means against the published numbers, over rows that have both; None where none is published."""
    published = {row: result.published for row, result in results.items() if result.published is not None}
    if not published:
        return None
    pairs = [(result.difference, result.published_difference) for result in results.values()
             if result.difference is not None and result.published_difference]
    same_sign = sum(ours * theirs > 0 for ours, theirs in pairs), len(pairs)
    return _agreement(metric, "published", results, published, same_sign, confidence)


def with_order(metric: Metric, results: Mapping[str, Result], order: Sequence[str], confidence: float) -> Agreement:
    """Our means against an order of rows, best first."""
    sign = 1 if metric.direction == "lower" else -1
    places = {row: sign * place for place, row in enumerate(order)}
    return _agreement(metric, "expected order", results, places, None, confidence)


def _agreement(metric: Metric, against: str, results: Mapping[str, Result], theirs: Mapping[str, float],
               same_sign: tuple[int, int] | None, confidence: float) -> Agreement:
    rows = [row for row in theirs if results[row].mean is not None]
    tau, p_value = kendall([results[row].mean for row in rows], [theirs[row] for row in rows])
    interval = None
    if tau is not None:
        interval = kendall_interval([list(results[row].values.values()) for row in rows],
                                    [theirs[row] for row in rows], confidence)
    return Agreement(metric.name, against, len(rows), tau, interval, p_value, same_sign)


def kendall(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float | None, float | None]:
    """Kendall's tau-b and its two-sided p-value (scipy.stats.kendalltau); None where there is no order: fewer than two
    rows, or all of them alike."""
    from scipy import stats

    if len(ours) < 2:
        return None, None
    found = stats.kendalltau(ours, theirs)
    return (float(found.statistic), float(found.pvalue)) if np.isfinite(found.statistic) else (None, None)


def kendall_interval(values: Sequence[Sequence[float]], theirs: Sequence[float],
                     confidence: float) -> tuple[float, float] | None:
    """Percentile interval of tau-b by bootstrap over the seeds of each row, 1,000 resamples from a fixed generator.

    The rows are the paper's and stay. None where a row has one seed alone: its noise is not known.
    """
    if min(len(row) for row in values) < 2:
        return None
    generator = np.random.default_rng(0)
    means = np.stack([generator.choice(row, size=(_RESAMPLES, len(row))).mean(1) for row in values], axis=1)
    taus = [kendall(ours, theirs)[0] for ours in means]
    taus = [tau for tau in taus if tau is not None]
    if not taus:
        return None
    low, high = np.quantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
