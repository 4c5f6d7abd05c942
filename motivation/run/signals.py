"""Signals that ask a run to stop: it saves a checkpoint first, within a step (SLURM pre-emption, Ctrl-C, kill)."""

import signal
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from time import monotonic
from types import FrameType
from typing import ClassVar, TypeVar

Item = TypeVar("Item")
# SIGUSR1 and SIGUSR2: pre-emption by SLURM, and by submitit; SIGHUP: the terminal has gone.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
# SLURM and torchrun may both forward the same signal.
ECHO_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """A run stopped by a signal, its state saved. A sweep ends with it too.

    Args:
        number: of the signal.
        message: what happened and how to resume.
    """

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.number = number


class StopRequest:
    """Context that turns each of `SIGNALS` into a request; a second signal, a second later, stops at once.

    A signal to one of several processes stops all of them, after the same step. A request inside another one, such as
    a run's inside its sweep's, begins with what has come to that one, and hands on what comes to it.

    Outside the main thread, where Python handles no signals, it never asks for anything.

    Attributes:
        number: of the first signal that came; None before.
    """

    _innermost: ClassVar["StopRequest | None"] = None

    def __init__(self):
        self.number: int | None = None
        self.came = 0.0
        self._outer: StopRequest | None = None
        self._previous: dict = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._outer, StopRequest._innermost = StopRequest._innermost, self
            # What is ignored stays ignored: nohup does so with SIGHUP.
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS
                              if signal.getsignal(number) != signal.SIG_IGN}
            if self._outer is not None and self.number is None:
                self.number, self.came = self._outer.number, self._outer.came
        return self

    def __exit__(self, *exception):
        if self._innermost is not self:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        StopRequest._innermost = self._outer
        if self.number == signal.SIGUSR2 and self._outer is None and callable(self._previous.get(self.number)):
            # submitit handles it by putting the job into the queue again; now the checkpoint is there.
            signal.raise_signal(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        first = self.number is None
        if first:
            self.number, self.came = number, monotonic()
        if self._outer is not None:
            self._outer._note(number, frame)
        elif not first and monotonic() - self.came > ECHO_SECONDS:
            self._insist()

    def _insist(self) -> None:
        """What a second signal does, in the middle of anything: the last checkpoint on disk is what is resumed."""
        raise KeyboardInterrupt

    def interruptible(self, items: Iterable[Item], turns: int) -> Iterator[Item]:
        """The same items; raises Interrupted between two of them where a signal has come.

        Args:
            items: at most as many as turns.
            turns: how often to check, the same in all processes.
        """
        items = iter(items)
        for _ in range(turns):
            self.check()
            yield from islice(items, 1)

    def check(self) -> None:
        """Raise Interrupted where a signal has come to any process; all of them must call it."""
        # Here, since what only waits for others to train needs no torch.
        from motivation.training.distributed import all_reduce_max

        if number := all_reduce_max(self.number or 0):
            raise Interrupted(number)
