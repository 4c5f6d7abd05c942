"""Schedules: the paper's rule, the quota, what gates allow, what controls reproduce, state in mid-interval."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import motivation
from motivation.analysis.figures import intervals
from motivation.monitors import Consecutive, GradientAgreement, PredictionGain, Smooth, Trend
from motivation.schedules import (
    BY_NAME,
    Always,
    Budget,
    CoolDown,
    Ladder,
    MatchedRandom,
    MaxInterval,
    MinInterval,
    Never,
    Onset,
    Periodic,
    Progressive,
    Quota,
    Random,
    Replay,
    Schedule,
    Threshold,
    WarmUp,
    Window,
)

FLOPS = {"base_flops": 10, "motivated_flops": 17}


def phases(schedule, scores, steps_per_epoch=10**9):
    """Motivated or not, step by step."""
    phase, found = schedule.start(), []
    for step, score in enumerate(scores, start=1):
        found.append(phase == "motivated")
        phase = schedule.decide(score)
        if step % steps_per_epoch == 0:
            phase = schedule.end_epoch(phase)
    return np.array(found)


def write_run(folder, motivated, steps_per_epoch):
    folder.mkdir()
    with open(folder / "steps.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "phase", "loss", "score", "lr", "flops"])
        for step, on in enumerate(motivated):
            writer.writerow([step, step // steps_per_epoch, "motivated" if on else "base", 1.0, 0.0, 0.1, 3])
    return str(folder)


@pytest.fixture
def recorded(tmp_path):
    """A run of 10 epochs of 20 steps and a last one of 7, as Algorithm 1 leaves it."""
    scores = np.random.default_rng(0).integers(0, 4, 207)
    motivated = phases(Threshold(2), scores, 20)
    return write_run(tmp_path / "source", motivated, 20), motivated


def makers(run):
    return {
        "threshold": lambda: Threshold(2, k_off=1),
        "quota": lambda: Quota(0.3, window=20, seed=5, total_steps=207),
        "never": Never,
        "always": Always,
        "budget": lambda: Budget(Threshold(1), 0.3, total_steps=207, **FLOPS),
        "window": lambda: Window(Threshold(1), 0.2, 0.6, total_steps=207),
        "min_interval": lambda: MinInterval(Threshold(2), 3),
        "max_interval": lambda: MaxInterval(Threshold(1), 3),
        "cool_down": lambda: CoolDown(Threshold(2), 4),
        "ladder": lambda: Ladder(Threshold(2), 9),
        "warm_up": lambda: WarmUp(Threshold(1), 30),
        "random": lambda: Random(0.3, seed=1, steps_per_epoch=20),
        "matched_random": lambda: MatchedRandom(run, seed=1, steps_per_epoch=20, total_steps=207),
        "replay": lambda: Replay(run, steps_per_epoch=20, total_steps=207),
        "periodic": lambda: Periodic(7, 2),
        "progressive": lambda: Progressive(0.3, total_steps=207),
        "onset": lambda: Onset(55, total_steps=207),
    }


def test_threshold_expands_and_contracts():
    schedule = Threshold(2)
    assert schedule.start() == "base"
    assert [schedule.decide(score) for score in (0, 1, 2, 3, 0, math.nan)] == [
        "base", "base", "motivated", "motivated", "base", "base"]


def test_hysteresis_holds_until_the_lower_level():
    schedule = Threshold(2, k_off=1, epoch_edge="contract")
    assert phases(schedule, [1.5, 2, 1.5, 1, 0.9, 1.5, 2, 0]).tolist() == [0, 0, 1, 1, 1, 0, 0, 1]
    schedule.decide(2)
    assert schedule.end_epoch("motivated") == "base"
    assert schedule.decide(1.5) == "base", "a contracting edge ends the interval"


def test_epoch_edges():
    assert Threshold(2).end_epoch("motivated") == "base"
    assert Threshold(2, epoch_edge="carry").end_epoch("motivated") == "motivated"
    assert Threshold(2, epoch_edge="carry").end_epoch("base") == "base"


@pytest.mark.parametrize(("schedule", "monitor", "message"), [
    (Threshold(0), Consecutive(), "k=0: must be at least 1"),
    (Threshold(0.5), Consecutive(), "k=0.5: must be at least 1"),
    (Threshold(2), GradientAgreement(), "k=2: must be at most 1"),
    (Threshold(2), Smooth(GradientAgreement(), 3), "k=2: must be at most 1"),
    (Threshold(None), PredictionGain(), "PredictionGain has no default level"),
    (Threshold(None, k_off=3), Consecutive(), "k_off=3: must be at most k, which is Consecutive's own 2"),
    (WarmUp(CoolDown(Threshold(0), 2), 2), Consecutive(), r"schedule\.schedule\.k=0: must be at least 1")])
def test_a_level_no_score_can_cross_is_refused(schedule, monitor, message):
    with pytest.raises(ValueError, match=message):
        schedule.bind(monitor)


def test_threshold_takes_the_monitors_own_level():
    schedule = WarmUp(Threshold(None), 5)
    schedule.bind(Trend())
    assert schedule.schedule.k == 1.645


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Threshold(math.nan), "k=nan"), (lambda: Threshold(math.inf), "k=inf"),
    (lambda: Threshold(2, k_off=3), "k_off=3: must be at most k=2"),
    (lambda: Threshold(2, epoch_edge="keep"), "epoch_edge='keep': must be one of contract, carry"),
    (lambda: Quota(0), "share=0"), (lambda: Quota(1), "share=1"), (lambda: Quota(1.5), "share=1.5"),
    (lambda: Quota(0.2, window=3), "window=3"), (lambda: Periodic(5, 5), "length=5"),
    (lambda: Periodic(1, 1), "period=1"),
    (lambda: Periodic(500, 5, total_steps=100), "period=500: longer than training"),
    (lambda: Progressive(0, total_steps=9), "share=0"), (lambda: Progressive(0.5), "total_steps is missing"),
    (lambda: Random(0.6, steps_per_epoch=9), "share=0.6"), (lambda: Random(0.5), "steps_per_epoch is missing"),
    (lambda: Window(Never(), 0.5, 0.5, total_steps=9), "start=0.5"),
    (lambda: Window(Never()), "total_steps is missing"),
    (lambda: Budget(Never(), 1.0, total_steps=9, **FLOPS), "fraction=1.0"),
    (lambda: Budget(Never(), 0.5, total_steps=9), "base_flops is missing"),
    (lambda: Budget(Never(), 0.5, "slow", total_steps=9, **FLOPS), "pace='slow': must be one of spread, greedy"),
    (lambda: MinInterval(Never(), 0), "steps=0"), (lambda: WarmUp(Never(), 200, total_steps=100), "steps=200: longer"),
    (lambda: MaxInterval(Never(), 200, total_steps=100), "steps=200"), (lambda: CoolDown(Never(), -1), "steps=-1"),
    (lambda: Replay(), "run is missing"), (lambda: Replay("nowhere"), "run=nowhere: its steps.csv cannot be read")])
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_constant_schedules_ignore_scores():
    for schedule, phase in ((Never(), "base"), (Always(), "motivated")):
        assert schedule.start() == phase
        assert {schedule.decide(score) for score in (0, 9, math.nan)} == {phase}
        assert schedule.end_epoch(phase) == phase


@pytest.mark.parametrize(("edge", "k"), [("contract", 1), ("contract", 2), ("carry", 2)])
def test_null_rate_is_the_share_on_noise(edge, k):
    """The share of motivated steps on 100,000 exchangeable losses in epochs of 20 steps."""
    monitor, schedule = Consecutive(), Threshold(k, epoch_edge=edge)
    motivated = phases(schedule, map(monitor.observe, np.random.default_rng(3).normal(size=100_000)), 20)
    batch_means = motivated.reshape(100, 1000).mean(1)
    error = batch_means.std(ddof=1) / math.sqrt(len(batch_means))
    assert abs(motivated.mean() - schedule.null_rate(monitor, 20)) < 3 * error


def score_streams():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=2000)
    runs = Consecutive()
    return {
        "noise": noise, "integers": [runs.observe(loss) for loss in noise], "constant": np.zeros(2000),
        "rising": noise + np.arange(2000) / 50, "falling": noise - np.arange(2000) / 50,
        "a step": noise + 5 * (np.arange(2000) > 1000), "late": np.where(np.arange(2000) < 100, math.nan, noise),
        "straight down": -np.arange(2000.0), "heavy tails": rng.standard_cauchy(2000)}


@pytest.mark.parametrize("share", [0.02, 1 / 6, 0.5, 0.9])
@pytest.mark.parametrize("name", score_streams())
def test_quota_meets_its_share(name, share):
    """Within 1 % of 2,000 steps, whatever the scores."""
    motivated = phases(Quota(share, total_steps=2000), score_streams()[name])
    assert abs(motivated.mean() - share) <= 0.01


def with_gaps():
    rng = np.random.default_rng(0)
    noise, time = rng.normal(size=2000), np.arange(2000)
    return {
        "late": np.where(time < 600, math.nan, noise), "third": np.where(rng.random(2000) < 0.35, math.nan, noise),
        "hole": np.where((time > 700) & (time < 1300), math.nan, noise),
        "one in four": np.where(time % 4 == 0, noise, math.nan),
        "standing": np.repeat(noise[:100], 20)}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("share", [0.02, 1 / 6])
@pytest.mark.parametrize("name", with_gaps())
def test_quota_meets_its_share_of_all_steps_where_scores_are_missing(name, share, known):
    """Within 1 % of 2,000 steps, whether the run's length is known or not."""
    motivated = phases(Quota(share, total_steps=2000 if known else None), with_gaps()[name])
    assert abs(motivated.mean() - share) <= 0.01


@pytest.mark.parametrize("total", [34, 510, 2000])
@pytest.mark.parametrize("share", [0.02, 1 / 6, 0.5, 0.9])
@pytest.mark.parametrize("stream", [lambda step: -step, lambda step: step, lambda step: 0.0])
def test_quota_is_never_far_from_its_share(stream, share, total):
    """Every prefix of a short or long run, of scores that only fall, only rise or stand."""
    motivated = phases(Quota(share, total_steps=total), np.array([float(stream(step)) for step in range(total)]))
    apart = motivated.cumsum() - share * np.arange(1, total + 1)
    assert np.abs(apart).max() <= max(2, 0.005 * total) + 1e-9


@pytest.mark.parametrize("total", [34, 510, 2000])
@pytest.mark.parametrize(("share", "scored"), [(1 / 6, 2), (0.4, 2), (0.5, 2), (0.2, 4)])
def test_quota_repays_steps_without_a_score(share, scored, total):
    """Every second or fourth step has a score: the share is met to the bound, even where it takes every one of them."""
    scores = np.where(np.arange(total) % scored == 0, np.sin(12.9 * np.arange(total)), math.nan)
    motivated = phases(Quota(share, total_steps=total), scores)
    assert abs(motivated.sum() - share * total) <= max(2, 0.005 * total) + 1


def test_quota_takes_the_highest_scores_and_breaks_ties_at_random():
    noise = np.random.default_rng(1).normal(size=5000)
    chosen = phases(Quota(0.2), noise)
    assert noise[:-1][chosen[1:]].mean() > 1.2, "the upper fifth of a normal has the mean 1.40"
    constant = phases(Quota(0.2, seed=3), np.zeros(5000))
    gaps = np.diff(np.flatnonzero(constant))
    assert gaps.std() > 1
    assert not np.array_equal(constant, phases(Quota(0.2, seed=4), np.zeros(5000)))


def lengths(motivated):
    return [length for _, length in intervals(motivated)]


@given(st.lists(st.integers(0, 3), min_size=30, max_size=120), st.integers(1, 9), st.integers(1, 40))
def test_gates_keep_their_promise(scores, steps, per_epoch):
    """For any scores and epoch length; an interval that training's end cuts off may be short."""
    shortest = phases(MinInterval(Threshold(2), steps), scores, per_epoch)
    found = intervals(shortest)
    assert all(length >= steps for start, length in found if start + length < len(scores))
    longest = phases(MaxInterval(Threshold(1, epoch_edge="carry"), steps), scores, per_epoch)
    assert max(lengths(longest), default=0) <= steps
    cooled = phases(CoolDown(Threshold(1), steps), scores, per_epoch)
    inside = lengths(~cooled)[1:] if not cooled[0] else lengths(~cooled)
    if len(inside) and not cooled[-1]:
        inside = inside[:-1]
    assert all(length >= steps for length in inside)
    warmed = phases(WarmUp(Threshold(1), steps), scores, per_epoch)
    assert not warmed[:steps].any()
    assert np.array_equal(warmed[steps:], phases(Threshold(1), scores, per_epoch)[steps:])


def test_window_opens_and_closes():
    motivated = phases(Window(Always(), 0.25, 0.5, total_steps=40), [0.0] * 40)
    assert np.flatnonzero(motivated).tolist() == list(range(10, 20))
    assert phases(Window(Always(), 0, 0.5, total_steps=40), [0.0] * 40)[0]


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("pace", ["spread", "greedy"])
def test_budget_is_kept_and_used(pace, fraction):
    motivated = phases(Budget(Always(), fraction, pace, total_steps=1000, **FLOPS), [0.0] * 1000)
    spent = 17 * motivated.sum() / (17 * motivated.sum() + 10 * (~motivated).sum())
    assert fraction - 0.003 < spent <= fraction
    halves = motivated[:500].sum(), motivated[500:].sum()
    if pace == "greedy":
        assert np.array_equal(motivated, np.arange(1000) < motivated.sum())
    else:
        assert abs(int(halves[0]) - int(halves[1])) <= 1


def test_gates_compose():
    """In either order: the inner gate knows what the outer one overruled."""
    for schedule in (WarmUp(MaxInterval(CoolDown(Threshold(1), 4), 3), 10),
                     CoolDown(MaxInterval(WarmUp(Threshold(1), 10), 3), 4)):
        motivated = phases(schedule, [1.0] * 40)
        assert not motivated[:10].any()
        assert set(lengths(motivated)[:-1]) == {3}
        assert set(lengths(~motivated)[1:-1]) == {4}
    held = MaxInterval(Threshold(2, k_off=1), 2)
    assert phases(held, [2, 1, 1, 1, 1, 0]).tolist() == [0, 1, 1, 0, 0, 0], "an overruled interval is over"


def test_matched_random_reproduces_every_epochs_count(recorded):
    """Experiment B: exactly the run's counts, never an epoch's first batch, other batches with another seed."""
    run, source = recorded
    found = [phases(MatchedRandom(run, seed=seed, steps_per_epoch=20, total_steps=207), [0.0] * 207, 20)
             for seed in (0, 1)]
    for motivated in found:
        for start in range(0, 207, 20):
            assert motivated[start:start + 20].sum() == source[start:start + 20].sum()
            assert not motivated[start]
    assert source.sum() > 20
    assert not np.array_equal(*found)
    assert not np.array_equal(found[0], source)


def test_replay_is_the_very_run(recorded):
    run, source = recorded
    schedule = Replay(run, steps_per_epoch=20, total_steps=207)
    assert np.array_equal(phases(schedule, [math.nan] * 207, 20), source)
    assert schedule.decide(0.0) == "base"


def test_runs_of_another_shape_are_refused(recorded, tmp_path):
    run, _ = recorded
    for make in (Replay, MatchedRandom):
        with pytest.raises(ValueError, match="it has 207 steps, this run 300"):
            make(run, steps_per_epoch=20, total_steps=300)
        with pytest.raises(ValueError, match="its epochs have 20 steps, this run's 30"):
            make(run, steps_per_epoch=30, total_steps=207)
    full = write_run(tmp_path / "full", [True] * 40, 20)
    assert phases(Replay(full, steps_per_epoch=20, total_steps=40), [0] * 40).all()
    with pytest.raises(ValueError, match="all 20 steps of epoch 0 are motivated"):
        MatchedRandom(full, steps_per_epoch=20, total_steps=40)
    (tmp_path / "full" / "steps.csv").write_text("step,epoch\n0,0\n")
    with pytest.raises(ValueError, match=r"steps\.csv is damaged"):
        Replay(full)


def test_random_draws_a_uniform_count():
    """Experiment A: counts from 0 to twice the share, all of them, with the share as mean; never the first batch."""
    motivated = phases(Random(0.2, seed=2, steps_per_epoch=20), [0.0] * 20_000, 20).reshape(1000, 20)
    counts = motivated.sum(1)
    assert set(counts) == set(range(9))
    assert counts.mean() == pytest.approx(4, abs=0.3)
    assert not motivated[:, 0].any()
    assert (motivated[:, 1:].mean(0) > 0.15).all()


def test_periodic_and_progressive():
    assert np.flatnonzero(phases(Periodic(5, 2), [0] * 12)).tolist() == [3, 4, 8, 9]
    assert np.flatnonzero(phases(Progressive(0.25, total_steps=12), [0] * 12)).tolist() == [9, 10, 11]
    assert np.flatnonzero(phases(Progressive(0.25, True, total_steps=12), [0] * 12)).tolist() == [0, 1, 2]
    assert np.flatnonzero(phases(Onset(9, total_steps=12), [0] * 12)).tolist() == [9, 10, 11]


def test_onset_without_a_step_draws_one_by_the_seed():
    steps = [Onset(seed=seed, total_steps=100).turn for seed in range(200)]
    assert steps == [Onset(seed=seed, total_steps=100).turn for seed in range(200)]
    assert {*steps} <= {*range(1, 100)}
    assert sum(steps) / 200 == pytest.approx(50, abs=4 * 29 / 200 ** 0.5)


@pytest.mark.parametrize("name", [*BY_NAME, "ladder"])
def test_every_schedule_fires_stops_and_restores_its_state(name, recorded):
    """Both phases occur (never and always apart); saved at an odd place, through JSON, it continues the same."""
    make = makers(recorded[0])[name]
    scores = np.random.default_rng(2).integers(0, 4, 207).astype(float)
    whole = phases(make(), scores, 20)
    assert set(whole.tolist()) == {"never": {False}, "always": {True}}.get(name, {False, True})
    for stop in (47, 60):
        first, resumed = make(), make()
        before = phases(first, scores[:stop], 20)
        resumed.start()
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
        after = []
        for step, score in enumerate(scores[stop:], start=stop + 1):
            phase = resumed.decide(score)
            after.append((resumed.end_epoch(phase) if step % 20 == 0 else phase) == "motivated")
        assert np.array_equal(np.concatenate([before, whole[stop:stop + 1], after[:-1]]), whole)


def test_a_schedule_of_ones_own_needs_only_decide():
    class Above(Schedule):
        def decide(self, score):
            return "motivated" if score > 3 else "base"

    assert phases(Above(), [5, 1, 1]).tolist() == [False, True, False]
    assert phases(WarmUp(Above(), 2), [5, 5, 1]).tolist() == [False, False, True]


@pytest.mark.parametrize(("make", "words"), [
    (lambda: WarmUp(Threshold(2), 100, total_steps=100), "none before step 100, and none from step 100 on"),
    (lambda: Window(Threshold(2), 0.999, 1.0, total_steps=100), "none before step 100, and none from step 100 on"),
    (lambda: Window(WarmUp(Threshold(2), 60), 0.0, 0.5, total_steps=100), "none before step 60, and none from step 50"),
    (lambda: WarmUp(CoolDown(Window(Threshold(2), 0.0, 0.5, total_steps=100), 3), 60), "none before step 60"),
    (lambda: Budget(Threshold(2), 0.001, total_steps=100, base_flops=10, motivated_flops=17), "fraction=0.001"),
])
def test_gates_that_never_open_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(("share", "per_epoch"), [(1 / 6, 17), (0.01, 17), (0.01, 390), (1 / 6, 390), (0.3, 3)])
def test_random_has_its_share_in_epochs_of_any_length(share, per_epoch):
    epochs = 4000
    schedule = Random(share, steps_per_epoch=per_epoch)
    counts = [schedule.count(epoch, np.random.default_rng(epoch)) for epoch in range(epochs)]
    assert max(counts) <= min(math.ceil(2 * share * per_epoch), per_epoch - 1)
    assert abs(np.mean(counts) - share * per_epoch) < 4 * np.std(counts) / math.sqrt(epochs)


@pytest.mark.parametrize("decided", ["expand", None])
def test_a_phase_of_another_name_is_refused(decided):
    class Mine(Schedule):
        def decide(self, score):
            return decided

    pair = motivation.create_pair("resnet20", "resnet32", num_classes=5, in_chans=1)
    trainer = motivation.Trainer(pair, lambda params: torch.optim.SGD(params, lr=0.1), torch.nn.CrossEntropyLoss(),
                                 Consecutive(), Mine())
    with pytest.raises(ValueError, match=f"Mine decided {decided!r}: a phase is 'base' or 'motivated'"):
        trainer.step(torch.rand(4, 1, 8, 8), torch.arange(4))


def test_a_ladder_climbs_once_a_motivated_step_and_stops_on_the_last_rung():
    """Its rung is the count of motivated steps so far, that of the step included; each of them is the inner one's."""
    scores = [0, 2, 2, 0, 2, 2, 2, 0]
    ladder = Ladder(Threshold(2), 4)
    inner = phases(Threshold(2), scores)
    climbed, rungs = [ladder.start() == "motivated"], [ladder.rung]
    for score in scores:
        climbed.append(ladder.decide(score) == "motivated")
        rungs.append(ladder.rung)
    assert rungs == np.cumsum(climbed).tolist() == [0, 0, 1, 2, 2, 3, 3, 3, 3]
    assert all(inner[step] for step, motivated in enumerate(climbed[:-1]) if motivated)


def test_a_climb_that_an_epoch_edge_takes_back_is_none():
    ladder = Ladder(Threshold(2, epoch_edge="contract"), 3)
    ladder.decide(2)
    assert (ladder.rung, ladder.end_epoch("motivated"), ladder.rung) == (1, "base", 0)


@pytest.mark.parametrize(("schedule", "climbs"), [
    (Never(), 0), (Periodic(40, 1), 2), (Progressive(0.01, total_steps=100), 1)])
def test_a_ladder_whose_end_is_never_reached_is_refused(schedule, climbs):
    with pytest.raises(ValueError, match=rf"is motivated in {climbs} of 100 steps, .*last of 4 rungs is never reached"):
        Ladder(schedule, 4, total_steps=100)
    if climbs:
        Ladder(schedule, climbs + 1, total_steps=100)
