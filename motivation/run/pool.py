"""Processes that do many jobs, such as runs: each starts once and does one after another."""

import functools
import importlib
import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from motivation.run.jobs import Jobs, Stopped, Worker
from motivation.run.machine import cores, thread_environment
from motivation.run.signals import SIGNALS

logger = logging.getLogger(__name__)
# Not forked: torch's threads do not survive a fork.
CONTEXT = multiprocessing.get_context("spawn")


class Pool:
    """Context of processes that do jobs, each with its share of the cores; they end with it.

    A process that is killed costs its job. A signal to one of them stops all.

    Args:
        processes: jobs at once.
        start: called first in each process, such as to set logging up.
        imports: modules that each process imports before its first job.

    Attributes:
        threads: of each process.
    """

    def __init__(self, processes: int, start: Callable[[], None] | None = None, imports: Sequence[str] = ()):
        self.processes, self.start, self.imports = processes, start, imports
        self.threads = max(1, cores() // processes)
        self._idle: list[Connection] = []
        self._running: dict[Connection, Any] = {}
        self._of: dict[Connection, BaseProcess] = {}
        self._used: set[Connection] = set()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for connection, process in self._of.items():
            if connection in self._running or connection not in self._used:
                # Nobody waited for it: a second signal, or an error of ours. Or it did nothing, and may still import.
                process.kill()
            connection.close()
        for process in self._of.values():
            process.join()

    def start_all(self) -> None:
        """Start the processes now, one a core at most, so that they import while this one finds out what the jobs are.

        Without it, and more of them, they start when they are needed.
        """
        self._idle += [self._started() for _ in range(min(self.processes, cores()))]

    def do_all(self, do: Callable[[Any], str | None], jobs: Sequence[Any], stop: Jobs) -> Iterator[
            tuple[Any, str | None]]:
        """Do jobs; yields each with its error, if any, as they end.

        Args:
            do: job -> its error, if any; both travel to the processes.
            jobs: what to do.
            stop: passes signals on to the processes.

        Raises:
            Interrupted: a signal came; each run has saved its last step.
        """
        waiting = deque(jobs)
        while self._running or (waiting and stop.number is None):
            while waiting and stop.number is None and len(self._running) < self.processes:
                connection = self._idle.pop() if self._idle else self._started()
                self._used.add(connection)
                self._running[connection] = waiting.popleft()
                self._send(connection, do)
            for connection in wait(list(self._running)):
                job, error = self._received(connection)
                if isinstance(error, Stopped):
                    stop.pass_on(error.number)
                else:
                    yield job, error
        stop.raise_if_stopped()

    def _started(self) -> Connection:
        ours, theirs = CONTEXT.Pipe()
        # No daemon: those may have no processes of their own, such as a run's that read images.
        process = CONTEXT.Process(target=_work, args=(theirs, os.getpid(), self.start, self.imports), daemon=False)
        # A signal in its first seconds, while it imports, waits until it can stop by it. Python's tracker, which the
        # first process starts, would let signals through again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            with thread_environment(self.threads):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._of[ours] = process
        return ours

    def _send(self, connection: Connection, do: Callable[[Any], str | None]) -> None:
        try:
            connection.send((do, self._running[connection]))
        except ConnectionError:
            # It was killed while idle: receiving says so.
            return

    def _received(self, connection: Connection) -> tuple[Any, str | Stopped | None]:
        job = self._running[connection]
        try:
            error = connection.recv()
            self._idle.append(connection)
        except (EOFError, ConnectionError):
            process = self._of.pop(connection)
            process.join()
            connection.close()
            killed = (process.exitcode or 0) < 0
            how = f"by {signal.Signals(-process.exitcode).name}; is memory short?" if killed else "by itself."
            error = f"its process was ended {how} The same command resumes it"
        del self._running[connection]
        return job, error


def _work(connection: Connection, parent: int, start: Callable[[], None] | None, imports: Sequence[str]) -> None:
    """Do the jobs that come through a connection until it is closed."""
    worker = Worker.start(parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if start is not None:
        start()
    for name in imports:
        importlib.import_module(name)
    while True:
        try:
            do, job = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            error = worker.do(functools.partial(do, job))
        except Exception as unexpected:
            error = f"{type(unexpected).__name__}: {' '.join(str(unexpected).split())}"
            logger.error("unexpected %s", error, exc_info=unexpected)
        try:
            connection.send(error)
        except ConnectionError:
            return
