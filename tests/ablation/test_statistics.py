"""Differences between rows: equal to SciPy and statsmodels, sound where there is little or nothing to test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from purelm.ablation import statistics

EXACT = {"rel": 1e-9, "abs": 1e-12}


def _values(array) -> dict[str, float]:
    return {str(seed): float(value) for seed, value in enumerate(array)}


def _rows(seed: int, rows: int, seeds: int, seed_effect: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, seeds)) + seed_effect * generator.normal(size=(1, seeds)) + 3


def test_mean_and_spread():
    assert statistics.mean_and_spread([]) == (None, None)
    assert statistics.mean_and_spread([2.0]) == (2.0, None)
    assert statistics.mean_and_spread([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, stats.tstd([1, 2, 4])), **EXACT)


def test_paired_is_scipys_and_statsmodels():  # Reddens with an unpaired test, a one-sided one, or another interval.
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    row, other = _rows(0, 2, 6)
    found = statistics.paired(_values(row), _values(other), confidence=0.9)
    expected = stats.ttest_rel(row, other)
    assert found.p_value == pytest.approx(expected.pvalue, **EXACT)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.9)), **EXACT)
    oracle = weightstats.DescrStatsW(row - other)
    assert found.p_value == pytest.approx(oracle.ttest_mean(0)[1], **EXACT)
    assert found.interval == pytest.approx(oracle.tconfint_mean(0.1), **EXACT)
    assert found.difference == pytest.approx(row.mean() - other.mean(), **EXACT)


def test_paired_takes_the_seeds_that_both_have():  # Reddens where values are paired by place.
    row, other = _rows(1, 2, 5)
    whole = statistics.paired(_values(row[1:4]), _values(other[1:4]), confidence=0.95)
    row, other = _values(row), _values(other)
    del row["0"], other["4"]
    part = statistics.paired(dict(reversed(row.items())), other, confidence=0.95)
    assert part.seeds == 3 and part.p_value == pytest.approx(whole.p_value, **EXACT)


def test_bootstrap_is_scipys():
    row, other = _rows(2, 2, 7)
    found = statistics.paired(_values(row), _values(other), confidence=0.95, interval="bootstrap")
    expected = stats.bootstrap((row - other,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0))
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), **EXACT)
    assert found.p_value == pytest.approx(stats.ttest_rel(row, other).pvalue, **EXACT)


@pytest.mark.parametrize("interval", ["t", "bootstrap"])
def test_degenerate_pairs(interval):
    def paired(row, other):
        return statistics.paired(_values(row), _values(other), confidence=0.95, interval=interval)

    assert paired([], [1.0]) == statistics.Comparison(0)
    assert paired([2.0], [1.0, 5.0]) == statistics.Comparison(1, 1.0)
    two = paired([2.0, 2.5], [1.0, 1.4])
    assert 0 < two.p_value < 1 and (two.interval is None) == (interval == "bootstrap")
    same = paired([1.1, 2.2, 3.3], [1.1, 2.2, 3.3])
    assert same.constant and (same.difference, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)
    shifted = paired([1.1 + 0.3, 2.2 + 0.3, 3.3 + 0.3], [1.1, 2.2, 3.3])  # Equal but for rounding.
    assert shifted.constant and shifted.p_value == 0.25 and shifted.interval == pytest.approx((0.3, 0.3))
    rounding = paired([1.1 + 1e-16, 2.2 + 4e-16, 3.3], [1.1, 2.2, 3.3])
    assert rounding.p_value == 1.0


def test_holm_is_statsmodels():  # Reddens as Bonferroni's or without the running maximum.
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    generator = np.random.default_rng(0)
    for size in (1, 2, 5, 20):
        p_values = generator.uniform(size=size)**4
        p_values[size // 2] = p_values[0]
        assert statistics.holm(list(p_values)) == pytest.approx(multitest.multipletests(p_values, method="holm")[1],
                                                                **EXACT)
    assert statistics.holm([None, 0.01, None, 0.03]) == [None, pytest.approx(0.02), None, pytest.approx(0.03)]
    assert statistics.holm([None]) == [None]


def test_dunnett_is_scipys_but_for_the_seeds():
    """SciPy's on values whose seed effect was taken out has the same sum of squares, over R n more degrees of freedom
    of which R n - n are not there; its statistic is ours times sqrt((R + 1) / R)."""
    values = _rows(3, 6, 4)
    found = statistics.dunnett({str(row): _values(values[row]) for row in range(1, 6)}, _values(values[0]),
                               confidence=0.95)
    centered = values - values.mean(0)
    scipys = stats.dunnett(*centered[1:], control=centered[0], rng=np.random.default_rng(0))
    ours = np.array([stats.t.isf(result.p_value / 2, 5 * 3) * np.sign(result.difference)
                     for result in found.values()])
    np.testing.assert_allclose(ours, scipys.statistic * np.sqrt(5 / 6), rtol=1e-9)
    shape = np.full((5, 5), 0.5) + np.eye(5) / 2
    for result, statistic in zip(found.values(), ours):
        below = stats.multivariate_t.cdf(np.full(5, abs(statistic)), shape=shape, df=15, maxpts=200_000,
                                         lower_limit=-np.full(5, abs(statistic)), random_state=1)
        assert result.p_adjusted == pytest.approx(1 - below, abs=1e-3)


def test_dunnett_is_statsmodels_least_squares_with_a_missing_cell():
    """Reddens where a missing cell drops the seed, or the seeds' effect is not estimated."""
    linear_model = pytest.importorskip("statsmodels.regression.linear_model")
    values = _rows(4, 5, 4)
    rows = {str(row): _values(values[row]) for row in range(5)}
    del rows["2"]["1"], rows["0"]["3"]
    control = rows.pop("0")
    found = statistics.dunnett(rows, control, confidence=0.95)
    cells = [(row, int(seed), value) for row, part in {"0": control, **rows}.items() for seed, value in part.items()]
    design = [[1.0, *(int(row) == r for r in range(1, 5)), *(seed == s for s in range(1, 4))] for row, seed, _ in cells]
    oracle = linear_model.OLS([value for *_, value in cells], np.array(design, float)).fit()
    assert [part.difference for part in found.values()] == pytest.approx(oracle.params[1:5], **EXACT)
    assert [part.p_value for part in found.values()] == pytest.approx(oracle.pvalues[1:5], **EXACT)
    assert found["2"].seeds == 2 and found["1"].seeds == 3
    for part in found.values():
        assert part.p_value <= part.p_adjusted <= 4 * part.p_value + 1e-3
        assert (part.interval[0] <= 0 <= part.interval[1]) == (part.p_adjusted >= 0.05)


def test_dunnett_of_one_row_is_the_paired_test():
    row, other = map(_values, _rows(5, 2, 5))
    found, expected = (test for test in (statistics.dunnett({"row": row}, other, confidence=0.95)["row"],
                                         statistics.paired(row, other, confidence=0.95)))
    assert (found.p_value, *found.interval) == pytest.approx((expected.p_value, *expected.interval), **EXACT)
    assert found.p_adjusted == found.p_value


def test_degenerate_dunnett():
    control = {"0": 1.0, "1": 2.0}
    found = statistics.dunnett({"one": {"0": 3.0}, "none": {"7": 1.0}}, control, confidence=0.95)
    assert found["one"] == statistics.Comparison(1, 2.0) and found["none"].seeds == 0
    found = statistics.dunnett({"same": dict(control), "up": {"0": 1.3, "1": 2.3}}, control, confidence=0.95)
    assert found["same"].p_adjusted == 1.0 and found["up"].p_value == 0.5 and found["up"].constant
    assert found["up"].p_adjusted == 1.0
    assert statistics.dunnett({"x": {"0": 1.0}}, {"0": 1.0}, confidence=0.95)["x"].p_adjusted is None


def test_wide_rows():
    values = {str(row): _values(part) for row, part in enumerate(_rows(7, 10, 3, 0.0))}
    assert statistics.wide_rows(values, level=0.05) == []
    wide = values | {"4": {seed: 10 * value for seed, value in values["4"].items()}, "one": {"0": 99.0}}
    assert statistics.wide_rows(wide, level=0.05) == ["4"]
    others = np.concatenate([np.array(list(values[row].values())) - np.mean(list(values[row].values()))
                             for row in values if row != "4"])
    p_value = stats.f.sf(np.var(list(wide["4"].values()), ddof=1) / ((others**2).sum() / 18), 2, 18)
    # Reddens with another correction, or other degrees of freedom.
    assert statistics.wide_rows(wide, level=10 * p_value * 1.001) == ["4"]
    assert statistics.wide_rows(wide, level=10 * p_value * 0.999) == []
    assert statistics.wide_rows({"a": {"0": 1.0, "1": 1.0}, "b": {"0": 1.0}}, level=0.05) == []


def test_detectable_difference_is_statsmodels():
    power = pytest.importorskip("statsmodels.stats.power")
    for seeds in (2, 3, 5, 30):
        found = statistics.detectable_difference(0.7, seeds, level=0.05, power=0.8)
        assert power.TTestIndPower().power(found / 0.7, seeds, 0.05) == pytest.approx(0.8, **EXACT)
        # Its own search for the root stops at five digits.
        assert found == pytest.approx(0.7 * power.TTestIndPower().solve_power(None, seeds, 0.05, 0.8), rel=1e-5)
    assert statistics.detectable_difference(0.7, 1, level=0.05, power=0.8) is None
    assert statistics.detectable_difference(0.0, 3, level=0.05, power=0.8) == 0.0


def test_verdicts():
    def verdict(difference, p, direction="lower", seeds=3):
        return statistics.verdict_of(statistics.Comparison(seeds, difference), p, direction=direction, level=0.05)

    assert verdict(-1, 0.01) == "better" and verdict(1, 0.01) == "worse"
    assert verdict(-1, 0.01, "higher") == "worse" and verdict(1, 0.01, "higher") == "better"
    assert verdict(1, 0.05) == "within noise" and verdict(1, None, seeds=1) == "too few seeds"


def _paired_p(values_TRS: np.ndarray) -> np.ndarray:
    return stats.ttest_1samp(values_TRS[:, 1:] - values_TRS[:, :1], 0, axis=-1).pvalue


def _dunnett_t(values_TRS: np.ndarray) -> np.ndarray:
    _, rows, seeds = values_TRS.shape
    residuals_TRS = (values_TRS - values_TRS.mean(2, keepdims=True) - values_TRS.mean(1, keepdims=True)
                     + values_TRS.mean((1, 2), keepdims=True))
    variance_T = (residuals_TRS**2).sum((1, 2)) / ((rows - 1) * (seeds - 1))
    means_TR = values_TRS.mean(-1)
    return np.abs(means_TR[:, 1:] - means_TR[:, :1]) / np.sqrt(variance_T * 2 / seeds)[:, None]


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("seed_effect", [0.0, 2.0])
def test_false_alarms(seeds, seed_effect):
    """Of 200 tables of 20 identical rows and the base, 2 to 8 % have any flag at 5 %. Reddens without a correction
    (about half of them), and with scipy.stats.dunnett where a seed moves all rows (under 1 %)."""
    level, num_rows = 0.05, 20
    values_TRS = np.stack([_rows(10_000 + table, num_rows + 1, seeds, seed_effect) for table in range(200)])
    p_TR, t_TR = _paired_p(values_TRS), _dunnett_t(values_TRS)
    # All tables at once are what the functions make of one.
    control, rows = _values(values_TRS[0, 0]), {str(row): _values(values_TRS[0, row]) for row in range(1, num_rows + 1)}
    found = [statistics.paired(row, control, confidence=0.95) for row in rows.values()]
    assert [test.p_value for test in found] == pytest.approx(list(p_TR[0]), **EXACT)
    together = statistics.dunnett(rows, control, confidence=1 - level)["1"]
    assert together.p_value == pytest.approx(2 * stats.t.sf(t_TR[0, 0], num_rows * (seeds - 1)), **EXACT)
    critical = (together.interval[1] - together.difference) * t_TR[0, 0] / abs(together.difference)
    by_pairs = np.mean([min(statistics.holm(list(p_R))) < level for p_R in p_TR])
    by_dunnett = np.mean(t_TR.max(1) > critical)
    assert 0.02 <= by_pairs <= 0.08 and 0.02 <= by_dunnett <= 0.08, (by_pairs, by_dunnett)
