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
LONG_STEP = 1.0
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


def take_turns(loops: Mapping[str, Loop], seconds: float) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Loops take turns, each as long.

    The first step of a block is not timed, since it finds what the others left in caches and queues, unless one step
    takes longer than a second.

    Args:
        loops: none has taken a step.
        seconds: of all blocks.

    Returns:
        Steps a second of each, block by block; and the seconds of its very first step, which compiles and allocates.
    """
    block = seconds / BLOCKS / len(loops)

    def measure(loop: Loop, took: float) -> float:
        count = max(1, round(block / took))
        if took < LONG_STEP:
            loop(1)
        return count / loop(count)

    measures, first = {}, {}
    for name, loop in loops.items():
        first[name] = loop(1)
        measures[name] = functools.partial(measure, loop, loop(1))
    return alternate(measures, seconds), first


def ratios(figures: list[float], reference: list[float]) -> tuple[float, float, float, int]:
    """Median, smallest and largest ratio of two figures taken in turn, and of how many blocks."""
    values = [own / other for own, other in zip(figures, reference, strict=True)]
    return statistics.median(values), min(values), max(values), len(values)
