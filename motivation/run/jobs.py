"""Runs in processes of their own: a signal to the one that started them reaches every run, and no run outlives it."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from motivation.run.signals import Interrupted, StopRequest

Result = TypeVar("Result")
# How often a process that trains for another one looks whether that one is alive.
WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Stopped:
    """A run that a signal stopped in a process of its own.

    Args:
        number: of the signal.
        message: what happened and how to resume.
    """

    number: int
    message: str


class Jobs(StopRequest):
    """Context of a process whose children train: a signal is passed on to them, a second one, a second later, kills
    them. Where there are none to wait for, it ends the context at once.

    While a run trains in this very process the request is the run's, as usual.

    Args:
        all_children: also processes that were started without multiprocessing (Linux).
    """

    def __init__(self, all_children: bool = False):
        super().__init__()
        self.all_children = all_children

    def pass_on(self, number: int) -> None:
        """Stop as if this signal had come, except that nothing is raised."""
        if self.number is None:
            self.number, self.came = number, time.monotonic()
        for child in self._children():
            # In place of any other signal: helpers of Python's own that are among the children ignore this one.
            _send(child, signal.SIGTERM)

    def raise_if_stopped(self) -> None:
        """Raise Interrupted where a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        first = self.number is None
        super()._note(number, frame)
        if first and StopRequest._innermost is self:
            if not self._children():
                raise Interrupted(number)
            self.pass_on(number)

    def _insist(self) -> None:
        if isinstance(StopRequest._innermost, Jobs):
            for child in multiprocessing.active_children():
                child.kill()
        super()._insist()

    def _children(self) -> set[int]:
        children = {child.pid for child in multiprocessing.active_children() if child.pid}
        return children | _children_of(os.getpid()) if self.all_children else children


def _children_of(parent: int) -> set[int]:
    """Process ids of a process's children, as Linux lists them; none elsewhere."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything.
            if int(path.read_text(errors="replace").rpartition(")")[2].split()[1]) == parent:
                found.add(int(path.parent.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except OSError:
        # It has ended meanwhile.
        return


class Worker(StopRequest):
    """A process that trains for another one; it lasts as long as the process.

    A signal stops the run that it trains, and every one that it is given later. When the other process has gone, also
    by SIGKILL, its run is stopped too, and then it ends.

    Args:
        parent: process id of the other one.
    """

    current: "Worker | None" = None

    def __init__(self, parent: int):
        super().__init__()
        self.parent = parent
        self._busy = False
        self._parent_gone = False

    @classmethod
    def start(cls, parent: int) -> "Worker":
        """Make this process a worker, once; call it in the main thread."""
        if Worker.current is None:
            Worker.current = cls(parent)
            Worker.current.__enter__()
            threading.Thread(target=Worker.current._watch, name="parent", daemon=True).start()
        return Worker.current

    def do(self, job: Callable[[], Result]) -> Result | Stopped:
        """Do a job; a value takes the place of Interrupted, which would end others' waiting."""
        self._busy = True
        try:
            if self.number is not None:
                return Stopped(self.number, "stopped before training; nothing was written")
            return job()
        except Interrupted as error:
            return Stopped(error.number, str(error))
        finally:
            self._busy = False
            if self._parent_gone:
                _end()

    def _insist(self) -> None:
        # The other process decides whether to wait: a signal may come from it and from elsewhere, in any order.
        return

    def _watch(self) -> None:
        while os.getppid() == self.parent:
            time.sleep(WATCH_SECONDS)
        self._parent_gone = True
        if self._busy:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            _end()


def _end() -> None:
    """End this process, whose results nobody waits for."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
    os._exit(1)


def run_for(launcher: int, job: Callable[[], Result]) -> Result | Stopped:
    """Do one job of a launcher, in whichever process that chose.

    Args:
        launcher: process id of the one that launches.
        job: its return value is this function's.

    Returns:
        What the job returns; `Stopped` where a signal stopped it in another process than the launcher's.

    Raises:
        Interrupted: a signal stopped it in the launcher's own process.
    """
    if os.getpid() == launcher:
        return job()
    # A child may find its parent gone already.
    if launcher in (os.getppid(), getattr(multiprocessing.current_process(), "_parent_pid", None)):
        return Worker.start(launcher).do(job)
    # A queue's job, such as one of SLURM: it outlives the launcher, and the queue sends the signals.
    try:
        return job()
    except Interrupted as error:
        return Stopped(error.number, str(error))
