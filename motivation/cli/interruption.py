"""Hydra launchers whose jobs share a machine: a signal reaches every job, and what has not begun does not begin; the
threads of one job leave the cores to the others.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from motivation.run.jobs import Jobs, Stopped
from motivation.run.machine import thread_environment
from motivation.run.signals import Interrupted


def shares_machine(config: DictConfig) -> bool:
    """Whether a launcher's jobs run on this machine and end with the command; those in a queue may not."""
    return "submitit" not in str(config.hydra.launcher.get("_target_"))


def stop_on_signals(launcher: Launcher) -> None:
    """Make a launcher raise Interrupted after a signal, once each of its jobs in processes of its own has saved.

    Jobs in the queue of a cluster go on: its own commands stop them.
    """
    launch = launcher.launch

    def launch_until_signal(job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # submitit's local executor starts its processes by itself. joblib sets their number of threads, cores by jobs.
        beside = "joblib" in type(launcher).__module__ and len(job_overrides) > 1
        with (Jobs(all_children="submitit" in type(launcher).__module__) as stop,
              thread_environment(None) if beside else nullcontext()):
            try:
                jobs = launch(_UntilStopped(job_overrides, stop), initial_job_idx=initial_job_idx)
            except Exception:
                # A job that ends in the middle is an error to some launchers.
                stop.raise_if_stopped()
                raise
            for job in jobs:
                if isinstance(job._return_value, Stopped):
                    stop.pass_on(job._return_value.number)
            stop.raise_if_stopped()
        return jobs

    launcher.launch = launch_until_signal  # type: ignore[method-assign]


class _UntilStopped(list[Any]):
    """The overrides of jobs, of which no more are given out after a signal."""

    def __init__(self, overrides: Sequence[Sequence[str]], stop: Jobs):
        super().__init__(overrides)
        self._stop = stop

    def __iter__(self) -> Iterator[Any]:
        for overrides in super().__iter__():
            if self._stop.number is not None:
                return
            yield overrides


def interrupted(error: Interrupted, command: str) -> Interrupted:
    """The end of many runs: which signal it was, and what resumes them."""
    return Interrupted(error.number, f"stopped by {signal.Signals(error.number).name}; resume it with: {command}")
