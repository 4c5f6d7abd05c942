"""Signals that ask a run to stop: it saves a checkpoint first, within a step (SLURM pre-emption, Ctrl-C, kill)."""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(KeyboardInterrupt):
    """A run stopped by a signal, its state saved. No sweep goes on after it.

    Args:
        number: of the signal.
        message: what happened and how to go on.
    """

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.number = number


class StopRequest:
    """Context that turns SIGTERM, SIGINT and SIGUSR1 into a request; a second signal stops at once.

    Outside the main thread, where Python handles no signals, it never asks for anything.
    """

    def __init__(self):
        self.number: int | None = None
        self._previous: dict = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            # In the middle of anything: nothing is saved, the last checkpoint on disk stands.
            raise KeyboardInterrupt
        self.number = number

    def watched(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; raises Interrupted between two of them where a signal has come."""
        for item in items:
            self.check()
            yield item

    def check(self) -> None:
        """Raise Interrupted where a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)
