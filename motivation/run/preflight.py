"""Before step 0: a real step of both networks and an evaluation fit in memory, and the disk holds the checkpoints.

An interval hours into training is then never the first to run out of memory, nor the one that waits for the compiler.
"""

import copy
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motivation.command_line import resume_command
from motivation.pairing.tracing.example import example_input, takes_tokens
from motivation.phase import PHASES
from motivation.randomness import random_state, restore_random_state
from motivation.run_folder.write import HoldsRun, UnusableFolder
from motivation.training.engine import OutOfMemory, out_of_memory_named
from motivation.training.trainer import Trainer

logger = logging.getLogger(__name__)


@contextmanager
def folder_advice(folder: Path) -> Iterator[None]:
    """Context that adds to the error of a run folder that cannot be used which keys of the config would help."""
    try:
        yield
    except UnusableFolder as error:
        resume = f", or resume it: {resume_command(folder)}" if isinstance(error, HoldsRun) else ""
        raise ValueError(f"{error}; choose another with hydra.run.dir=PATH{resume}") from error


@contextmanager
def memory_advice() -> Iterator[None]:
    """Context that adds to an out-of-memory error which keys of the config would help."""
    try:
        yield
    except OutOfMemory as error:
        raise OutOfMemory(f"{error}; lower recipe.batch_size or set engine.accumulation={2 * error.micro_batches} "
                          "(or auto)", error.micro_batches) from error


def needed_micro_batches(trainer: Trainer, images: Tensor, targets: Tensor) -> int:
    """Micro-batches that every network needs for one batch, found by a step of each; leaves no trace.

    Steps with optimizer state and the monitor's probes, one network after the other as a run trains them: the state of
    both is in memory at once. Until they are undone, a copy of weights and state is in the main memory.

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
            with _undone(trainer):
                for phase in PHASES if trainer.pair else PHASES[:1]:
                    with out_of_memory_named(phase, len(images), engine.micro_batches):
                        trainer.rehearse(phase, images, targets, engine)
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
        shape: ``(N, C, H, W)``, of tokens ``(N, T)``, of the largest batch of an evaluation.

    Raises:
        ValueError: a network does not fit.
    """
    engine, images = trainer.engine, shape[0]

    def black() -> Iterator[Tensor]:
        """As a loader makes its batches, strides and all, while predicting: the graph compiled here is evaluation's."""
        if takes_tokens(trainer.network("base")):
            yield example_input(trainer.network("base"), shape[1:], images, device=engine.torch_device)
            return
        layout = torch.channels_last if engine.channels_last else torch.contiguous_format
        pixels = torch.zeros((images, *shape[2:], shape[1]), device=engine.torch_device)
        yield pixels.permute(0, 3, 1, 2).contiguous(memory_format=layout)

    while True:
        try:
            for phase in reversed(PHASES) if trainer.pair else PHASES[:1]:
                network = trainer.network(phase)
                with out_of_memory_named(phase, images, 1), _modes_kept(network):
                    replace(engine, evaluation_batch=images).predict(network, black())
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


@contextmanager
def _undone(trainer: Trainer) -> Iterator[None]:
    """Context whose training steps are undone at its end, bit for bit: weights, buffers, gradients, modes, the state of
    optimizers and monitor, and random numbers.
    """
    model, monitor, optimizers = trainer.model, trainer.monitor, trainer.optimizers
    tensors = [(tensor, _copied(tensor)) for tensor in (*model.parameters(), *model.buffers())]
    # The dicts themselves stay: that of an aliased weight is in both optimizers.
    known = [set(optimizer.state) for optimizer in optimizers]
    states = [*(state for optimizer in optimizers for state in optimizer.state.values()),
              *(group for optimizer in optimizers for group in optimizer.param_groups)]
    held = [(state, {key: (value, _copied(value)) for key, value in state.items() if key != "params"})
            for state in {id(state): state for state in states}.values()]
    seen, generators = None if monitor is None else monitor.state_dict(), random_state()
    try:
        with _modes_kept(model):
            yield
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)
            for state, values in held:
                for key in state.keys() - values.keys() - {"params"}:
                    del state[key]
                for key, (value, copied) in values.items():
                    state[key] = value.copy_(copied) if isinstance(value, Tensor) else copied
        for optimizer, parameters in zip(optimizers, known, strict=True):
            for parameter in optimizer.state.keys() - parameters:
                del optimizer.state[parameter]
        if monitor is not None:
            monitor.load_state_dict(seen)
        restore_random_state(generators)


def _copied(value: Any) -> Any:
    """A copy, of a tensor in the main memory and its layout."""
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)


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
