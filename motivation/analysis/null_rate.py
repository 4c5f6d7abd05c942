"""How often a run's monitor and schedule would expand if nothing were learned.

The run's monitor scores readings that hold no progress, made as it declares (`Monitor.null`), and its schedule decides
on those scores. The readings are the run's own where the null needs their distribution:

- ``analytic``: independent readings; the rate is in closed form where the schedule has one.
- ``permute``: the run is cut into tenths (fewer where a tenth would be shorter than eight windows). In each the
  readings lose their trend, a linear spline with segments of at least eight windows, and the residuals are permuted in
  blocks of two windows. Permuting the raw readings of a falling curve would mistake its steps for noise.
- ``signflip``: the readings' signs are random.
- a share that the schedule sets, or that no score decides, is that share, and says nothing about noise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import motivation.monitors
import motivation.schedules
from motivation.analysis.runs import read_signals, read_steps
from motivation.config import build
from motivation.monitors import Monitor
from motivation.schedules import Schedule

TENTHS = 10
SEGMENT_WINDOWS = 8
SIMULATED_STEPS = 200_000


class NullRate(NamedTuple):
    """What noise would do.

    Attributes:
        rate: share of motivated steps; NaN where no null is defined.
        kind: ``analytic``, ``permute``, ``signflip``, ``set`` (the schedule's own share: no verdict) or ``none``.
        reason: why there is no null, or how it was made, in words.
        motivated: simulated phases, bool ``(simulations, steps)``; none where no null is defined.
    """

    rate: float
    kind: str
    reason: str
    motivated: np.ndarray


def null_rate(folder: Path, config: Mapping[str, Any], forward_flops: Mapping[str, int], seed: int = 0) -> NullRate:
    """The null rate of a run, from its folder's steps.csv and signals.csv.

    Args:
        folder: the run folder.
        config: the run's resolved config.
        forward_flops: of one image, by network.
        seed: of the simulation.
    """
    steps = read_steps(folder)
    total = len(steps["loss"])
    per_epoch = int(np.count_nonzero(steps["epoch"] == 0))
    facts = {"seed": config["seed"], "total_steps": total, "steps_per_epoch": per_epoch,
             "base_flops": forward_flops["base"], "motivated_flops": forward_flops["motivated"]}
    spec = {key: value for key, value in config["monitor"].items() if key != "lag"}

    def fresh() -> tuple[Monitor, Schedule]:
        monitor = build(motivation.monitors.BY_NAME, spec, "monitor", **facts)
        schedule = build(motivation.schedules.BY_NAME, config["schedule"], "schedule", **facts)
        schedule.bind(monitor)
        return monitor, schedule

    try:
        fresh()
    except ValueError as error:
        return NullRate(np.nan, "none", f"its monitor and schedule cannot be built again: {error}",
                        np.empty((0, total), bool))
    read = read_signals(folder) or (np.arange(total), steps["loss"][:, None])
    return simulate(fresh, *read, total, per_epoch, np.random.default_rng(seed))


def simulate(fresh, at: np.ndarray, readings: np.ndarray, total: int, steps_per_epoch: int,
             rng: np.random.Generator) -> NullRate:
    """Null rate of a monitor and schedule on a run's readings.

    Args:
        fresh: makes a new monitor and schedule, bound.
        at: ``(n,)`` steps in which the monitor read something.
        readings: ``(n, numbers)`` what it read.
        total: steps of the run.
        steps_per_epoch: steps between two epoch edges.
        rng: of the simulation.
    """
    monitor, schedule = fresh()
    kind, reason = monitor.null, ""
    none = np.empty((0, total), bool)
    if schedule.set_share:
        kind, reason = "set", "the schedule sets the share of motivated steps, whatever the signal"
    elif kind == "none":
        return NullRate(np.nan, kind, f"no null is defined for {type(monitor).__name__}", none)
    elif kind == "permute":
        if len(readings) < SEGMENT_WINDOWS * monitor.window:
            return NullRate(np.nan, "none", f"{len(readings)} readings are too few for a null: "
                            f"{type(monitor).__name__} looks back on {monitor.window}, and needs {SEGMENT_WINDOWS} "
                            "times as many", none)
        if not np.isfinite(readings).all():
            return NullRate(np.nan, "none", "some of its readings are not finite, and have no trend to take away", none)
        reason = "the run's own readings, without their trend, residuals permuted in blocks"
    elif kind == "signflip":
        reason = "the run's own readings with random signs"
    else:
        reason = "independent readings"
    phases = []
    for _ in range(int(np.clip(SIMULATED_STEPS // total, 2, 200))):
        monitor, schedule = fresh()
        phases.append(decide(schedule, _noise_scores(fresh, kind, at, readings, total, rng), steps_per_epoch))
    motivated = np.stack(phases)
    closed = schedule.null_rate(monitor, steps_per_epoch) if kind == "analytic" else np.nan
    return NullRate(float(motivated.mean() if np.isnan(closed) else closed), kind, reason, motivated)


def decide(schedule: Schedule, scores: np.ndarray, steps_per_epoch: int) -> np.ndarray:
    """Which steps a schedule makes motivated, bool ``(steps,)``, from the scores after them ``(steps,)``."""
    phase, phases = schedule.start(), []
    for step, score in enumerate(scores.tolist(), start=1):
        phases.append(phase)
        phase = schedule.decide(score)
        if step % steps_per_epoch == 0:
            phase = schedule.end_epoch(phase)
    return np.array([phase == "motivated" for phase in phases], dtype=bool)


def scores_of(monitor: Monitor, readings: np.ndarray) -> np.ndarray:
    """A monitor's scores ``(n,)`` of readings ``(n, numbers)``, one after another."""
    scores = np.empty(len(readings))
    for index, reading in enumerate(readings.tolist()):
        scores[index] = monitor.last = monitor.score(*reading)
    return scores


def _noise_scores(fresh, kind: str, at: np.ndarray, readings: np.ndarray, total: int,
                  rng: np.random.Generator) -> np.ndarray:
    """Scores ``(total,)`` after every step of a run that learns nothing; between readings the last one stands."""
    if kind == "set":
        return rng.normal(size=total)
    if kind == "analytic":
        scores = scores_of(fresh()[0], rng.normal(size=(len(at), readings.shape[1])))
    elif kind == "signflip":
        signed = readings.copy()
        signed[:, 0] *= rng.choice([-1.0, 1.0], len(readings))
        scores = scores_of(fresh()[0], signed)
    else:
        scores = _permuted_scores(fresh, readings[:, 0], rng)
    if not len(at):
        return np.full(total, np.nan)
    latest = np.searchsorted(at, np.arange(total), side="right") - 1
    return np.where(latest < 0, np.nan, scores[np.maximum(latest, 0)])


def _permuted_scores(fresh, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each tenth by a monitor of its own, warmed up on another permutation: no jump between tenths is read."""
    window = fresh()[0].window
    scores = []
    for part in np.array_split(values, max(1, min(TENTHS, len(values) // (SEGMENT_WINDOWS * window)))):
        level, residuals = part.mean(), detrended(part, window)
        warm_up, surrogate = (level + permuted(residuals, 2 * window, rng) for _ in range(2))
        warm_up = warm_up[-4 * window:]
        both = np.concatenate([warm_up, surrogate])[:, None]
        scores.append(scores_of(fresh()[0], both)[len(warm_up):])
    return np.concatenate(scores)


def detrended(values: np.ndarray, window: int) -> np.ndarray:
    """Residuals ``(n,)`` of a linear spline whose segments are at least eight windows long (at most eight of them)."""
    segments = min(8, max(1, len(values) // (SEGMENT_WINDOWS * window)))
    knots = np.linspace(0, len(values) - 1, segments + 1)
    time = np.arange(len(values))
    design = np.stack([np.interp(time, knots, unit) for unit in np.eye(segments + 1)], axis=1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def permuted(values: np.ndarray, block: int, rng: np.random.Generator) -> np.ndarray:
    """Blocks of successive values in random order, cut from a random start."""
    turned = np.roll(values, int(rng.integers(len(values))))
    blocks = [turned[start:start + block] for start in range(0, len(values), block)]
    return np.concatenate([blocks[index] for index in rng.permutation(len(blocks))])
