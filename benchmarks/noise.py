"""What monitors and schedules do on noise and on planted progress; docs/monitors.md quotes it.

*rates*, a row a monitor at its own level: the share of steps at or above the level when nothing is learned
(independent noise, autocorrelated noise, noise whose spread swells and ebbs), and the steps until a planted progress is
noticed and until its end is. Then the average run length of the change detector, and the realised share of every
schedule.

Losses are 1 + 0.2 x noise. Swelling noise has a deviation from 1/3 to 3 times that, over 1,000 steps. Gradients are
1,000 normals; held-out losses are those of 64 images that share half of their noise's variance. Planted progress, after
1,000 steps of independent noise: losses fall by one deviation in 50 steps, for 1,000 steps; gradients get a fixed mean
of a third of their deviation.

*power*: how many of 24 runs of 1,500 steps `motivation diagnose` would call progress, at the monitor's own level,
where the loss falls by one deviation in 50 steps from step 500 to 1,000 (a gradient has its mean meanwhile), and where
nothing is planted.

*null*: the null rate that `motivation diagnose` finds on a training curve, over the rate on its noise alone, at the
curve's mean level (of each tenth, where a tenth has eight windows). Curves fall from about 2.3 to 0.3; the smallest and
largest ratio over noises of 0.02, 0.1 and 0.5, each the mean of several curves.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal
from unittest import mock

import numpy as np
import torch

import motivation.null.rate
from motivation.analysis.diagnose import excess_interval
from motivation.monitors import (
    AllOf,
    AnyOf,
    Change,
    Consecutive,
    Ema,
    GradientAgreement,
    GradientNorm,
    Heldout,
    Invert,
    LearningProgress,
    Monitor,
    NoiseScale,
    PairedHeldout,
    PredictionGain,
    Signal,
    Smooth,
    Trend,
)
from motivation.null.rate import TENTHS, WINDOWS, null_rate, simulate_phases
from motivation.schedules import (
    Budget,
    CoolDown,
    MaxInterval,
    MinInterval,
    Periodic,
    Progressive,
    Quota,
    Random,
    Schedule,
    Threshold,
    WarmUp,
    Window,
)
from motivation.validation import Count

from .table import Table

MONITORS: dict[str, Callable[[], Monitor]] = {
    "consecutive": Consecutive,
    "ema": Ema,
    "heldout": Heldout,
    "gradient_norm": GradientNorm,
    "trend": Trend,
    "change": Change,
    "learning_progress": LearningProgress,
    "prediction_gain": PredictionGain,
    "gradient_agreement": GradientAgreement,
    "gradient_agreement, mean": lambda: GradientAgreement("mean"),
    "noise_scale": NoiseScale,
    "paired_heldout": lambda: PairedHeldout(every=1),
    "smooth(trend)": lambda: Smooth(Trend(), 20),
    "invert(trend)": lambda: Invert(Trend()),
    "all_of(consecutive 1, trend)": lambda: AllOf([(Consecutive(), 1), (Trend(), 1.645)]),
    "any_of(consecutive 3, trend)": lambda: AnyOf([(Consecutive(), 3), (Trend(), 1.645)]),
}
SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "threshold": lambda: Threshold(2),
    "threshold, k_off 1": lambda: Threshold(2, k_off=1),
    "quota 0.1667": lambda: Quota(1 / 6, total_steps=20_000),
    "budget 0.2, spread": lambda: Budget(Threshold(1), 0.2, total_steps=20_000, base_flops=10, motivated_flops=17),
    "window 0 to 0.5": lambda: Window(Threshold(2), 0, 0.5, total_steps=20_000),
    "min_interval 5": lambda: MinInterval(Threshold(2), 5),
    "max_interval 5": lambda: MaxInterval(Threshold(1), 5),
    "cool_down 10": lambda: CoolDown(Threshold(2), 10),
    "warm_up 100": lambda: WarmUp(Threshold(2), 100),
    "random 0.1667": lambda: Random(1 / 6, steps_per_epoch=390),
    "periodic 6, 1": lambda: Periodic(6, 1),
    "progressive 0.1667": lambda: Progressive(1 / 6, total_steps=20_000),
}
NOISES = ("independent", "AR(1) 0.3", "AR(1) 0.8", "swelling")
PIXELS, IMAGES = 1000, 64
NULL_BOUND = 0.6, 1.7


def noise(kind: str, rng: np.random.Generator, steps: int, *shape: int) -> Iterator[np.ndarray]:
    """Standard normal noise ``shape``, a step at a time; of unit variance on average where it is independent or AR."""
    rho = float(kind.split()[1]) if kind.startswith("AR") else 0.0
    value = rng.standard_normal(shape)
    for step in range(steps):
        value = rho * value + math.sqrt(1 - rho * rho) * rng.standard_normal(shape)
        yield value * (3 ** math.sin(2 * math.pi * step / 1000) if kind == "swelling" else 1)


def signals(monitor: Monitor, kind: str, steps: int, seed: int, progress: Callable[[int], tuple[float, float]]):
    """Signals of noise, with `progress(step)` = (fall of the loss in deviations, mean of the gradient) on top."""
    rng = np.random.default_rng(seed)
    if "gradient" in monitor.needs:
        for step, values in enumerate(noise(kind, rng, steps, PIXELS)):
            yield Signal(1.0, gradient=[torch.from_numpy(values + progress(step)[1]).float()])
    elif "heldout" in monitor.needs:
        both = zip(noise(kind, rng, steps), noise(kind, rng, steps, IMAGES), strict=True)
        for step, (shared, own) in enumerate(both):
            yield Signal(1.0, heldout=(1 + 0.2 * ((shared + own) / math.sqrt(2) - progress(step)[0])).tolist())
    else:
        for step, value in enumerate(noise(kind, rng, steps)):
            loss = float(1 + 0.2 * (value - progress(step)[0]))
            yield Signal(loss, after=loss - 0.01) if monitor.needs else loss


def nothing(step: int) -> tuple[float, float]:
    return 0.0, 0.0


def share_on_noise(make: Callable[[], Monitor], kind: str, steps: int, seed: int = 0) -> float:
    """Share of steps, from the first score on, at or above the monitor's own level."""
    monitor = make()
    scores = np.array([monitor.observe(signal) for signal in signals(monitor, kind, steps, seed, nothing)])
    return float(np.mean(scores[~np.isnan(scores)] >= monitor.level))


def planted(step: int, start: int = 1000, length: int = 1000) -> tuple[float, float]:
    """One deviation in 50 steps, for so many steps; a gradient's mean of a third of its deviation meanwhile."""
    return min(max(0, step - start), length) / 50, (1 / 3 if start <= step < start + length else 0.0)


def delays(make: Callable[[], Monitor], seed: int) -> tuple[float, float]:
    """Steps from the start of planted progress to the level, and from its end until below it; NaN for never."""
    monitor = make()
    stream = signals(monitor, "independent", 4000, seed, planted)
    fired = [monitor.observe(signal) >= monitor.level for signal in stream]
    start = next((step for step, on in enumerate(fired[1000:]) if on), math.nan)
    stop = next((step for step, on in enumerate(fired[2000:]) if not on), math.nan)
    return start, stop


def run_lengths(level: float, starts: int = 400, longest: int = 100_000) -> np.ndarray:
    """Steps from a fresh start to the first score at or above a level, on independent noise."""
    lengths = []
    for seed in range(starts):
        monitor = Change()
        rng = np.random.default_rng(seed)
        lengths.append(next((step for step in range(longest) if monitor.observe(rng.normal(1, 0.2)) >= level), longest))
    return np.array(lengths)


RUNS, RUN_STEPS, EPOCH_STEPS = 24, 1500, 50


def called_progress(make: Callable[[], Monitor], progress: Callable[[int], tuple[float, float]], seed: int) -> bool:
    """Whether a run of independent noise with progress on top is called progress."""
    def trigger():
        monitor, schedule = make(), Threshold(None, epoch_edge="carry")
        schedule.bind(monitor)
        return monitor, schedule

    monitor, schedule = trigger()
    phase, motivated, at, readings = schedule.start(), [], [], []
    for step, signal in enumerate(signals(monitor, "independent", RUN_STEPS, seed, progress)):
        motivated.append(phase == "motivated")
        score = monitor.observe(signal._replace(phase=phase) if isinstance(signal, Signal) else signal)
        if monitor.reading is not None:
            at.append(step)
            readings.append(monitor.reading)
        phase = schedule.decide(score)
    run = np.array(at), np.array(readings), np.array(motivated), EPOCH_STEPS
    return excess_interval(run[2], null_rate(trigger, *run, seed=seed))[1] > 0


def power(monitors: tuple[str, ...]) -> list[Table]:
    """Runs called progress, with progress planted and without."""
    table = Table("Power", {"monitor": "", "level": "g", f"runs of {RUNS} called progress, planted": "d",
                            "nothing planted": "d"}, [])
    for name in monitors:
        make = MONITORS[name]
        monitor = make()
        if math.isnan(monitor.level) or monitor.null == "none":
            continue
        with mock.patch.object(motivation.null.rate, "SIMULATED_STEPS", 12_000):
            counts = [sum(called_progress(make, progress, seed) for seed in range(RUNS))
                      for progress in (lambda step: planted(step, 500, 500), nothing)]
        table.rows.append((name, monitor.level, *counts))
    return [table]


CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exponential": lambda time: 0.3 + 2 * np.exp(-4 * time / len(time)),
    "power law": lambda time: 0.3 + 2 * (1 + time / 10) ** -0.5,
    "steps": lambda time: 0.3 + np.exp(-6 * time / len(time)) + 0.6 * (time < len(time) / 2) + 0.2 * (
        time < 0.75 * len(time)),
}
PERMUTED: dict[str, tuple[Callable[[], Monitor], float]] = {
    "trend, window 30": (lambda: Trend(30), 1.645),
    "trend": (Trend, 1.645),
    "ema": (Ema, 1),
    "learning_progress": (LearningProgress, 1.645),
    "change": (Change, 2.0),
    "heldout": (Heldout, 2),
}


def coloured(rho: float, steps: int, rng: np.random.Generator) -> np.ndarray:
    """AR(1) noise ``(steps,)`` of unit variance."""
    return np.fromiter(noise(f"AR {rho}", rng, steps), float, steps)


def null_over_truth(monitor: str, curve: str, rho: float, size: float, steps: int, curves: int) -> float:
    """Null rate on curves with noise over the rate on noise alone at its level; NaN where that is below 0.2 %."""
    make, level = PERMUTED[monitor]
    shape = CURVES[curve](np.arange(steps))
    parts = np.array_split(shape, max(1, min(TENTHS, steps // (WINDOWS * make().window))) if monitor == "ema" else 1)
    everything = np.arange(steps)
    nulls, truths = [], []

    def trigger():
        return make(), Threshold(level, epoch_edge="carry")

    def share(readings: np.ndarray) -> float:
        shown = dict.fromkeys(("base", "motivated"), readings[:, None].tolist())
        return float(simulate_phases(trigger()[1], [(make(), shown, 0)], steps, steps).mean())

    for seed in range(curves):
        rng = np.random.default_rng(seed)
        readings = shape + size * coloured(rho, steps, rng)
        null = null_rate(trigger, everything, readings[:, None], np.zeros(steps, bool), steps, seed=rng)
        nulls.append(null.rate)
        for _ in range(max(1, 15_000 // steps)):
            alone = size * coloured(rho, steps, rng)
            truths += [share(part.mean() + alone) for part in parts]
    return float(np.mean(nulls) / np.mean(truths)) if np.mean(truths) > 0.002 else math.nan


def null(lengths: tuple[int, ...]) -> list[Table]:
    """Null over true rates."""
    columns = [(curve, rho) for curve in CURVES for rho in (0.0, 0.5)]
    table = Table("Null rates on curves", {"monitor": "", "steps": "", **{
        f"{curve}, {'AR(1) 0.5' if rho else 'independent'}": "" for curve, rho in columns}}, [])
    outside = []
    for monitor in PERMUTED:
        for steps in lengths:
            cells = []
            for curve, rho in columns:
                with mock.patch.object(motivation.null.rate, "SIMULATED_STEPS", 20_000):
                    ratios = [null_over_truth(monitor, curve, rho, size, steps, max(4, 20_000 // steps))
                              for size in (0.02, 0.1, 0.5)]
                ratios = [ratio for ratio in ratios if not math.isnan(ratio)]
                outside += [ratio for ratio in ratios if not NULL_BOUND[0] <= ratio <= NULL_BOUND[1]]
                cells.append(f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "-")
            table.rows.append((monitor, f"{steps:,}", *cells))
    table.bounds[f"{NULL_BOUND[0]} to {NULL_BOUND[1]}; {len(outside)} ratios outside"] = not outside
    return [table]


def rates(steps: int, monitors: tuple[str, ...]) -> list[Table]:
    """Shares on noise, delays, run lengths, and shares of the schedules."""
    table = Table("Monitors on noise", {"monitor": "", "level": "g", "nominal": ".1%", **dict.fromkeys(NOISES, ".1%"),
                                        "fires after": "", "stops after": ""}, [])
    for name in monitors:
        make = MONITORS[name]
        monitor = make()
        length = max(1, steps // 10) if monitor.needs else steps
        fires = not math.isnan(monitor.level)
        shares = [share_on_noise(make, kind, length) if fires else math.nan for kind in NOISES]
        starts, stops = np.array([delays(make, seed) for seed in range(20)]).T
        table.rows.append((name, monitor.level, monitor.exceedance(monitor.level) if fires else math.nan, *shares,
                           _median(starts), _median(stops)))
    shares = Table("Schedules on consecutive", {"schedule": "", "realised share": ".2%"}, [])
    losses, monitor = np.random.default_rng(0).normal(size=20_000).tolist(), Consecutive()
    scores = [monitor.observe(loss) for loss in losses]
    for name, make_schedule in SCHEDULES.items():
        schedule = make_schedule()
        schedule.start()
        shares.rows.append((name, float(np.mean([schedule.decide(score) == "motivated" for score in scores]))))
    return [table, *([change_detector()] if "change" in monitors else []), shares]


def change_detector() -> Table:
    """Average run lengths by level."""
    table = Table("Change detector", {"level": "", "median run length, steps": ".0f", "mean": ".0f"}, [])
    for level in (4.0, 5.0, 6.0):
        found = run_lengths(level)
        table.rows.append((f"{level:g}", float(np.median(found)), float(found.mean())))
    return table


def measure(tables: Literal["rates", "power", "null"] = "rates", steps: Count = 100_000,
            monitors: tuple[Literal[tuple(MONITORS)], ...] = tuple(MONITORS),
            lengths: tuple[Count, ...] = (1000, 2000, 5000, 20_000)) -> list[Table]:
    """Measure this.

    Args:
        tables: which.
        steps: of noise, for ``rates``; a tenth of it where a monitor probes.
        monitors: for ``rates`` and ``power``.
        lengths: of curves in steps, for ``null``.
    """
    if tables == "rates":
        return rates(steps, monitors)
    return power(monitors) if tables == "power" else null(lengths)


def _median(values: np.ndarray) -> str:
    found = values[~np.isnan(values)]
    return "never" if not len(found) else f"{np.median(found):.0f}" + ("" if len(found) == len(values) else
                                                                     f" ({len(found)} of {len(values)})")
