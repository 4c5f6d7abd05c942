"""Loops in a process of their own, where torch and malloc are as any program finds them.

Preparing a run sets kernels and the keeping of freed memory for its whole process; a loop that is compared with ours
must neither gain nor lose by that.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from .turns import Loop, timed

# In the other process: its loops, by number.
_loops: list[Loop] = []


class Apart:
    """Context of the other process; its loops end with it, or with `clear`."""

    def __init__(self):
        self._executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self._count = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._executor.shutdown()

    def loop(self, device: str, make: Callable[..., Callable[[], object]], *arguments: object) -> Loop:
        """A loop there.

        Args:
            device: that it trains on.
            make: a function of a module, which returns a step.
            arguments: of that function.
        """
        self._executor.submit(_make, device, make, arguments).result()
        number, self._count = self._count, self._count + 1
        return lambda count: self._executor.submit(_seconds, number, count).result()

    def clear(self) -> None:
        """End its loops, so that their memory and workers are free."""
        self._executor.submit(_clear).result()
        self._count = 0


def _make(device: str, make: Callable[..., Callable[[], object]], arguments: tuple) -> None:
    _loops.append(timed(make(*arguments), device))


def _clear() -> None:
    _loops.clear()


def _seconds(number: int, count: int) -> float:
    return _loops[number](count)
