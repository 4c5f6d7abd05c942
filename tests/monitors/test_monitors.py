"""Monitors: formulas against literal ones, rates on noise, power on planted progress, state in mid-window."""

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from motivation.monitors import (
    BY_NAME,
    AllOf,
    AnyOf,
    Bandit,
    Change,
    Consecutive,
    Ema,
    GradientAgreement,
    GradientNorm,
    Heldout,
    Invert,
    LearningProgress,
    Mastery,
    Monitor,
    NoiseScale,
    PairedHeldout,
    PredictionGain,
    Signal,
    Smooth,
    Trend,
)
from motivation.schedules import Quota, Threshold

MAKERS = {
    "consecutive": Consecutive,
    "ema": Ema,
    "heldout": Heldout,
    "gradient_norm": GradientNorm,
    "trend": lambda: Trend(20),
    "change": lambda: Change(20),
    "learning_progress": lambda: LearningProgress(10),
    "prediction_gain": PredictionGain,
    "gradient_agreement": GradientAgreement,
    "gradient_agreement_mean": lambda: GradientAgreement("mean", half_life=5),
    "noise_scale": lambda: NoiseScale(half_life=5),
    "paired_heldout": lambda: PairedHeldout(every=1),
    "mastery": lambda: Mastery(2, loss=1.0, every=1),
    "bandit": lambda: Bandit(every=1, seed=3),
    "smooth": lambda: Smooth(Trend(20), 5),
    "invert": lambda: Invert(Trend(20)),
    "all_of": lambda: AllOf([(Consecutive(), 1), (GradientAgreement(), 0.0)]),
    "any_of": lambda: AnyOf([(Consecutive(), 3), (Trend(20), 1.645), (PairedHeldout(every=1), 2)]),
}


def stream(steps, seed=0, fall=0.0, agreement=0.0, start=1.0):
    """Full signals of noise; the loss falls by `fall` deviations a step, gradients have a mean of `agreement`."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        level = start - 0.2 * fall * step
        loss = level + 0.2 * rng.normal()
        gradient = [torch.from_numpy(rng.normal(agreement, 1, shape)).float() for shape in ((20, 5), (7,))]
        yield Signal(loss, "motivated" if step % 7 == 3 else "base", 1000, loss - 0.01 * rng.normal(),
                     (level + 0.2 * rng.normal(size=16)).tolist(), gradient)


def scores(monitor, signals):
    return [monitor.observe(signal) for signal in signals]


def test_every_monitor_is_tried_here():
    tried = {type(make()) for make in MAKERS.values()}
    assert tried == set(BY_NAME.values())


def test_consecutive_counts_straight_decreases():
    assert scores(Consecutive(), [3.0, 2.0, 1.0, 1.0, 0.5, 0.7, 0.6]) == [1, 2, 3, 0, 1, 0, 1]


def test_a_signal_and_a_bare_loss_are_the_same():
    assert scores(Consecutive(), [Signal(loss, "motivated", 7) for loss in (2.0, 1.0, 3.0)]) == scores(
        Consecutive(), (2, 1, 3))


def test_ema_counts_relative_decreases_of_the_mean():
    """alpha 0.5, tolerance 0.1: the mean goes 2, 1.5, 1.25, 1.225, 1.6125; the third fall is only 2 %."""
    assert scores(Ema(0.5, 0.1), [2.0, 1.0, 1.0, 1.2, 2.0]) == [0, 1, 2, 0, 0]


def test_heldout_counts_decreases_of_the_mean_and_stands_between_probes():
    monitor = Heldout()
    signals = [Signal(1, heldout=[2.0, 2.0]), Signal(9), Signal(1, heldout=[1.0, 2.0]), Signal(9),
               Signal(1, heldout=[3.0, 2.0])]
    assert scores(monitor, signals) == [1, 1, 2, 2, 0]
    assert math.isnan(Heldout().observe(Signal(1.0)))


def test_gradient_norm_counts_increases_of_the_norm():
    gradients = [[torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])], [torch.tensor([6.0, 0.0]), torch.tensor([[0.0]])],
                 [torch.tensor([7.0, 0.0]), torch.tensor([[0.0]])], [torch.tensor([1.0, 0.0]), torch.tensor([[0.0]])]]
    monitor = GradientNorm()
    assert monitor.measure(gradients[0]).tolist() == [5.0]
    assert scores(monitor, [Signal(1, gradient=gradient) for gradient in gradients]) == [1, 2, 3, 0]


def literal_t(window):
    """Regression t from scipy, and its correction for the residuals' autocorrelation, written out."""
    fit = stats.linregress(np.arange(len(window)), window)
    residual = window - (fit.intercept + fit.slope * np.arange(len(window)))
    r = 1 - np.sum(np.diff(residual) ** 2) / (2 * np.sum(residual ** 2))
    t = -fit.slope / fit.stderr
    return t * math.sqrt((1 - r) / (1 + r)) if r > 2 / math.sqrt(len(window)) else t


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_trend_is_the_corrected_regression_t(offset):
    """Against scipy over sliding windows of white and of autocorrelated noise, also far from zero."""
    rng = np.random.default_rng(0)
    for noise in (rng.normal(size=300), rng.normal(size=300).cumsum()):
        losses = offset + noise
        found = scores(Trend(20), losses)
        assert all(map(math.isnan, found[:19]))
        expected = [literal_t(losses[end - 20:end]) for end in range(20, 301)]
        assert found[19:] == pytest.approx(expected, rel=1e-5 if offset else 1e-9)


def test_learning_progress_is_the_two_sample_t():
    losses = np.random.default_rng(1).normal(5, 1, 200)
    found = scores(LearningProgress(10), losses)
    expected = [stats.ttest_ind(losses[end - 20:end - 10], losses[end - 10:end]).statistic for end in range(20, 201)]
    assert found[19:] == pytest.approx(expected, rel=1e-9)
    assert all(map(math.isnan, found[:19]))


def test_constant_and_straight_losses_give_no_nan():
    assert set(scores(Trend(10), [2.0] * 50)[9:]) == {0.0}
    assert set(scores(LearningProgress(5), [2.0] * 50)[9:]) == {0.0}
    assert scores(Trend(10), [100 - 0.5 * step for step in range(50)])[-1] == math.inf
    assert scores(Trend(10), [0.5 * step for step in range(50)])[-1] == -math.inf
    assert set(scores(Change(10), [2.0] * 50)[10:]) == {0.0}


def test_prediction_gain_is_before_minus_after():
    assert scores(PredictionGain(), [Signal(2.0, after=1.5), Signal(3.0), Signal(1.0, after=1.25)]) == [0.5, 0.5, -0.25]


def test_gradient_agreement_is_the_cosine():
    a, b = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 3.0, 1.0])
    monitor = GradientAgreement()
    found = scores(monitor, [Signal(1, gradient=[part]) for part in (a, b, b, -a)])
    cosine = float(a @ b / (a.norm() * b.norm()))
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([cosine, 1, -cosine], rel=1e-6)
    mean = GradientAgreement("mean", half_life=1)
    found = scores(mean, [Signal(1, gradient=[part]) for part in (a, b, b)])
    middle = (a + b) / 2
    assert found[2] == pytest.approx(float(b @ middle / (b.norm() * middle.norm())), rel=1e-6)


def test_noise_scale_finds_the_planted_ratio():
    """|G|^2 = 0.25 x 400 and tr(S) = 400: the ratio is 0.25."""
    rng = np.random.default_rng(0)
    monitor = NoiseScale(half_life=200)
    found = scores(monitor, [Signal(1, gradient=[torch.from_numpy(rng.normal(0.5, 1, 400))]) for _ in range(2000)])
    assert found[-1] == pytest.approx(0.25, rel=0.1)


def test_paired_heldout_is_the_paired_t():
    rng = np.random.default_rng(0)
    before, after, last = rng.normal(2, 1, (3, 30))
    monitor = PairedHeldout(every=1)
    signals = [Signal(1, heldout=before), Signal(1), Signal(1, heldout=after), Signal(1, "motivated", heldout=last),
               Signal(1, "motivated", heldout=before)]
    found = scores(monitor, signals)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(stats.ttest_rel(before, after).statistic)
    assert found[3] == found[2], "another network's probe only sets the reference"
    assert found[4] == pytest.approx(stats.ttest_rel(last, before).statistic)


@pytest.mark.parametrize(("gain", "winner"), [(3.0, "motivated"), (0.4, "base")])
def test_bandit_prefers_the_arm_that_pays_per_flop(gain, winner):
    """Motivated steps cost 1.7 times as much; they win where they lower the loss by more than that, and only there."""
    rng = np.random.default_rng(0)
    monitor, loss, phase, motivated = Bandit(every=1, seed=1), 100.0, "base", []
    for _ in range(600):
        loss -= (0.01 * gain if phase == "motivated" else 0.01) + 0.003 * rng.normal()
        score = monitor.observe(Signal(1, phase, 1700 if phase == "motivated" else 1000, heldout=[loss]))
        phase = "motivated" if score >= 0 else "base"
        motivated.append(phase == "motivated")
    share = np.mean(motivated[100:])
    assert share > 0.8 if winner == "motivated" else share < 0.2
    assert 0 < np.mean(motivated) < 1, "both arms are tried"


def test_an_arm_that_epoch_edges_cut_short_is_judged_too():
    """Every 20th step an epoch's first, which a contracting edge gives to the base: the motivated arm, which raises the
    loss here, is tried and left again.
    """
    for per_epoch, every in ((20, 20), (2, 1), (2, 3), (10, 5)):
        monitor, schedule, loss = Bandit(every=every, seed=1), Threshold(0), 100.0
        phase, motivated = schedule.start(), []
        for step in range(per_epoch * 400):
            motivated.append(phase == "motivated")
            loss += 0.01 if phase == "motivated" else -0.01
            heldout = [loss] if step % every == 0 else None
            phase = schedule.decide(monitor.observe(Signal(1, phase, 1000, heldout=heldout)))
            if (step + 1) % per_epoch == 0:
                phase = schedule.end_epoch(phase)
        assert min(monitor.rewards) >= 2
        assert any(motivated)
        assert np.mean(motivated[len(motivated) // 2:]) < 0.2, (per_epoch, every)


def test_mastery_is_the_least_lower_bound_of_its_parts():
    """Wilson's lower bound in closed form, of shares of losses below the limit; the least part decides."""
    monitor = Mastery(2, confidence=0.95, loss=0.5, every=1)
    z, expected = 1.6448536269514722, []
    for share in (0.9, 0.6):
        centre, spread = share + z * z / 40, z * math.sqrt(share * (1 - share) / 20 + z * z / 1600)
        expected.append((centre - spread) / (1 + z * z / 20))
    losses = [0.4] * 18 + [0.5] * 2 + [0.1] * 12 + [2.0] * 8
    assert scores(monitor, [Signal(1, heldout=losses), Signal(9)]) == pytest.approx([min(expected)] * 2)
    monitor.observe(Signal(1, heldout=losses))
    assert monitor.reading == pytest.approx(expected)
    assert math.isnan(Mastery().observe(1.0))
    assert Mastery().observe(Signal(1, heldout=[math.log(2) / 2] * 8)) == 0


def test_paired_heldout_is_never_stuck():
    """Of any three probes in a row at least one gives a score, whatever the phases."""
    rng = np.random.default_rng(0)
    for phases in (["base", "motivated"] * 20, rng.choice(["base", "motivated"], 200).tolist()):
        monitor, found = PairedHeldout(1), []
        for phase in phases:
            before = monitor.last
            monitor.observe(Signal(1, phase, heldout=rng.normal(size=8).tolist()))
            found.append(monitor.last != before and not math.isnan(monitor.last))
        assert all(any(found[place:place + 3]) for place in range(len(phases) - 2))


@pytest.mark.parametrize("wrap", [Invert, lambda monitor: Smooth(monitor, 1e-3)])
def test_a_composed_monitor_behaves_as_if_alone(wrap):
    """`bandit` and `paired_heldout` give their last score again where a probe shows nothing: inside another too."""
    for make in (lambda: Bandit(every=1, seed=2), lambda: PairedHeldout(1)):
        alone, inside = make(), make()
        outer = wrap(inside)
        for signal in stream(60):
            expected, score = alone.observe(signal), outer.observe(signal)
            assert inside.last == expected or (math.isnan(expected) and math.isnan(inside.last))
            assert abs(score) == pytest.approx(abs(expected), nan_ok=True)


def test_inverted_levels_lie_between_scores():
    """By its own level an inverted monitor fires exactly where the inner one does not reach its own."""
    for make in (Consecutive, lambda: Trend(20), lambda: AllOf([(Consecutive(), 1), (Trend(20), 1.0)])):
        inner, outer = make(), Invert(make())
        schedule = Threshold(None)
        schedule.bind(outer)
        losses = np.random.default_rng(0).normal(size=400)
        reached = [inner.observe(loss) >= inner.level for loss in losses]
        fired = [outer.observe(loss) >= schedule.k for loss in losses]
        assert fired[20:] == [not on for on in reached[20:]]
        assert {True, False} == set(fired[20:])
    with pytest.raises(ValueError, match="k=-1: must be at least -1"):
        Threshold(-1).bind(Invert(AllOf([(Consecutive(), 1)])))


@pytest.mark.parametrize("name", MAKERS)
def test_a_bare_float_is_the_loss_and_shows_no_probe(name):
    by_float, by_signal = MAKERS[name](), MAKERS[name]()
    for loss in np.random.default_rng(0).normal(1, 0.2, 60).tolist():
        assert by_float.observe(loss) == pytest.approx(by_signal.observe(Signal(loss)), nan_ok=True)


def test_compositions():
    losses = [3.0, 2.0, 1.0, 4.0, 3.0]
    runs = scores(Consecutive(), losses)
    assert scores(Invert(Consecutive()), losses) == [-run for run in runs]
    assert scores(Smooth(Consecutive(), 1), losses) == pytest.approx([1, 1.5, 2.25, 1.125, 1.0625])
    pairs = [(Consecutive(), 2), (Invert(Consecutive()), -2)]
    assert scores(AllOf(pairs), losses) == [0, 1, 0, 0, 0]
    assert scores(AnyOf([(Consecutive(), 3), (Invert(Consecutive()), 0)]), losses) == [0, 0, 1, 1, 0]


def test_a_combination_asks_for_what_its_parts_need():
    monitor = AllOf([(GradientAgreement(every=5), 0.1), (Smooth(PairedHeldout(every=5), 3), 1)])
    assert monitor.needs == {"gradient", "heldout"}
    assert monitor.every == 5
    assert monitor.null == "none"
    with pytest.raises(ValueError, match="every 5 and every 20"):
        AnyOf([(GradientAgreement(every=5), 0.1), (PairedHeldout(every=20), 1)])


def test_measured_numbers_and_gradients_give_the_same_scores():
    """What the trainer reads from the device, and what a caller gives by hand."""
    for make in (GradientNorm, GradientAgreement, NoiseScale,
                 lambda: Smooth(GradientAgreement(), 3),
                 lambda: AllOf([(GradientNorm(), 1), (Consecutive(), 1), (GradientAgreement(), 0.0)])):
        by_hand, measured = make(), make()
        ours = scores(by_hand, stream(20))
        theirs = [measured.observe(signal._replace(measured=measured.measure(signal.gradient).tolist(), gradient=None))
                  for signal in stream(20)]
        assert np.array_equal(ours, theirs, equal_nan=True)


def fired_on_noise(monitor, steps=100_000, level=None, seed=0):
    losses = np.random.default_rng(seed).normal(1, 0.2, steps).tolist()
    return np.array(scores(monitor, losses)) >= (monitor.level if level is None else level)


def batch_means_error(fired):
    means = fired.reshape(100, -1).mean(1)
    return means.std(ddof=1) / math.sqrt(len(means))


@pytest.mark.parametrize(("make", "level"), [
    (Consecutive, 1), (Consecutive, 2), (Consecutive, 3), (Consecutive, 4), (Trend, 1.645), (lambda: Trend(30), 2.0),
    (LearningProgress, 1.645), (lambda: LearningProgress(20), 1.0)])
def test_nominal_rate_on_independent_noise(make, level):
    """100,000 steps, within three batch-means standard errors: decisions depend on one another."""
    fired = fired_on_noise(make(), level=level, seed=int(10 * level))
    assert fired.any()
    assert abs(fired.mean() - make().exceedance(level)) < 3 * batch_means_error(fired)


def test_nominal_rate_of_gradient_norms():
    monitor = GradientNorm()
    norms = np.random.default_rng(2).normal(10, 1, 100_000)
    fired = np.array([monitor.observe(Signal(1, measured=[norm])) >= 2 for norm in norms])
    assert abs(fired.mean() - monitor.exceedance(2)) < 3 * batch_means_error(fired)


def test_exceedance_is_unknown_where_it_is_said_to_be():
    for make in (Ema, Heldout, Change, GradientAgreement, NoiseScale, PairedHeldout, PredictionGain, Bandit):
        assert math.isnan(make().exceedance(1.0))


def test_average_run_length_of_the_change_detector():
    """On noise the first alarm at level 5 takes several windows; on a drop of one deviation, few steps."""
    lengths, delays = [], []
    for seed in range(40):
        rng, monitor = np.random.default_rng(seed), Change()
        lengths.append(next((step for step in range(20_000) if monitor.observe(rng.normal()) >= 5), 20_000))
        rng, monitor = np.random.default_rng(seed), Change()
        for _ in range(200):
            monitor.observe(rng.normal())
        delays.append(next(step for step in range(1, 2000) if monitor.observe(rng.normal(-1)) >= 5))
    assert np.median(lengths) > 400
    assert np.median(delays) <= 15


@pytest.mark.parametrize(("name", "level", "delay"), [
    ("consecutive", 2, 30), ("ema", 1, 60), ("trend", 1.645, 80), ("change", 3, 80), ("learning_progress", 1.645, 80),
    ("heldout", 2, 40), ("gradient_norm", 2, 80), ("gradient_agreement", 0.1, 20),
    ("gradient_agreement_mean", 0.1, 20), ("noise_scale", 0.05, 60), ("paired_heldout", 2, 60),
    ("smooth", 0.8, 120), ("invert", 1.0, 300), ("all_of", 1, 40), ("any_of", 1, 40)])
def test_planted_progress_is_noticed_and_its_end_too(name, level, delay):
    """Every trigger fires within its stated delay and stops again; `invert` fires on the plateau instead."""
    monitor = MAKERS[name]()
    quiet = scores(monitor, stream(200, seed=1, start=5))
    progress = scores(monitor, stream(200, seed=2, start=5, fall=0.1, agreement=0.5))
    after = scores(monitor, stream(300, seed=3))
    if name == "invert":
        assert max(quiet[20:]) >= level > min(progress[20:])
        return
    first = next((step for step, score in enumerate(progress) if score >= level), math.inf)
    assert first < delay
    assert any(score < level for score in after)
    assert any(score < level or math.isnan(score) for score in quiet)


def test_trend_sees_more_of_progress_than_of_noise():
    """A fall of one deviation in 50 steps: found at four steps of five, against one in twenty on noise."""
    rng = np.random.default_rng(0)
    falling = [rng.normal() - step / 50 for step in range(5000)]
    share = np.mean(np.array(scores(Trend(), falling))[100:] >= 1.645)
    assert share > 0.8


@pytest.mark.parametrize("name", MAKERS)
def test_state_round_trip_in_mid_window_is_exact(name):
    """Through tensors and JSON-able values, at an odd place, into a new monitor: the same scores bit for bit."""
    whole, resumed = MAKERS[name](), MAKERS[name]()
    signals = list(stream(90))
    scores(whole, signals[:47])
    state = whole.state_dict()
    plain = {key: value for key, value in state.items() if not torch.is_tensor(value)}
    json.dumps(plain, default=lambda value: value.tolist())
    resumed.load_state_dict(state)
    scores(whole, [])
    ours, theirs = scores(whole, signals[47:]), scores(resumed, signals[47:])
    assert np.array_equal(ours, theirs, equal_nan=True)
    resumed.load_state_dict(state)
    assert np.array_equal(scores(resumed, signals[47:]), ours, equal_nan=True), "the saved state is a copy"


def test_memory_is_constant():
    for name, make in MAKERS.items():
        monitor = make()
        sizes = []
        for count in (150, 150):
            scores(monitor, stream(count))
            sizes.append(len(str({key: getattr(value, "shape", value) for key, value in monitor.state_dict().items()
                                  if key not in ("monitors", "monitor")}).split(",")))
        assert sizes[0] == sizes[1], name


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Ema(0), "alpha=0"), (lambda: Ema(0.02, 0.5), "tolerance=0.5"), (lambda: Heldout(0), "every=0"),
    (lambda: Trend(5), "window=5: must be at least 8"),
    (lambda: Trend(100, total_steps=50), "window=100: longer than training, which has 50 steps"),
    (lambda: LearningProgress(50, total_steps=60), "window=50: longer than training"),
    (lambda: Change(100, total_steps=60), "window=100: longer"), (lambda: Change(drift=-1), "drift=-1"),
    (lambda: Change(cap=math.inf), "cap=inf: must be"),
    (lambda: GradientAgreement("next"), "reference='next': must be one of last, mean"),
    (lambda: GradientAgreement(half_life=0), "half_life=0"), (lambda: NoiseScale(-1), "half_life=-1"),
    (lambda: Smooth(Trend(), 0), "half_life=0"), (lambda: Bandit(discount=0), "discount=0"),
    (lambda: LearningProgress(50, total_steps=60), "which has 60 steps for 2 such windows"),
    (lambda: Heldout(50, total_steps=20), "every=50: longer than training, which has 20 steps"),
    (lambda: PairedHeldout(50, total_steps=20), "every=50: longer"),
    (lambda: Bandit(50, total_steps=20), "every=50: longer"),
    (lambda: PredictionGain(50, total_steps=20), "every=50: longer"),
    (lambda: GradientAgreement("mean", 50, total_steps=20), "half_life=50: longer"),
    (lambda: NoiseScale(50, total_steps=20), "half_life=50: longer"),
    (lambda: NoiseScale(math.inf), "half_life=inf: must be"),
    (lambda: Smooth(Trend(), 50, total_steps=20), "half_life=50: longer"),
    (lambda: AllOf([(Consecutive(), 1), (GradientAgreement(), 2)]), r"pairs\[1\]: level 2: must be at most 1"),
    (lambda: AnyOf([(Consecutive(), 0)]), r"pairs\[0\]: level 0: must be at least 1"),
    (lambda: Smooth(object(), 3), "^monitor=<object.*must be a Monitor"),
    (lambda: AllOf([]), "pairs"),
    (lambda: AnyOf([(PredictionGain(), math.nan)]), r"pairs\[0\]\[1\]=nan: must be")])
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_monitor_of_ones_own_needs_only_observe():
    class Last(Monitor):
        def observe(self, signal):
            return signal.loss

    assert Last().observe(Signal(3.0)) == 3.0
    assert Last().state_dict() == {"last": pytest.approx(math.nan, nan_ok=True)}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_docstring_says_what_it_is(name):
    """Signal, formula, unit, cost, memory, and what happens when nothing is learned."""
    text = " ".join(BY_NAME[name].__doc__.split())
    for part in ("Signal: ", "Formula: ", "Unit: ", "Extra FLOPs: ", "Memory: ", "Under no progress"):
        assert part in text, part


def noise_of(kind, steps):
    rng = np.random.default_rng(7)
    rho, values, value = {"independent": 0.0, "AR(1) 0.8": 0.8}[kind], [], 0.0
    for normal in rng.normal(size=steps):
        value = rho * value + math.sqrt(1 - rho * rho) * normal
        values.append(float(1 + 0.2 * value))
    return values


@pytest.mark.parametrize("kind", ["independent", "AR(1) 0.8"])
@pytest.mark.parametrize("make", [
    Consecutive, Ema, Trend, Change, LearningProgress, lambda: Smooth(Trend(), 20), lambda: Invert(Trend()),
    lambda: AllOf([(Consecutive(), 1), (Trend(), 1.645)]), lambda: AnyOf([(Consecutive(), 3), (Trend(), 1.645)])])
def test_documented_rates_hold(make, kind):
    """The null rates that docs/monitors.md prints, measured again on other noise."""
    monitor = make()
    expected = printed_rates()[type(monitor).__name__.lower()][kind]
    fired = 100 * np.mean(np.array(scores(monitor, noise_of(kind, 40_000)))[200:] >= monitor.level)
    assert abs(fired - expected) < 1.2 + 0.15 * expected, "about three standard errors"


def printed_rates():
    """By monitor (its name without ``_``), the rates on independent noise and, in brackets, on AR(1) noise with 0.8."""
    rates = {}
    for line in (Path(__file__).parents[2] / "docs" / "monitors.md").read_text().splitlines():
        cells = line.split("|")
        if len(cells) == 11 and (names := re.findall("`([a-z_]+)`", cells[1])) and "(" in cells[5]:
            plain, correlated = (re.findall(r"([0-9.]+) %", part) for part in cells[5].split("("))
            for name, *both in zip(names, plain[-len(names):], correlated, strict=True):
                rates[name.replace("_", "")] = dict(zip(("independent", "AR(1) 0.8"), map(float, both), strict=True))
    return rates


@pytest.mark.parametrize("make", [Consecutive, Ema, Trend, Change, LearningProgress, lambda: Smooth(Trend(), 20),
                                  lambda: AllOf([(Consecutive(), 1), (Trend(), 1.645)])])
@pytest.mark.parametrize("schedule", [lambda: Threshold(1), lambda: Quota(1 / 6)])
def test_observing_and_deciding_take_at_most_20_microseconds(make, schedule):
    """The best of 20 blocks of 200 steps: what the machine does beside it is not ours."""
    monitor, schedule, losses = make(), schedule(), noise_of("independent", 4000)
    times = []
    for start in range(0, 4000, 200):
        begin = time.perf_counter()
        for loss in losses[start:start + 200]:
            schedule.decide(monitor.observe(loss))
        times.append((time.perf_counter() - begin) / 200)
    assert min(times) <= 20e-6
