"""`motivation` in a process of its own that is forked from a warm server: a start costs milliseconds, not imports."""

import contextlib
import multiprocessing
import resource
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["processes", "motivation.cli", "motivation.train", "hydra", "timm.optim",
                                "timm.scheduler", "sklearn.datasets"])


def start(arguments: list[str], output: Path, at_step: int | None = None, file_limit: int | None = None,
          before_summary: bool = False) -> BaseProcess:
    """Start the command.

    Args:
        arguments: of the command line.
        output: standard output and error go to this file.
        at_step: from this training step on, or before the summary is written, ...
        file_limit: no file may grow beyond so many bytes, as on a full disk.
        before_summary: see ``at_step``.
    """
    process = CONTEXT.Process(target=_main, args=(arguments, output, at_step, file_limit, before_summary))
    process.start()
    return process


def finish(process: BaseProcess, seconds: float = 240) -> int:
    """Wait for its end; returns the exit status, or minus the signal that killed it."""
    process.join(seconds)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def _main(arguments: list[str], output: Path, at_step: int | None, file_limit: int | None,
          before_summary: bool) -> None:
    import motivation.train
    from motivation.cli import main

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, before[1]))

    if at_step is not None:
        step = motivation.train.Trainer.step

        def stepped(self, *batch):
            if self.steps == at_step:
                full_disk()
            return step(self, *batch)

        motivation.train.Trainer.step = stepped
    if before_summary:
        summary = motivation.train.RunFolder.summary

        def summed(self, values):
            full_disk()
            try:
                return summary(self, values)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        motivation.train.RunFolder.summary = summed
    with open(output, "a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = main(arguments)
    sys.exit(status)
