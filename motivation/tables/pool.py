"""Processes that train cells: each starts once and trains many, one after another."""

import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from motivation.run.jobs import Jobs, Stopped, Worker
from motivation.run.signals import SIGNALS, Interrupted
from motivation.tables.cells import Cell

logger = logging.getLogger(__name__)
# Not forked: torch's threads do not survive a fork.
CONTEXT = multiprocessing.get_context("spawn")


class Pool:
    """Context of processes that train cells; they start when they are needed, and end with it.

    A process that is killed costs the cell that it trains. A signal to one of them stops all.

    Args:
        stop: passes signals on to the processes.
        processes: cells trained at once.
        train: cell -> its error, if any; it travels to the processes.
        start: called first in each of them, such as to set logging up.
    """

    def __init__(self, stop: Jobs, processes: int, train: Callable[[Cell], str | None],
                 start: Callable[[], None] | None = None):
        self.stop, self.processes, self.train, self.start = stop, processes, train, start
        self._idle: list[Connection] = []
        self._running: dict[Connection, Cell] = {}
        self._of: dict[Connection, BaseProcess] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for connection, process in self._of.items():
            if connection in self._running:
                # Nobody waited for it: a second signal, or an error of ours.
                process.kill()
            connection.close()
        for process in self._of.values():
            process.join()

    def train_all(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, str | None]]:
        """Train cells; yields each with its error, if any, as they end.

        Raises:
            Interrupted: a signal came; each run has saved its last step.
        """
        waiting = deque(cells)
        while self._running or (waiting and self.stop.number is None):
            while waiting and self.stop.number is None and len(self._running) < self.processes:
                connection = self._idle.pop() if self._idle else self._started()
                self._running[connection] = waiting.popleft()
                self._send(connection)
            for connection in wait(list(self._running)):
                cell, error = self._received(connection)
                if isinstance(error, Stopped):
                    self.stop.pass_on(error.number)
                else:
                    yield cell, error
        self.stop.raise_if_stopped()

    def _started(self) -> Connection:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(theirs, os.getpid(), self.train, self.start), daemon=False)
        # A signal in its first seconds, while it imports, waits until it can stop by it. Python's tracker, which the
        # first process starts, would let signals through again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._of[ours] = process
        return ours

    def _send(self, connection: Connection) -> None:
        try:
            connection.send(self._running[connection])
        except ConnectionError:
            # It was killed while idle: receiving says so.
            return

    def _received(self, connection: Connection) -> tuple[Cell, str | Stopped | None]:
        cell = self._running[connection]
        try:
            error = connection.recv()
            self._idle.append(connection)
        except (EOFError, ConnectionError):
            process = self._of.pop(connection)
            process.join()
            connection.close()
            how = f"by {signal.Signals(-process.exitcode).name}" if (process.exitcode or 0) < 0 else "from inside"
            error = f"its process was ended {how}; is memory short? The same command resumes it"
        del self._running[connection]
        return cell, error


def _work(connection: Connection, parent: int, train: Callable[[Cell], str | None],
          start: Callable[[], None] | None) -> None:
    """Train the cells that come through a connection until it is closed."""
    worker = Worker.start(parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if start is not None:
        start()
    while True:
        try:
            cell = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            error = worker.do(lambda cell=cell: train(cell))
        except Interrupted:
            raise
        except Exception as unexpected:
            error = f"{type(unexpected).__name__}: {' '.join(str(unexpected).split())}"
            logger.error("%s: %s", cell.name, error, exc_info=unexpected)
        try:
            connection.send(error)
        except ConnectionError:
            return
