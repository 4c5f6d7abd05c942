"""Checkpoints: everything a run carries, on disk, written whole or not at all, read without running code.

A checkpoint is one ``torch.save`` file of tensors and plain values. Its name says the step, the validation accuracy
where one was measured, and the file's own SHA-256, so that a damaged or foreign file is known before it is opened:
``step-000000170-val98.2578-1f0c9a2b5d3e4f60.pt``.
"""

import errno
import hashlib
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from motivation.run_folder import mount

logger = logging.getLogger(__name__)
NAME = re.compile(r"step-(?P<step>\d{9})(?:-val(?P<validation>\d+\.\d{4}))?-(?P<digest>[0-9a-f]{16})\.pt")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message names the file and why."""


class Saved(NamedTuple):
    """A checkpoint file, as its name tells.

    Attributes:
        path: the file.
        step: training steps done.
        validation: validation accuracy in percent; None where none was measured.
        digest: first 16 hex digits of its SHA-256.
    """

    path: Path
    step: int
    validation: float | None
    digest: str

    @classmethod
    def parse(cls, path: Path) -> "Saved | None":
        """Read a file's name; None where it is no checkpoint's."""
        match = NAME.fullmatch(path.name)
        if match is None:
            return None
        validation = match["validation"]
        return cls(path, int(match["step"]), None if validation is None else float(validation), match["digest"])


def snapshot(value: Any, storages: dict | None = None) -> Any:
    """A copy on the CPU of nested dicts, lists and tuples of tensors and plain values.

    Every storage is copied once: tensors that share one share it in the copy too, with their strides.
    """
    storages = {} if storages is None else storages
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        key = (storage.device, storage.data_ptr(), storage.nbytes())
        if key not in storages:
            storages[key] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
        copied = torch.empty(0, dtype=value.dtype)
        return copied.set_(storages[key], value.storage_offset(), value.size(), value.stride())
    if isinstance(value, dict):
        return {key: snapshot(item, storages) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item, storages) for item in value)
    return value


def size_of(value: Any) -> int:
    """Bytes that a checkpoint of this state takes, every storage counted once."""
    storages: dict = {}

    def collect(item: Any) -> None:
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict | list | tuple):
            for part in item.values() if isinstance(item, dict) else item:
                collect(part)

    collect(value)
    return sum(storages.values())


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a state of tensors and plain values; a kill leaves the old file or the new one, never half of one.

    Shared storages are written once, and strides are kept.

    Raises:
        OSError: naming the file.
    """
    try:
        _write(path.with_suffix(".tmp"), state, lambda digest: path.name)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict:
    """Read what `save_checkpoint` or `Checkpoints` wrote; tensors and plain values only, never code.

    Raises:
        CheckpointError: a file that is no checkpoint, that is damaged, or that holds anything else.
    """
    saved = Saved.parse(path)
    try:
        if saved is not None and (found := _digest(path)) != saved.digest:
            raise CheckpointError(f"{path} is damaged: its SHA-256 begins with {found}, its name says {saved.digest}")
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError, IndexError, TypeError,
            AttributeError, AssertionError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = str(error).split("\n")[0][:200]
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}") from error


class Checkpoints:
    """The checkpoints of one run: the newest ones and the best by validation accuracy, never by test accuracy.

    Files are written by another thread, so that training waits only for the copy in memory.

    Args:
        folder: ``checkpoints/`` of the run folder.
        keep: how many of the newest stay.
        before: called in the writing thread before a file appears; what it makes durable is never behind a checkpoint.
    """

    def __init__(self, folder: Path, keep: int = 2, before: Callable[[], None] = lambda: None):
        self.folder = folder
        self.keep = keep
        self.before = before
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def save(self, state: dict, step: int, validation: float | None = None) -> None:
        """Copy the state, and write it while training continues.

        A full disk costs the checkpoint and never the run: that is logged, and older checkpoints stay.

        Args:
            state: nested dicts, lists and tuples of tensors and plain values.
            step: training steps done.
            validation: validation accuracy in percent, where it was measured at this step.
        """
        self.wait()
        self._writing = self._writer.submit(self._save, snapshot(state), step, validation)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def close(self) -> None:
        """Wait, and end the writing thread."""
        self._writer.shutdown(wait=True)

    def found(self) -> list[Saved]:
        """All checkpoints, newest first; unread."""
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(filter(None, map(Saved.parse, files)), key=lambda saved: saved.step, reverse=True)

    def readable(self) -> Iterator[tuple[Saved, dict]]:
        """Checkpoints that can be read, newest first, with their states; the others are logged."""
        for saved in self.found():
            try:
                yield saved, load_checkpoint(saved.path)
            except CheckpointError as error:
                logger.warning("%s", error)

    def discard_after(self, step: int) -> None:
        """Set aside checkpoints of later steps as ``*.unused``: training is about to repeat them."""
        for saved in self.found():
            if saved.step > step:
                mount.move(saved.path, saved.path.with_suffix(".pt.unused"))
                if saved.path.exists():
                    # A resume would take it for the newest.
                    raise OSError(errno.EBUSY, "a checkpoint that is not used any more cannot be moved or removed",
                                  str(saved.path))

    def _save(self, state: dict, step: int, validation: float | None) -> None:
        measured = "" if validation is None else f"-val{validation:.4f}"
        try:
            written = _write(self.folder / "step.tmp", state,
                             lambda digest: f"step-{step:09d}{measured}-{digest}.pt", self.before)
            self._prune(written)
        except OSError as error:
            logger.warning("no checkpoint of step %d in %s: %s; training continues, older checkpoints stay", step,
                           self.folder, error.strerror or error)

    def _prune(self, written: Path) -> None:
        found = self.found()
        for saved in [saved for saved in found if saved.step == found[0].step and saved.path != written]:
            # The same step again, after a resume.
            mount.remove(saved.path)
            found.remove(saved)
        measured = [saved for saved in found if saved.validation is not None]
        best = max(measured, key=lambda saved: (saved.validation, saved.step), default=None)
        for saved in found[self.keep:]:
            if saved != best:
                mount.remove(saved.path)


def _write(temporary: Path, state: dict, name: Callable[[str], str], before: Callable[[], None] = lambda: None) -> Path:
    """Write to a temporary file, flush it to the disk, rename it to what its digest gives; returns its path."""
    folder = temporary.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                # torch's archive writer raises a RuntimeError for a failed write.
                raise OSError(None, str(error).split("\n")[0]) from error
            file.flush()
            mount.flush(file.fileno(), temporary)
        before()
        path = folder / name(_digest(temporary))
        mount.move(temporary, path)
        mount.flush_names(folder)
        return path
    finally:
        mount.remove(temporary)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
