"""Before step 0: both networks fit in memory with the real batch, and the disk holds the checkpoints.

An interval hours into training is then never the first to run out of memory.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from motivation.phase import PHASES
from motivation.randomness import random_state, restore_random_state
from motivation.training.engine import Engine, OutOfMemory, out_of_memory_named
from motivation.training.trainer import Trainer


@contextmanager
def memory_advice() -> Iterator[None]:
    """Context that adds to an out-of-memory error which keys of the config would help."""
    try:
        yield
    except OutOfMemory as error:
        raise OutOfMemory(f"{error}; lower recipe.batch_size or set engine.accumulation={2 * error.micro_batches} "
                          "(or auto)", error.micro_batches) from error


def needed_micro_batches(trainer: Trainer, images: Tensor, targets: Tensor) -> int:
    """Micro-batches that every network needs for one batch, found by its forward and backward; leaves no trace.

    With an engine's ``accumulation="auto"`` they are doubled until both networks fit; otherwise they are the engine's.

    Args:
        trainer: before its first step.
        images: a batch as training will see it, ``(N, C, H, W)``.
        targets: ``(N,)``, or ``(N, classes)``.

    Raises:
        OutOfMemory: a network does not fit, with micro-batches of one image where their number may grow.
    """
    engine = trainer.engine
    while True:
        try:
            for phase in reversed(PHASES) if trainer.pair else PHASES[:1]:
                with out_of_memory_named(phase, len(images), engine.micro_batches):
                    _forward_backward(trainer, engine, trainer.network(phase), images, targets)
            return engine.micro_batches
        except OutOfMemory:
            if trainer.engine.accumulation != "auto" or engine.micro_batches * 2 > len(images):
                raise
            engine = replace(engine, accumulation=2 * engine.micro_batches)


def _forward_backward(trainer: Trainer, engine: Engine, network: nn.Module, images: Tensor, targets: Tensor) -> None:
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    modes = [(module, module.training) for module in network.modules()]
    generators = random_state()
    try:
        network.train()
        engine.gradients(network, trainer.loss, images, targets)
    finally:
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for module, training in modes:
            module.training = training
        restore_random_state(generators)


def check_disk(folder: Path, checkpoint_bytes: int, checkpoints: int) -> None:
    """Raise ValueError where the checkpoints of a run will not fit on the disk.

    Args:
        folder: where they go; it need not exist yet.
        checkpoint_bytes: of one.
        checkpoints: how many there are at once.
    """
    while not folder.exists():
        folder = folder.parent
    needed = checkpoint_bytes * checkpoints
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(f"{folder} has {free / 1e6:.0f} MB free, {checkpoints} checkpoints need "
                         f"{needed / 1e6:.0f} MB; free some, or choose another disk with hydra.run.dir=PATH")
