"""`motivation` in a process of its own that is forked from a warm server: a start costs milliseconds, not imports."""

import contextlib
import multiprocessing
import os
import resource
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["processes", "motivation.cli.main", "motivation.run.run", "hydra", "timm.optim",
                                "timm.scheduler", "sklearn.datasets"])


def start(arguments: list[str], output: Path, at_step: int | None = None, file_limit: int | None = None,
          before_summary: bool = False, out_of_memory: bool = False, fits: int | None = None,
          environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start the command.

    Args:
        arguments: of the command line.
        output: standard output and error go to this file.
        at_step: from this training step on, or before the summary is written, ...
        file_limit: no file may grow beyond so many bytes, as on a full disk.
        before_summary: see ``at_step``.
        out_of_memory: the networks do not fit from ``at_step`` on; without it, before the first step already.
        fits: the networks fit with no more than so many images at once.
        environment: variables beside this process's own.
    """
    process = CONTEXT.Process(target=_main, args=(arguments, output, at_step, file_limit, before_summary,
                                                  out_of_memory, fits, {**os.environ, **(environment or {})}))
    process.start()
    return process


def finish(process: BaseProcess, seconds: float = 240) -> int:
    """Wait for its end; returns the exit status, or minus the signal that killed it."""
    process.join(seconds)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def launch(arguments: list[str], folder: Path, faults: Mapping[int, Mapping] = MappingProxyType({}),
           count: int = 2) -> list[BaseProcess]:
    """Start the command in several processes, as torchrun does; the output of each goes to ``folder/RANK.txt``.

    Args:
        arguments: of the command line.
        folder: of the outputs.
        faults: by rank, what `start` takes.
        count: of the processes.
    """
    from datetime import timedelta

    from torch.distributed import TCPStore

    # As torchrun's agent does, on a port that is bound already: no other process can take it in between.
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=1))
    processes = []
    for rank in range(count):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                       "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port),
                       "TORCHELASTIC_USE_AGENT_STORE": "True"}
        processes.append(start(arguments, folder / f"{rank}.txt", environment=environment, **faults.get(rank, {})))
    # The store lives as long as they do.
    processes[0].store = store
    return processes


class Unlimited:
    """A text file that can be written on a full disk too."""

    def __init__(self, file):
        self.file, self.limit = file, resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(self, text: str) -> int:
        now = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limit)
        try:
            return self.file.write(text)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, now)

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def _main(arguments: list[str], output: Path, at_step: int | None, file_limit: int | None,
          before_summary: bool, out_of_memory: bool, fits: int | None, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    import torch

    import motivation.run_folder.write
    import motivation.training.trainer
    from motivation.cli.main import main

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, before[1]))

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    if at_step is not None:
        step = motivation.training.trainer.Trainer.step

        def stepped(self, *batch, **options):
            if self.steps == at_step:
                self.loss = no_memory if out_of_memory else self.loss
                if file_limit is not None:
                    full_disk()
            return step(self, *batch, **options)

        motivation.training.trainer.Trainer.step = stepped
    elif out_of_memory:
        motivation.training.trainer.Trainer.network = no_memory
    if fits is not None:
        forward = torch.nn.functional.cross_entropy

        def fitting(logits, *arguments, **keywords):
            return forward(logits, *arguments, **keywords) if len(logits) <= fits else no_memory()

        torch.nn.functional.cross_entropy = fitting
    if before_summary:
        summary = motivation.run_folder.write.RunFolder.summary

        def summed(self, values):
            full_disk()
            try:
                return summary(self, values)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        motivation.run_folder.write.RunFolder.summary = summed
    with open(output, "a", buffering=1) as file, contextlib.redirect_stdout(Unlimited(file)), \
            contextlib.redirect_stderr(Unlimited(file)):
        status = main(arguments)
    sys.exit(status)
