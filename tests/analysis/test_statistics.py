"""The tests behind every printed difference: t, confidence intervals and Holm against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from motivation.analysis.statistics import difference, holm, minimum_effect

A, B = {0: 90.0, 1: 91.0, 2: 93.0}, {0: 89.5, 1: 91.2, 2: 91.0}


def test_equal_seeds_are_paired():
    paired = difference(A, B)
    expected = stats.ttest_rel(list(A.values()), list(B.values()))
    assert paired.test == "paired t"
    assert paired.p == pytest.approx(expected.pvalue)
    assert paired.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    # By hand: mean difference +- t(0.975, n - 1) standard errors.
    differences = np.array([0.5, -0.2, 2.0])
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    assert paired.interval == pytest.approx((differences.mean() - half, differences.mean() + half))


def test_other_seeds_are_welchs():
    welch = difference(A, {5: 89.5, 6: 91.2})
    one, two = np.array([90.0, 91, 93]), np.array([89.5, 91.2])
    assert (welch.test, welch.mean) == ("Welch t", pytest.approx(one.mean() - two.mean()))
    assert welch.p == pytest.approx(stats.ttest_ind(one, two, equal_var=False).pvalue)
    # By hand: Welch and Satterthwaite's degrees of freedom.
    parts = np.array([one.var(ddof=1) / 3, two.var(ddof=1) / 2])
    freedom = parts.sum() ** 2 / (parts ** 2 / [2, 1]).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum())
    assert welch.interval == pytest.approx((welch.mean - half, welch.mean + half))


@pytest.mark.parametrize(("a", "b", "reason"), [
    ({0: 1.0}, {0: 2.0}, "below n = 2"), ({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}, "all differences are equal"),
    ({0: 1.0, 1: 1.0}, {2: 2.0, 3: 2.0}, "no variance"),
    # One image of 360 more, whatever the seed: the same difference, though not to the last bit.
    ({seed: (n + 1) / 360 * 100 for seed, n in enumerate((331, 340, 347))},
     {seed: n / 360 * 100 for seed, n in enumerate((331, 340, 347))}, "all differences are equal"),
    ({0: 0.1 + 0.2, 1: 0.3}, {2: 0.7, 3: 0.6 + 0.1}, "no variance")])
def test_no_test_says_why(a, b, reason):
    result = difference(a, b)
    assert (result.p, result.interval) == (None, None)
    assert reason in result.test


def test_a_small_real_variance_is_tested():
    """One image of 10,000 apart from a constant gain is a difference, not rounding."""
    result = difference({0: 92.61, 1: 92.72, 2: 92.53}, {0: 92.51, 1: 92.61, 2: 92.43})
    assert result.p == pytest.approx(stats.ttest_rel([92.61, 92.72, 92.53], [92.51, 92.61, 92.43]).pvalue)


def test_equal_means_that_the_whole_interval_is_small():
    """As two one-sided tests at 0.025 say (Schuirmann 1987); a large p-value alone does not."""
    few, many = difference(A, B), difference(dict(enumerate([90.0, 90.2] * 10)), dict(enumerate([90.1, 90.0] * 10)))
    assert few.p > 0.3
    assert not few.is_within(1)
    differences = np.array([-0.1, 0.2] * 10)
    for delta in (0.1, 0.13, 1):
        ps = (stats.ttest_1samp(differences, -delta, alternative="greater").pvalue,
              stats.ttest_1samp(differences, delta, alternative="less").pvalue)
        assert many.is_within(delta) is bool(max(ps) < 0.025)
    assert (many.is_within(0.1), many.is_within(0.13)) == (False, True)
    assert not difference({0: 1.0}, {0: 1.0}).is_within(1)


def test_holm_by_hand():
    """Steps down: 4 x the smallest, 3 x the next, never below the one before, never above 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(("standardized", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_a_minimum_effect_needs_the_textbooks_number_of_pairs(standardized, n):
    """Cohen's small, medium and large effect, two-sided 0.05, power 0.8."""
    assert minimum_effect(2.0, n) <= 2 * standardized < minimum_effect(2.0, n - 1)
    assert minimum_effect(0.0, n) == 0


def test_a_minimum_effect_is_found_by_simulation():
    rng = np.random.default_rng(0)
    for level in (0.05, 0.05 / 40):
        draws = rng.normal(minimum_effect(1.0, 10, level), 1, (40_000, 10))
        assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < level) == pytest.approx(0.8, abs=0.01)
    assert minimum_effect(1.0, 2) is None
