"""The test behind every difference that is printed."""

from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """A method against its control.

    Attributes:
        mean: mean of the method minus mean of the control, in the measure's own unit.
        p: two-sided p-value; None where n is below 2 on a side.
        test: the test's name, or why there is none.
    """

    mean: float
    p: float | None
    test: str


def difference(method: dict[int, float], control: dict[int, float]) -> Difference:
    """Compare a measure with its control: paired t for equal seeds, Welch's t for others.

    Args:
        method: seed -> measure.
        control: seed -> measure of the control.
    """
    from scipy import stats

    values, reference = list(method.values()), list(control.values())
    mean = float(np.mean(values) - np.mean(reference))
    if min(len(values), len(reference)) < 2:
        return Difference(mean, None, "no test below n = 2")
    if method.keys() == control.keys():
        differences = [method[seed] - control[seed] for seed in method]
        if np.ptp(differences) == 0:
            return Difference(mean, None, "no test: all differences are equal")
        return Difference(mean, float(stats.ttest_1samp(differences, 0).pvalue), "paired t")
    if np.ptp(values) == 0 and np.ptp(reference) == 0:
        return Difference(mean, None, "no test: no variance")
    return Difference(mean, float(stats.ttest_ind(values, reference, equal_var=False).pvalue), "Welch t")


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): p-values that hold for a whole family of tests, in the given order."""
    order = np.argsort(p_values)
    adjusted = np.maximum.accumulate([min(1.0, (len(p_values) - rank) * p_values[index])
                                      for rank, index in enumerate(order)])
    result = np.empty(len(p_values))
    result[order] = adjusted
    return result.tolist()
