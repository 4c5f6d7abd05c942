"""The paper's rule, its constant controls, and the share of motivated steps they give on noise."""

import math

import numpy as np
import pytest

from motivation.monitors import Consecutive
from motivation.schedules import Always, Never, Threshold


def test_threshold_expands_and_contracts():
    schedule = Threshold(2)
    assert schedule.start() == "base"
    assert [schedule.decide(score) for score in (0, 1, 2, 3, 0, math.nan)] == [
        "base", "base", "motivated", "motivated", "base", "base"]


def test_epoch_edges():
    assert Threshold(2).end_epoch("motivated") == "base"
    assert Threshold(2, epoch_edge="carry").end_epoch("motivated") == "motivated"
    assert Threshold(2, epoch_edge="carry").end_epoch("base") == "base"


@pytest.mark.parametrize("k", [0, -1, 0.5, math.nan])
def test_k_below_one_is_refused(k):
    with pytest.raises(ValueError, match="must be at least 1"):
        Threshold(k)


def test_unknown_epoch_edge_is_refused():
    with pytest.raises(ValueError, match="choose contract or carry"):
        Threshold(2, epoch_edge="keep")


def test_constant_schedules_ignore_scores():
    for schedule, phase, share in ((Never(), "base", 0), (Always(), "motivated", 1)):
        assert schedule.start() == phase
        assert {schedule.decide(score) for score in (0, 9, math.nan)} == {phase}
        assert schedule.end_epoch(phase) == phase
        assert schedule.null_rate(Consecutive(), 10) == share


@pytest.mark.parametrize(("edge", "k"), [("contract", 1), ("contract", 2), ("carry", 2)])
def test_null_rate_is_the_share_on_noise(edge, k):
    """The share of motivated steps on 100,000 exchangeable losses in epochs of 20 steps."""
    monitor, schedule, steps = Consecutive(), Threshold(k, epoch_edge=edge), 20
    phase, motivated = schedule.start(), []
    for step, loss in enumerate(np.random.default_rng(3).normal(size=100_000)):
        motivated.append(phase == "motivated")
        phase = schedule.decide(monitor.observe(loss))
        if (step + 1) % steps == 0:
            phase = schedule.end_epoch(phase)
    batch_means = np.reshape(motivated, (100, 1000)).mean(1)
    error = batch_means.std(ddof=1) / math.sqrt(len(batch_means))
    assert abs(np.mean(motivated) - schedule.null_rate(monitor, steps)) < 3 * error
