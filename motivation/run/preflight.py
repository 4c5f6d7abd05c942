"""Before step 0: both networks fit with the real batch, and the disk holds the checkpoints.

An interval at hour nine is then never the first to run out of memory.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from motivation.phase import Phase
from motivation.randomness import random_state, restore_random_state
from motivation.training.engine import OutOfMemory, explained_memory
from motivation.training.trainer import Trainer


def check_memory(trainer: Trainer, images: Tensor, targets: Tensor) -> None:
    """Run forward and backward of every network on one batch, and leave no trace of it.

    With ``engine.accumulation=auto`` the trainer's engine is replaced by one that runs a batch in as many parts as both
    networks need.

    Args:
        trainer: before its first step.
        images: a batch as training will see it, ``(N, C, H, W)``.
        targets: ``(N,)``, or ``(N, classes)``.

    Raises:
        OutOfMemory: a network does not fit, with parts of one image where the number of parts may grow.
    """
    phases: tuple[Phase, ...] = ("motivated", "base") if trainer.pair else ("base",)
    grows = trainer.engine.accumulation == "auto"
    if grows:
        trainer.engine = replace(trainer.engine, accumulation=1)
    while True:
        try:
            for phase in phases:
                with explained_memory(phase, len(images), trainer.engine.parts):
                    _rehearse(trainer, trainer.network(phase), images, targets)
            return
        except OutOfMemory:
            if not grows or trainer.engine.parts * 2 > len(images):
                raise
            trainer.engine = replace(trainer.engine, accumulation=2 * trainer.engine.parts)


def _rehearse(trainer: Trainer, network: nn.Module, images: Tensor, targets: Tensor) -> None:
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    modes = [(module, module.training) for module in network.modules()]
    generators = random_state()
    try:
        network.train()
        trainer.engine.gradients(network, trainer.loss, images, targets)
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
        checkpoints: how many lie there at once.
    """
    while not folder.exists():
        folder = folder.parent
    needed = checkpoint_bytes * checkpoints
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(f"{folder} has {free / 1e6:.0f} MB free, {checkpoints} checkpoints need "
                         f"{needed / 1e6:.0f} MB; free some, or choose another disk with hydra.run.dir=PATH")
