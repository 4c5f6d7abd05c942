"""Null rates against noise whose rate is known, and verdicts on runs that measured progress, noise, or neither."""

import csv
import json
import math

import numpy as np
import pytest
import yaml
from scipy.signal import lfilter

import motivation.null.rate
from motivation.analysis.diagnose import diagnose, report, share_error, tenths
from motivation.analysis.figures import draw_diagnoses
from motivation.cli.main import main
from motivation.monitors import Consecutive, Ema, GradientAgreement, LearningProgress, PredictionGain, Smooth, Trend
from motivation.null.rate import SIMULATIONS, null_rate
from motivation.run_folder.read import read_run
from motivation.schedules import Always, CoolDown, Never, Progressive, Quota, Threshold

STEPS, PER_EPOCH = 6000, 100


def falling(steps, noise, seed=0):
    """A training curve: an exponential fall from 2.3 to 0.3, with noise."""
    time = np.arange(steps) / steps
    return 0.3 + 2 * np.exp(-4 * time) + noise * np.random.default_rng(seed).normal(size=steps)


def scores_of(monitor, readings):
    """A monitor's scores ``(n,)`` of readings ``(n, numbers)``, one after another."""
    scores = np.empty(len(readings))
    for index, reading in enumerate(readings.tolist()):
        scores[index] = monitor.last = monitor.score(*reading)
    return scores


def decide(schedule, scores, per_epoch):
    """Which steps a schedule makes motivated, from the scores after them."""
    phase, phases = schedule.start(), []
    for step, score in enumerate(scores.tolist(), start=1):
        phases.append(phase == "motivated")
        phase = schedule.decide(score)
        if step % per_epoch == 0:
            phase = schedule.end_epoch(phase)
    return np.array(phases)


def write_run(folder, losses, monitor_spec, schedule_spec, monitor, schedule, signals=None):
    """A run folder as training leaves it, its phases by this monitor and schedule; `signals` go to signals.csv."""
    folder.mkdir(parents=True)
    readings = losses[:, None] if signals is None else signals
    motivated = decide(schedule, scores_of(monitor, readings), PER_EPOCH)
    with open(folder / "steps.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "phase", "loss", "score", "lr", "flops"])
        for step, (loss, on) in enumerate(zip(losses, motivated, strict=True)):
            writer.writerow([step, step // PER_EPOCH, "motivated" if on else "base", repr(float(loss)), 0.0, 0.1, 30])
    if signals is not None:
        np.savetxt(folder / "signals.csv", np.column_stack([np.arange(len(signals)), signals]), delimiter=",",
                   header="step,x", comments="")
    config = {"seed": 0, "model": {"name": "pair", "base": "resnet8", "motivated": "resnet14"},
              "data": {"name": "digits"}, "recipe": {"epochs": 60}, "monitor": monitor_spec, "schedule": schedule_spec}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    row = {"base/top1": 50.0, "motivated/top1": 51.0, "budget/flops": 1, "steps/base": int((~motivated).sum()),
           "steps/motivated": int(motivated.sum()), "base/forward_flops": 10, "motivated/forward_flops": 17}
    (folder / "epochs.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "summary.json").write_text(json.dumps({**row, "seed": 0, "null_rate": None}))
    return folder


@pytest.fixture(autouse=True)
def _short_simulations(monkeypatch):
    """A quarter of the steps, enough for every bound here."""
    monkeypatch.setattr(motivation.null.rate, "SIMULATED_STEPS", 50_000)
    monkeypatch.setattr(motivation.null.rate, "SIMULATIONS", (8, 200))


PAPER = {"name": "threshold", "k": 2, "epoch_edge": "contract"}
CARRY = {"name": "threshold", "k": None, "epoch_edge": "carry"}


def rate_of(make_monitor, make_schedule, readings, seed=0, at=None, kind=None):
    def trigger():
        monitor, schedule = make_monitor(), make_schedule()
        schedule.bind(monitor)
        return monitor, schedule

    at = np.arange(len(readings)) if at is None else at
    return null_rate(trigger, at, np.reshape(readings, (len(readings), -1)), np.zeros(int(at[-1]) + 1, bool), PER_EPOCH,
                     kind=kind, seed=seed)


def test_the_papers_null_is_in_closed_form():
    null = rate_of(Consecutive, lambda: Threshold(2), falling(STEPS, 0.1), kind="analytic")
    assert (null.kind, null.rate) == ("analytic", 1 / 6 * (1 - 1 / PER_EPOCH))
    assert null.motivated.mean() == pytest.approx(null.rate, abs=0.005)


def test_a_closed_form_judges_runs_of_few_readings_alone():
    """Losses that wander: the closed form is beside the rate of their own noise, which judges from 96 readings on."""
    losses = lfilter([1.0], [1.0, -0.6], np.random.default_rng(0).normal(size=STEPS))
    closed = 1 / 6 * (1 - 1 / PER_EPOCH)
    null = rate_of(Consecutive, lambda: Threshold(2), losses)
    assert (null.kind, null.independent) == ("permute", closed)
    assert null.rate > closed + 0.03
    short = rate_of(Consecutive, lambda: Threshold(2), losses[:95])
    assert (short.kind, short.rate, short.independent) == ("analytic", closed, closed)
    assert math.isnan(rate_of(lambda: Trend(30), lambda: Threshold(None), losses).independent)


def test_at_least_twenty_runs_are_simulated(monkeypatch):
    """However long the run is: with two, up to 23 of 120 intervals of 95 % missed."""
    monkeypatch.setattr(motivation.null.rate, "SIMULATIONS", SIMULATIONS)
    monkeypatch.setattr(motivation.null.rate, "SIMULATED_STEPS", 2000)
    assert rate_of(Consecutive, lambda: Threshold(2), falling(1000, 0.1)).motivated.shape == (20, 1000)


def test_composed_schedules_are_simulated():
    """A cool-down of 10 after the paper's rule: no closed form, and the rate of simulated noise is the true one."""
    null = rate_of(Consecutive, lambda: CoolDown(Threshold(2), 10), falling(STEPS, 0.1))
    monitor = Consecutive()
    scores = [monitor.observe(loss) for loss in np.random.default_rng(9).normal(size=60_000)]
    assert null.rate == pytest.approx(decide(CoolDown(Threshold(2), 10), np.array(scores), PER_EPOCH).mean(), abs=0.005)
    assert math.isnan(null.independent)


@pytest.mark.parametrize(("make", "level"), [(lambda: Trend(30), 1.645), (lambda: LearningProgress(15), 1.645),
                                             (lambda: Smooth(Trend(30), 10), 1.0)])
def test_permutation_finds_the_rate_of_the_noise_under_a_fall(make, level):
    """On a falling curve the null is that of its noise alone: far from the curve's own rate, near the noise's."""
    schedule = lambda: Threshold(level, epoch_edge="carry")  # noqa: E731 - a factory as the others
    losses = falling(STEPS, 0.1)
    null = rate_of(make, schedule, losses)
    noise = np.random.default_rng(4).normal(size=100_000)
    truth = np.mean(scores_of(make(), noise[:, None]) >= level)
    observed = np.mean(scores_of(make(), losses[:, None]) >= level)
    assert null.kind == "permute"
    assert null.rate == pytest.approx(truth, rel=0.2)
    assert observed > 1.2 * null.rate


def test_permuting_raw_losses_would_be_wrong():
    """Why the trend goes first: `ema` counts falls relative to its level, and a falling curve's spread is no noise."""
    losses = falling(STEPS, 0.05)
    null = rate_of(Ema, lambda: Threshold(2, epoch_edge="carry"), losses)
    raw = np.random.default_rng(1).permutation(losses)
    assert np.mean(scores_of(Ema(), raw[:, None]) >= 2) > 2 * null.rate


def test_signs_are_flipped():
    """Cosines of one sign: all at the level in the run, half of them under the null."""
    cosines = np.full(2000, 0.3)
    null = rate_of(GradientAgreement, lambda: Threshold(0.1, epoch_edge="carry"), cosines)
    assert null.kind == "signflip"
    assert null.rate == pytest.approx(0.5, abs=0.01)


def test_readings_between_probes_stand():
    null = rate_of(lambda: GradientAgreement(every=10), lambda: Threshold(0.1, epoch_edge="carry"), np.full(200, 0.3),
                   at=np.arange(200) * 10)
    lengths = np.diff(np.flatnonzero(np.diff(null.motivated[0].astype(int))))
    assert set(lengths % 10) == {0}


def test_a_lag_decides_on_what_was_read_so_many_steps_ago():
    """Probes every 10 steps change the phase in steps of one remainder; a lag of 3 moves them 3 steps on."""
    flips = {}
    for lag in (0, 3):
        def trigger():
            return GradientAgreement(every=10), Threshold(0.1, epoch_edge="carry")

        null = null_rate(trigger, np.arange(200) * 10, np.full((200, 1), 0.3), np.zeros(1991, bool), PER_EPOCH, lag)
        flips[lag] = set((1 + np.flatnonzero(np.diff(null.motivated.astype(int), axis=1).any(0))) % 10)
    assert flips == {0: {1}, 3: {4}}


@pytest.mark.parametrize("lag", [0, 5])
def test_the_null_of_a_run_has_its_lag(tmp_path, lag):
    """A window of 30 has its first score after step 29; it decides on step 30, or so many later."""
    spec = {"name": "trend", "window": 30, "lag": lag}
    run = read_run(write_run(tmp_path / "run", falling(STEPS, 0.1), spec, CARRY, Trend(30),
                             Threshold(1.645, epoch_edge="carry")))
    first = [int(np.argmax(phases)) for phases in diagnose(run).noise.null.motivated]
    assert min(first) == 30 + lag


@pytest.mark.parametrize(("schedule", "share"), [(Never, 0.0), (Always, 1.0), (lambda: Quota(0.3), 0.3),
                                                 (lambda: Progressive(0.25, total_steps=STEPS), 0.25)])
def test_set_shares_are_their_own_null(schedule, share):
    null = rate_of(PredictionGain, schedule, np.ones((STEPS, 2)))
    assert null.kind == "set"
    assert null.rate == pytest.approx(share, abs=0.002)


def test_no_null_is_said_to_be_none():
    null = rate_of(PredictionGain, lambda: Threshold(0.1), np.ones((STEPS, 2)))
    assert math.isnan(null.rate)
    assert "PredictionGain" in null.reason
    short = rate_of(Trend, lambda: Threshold(None), falling(200, 0.1))
    assert math.isnan(short.rate)
    assert "too few" in short.reason


def test_readings_that_are_not_finite_have_no_null():
    losses = falling(STEPS, 0.1)
    losses[50] = math.inf
    null = rate_of(Trend, lambda: Threshold(None), losses)
    assert null.kind == "none"
    assert "not finite" in null.reason


def test_constant_readings_never_expand():
    null = rate_of(lambda: Trend(30), lambda: Threshold(None), np.full(STEPS, 2.0))
    assert null.rate == 0


def test_share_error_holds_what_it_promises():
    """95 % intervals of a dependent share cover the truth about 95 times in 100, and a fading rate widens none."""
    covered = []
    for seed in range(200):
        monitor = Trend(20)
        noise = np.random.default_rng(seed).normal(size=(4019, 1))
        fired = scores_of(monitor, noise)[19:] >= 1.0
        error, quantile = share_error(fired)
        covered.append(abs(fired.mean() - Trend(20).exceedance(1.0)) < quantile * error + 0.005)
    assert np.mean(covered) > 0.88
    fading = np.random.default_rng(0).random(4000) < np.repeat(np.linspace(0.9, 0.1, 10), 400)
    assert share_error(fading)[0] < 0.01
    assert np.isnan(share_error(np.array([True, False]))[0])
    assert np.isnan(tenths(np.array([True] * 4))[-1])


def test_the_papers_monitor_on_a_quiet_curve_is_noise(tmp_path):
    losses = falling(STEPS, 0.3)
    run = read_run(write_run(tmp_path / "run", losses, {"name": "consecutive", "lag": 0}, PAPER, Consecutive(),
                             Threshold(2)))
    found = diagnose(run)
    assert found.verdict.startswith("The expansions cannot be told from noise: ")
    assert found.noise.low < 0 < found.noise.high
    assert found.observed == pytest.approx(1 / 6, abs=0.02)
    assert np.mean(found.lengths) == pytest.approx(np.mean(found.noise.lengths), rel=0.1)


def test_a_trend_on_a_falling_curve_is_progress(tmp_path):
    schedule = Threshold(1.645, epoch_edge="carry")
    run = read_run(write_run(tmp_path / "run", falling(STEPS, 0.1), {"name": "trend", "window": 50}, CARRY, Trend(50),
                             schedule))
    found = diagnose(run)
    assert found.verdict.startswith("The expansions measured progress: ")
    assert found.noise.low > 0
    assert found.by_tenth[0] > 3 * found.noise.by_tenth[0]
    text = report(found)
    assert text.splitlines()[-1] == found.verdict
    assert "noise: noise like that of the run's own readings" in text


def test_a_run_that_never_expands_says_so(tmp_path):
    losses = np.tile([1.0, 2.0], STEPS // 2)
    run = read_run(write_run(tmp_path / "run", losses, {"name": "consecutive"}, PAPER, Consecutive(), Threshold(2)))
    found = diagnose(run)
    assert found.verdict == f"No expansion: no step is motivated where noise gives {found.noise.null.rate:.1%}."
    assert found.independent.null.rate == pytest.approx(1 / 6 * (1 - 1 / PER_EPOCH))


def test_the_papers_null_is_asked_about_the_runs_own_noise_too(tmp_path):
    """Losses that wander: far more straight decreases than of independent ones, and none of them progress."""
    losses = 2 + 0.2 * lfilter([1.0], [1.0, -0.6], np.random.default_rng(0).normal(size=STEPS))
    run = read_run(write_run(tmp_path / "run", losses, {"name": "consecutive"}, PAPER, Consecutive(), Threshold(2)))
    found = diagnose(run)
    assert (found.noise.null.kind, found.independent.null.kind) == ("permute", "analytic")
    assert found.independent.low > 0.02
    assert found.noise.low < 0 < found.noise.high
    assert found.verdict.startswith("The expansions cannot be told from noise: ")
    assert "independent noise 16.5%" in found.verdict
    assert found.verdict.endswith("; readings that are correlated, or differ between the networks, are no progress.")
    rows = [line.split("|")[1].strip() for line in report(found).splitlines() if line.startswith("|")]
    assert rows[2:] == ["motivated steps", "on noise like its own", "on independent noise"]


def test_progress_is_more_than_either_noise(tmp_path):
    losses = np.resize([2.0, 1.0, 0.0], STEPS) + 0.05 * np.random.default_rng(0).normal(size=STEPS)
    run = read_run(write_run(tmp_path / "run", losses, {"name": "consecutive"}, PAPER, Consecutive(), Threshold(2)))
    found = diagnose(run)
    assert min(found.noise.low, found.independent.low) > 0.1
    assert found.verdict.startswith("The expansions measured progress: ")


def test_a_closed_form_alone_shows_no_progress(tmp_path):
    """68 steps, as of table 7 at scale smoke: too few for noise like their own, whatever the share."""
    losses = np.resize([2.0, 1.0, 0.0], 68) + 0.05 * np.random.default_rng(0).normal(size=68)
    run = read_run(write_run(tmp_path / "run", losses, {"name": "consecutive"}, PAPER, Consecutive(), Threshold(2)))
    found = diagnose(run)
    assert (found.noise.null.kind, found.independent) == ("analytic", None)
    assert found.noise.low > 0
    assert found.verdict.startswith("The expansions cannot be told from noise: ")
    assert "independent noise gives" in found.verdict


def test_recorded_signals_are_what_is_flipped(tmp_path):
    cosines = np.random.default_rng(0).normal(0.2, 0.2, (STEPS, 1))
    schedule = Threshold(0.1, epoch_edge="carry")
    spec = {"name": "gradient_agreement"}
    folder = write_run(tmp_path / "run", falling(STEPS, 0.1), spec, CARRY, GradientAgreement(), schedule, cosines)
    run = read_run(folder)
    found = diagnose(run)
    assert found.noise.null.kind == "signflip"
    assert found.observed == pytest.approx(0.69, abs=0.03)
    assert found.noise.null.rate == pytest.approx(0.38, abs=0.03)
    assert found.noise.low > 0


def test_controls_get_no_verdict(tmp_path):
    spec = {"name": "quota", "share": 0.2}
    run = read_run(write_run(tmp_path / "run", falling(STEPS, 0.1), {"name": "consecutive"}, spec, Consecutive(),
                             Quota(0.2)))
    found = diagnose(run)
    assert found.verdict.startswith("No verdict: 20.0% of steps are motivated, because the schedule sets the share")
    gone = {"name": "replay", "run": "nowhere"}
    run = read_run(write_run(tmp_path / "gone", falling(STEPS, 0.1), {"name": "consecutive"}, gone, Consecutive(),
                             Never()))
    found = diagnose(run)
    assert found.verdict.startswith("No expansion: no step is motivated, and its monitor and schedule cannot be built")
    assert "run=nowhere" in found.verdict
    assert draw_diagnoses([found, found]).axes


def test_command_line(tmp_path, capsys, finished):
    """A table, a sentence a run, and the figure's path as the last line; the summary holds the same null rate."""
    run, other = finished(), finished("schedule=never")
    capsys.readouterr()
    assert main(["diagnose", str(run), str(other), "--figure", "out.png"]) == 0
    *lines, figure = capsys.readouterr().out.splitlines()
    assert figure == "out.png"
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert sum(line.startswith("The expansions ") for line in lines) == 1
    assert sum(line.startswith("No expansion: no step is motivated") for line in lines) == 1
    assert diagnose(read_run(run)).noise.null.rate == json.loads((run / "summary.json").read_text())["null_rate"]


def test_classical_training_is_left_out_and_alone_refused(tmp_path, capsys, caplog, finished):
    classical, run = finished("model=resnet8"), finished()
    capsys.readouterr()
    assert main(["diagnose", str(classical), str(run), "--figure", str(tmp_path / "out.png")]) == 0
    captured = capsys.readouterr()
    assert caplog.messages == [f"{classical} is left out: training of one network has no expansions"]
    assert str(run) in captured.out
    assert str(classical) not in captured.out
    assert main(["diagnose", str(classical)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "training of one network has no expansions to diagnose; name a run of a pair" in line
    assert main(["diagnose", "nowhere"]) == 1
    assert "no such run folder" in capsys.readouterr().err


def test_too_short_a_run_gets_no_verdict(finished, tmp_path):
    found = diagnose(read_run(finished("schedule=threshold", "monitor=trend", "monitor.window=16")))
    assert found.noise.null.kind == "none"
    assert "16 readings are too few for a null" in found.verdict
    run = write_run(tmp_path / "run", np.array([2.0, 1.0, 0.5]), {"name": "consecutive"}, PAPER, Consecutive(),
                    Threshold(2))
    assert "in too few steps to tell them apart" in diagnose(read_run(run)).verdict


