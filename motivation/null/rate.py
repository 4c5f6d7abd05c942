"""The null rate: how often a monitor and schedule would expand if nothing were learned. Arrays in, arrays out.

`null_rate` takes a function that builds the run's monitor and schedule, what the monitor read, and the run's phases.
It simulates runs that learn nothing: in every step that is due for a probe a new monitor scores a reading without
progress, and a new schedule decides. Its result is the mean share of motivated steps, and the simulated phases.

The decisions feed back: they change which network the next probe is of, and whether it shows anything. How readings
without progress are made depends on the monitor (`Monitor.null`):

- ``analytic``: independent readings; the rate is in closed form where the schedule has one. It knows nothing of
  correlated readings or of two networks whose readings differ, so a run with enough readings is judged by ``permute``.
- ``permute``: the run is cut into tenths (fewer where a tenth would be shorter than eight windows). In each the
  readings are its mean plus noise like that of the run's own readings, without their trend: an autoregression whose
  innovations are permuted (`motivation.null.noise`). In simulated steps that are motivated they are as much lower
  or higher as the motivated network's were. Permuting the raw readings of a falling curve would take its trend for
  noise.
- ``signflip``: readings of the run, of the same network and about the same time, with random signs.
- a share that the schedule sets, or that no score decides, is that share, and says nothing about noise.
"""

import copy
import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

import motivation.monitors
import motivation.schedules
from motivation.monitors import Monitor
from motivation.monitors.signal import Null
from motivation.null.noise import SEGMENTS, noise_of
from motivation.registry import build
from motivation.schedules import Ladder, Schedule

TENTHS = 10
WINDOWS = 8              # that a part of the run must hold
FEWEST = 12 * SEGMENTS   # readings below which noise cannot be told from a trend
NEIGHBOURS = 20          # readings that a sign-flipped one is drawn from
SIMULATED_STEPS = 200_000
SIMULATIONS = 20, 200    # fewest and most: the spread of fewer whole runs is a poor estimate, however long they are
# Builds a new monitor and schedule, the schedule bound to the monitor.
Trigger = Callable[[], tuple[Monitor, Schedule]]
# A monitor, its readings in order, by the network that is probed, and how many of them only warm it up.
Stretch = tuple[Monitor, dict[str, list[tuple[float, ...]]], int]


class NullRate(NamedTuple):
    """What noise would do.

    Attributes:
        rate: share of motivated steps; NaN where no null is defined.
        kind: ``analytic``, ``permute``, ``signflip``, ``set`` (the schedule's own share: no verdict) or ``none``.
        reason: why there is no null, or how it was made, in words.
        motivated: simulated phases, bool ``(simulations, steps)``; empty where no null is defined.
        independent: the rate on independent readings where it is in closed form, whatever the kind; else NaN.
    """

    rate: float
    kind: str
    reason: str
    motivated: np.ndarray
    independent: float = np.nan


def build_trigger(monitor: Mapping[str, Any], schedule: Mapping[str, Any], rungs: int | None = None, **facts: Any
                  ) -> tuple[Monitor, Schedule]:
    """A new monitor and a schedule bound to it; with `functools.partial`, the ``trigger`` of `null_rate`.

    Args:
        monitor: its name and arguments.
        schedule: its name and arguments.
        rungs: how many it climbs; None where it switches networks.
        facts: what no config says: seed, total_steps, steps_per_epoch, base_flops, motivated_flops.

    Raises:
        ValueError: one of them cannot be built.
    """
    made = build(motivation.monitors.BY_NAME, monitor, "monitor", **facts)
    gate = build(motivation.schedules.BY_NAME, schedule, "schedule", **facts)
    if rungs is not None:
        gate = Ladder(gate, rungs)
    gate.bind(made)
    return made, gate


def null_rate(trigger: Trigger, at: np.ndarray, readings: np.ndarray, motivated: np.ndarray, steps_per_epoch: int,
              lag: int = 0, kind: Null | None = None, seed: int | np.random.Generator = 0) -> NullRate:
    """The null rate of a run: the one that it is judged by, and that summary.json and every table show.

    It is that of noise like the run's own readings also where the monitor declares a closed form, if there are enough
    of them.

    Args:
        trigger: builds the run's monitor and schedule, as they were before the first step.
        at: ``(n,)`` steps in which the monitor read something.
        readings: ``(n, numbers)`` what it read: batch losses ``(n, 1)``, or the columns of signals.csv.
        motivated: bool ``(steps,)``: which steps of the run trained the motivated network.
        steps_per_epoch: steps between two epoch edges.
        lag: steps from a reading to its decision.
        kind: how readings without progress are made, if not as the run is judged.
        seed: of the simulation.
    """
    total, rng = len(motivated), np.random.default_rng(seed)
    try:
        built = trigger()
    except ValueError as error:
        return NullRate(np.nan, "none", f"its monitor and schedule cannot be built again: {error}",
                        np.empty((0, total), bool))
    monitor, schedule = built
    # Each simulation starts with new ones; a copy costs less than checking their arguments again.
    trigger = functools.partial(copy.deepcopy, built)
    independent = schedule.null_rate(monitor, steps_per_epoch) if monitor.null == "analytic" else np.nan
    kind = kind or ("permute" if monitor.null == "analytic" and not _why_none(monitor, "permute", readings)
                    else monitor.null)
    probes = -(-total // monitor.every)
    if schedule.set_share:
        kind, reason = "set", "the schedule sets the share of motivated steps, whatever the signal"
        stretches = lambda: [(_ReadingAsScore(), _both(rng.normal(size=(total, 1))), 0)]  # noqa: E731 - as the others
    elif (missing := _why_none(monitor, kind, readings)):
        return NullRate(np.nan, "none", missing, np.empty((0, total), bool), independent)
    elif kind == "permute":
        reason = "noise like that of the run's own readings, without their trend"
        stretches = _permuted(trigger, readings, motivated[at], probes, rng)
    elif kind == "signflip":
        reason = "the run's own readings with random signs"
        stretches = _sign_flipped(trigger, at, readings, motivated, probes, rng)
    else:
        reason = "independent readings"
        stretches = lambda: [(trigger()[0], _both(rng.normal(size=(probes, readings.shape[1]))), 0)]  # noqa: E731
    simulated = np.stack([simulate_phases(trigger()[1], stretches(), total, steps_per_epoch, lag)
                          for _ in range(int(np.clip(SIMULATED_STEPS // total, *SIMULATIONS)))])
    rate = float(simulated.mean()) if kind != "analytic" or np.isnan(independent) else independent
    return NullRate(rate, kind, reason, simulated, independent)


def simulate_phases(schedule: Schedule, stretches: Iterable[Stretch], total: int, steps_per_epoch: int,
                    lag: int = 0) -> np.ndarray:
    """Which steps are motivated, bool ``(total,)``, where probes show these readings, one stretch after another."""
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


class _ReadingAsScore(Monitor):
    """Its score is its reading: for schedules that take any score."""

    def score(self, value: float) -> float:
        return value


def _both(readings: np.ndarray) -> dict[str, list[tuple[float, ...]]]:
    return dict.fromkeys(("base", "motivated"), _rows(readings))


def _rows(readings: np.ndarray) -> list[tuple[float, ...]]:
    # Tuples of floats cost the garbage collector nothing; lists took most of the time of a null.
    return list(zip(*readings.T.tolist(), strict=True))


def _why_none(monitor: Monitor, kind: Null, readings: np.ndarray) -> str:
    """Why a monitor has no null on these readings; empty where it has one."""
    name = type(monitor).__name__
    least = max(FEWEST, WINDOWS * monitor.window) if kind == "permute" else 2 * (kind == "signflip")
    if kind == "none":
        return f"no null is defined for {name}"
    if len(readings) < least:
        return f"{len(readings)} readings are too few for a null: {name} needs {least}"
    if kind != "analytic" and not np.isfinite(readings[:, 0]).all():
        return f"some readings of {name} are not finite, and say nothing about noise"
    return ""


def _permuted(trigger: Trigger, readings: np.ndarray, motivated: np.ndarray, probes: int,
              rng: np.random.Generator) -> Callable[[], Iterator[Stretch]]:
    """Noise in every tenth, each read by a new monitor warmed up on it: none reads the jump between two."""
    window, noise = trigger()[0].window, noise_of(readings[:, 0], motivated)
    count = max(1, min(TENTHS, len(readings) // (WINDOWS * window)))
    parts, shares = np.array_split(readings, count), np.array_split(motivated, count)
    lengths = [len(part) for part in np.array_split(np.arange(probes), count)]

    def stretches() -> Iterator[Stretch]:
        for number, (part, length) in enumerate(zip(parts, lengths, strict=True)):
            warm_up = 4 * window if number else 0
            whole = part[np.isfinite(part).all(1)] if np.isfinite(part).all(1).any() else part
            drawn = whole[rng.integers(0, len(whole), warm_up + length)]
            place = number / count, (number + 1) / count
            difference = noise.difference(*place)
            level = part[:, 0].mean() - difference * shares[number].mean()
            values = level + noise.draw(len(drawn), rng, *place)
            monitor = trigger()[0]
            shown = {}
            for phase, on in (("base", 0.0), ("motivated", 1.0)):
                drawn[:, 0] = values + on * difference
                if "motivated" in monitor.reads:
                    drawn[:, monitor.reads.index("motivated")] = on
                shown[phase] = _rows(drawn)
            yield monitor, shown, warm_up

    return stretches


def _sign_flipped(trigger: Trigger, at: np.ndarray, readings: np.ndarray, motivated: np.ndarray, probes: int,
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
            shown[phase] = _rows(signed)
        return [(trigger()[0], shown, 0)]

    return stretches
