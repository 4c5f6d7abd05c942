"""Taking turns: a block of each, again and again, so that what else a machine does falls on all of them alike."""

import functools
import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

import torch

Figure = TypeVar("Figure")
# Takes so many steps; returns the seconds that they took.
Loop = Callable[[int], float]
BLOCKS = 15
# Of a figure that was compared with another one, block by block.
RATIO = {"lowest": ".3f", "highest": ".3f", "blocks": "d"}


def now(device: str = "cpu") -> float:
    """Seconds on the clock, once the device has done all that it was asked to."""
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter()


def alternate(measures: Mapping[str, Callable[[], Figure]], seconds: float) -> dict[str, list[Figure]]:
    """What each measures, block by block: one after another, until the time is up or there are `BLOCKS`, at least once.

    Args:
        measures: each measures one block.
        seconds: of all.
    """
    figures: dict[str, list[Figure]] = {name: [] for name in measures}
    end = perf_counter() + seconds
    for _ in range(BLOCKS):
        for name, measure in measures.items():
            figures[name].append(measure())
        if perf_counter() >= end:
            break
    return figures


def timed(step: Callable[[], object], device: str = "cpu") -> Loop:
    """A loop of steps.

    Args:
        step: takes one step.
        device: that has to be done before the clock is read.
    """
    def loop(count: int) -> float:
        start = now(device)
        for _ in range(count):
            step()
        return now(device) - start

    return loop


def take_turns(loops: Mapping[str, Loop], seconds: float) -> dict[str, list[float]]:
    """Steps a second of each, block by block; each has as long a block.

    Args:
        loops: whose first step, which compiles and allocates, is not timed, nor the first one of a block, which finds
            what the others left in caches and queues.
        seconds: of all.
    """
    block = seconds / BLOCKS / len(loops)

    def measure(loop: Loop, count: int) -> float:
        loop(1)
        return count / loop(count)

    measures = {}
    for name, loop in loops.items():
        loop(1)
        measures[name] = functools.partial(measure, loop, max(1, round(block / loop(1))))
    return alternate(measures, seconds)


def ratios(figures: list[float], reference: list[float]) -> tuple[float, float, float, int]:
    """Median, smallest and largest ratio of two figures taken in turn, and of how many blocks."""
    values = [own / other for own, other in zip(figures, reference, strict=True)]
    return statistics.median(values), min(values), max(values), len(values)
