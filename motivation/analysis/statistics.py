"""The test behind every difference that is printed."""

from typing import NamedTuple

import numpy as np

# Measures are figures of some six digits: what differs by less than this part of them is equal but for rounding.
ROUNDING = 1e-9


class Difference(NamedTuple):
    """A method against its control.

    Attributes:
        mean: mean of the method minus mean of the control, in the measure's own unit.
        p: two-sided p-value; None where there is no test.
        test: the test's name, or why there is none.
        interval: 95 % confidence interval of the mean difference, of the same test; None where there is none.
    """

    mean: float
    p: float | None
    test: str
    interval: tuple[float, float] | None = None

    def is_within(self, delta: float) -> bool:
        """Whether the method equals its control up to +-delta: the whole interval lies inside.

        Two one-sided tests at 0.025 each (TOST, Schuirmann 1987). A large p-value alone shows no equality.
        """
        return self.interval is not None and -delta < self.interval[0] and self.interval[1] < delta


def difference(method: dict[int, float], control: dict[int, float]) -> Difference:
    """Compare a measure with its control: paired t for equal seeds, Welch's t for others.

    Differences that are all equal, as far as rounding lets one see, have no variance to test with.

    Args:
        method: seed -> measure.
        control: seed -> measure of the control.
    """
    from scipy import stats

    values, reference = list(method.values()), list(control.values())
    mean = float(np.mean(values) - np.mean(reference))
    if min(len(values), len(reference)) < 2:
        return Difference(mean, None, "no test below n = 2")
    rounding = ROUNDING * float(np.max(np.abs([*values, *reference])))
    if method.keys() == control.keys():
        differences = [method[seed] - control[seed] for seed in method]
        if np.ptp(differences) <= rounding:
            return Difference(mean, None, "no test: all differences are equal")
        name, result = "paired t", stats.ttest_1samp(differences, 0)
    elif max(np.ptp(values), np.ptp(reference)) <= rounding:
        return Difference(mean, None, "no test: no variance")
    else:
        name, result = "Welch t", stats.ttest_ind(values, reference, equal_var=False)
    low, high = result.confidence_interval(0.95)
    return Difference(mean, float(result.pvalue), name, (float(low), float(high)))


def minimum_effect(deviation: float, n: int, level: float = 0.05, power: float = 0.8) -> float | None:
    """The least mean difference that a two-sided paired t test shows with this probability (noncentral t).

    Args:
        deviation: standard deviation of the paired differences, in the measure's own unit.
        n: pairs.
        level: p-value below which the test counts.
        power: the probability, above the level.

    Returns:
        In the measure's own unit; None below n = 3, where one degree of freedom tells nothing of the deviation.
    """
    from scipy import optimize, stats

    if n < 3:
        return None
    critical = stats.t.ppf(1 - level / 2, n - 1)

    def missing(shift: float) -> float:
        # SciPy gives NaN for the other tail where that is below 1e-13.
        wrong_side = np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift))
        return power - float(stats.nct.sf(critical, n - 1, shift) + wrong_side)

    # At shift = critical the power is about a half; further on it soon is almost 1.
    shift = float(optimize.brentq(missing, 0, 4 * critical + 10))
    return shift * deviation / n ** 0.5


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): p-values that hold for a whole family of tests, in the given order."""
    order = np.argsort(p_values)
    adjusted = np.maximum.accumulate([min(1.0, (len(p_values) - rank) * p_values[index])
                                      for rank, index in enumerate(order)])
    result = np.empty(len(p_values))
    result[order] = adjusted
    return result.tolist()
