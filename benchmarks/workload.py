"""What benchmarks train: runs on random images, a step at a time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motivation.cli.compose import composing
from motivation.run.prepare import prepare
from motivation.run.record import Record, record_steps
from motivation.run.session import Session
from motivation.run_folder.write import RunFolder

DEVICES = ("cpu", "cuda")
CLASSES, IMAGES = 10, 2560
# Batch and image size: arithmetic takes the time, or the launching of kernels does.
SHAPES = {"compute-bound": (128, 32), "launch-bound": (2, 8)}


def is_here(device: str) -> bool:
    """Whether this machine has such a device."""
    return device == "cpu" or torch.cuda.is_available()


def write_images(path: Path, size: int, count: int = IMAGES) -> Path:
    """An .npz of random images, as `data=arrays` takes it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count) % CLASSES
    test = min(count, 512)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:test], y_test=labels[:test])
    return path


def config_of(path: Path, *overrides: str) -> dict[str, Any]:
    """The config of a run on images in a file, with further overrides, as `motivation train` composes it."""
    with composing() as compose:
        return compose(("data=arrays", f"data.path={path}", "tracker=none", *overrides))


def training_steps(opened: ExitStack, folder: Path, config: dict[str, Any]) -> Callable[[], None]:
    """The very steps of `motivation train`, recorded and shown; each call takes the next one.

    Args:
        opened: closes what the run opens.
        folder: the run's.
        config: its config.
    """
    session = open_session(opened, config)
    record = open_record(opened, folder, session)
    batches = batches_of(session)

    def step() -> None:
        session.step(*next(batches))
        record_steps(session, record)

    return step


def open_session(opened: ExitStack, config: dict[str, Any]) -> Session:
    """A session, whose loader is closed at the end."""
    session = prepare(config)
    opened.enter_context(closing(session.loader))
    return session


def open_record(opened: ExitStack, folder: Path, session: Session) -> Record:
    """The record of a run, started."""
    record = Record(session, opened.enter_context(closing(RunFolder(folder, session.config))))
    opened.enter_context(record).start(session)
    return record


def batches_of(session: Session) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of a run, epoch after epoch."""
    while True:
        yield from session.batches()
        session.position.epoch += 1
