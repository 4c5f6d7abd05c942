"""How often a run's monitor and schedule would expand if nothing were learned.

A run that learns nothing is simulated with the loop closed: in every step that is due for a probe the run's monitor
scores a reading that holds no progress, made as it declares (`Monitor.null`), and its schedule decides. What a decision
changes is changed here too: which network the next probe is of, and whether it shows anything.

- ``analytic``: independent readings; the rate is in closed form where the schedule has one. It knows nothing of
  correlated readings or of two networks whose readings differ: `permute` is to be asked too.
- ``permute``: the run is cut into tenths (fewer where a tenth would be shorter than eight windows). In each the
  readings are its mean and the noise of the run's own readings, without their trend: an autoregression whose
  innovations are permuted (`motivation.null.noise`). In simulated steps that are motivated they lie as much lower
  or higher as the motivated network's did. Permuting the raw readings of a falling curve would mistake its steps for
  noise.
- ``signflip``: readings of the run, of the same network and about the same time, with random signs.
- a share that the schedule sets, or that no score decides, is that share, and says nothing about noise.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import motivation.monitors
import motivation.schedules
from motivation.analysis.runs import read_signals, read_steps
from motivation.monitors import Monitor
from motivation.monitors.signal import Null
from motivation.null.noise import SEGMENTS, noise_of
from motivation.registry import build
from motivation.schedules import Schedule

TENTHS = 10
WINDOWS = 8              # that a part of the run must hold
FEWEST = 12 * SEGMENTS   # readings that noise can be told from a trend in
NEIGHBOURS = 20          # readings that a sign-flipped one is drawn from
SIMULATED_STEPS = 200_000
Fresh = Callable[[], tuple[Monitor, Schedule]]
# A monitor, what the probes show it, in order, by the network that is probed, and how many of them only warm it up.
Stretch = tuple[Monitor, dict[str, list[list[float]]], int]


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


def null_rate(folder: Path, config: Mapping[str, Any], forward_flops: Mapping[str, int], seed: int = 0,
              kind: Null | None = None) -> NullRate:
    """The null rate of a run, from its folder's steps.csv and signals.csv.

    Args:
        folder: the run folder.
        config: the run's resolved config.
        forward_flops: of one image, by network.
        seed: of the simulation.
        kind: how readings without progress are made; default as its monitor declares.
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
    return simulate(fresh, *read, steps["motivated"], per_epoch, np.random.default_rng(seed), kind,
                    config["monitor"].get("lag", 0))


def simulate(fresh: Fresh, at: np.ndarray, readings: np.ndarray, motivated: np.ndarray, steps_per_epoch: int,
             rng: np.random.Generator, kind: Null | None = None, lag: int = 0) -> NullRate:
    """Null rate of a monitor and schedule on a run's readings.

    Args:
        fresh: makes a new monitor and schedule, bound.
        at: ``(n,)`` steps in which the monitor read something.
        readings: ``(n, numbers)`` what it read.
        motivated: ``(steps,)`` which steps of the run trained the motivated network.
        steps_per_epoch: steps between two epoch edges.
        rng: of the simulation.
        kind: how readings without progress are made; default as the monitor declares.
        lag: steps that a decision lags behind its reading.
    """
    monitor, schedule = fresh()
    total, kind, name = len(motivated), kind or monitor.null, type(monitor).__name__
    probes = -(-total // monitor.every)
    if schedule.set_share:
        kind, reason = "set", "the schedule sets the share of motivated steps, whatever the signal"
        stretches = lambda: [(_Given(), _both(rng.normal(size=(total, 1))), 0)]  # noqa: E731 - one of a choice
    elif (missing := _missing(monitor, kind, readings)):
        return NullRate(np.nan, "none", missing.format(name=name), np.empty((0, total), bool))
    elif kind == "permute":
        reason = "noise like that of the run's own readings, without their trend"
        stretches = _permuted(fresh, readings, motivated[at], probes, rng)
    elif kind == "signflip":
        reason = "the run's own readings with random signs"
        stretches = _flipped(fresh, at, readings, motivated, probes, rng)
    else:
        reason = "independent readings"
        stretches = lambda: [(fresh()[0], _both(rng.normal(size=(probes, readings.shape[1]))), 0)]  # noqa: E731
    simulations = int(np.clip(SIMULATED_STEPS // total, 2, 200))
    simulated = np.stack([follow(fresh()[1], stretches(), total, steps_per_epoch, lag) for _ in range(simulations)])
    closed = schedule.null_rate(monitor, steps_per_epoch) if kind == "analytic" else np.nan
    return NullRate(float(simulated.mean() if np.isnan(closed) else closed), kind, reason, simulated)


def follow(schedule: Schedule, stretches: Iterable[Stretch], total: int, steps_per_epoch: int,
           lag: int = 0) -> np.ndarray:
    """Which steps are motivated, bool ``(total,)``, where probes show what is given, one stretch after another."""
    phase, phases = schedule.start(), []
    waiting = iter(stretches)
    late = deque([math.nan] * lag)
    monitor, shown, place = None, {phase: []}, 0
    for step in range(total):
        phases.append(phase)
        if place == len(shown[phase]) and (stretch := next(waiting, None)):
            monitor, shown, place = stretch
            # A monitor in mid-training has read this network already.
            for reading in shown[phase][:place]:
                monitor.last = monitor.score(*reading)
        if step % monitor.every == 0:
            monitor.last = monitor.score(*shown[phase][place])
            place += 1
        late.append(monitor.last)
        phase = schedule.decide(late.popleft())
        if (step + 1) % steps_per_epoch == 0:
            phase = schedule.end_epoch(phase)
    return np.array([phase == "motivated" for phase in phases], dtype=bool)


class _Given(Monitor):
    """Scores that are readings: for schedules that take any."""

    def score(self, value: float) -> float:
        return value


def _both(readings: np.ndarray) -> dict[str, list[list[float]]]:
    return dict.fromkeys(("base", "motivated"), readings.tolist())


def _missing(monitor: Monitor, kind: Null, readings: np.ndarray) -> str:
    """Why a monitor has no null on these readings; empty where it has one."""
    least = max(FEWEST, WINDOWS * monitor.window) if kind == "permute" else 2 * (kind == "signflip")
    if kind == "none":
        return "no null is defined for {name}"
    if len(readings) < least:
        return f"{len(readings)} readings are too few for a null: {{name}} needs {least}"
    if kind != "analytic" and not np.isfinite(readings[:, 0]).all():
        return "some readings of {name} are not finite, and say nothing about noise"
    return ""


def _permuted(fresh: Fresh, readings: np.ndarray, motivated: np.ndarray, probes: int,
              rng: np.random.Generator) -> Callable[[], Iterator[Stretch]]:
    """Noise in every tenth, seen by a monitor of its own that is warmed up on more of it: no jump is read."""
    window, noise = fresh()[0].window, noise_of(readings[:, 0], motivated)
    count = max(1, min(TENTHS, len(readings) // (WINDOWS * window)))
    parts, shares = np.array_split(readings, count), np.array_split(motivated, count)
    lengths = [len(part) for part in np.array_split(np.arange(probes), count)]

    def stretches() -> Iterator[Stretch]:
        for number, (part, length) in enumerate(zip(parts, lengths, strict=True)):
            warm_up = 4 * window if number else 0
            whole = part[np.isfinite(part).all(1)] if np.isfinite(part).all(1).any() else part
            drawn = whole[rng.integers(0, len(whole), warm_up + length)]
            place = number / count, (number + 1) / count
            apart = noise.difference(*place)
            level = part[:, 0].mean() - apart * shares[number].mean()
            values = level + noise.draw(len(drawn), rng, *place)
            monitor = fresh()[0]
            shown = {}
            for phase, on in (("base", 0.0), ("motivated", 1.0)):
                drawn[:, 0] = values + on * apart
                if "motivated" in monitor.reads:
                    drawn[:, monitor.reads.index("motivated")] = on
                shown[phase] = drawn.tolist()
            yield monitor, shown, warm_up

    return stretches


def _flipped(fresh: Fresh, at: np.ndarray, readings: np.ndarray, motivated: np.ndarray, probes: int,
             rng: np.random.Generator) -> Callable[[], list[Stretch]]:
    """Readings of the same network from about the same time, with random signs."""
    pools = {}
    for phase, on in (("base", False), ("motivated", True)):
        mine = motivated[at] == on
        if mine.sum() < NEIGHBOURS:
            mine[:] = True
        width = min(NEIGHBOURS, int(mine.sum()))
        middle = np.searchsorted(at[mine], np.linspace(0, len(motivated), probes))
        pools[phase] = readings[mine], np.clip(middle - width // 2, 0, mine.sum() - width), width

    def stretches() -> list[Stretch]:
        shown = {}
        for phase, (mine, first, width) in pools.items():
            signed = mine[first + rng.integers(0, width, probes)]
            signed[:, 0] *= rng.choice([-1.0, 1.0], probes)
            shown[phase] = signed.tolist()
        return [(fresh()[0], shown, 0)]

    return stretches
