"""The null rate on pure noise: a verdict of progress keeps its level, with the decisions fed back."""

import math
import os

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

import motivation.null.rate
from motivation.analysis.diagnose import excess_interval
from motivation.monitors import (
    Change,
    Consecutive,
    Ema,
    GradientAgreement,
    GradientNorm,
    Heldout,
    Invert,
    LearningProgress,
    NoiseScale,
    PairedHeldout,
    Signal,
    Smooth,
    Trend,
)
from motivation.null.noise import noise_of
from motivation.null.rate import NullRate, null_rate
from motivation.schedules import Threshold

RUNS, STEPS, PER_EPOCH = 24, 1500, 50
# Verdicts of progress on noise are to come in 2.5 % of runs; more than this come in less than 1 in 1,000 trials.
MOST = int(binom.ppf(0.999, RUNS, 0.025))
MONITORS = {
    "consecutive": (Consecutive, 2), "ema": (lambda: Ema(0.1), 1), "heldout": (Heldout, 2),
    "gradient_norm": (GradientNorm, 2), "trend": (lambda: Trend(30), 1.645),
    "learning_progress": (lambda: LearningProgress(15), 1.645), "change": (lambda: Change(30), 2),
    "gradient_agreement": (GradientAgreement, 0.1), "gradient_agreement_mean": (lambda: GradientAgreement("mean"), 0.1),
    "noise_scale": (lambda: NoiseScale(10), 0.03), "paired_heldout": (lambda: PairedHeldout(1), 2),
    "paired_heldout_5": (lambda: PairedHeldout(5), 2), "smooth": (lambda: Smooth(Trend(30), 10), 0.8),
    "invert": (lambda: Invert(Trend(30)), None), "smooth_paired": (lambda: Smooth(PairedHeldout(1), 2), 1),
}


def coloured(rho, steps, rng):
    return lfilter([math.sqrt(1 - rho * rho)], [1, -rho], rng.normal(size=steps + 200))[200:]


def trained_on_noise(monitor, schedule, rho, apart, rng):
    """A trainer whose networks learn nothing: steps and readings as signals.csv has them, and the phases.

    Loss and gradient norm of the motivated network lie so many deviations apart from the base's.
    """
    phase, gradient = schedule.start(), rng.normal(size=50)
    levels, at, readings, motivated = 1 + 0.2 * coloured(rho, STEPS, rng), [], [], []
    for step, level in enumerate(levels.tolist()):
        motivated.append(phase == "motivated")
        away = apart * motivated[-1]
        signal = Signal(level + 0.2 * away, phase)
        if monitor.needs and step % monitor.every == 0:
            heldout = level + 0.1 * rng.normal(size=16)
            before, gradient = gradient, rng.normal(size=50)
            measured = {0: None, 1: [10 + away + rng.normal()],
                        3: [gradient @ before, gradient @ gradient, before @ before]}
            signal = signal._replace(heldout=heldout.tolist(), measured=measured[monitor.numbers])
        score = monitor.observe(signal)
        if monitor.reading is not None:
            at.append(step)
            readings.append(monitor.reading)
        phase = schedule.decide(score)
        if (step + 1) % PER_EPOCH == 0:
            phase = schedule.end_epoch(phase)
    return np.array(at), np.array(readings), np.array(motivated)


SOAK = "MOTIVATION_SOAK" in os.environ
soak = pytest.mark.soak
# One of each kind of null, of noise that wanders, and of networks that differ; the others in `make soak`.
USUAL = [("consecutive", 0.0, 0.0), ("gradient_agreement", 0.0, 0.0), ("trend", 0.0, -1.5), ("consecutive", 0.3, 0.0),
         ("paired_heldout_5", 0.9, 0.0)]
OTHERS = [*((name, 0.0, 0.0) for name in MONITORS if name not in ("consecutive", "gradient_agreement")),
          ("heldout", 0.9, 0.0), ("paired_heldout", 0.9, 0.0), ("consecutive", 0.0, -1.0), ("gradient_norm", 0.0, 1.0)]


@pytest.mark.parametrize(("name", "rho", "apart"), [*USUAL, *(pytest.param(*case, marks=soak) for case in OTHERS)])
def test_noise_is_called_progress_in_one_run_of_forty(name, rho, apart, monkeypatch):
    """24 runs of independent noise; of noise that wanders, as one batch's losses do; of two networks that differ."""
    make, level = MONITORS[name]
    monkeypatch.setattr(motivation.null.rate, "SIMULATED_STEPS", 10_000)
    if not SOAK:
        monkeypatch.setattr(motivation.null.rate, "SIMULATIONS", (6, 200))

    def trigger():
        monitor, schedule = make(), Threshold(level)
        schedule.bind(monitor)
        return monitor, schedule

    progress, excesses, decided = 0, [], 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        at, readings, motivated = trained_on_noise(*trigger(), rho, apart, rng)
        excess, low, _ = excess_interval(motivated, null_rate(trigger, at, readings, motivated, PER_EPOCH, seed=rng))
        progress += low > 0
        excesses.append(excess)
        decided += 0 < motivated.mean() < 1
    assert decided == RUNS, "the trigger fires and stops in every run"
    assert progress <= MOST
    assert abs(np.mean(excesses)) < (0.04 if apart else 0.015)


def most(trials):
    """More intervals of 95 % than this miss in less than 1 in 1,000 trials."""
    return int(binom.ppf(0.999, trials, 0.05))


@pytest.mark.parametrize("simulations", [2, 5, 20])
def test_intervals_are_widened_where_few_runs_are_simulated(simulations):
    """Runs that differ as a whole, which batch means do not see: all that is known of it is from the simulated runs."""
    rng, trials, steps, missed = np.random.default_rng(0), 400, 400, 0
    for _ in range(trials):
        shares = rng.normal(0.3, 0.05, simulations + 1)
        run, *simulated = rng.random((simulations + 1, steps)) < shares[:, None]
        null = NullRate(np.mean(simulated), "permute", "", np.array(simulated))
        _, low, high = excess_interval(run, null)
        missed += not low < 0 < high
    assert missed <= most(trials)


@soak
@pytest.mark.parametrize(("name", "rho"), [("consecutive", 0.0), ("consecutive", 0.3), ("trend", 0.0),
                                           ("learning_progress", 0.0), ("gradient_agreement", 0.0), ("smooth", 0.0)])
def test_one_interval_in_twenty_misses(name, rho, monkeypatch):
    """Of 120 runs that are longer than `SIMULATED_STEPS`."""
    monkeypatch.setattr(motivation.null.rate, "SIMULATED_STEPS", STEPS)
    make, level = MONITORS[name]

    def trigger():
        monitor, schedule = make(), Threshold(level)
        schedule.bind(monitor)
        return monitor, schedule

    missed = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        run = trained_on_noise(*trigger(), rho, 0.0, rng)
        _, low, high = excess_interval(run[2], null_rate(trigger, *run, PER_EPOCH, seed=rng))
        missed += not low < 0 < high
    assert missed <= most(120)


CURVES = {
    "exponential": lambda time: 0.3 + 2 * np.exp(-4 * time / len(time)),
    "power law": lambda time: 0.3 + 2 * (1 + time / 10) ** -0.5,
    "steps": lambda time: 0.3 + np.exp(-6 * time / len(time)) + 0.6 * (time < len(time) / 2),
}


@pytest.mark.parametrize(("steps", "rho"), [(1000, 0.5), *(pytest.param(*case, marks=soak)
                                                            for case in [(1000, 0.0), (4000, 0.0), (4000, 0.5)])])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(("make", "level"), [(Trend, 1.645), (lambda: Trend(30), 1.645), (LearningProgress, 1.645)])
def test_the_null_of_a_curve_is_that_of_its_noise(make, level, curve, rho, steps, monkeypatch):
    """Small noise on steep, straight-edged or falling curves: within the bound of docs/monitors.md (0.8 to 1.5)."""
    monkeypatch.setattr(motivation.null.rate, "SIMULATED_STEPS", 20_000)

    def trigger():
        return make(), Threshold(level, epoch_edge="carry")

    rates = {"curve": [], "noise": []}
    for seed in range(2):
        noise = 0.05 * coloured(rho, steps, np.random.default_rng(seed))
        for name, readings in (("curve", CURVES[curve](np.arange(steps)) + noise), ("noise", 1 + noise)):
            rates[name].append(null_rate(trigger, np.arange(steps), readings[:, None], np.zeros(steps, bool), steps,
                                         seed=seed).rate)
    assert 0.8 < np.mean(rates["curve"]) / np.mean(rates["noise"]) < 1.5


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_noise_drawn_again_is_like_the_noise(rho):
    """Deviation and autocorrelation, off a curve that is a hundred times as large as its noise."""
    values = CURVES["power law"](np.arange(4000)) + 0.02 * coloured(rho, 4000, np.random.default_rng(0))
    drawn = noise_of(values, np.zeros(4000, bool)).draw(40_000, np.random.default_rng(1), 0.3, 1.0)
    assert drawn.std() == pytest.approx(0.02, rel=0.15)
    assert np.corrcoef(drawn[1:], drawn[:-1])[0, 1] == pytest.approx(rho, abs=0.06)


def test_a_difference_between_the_networks_is_no_noise():
    rng = np.random.default_rng(0)
    motivated = rng.random(4000) < 0.3
    drawn = noise_of(1 + 0.02 * rng.normal(size=4000) + 0.5 * motivated, motivated).draw(20_000, rng)
    assert drawn.std() == pytest.approx(0.02, rel=0.1)


def test_values_without_noise_have_next_to_none():
    motivated = np.random.default_rng(0).random(2000) < 0.3
    noise = noise_of(1.0 + 0.5 * motivated, motivated)
    assert np.abs(noise.draw(1000, np.random.default_rng(0))).max() < 0.005
    assert noise.difference() == pytest.approx(0.5, abs=0.005)
    assert not noise_of(np.ones(2000), motivated).draw(1000, np.random.default_rng(0)).any()


@pytest.mark.parametrize("rho", [0.0, 0.5])
@pytest.mark.parametrize("apart", [-1.0, 0.0])
def test_expanding_where_noise_is_low_makes_no_difference(rho, apart):
    """The networks' difference is what was planted, in a run whose phases follow its own noise."""
    found = []
    for seed in range(8):
        monitor, noise, motivated, values = Consecutive(), coloured(rho, 2000, np.random.default_rng(seed)), [], []
        for value in noise.tolist():
            motivated.append(monitor.last >= 2)
            values.append(value + apart * motivated[-1])
            monitor.observe(values[-1])
        found.append(noise_of(np.array(values), np.array(motivated)).difference())
    assert np.mean(found) == pytest.approx(apart, abs=0.1)
