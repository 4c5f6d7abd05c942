"""The paper's monitor and its null rate."""

import math

import numpy as np
import pytest

from motivation.monitors import Consecutive, Signal


def test_consecutive_counts_straight_decreases():
    monitor = Consecutive()
    losses = [3.0, 2.0, 1.0, 1.0, 0.5, 0.7, 0.6]
    assert [monitor.observe(loss) for loss in losses] == [1, 2, 3, 0, 1, 0, 1]


def test_a_signal_and_a_bare_loss_are_the_same():
    a, b = Consecutive(), Consecutive()
    assert [a.observe(Signal(loss, "motivated", 7)) for loss in (2.0, 1.0, 3.0)] == [b.observe(x) for x in (2, 1, 3)]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_consecutive_fires_at_its_nominal_rate(k):
    """1 / (k + 1)! on 100,000 exchangeable losses, within three batch-means standard errors."""
    monitor = Consecutive()
    fired = np.array([monitor.observe(loss) >= k for loss in np.random.default_rng(k).normal(size=100_000)])
    batch_means = fired.reshape(100, 1000).mean(1)
    error = batch_means.std(ddof=1) / math.sqrt(len(batch_means))
    assert abs(fired.mean() - monitor.exceedance(k)) < 3 * error
    assert monitor.exceedance(k) == 1 / math.factorial(k + 1)


def test_state_round_trip_inside_a_run():
    whole, resumed = Consecutive(), Consecutive()
    for loss in (3.0, 2.0, 1.5):
        whole.observe(loss)
    resumed.load_state_dict(whole.state_dict())
    assert [whole.observe(x) for x in (1.0, 2.0, 1.0)] == [resumed.observe(x) for x in (1.0, 2.0, 1.0)] == [4, 0, 1]
