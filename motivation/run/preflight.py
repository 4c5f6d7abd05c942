"""Before step 0: both networks fit in memory with the real batch, and the disk holds the checkpoints.

An interval hours into training is then never the first to run out of memory.
"""

import logging
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

logger = logging.getLogger(__name__)


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


def fitting_evaluation_batch(trainer: Trainer, shape: tuple[int, ...]) -> int:
    """Images that both networks can predict at once, found by predicting black ones.

    With an engine's ``accumulation="auto"`` their number is halved until both networks fit.

    Args:
        trainer: before its first step.
        shape: ``(N, C, H, W)`` of the largest batch of an evaluation.

    Raises:
        ValueError: a network does not fit.
    """
    engine, images = trainer.engine, shape[0]
    black = torch.zeros(shape, device=engine.torch_device)
    while True:
        try:
            for phase in reversed(PHASES) if trainer.pair else PHASES[:1]:
                network = trainer.network(phase)
                with out_of_memory_named(phase, images, 1), _modes_kept(network):
                    engine.predict(network, [black[:images]])
            return images
        except OutOfMemory as error:
            if engine.accumulation != "auto" or images == 1:
                raise ValueError(f"{error} in evaluation; set engine.evaluation_batch={max(1, images // 2)} (or "
                                 "engine.accumulation=auto)") from error
            images //= 2


@contextmanager
def _modes_kept(network: nn.Module) -> Iterator[None]:
    """Context that sets training or evaluation mode back at its end, module by module."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _forward_backward(trainer: Trainer, engine: Engine, network: nn.Module, images: Tensor, targets: Tensor) -> None:
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    generators = random_state()
    try:
        with _modes_kept(network):
            network.train()
            engine.gradients(network, trainer.loss, images, targets)
    finally:
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
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
    try:
        disk = shutil.disk_usage(folder)
    except OSError as error:
        logger.warning("%s: its file system does not say how much is free (%s); %d checkpoints need %.0f MB", folder,
                       error.strerror, checkpoints, needed / 1e6)
        return
    # Some network mounts say 0 of 0.
    if disk.total and disk.free < needed:
        raise ValueError(f"{folder} has {disk.free / 1e6:.0f} MB free, {checkpoints} checkpoints need "
                         f"{needed / 1e6:.0f} MB; free some, or choose another disk with hydra.run.dir=PATH")
