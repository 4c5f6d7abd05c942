"""Taking turns: a block of each, again and again, so that what else a machine does falls on all of them alike."""

import functools
import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

import torch

Figure = TypeVar("Figure")
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


def take_turns(steps: Mapping[str, Callable[[], object]], seconds: float,
               device: str = "cpu") -> dict[str, list[float]]:
    """Steps a second of each, block by block; each has as long a block.

    Args:
        steps: each takes one step. Its first one, which compiles and allocates, is not timed.
        seconds: of all.
        device: that has to be done before the clock is read.
    """
    block = seconds / BLOCKS / len(steps)
    measures = {}
    for name, step in steps.items():
        step()
        start = now(device)
        step()
        measures[name] = functools.partial(rate, step, max(1, round(block / (now(device) - start))), device)
    return alternate(measures, seconds)


def rate(step: Callable[[], object], count: int, device: str = "cpu") -> float:
    """Steps a second of one block, after one step that finds what the others left in caches and queues."""
    step()
    start = now(device)
    for _ in range(count):
        step()
    return count / (now(device) - start)


def ratios(figures: list[float], reference: list[float]) -> tuple[float, float, float, int]:
    """Median, smallest and largest ratio of two figures taken in turn, and of how many blocks."""
    values = [own / other for own, other in zip(figures, reference, strict=True)]
    return statistics.median(values), min(values), max(values), len(values)
