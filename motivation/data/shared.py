"""Data sets in memory that the processes of one command share: read once, and mapped from files by every process."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock

from motivation.data.dataset import Dataset, Split

logger = logging.getLogger(__name__)
PARTS = ("train", "test", "validation", "heldout")
# The folder of this process's command, and what of it this process has mapped; None where nothing is shared.
_folder: Path | None = None
_mapped: dict[Path, Dataset] = {}


class Source(Protocol):
    """A data set that can be read; its text form says which one it is."""

    def load(self) -> Dataset:
        """Read it."""


@contextmanager
def shared_in(folder: Path | None) -> Iterator[None]:
    """Context in which `load` shares data sets with every other process that has the same folder.

    Args:
        folder: for the arrays; None, or one that is not on this machine, shares nothing.
    """
    global _folder
    before, _folder = _folder, folder if folder is not None and folder.is_dir() else None
    try:
        yield
    finally:
        _folder = before


def load(source: Source) -> Dataset:
    """A source's data set: its arrays are in memory once, however many processes ask for them.

    What is in files (`motivation.data.Files`) every process reads as it needs.

    Raises:
        ValueError: the source cannot be read.
    """
    if _folder is None:
        return source.load()
    path = _folder / hashlib.sha256(repr(source).encode()).hexdigest()[:16]
    if path not in _mapped:
        # Only one process reads a source; the others wait, and map what it has written.
        with FileLock(f"{path}.lock"):
            if not path.is_dir():
                dataset = source.load()
                if not all(isinstance(getattr(dataset, name), Split | None) for name in PARTS) or not _write(
                        dataset, path):
                    return dataset
        _mapped[path] = _read(path)
    return _mapped[path]


def _write(dataset: Dataset, path: Path) -> bool:
    """Write a data set to a folder; returns whether there was room for it."""
    made = path.with_suffix(".made")
    try:
        made.mkdir()
        for name in PARTS:
            if part := getattr(dataset, name):
                np.save(made / f"{name}.images.npy", part.images)
                np.save(made / f"{name}.labels.npy", part.labels)
        (made / "dataset.json").write_text(json.dumps({"num_classes": dataset.num_classes, "classes": dataset.classes}))
        made.rename(path)
    except OSError as error:
        logger.warning("%s: %s; every process reads the data by itself", path.parent, error.strerror)
        shutil.rmtree(made, ignore_errors=True)
        return False
    return True


def _read(path: Path) -> Dataset:
    parts = {}
    for name in PARTS:
        if (images := path / f"{name}.images.npy").is_file():
            # Mapped for this process's own changes, of which there are none: torch takes no arrays that are read-only.
            parts[name] = Split(np.load(images, mmap_mode="c").view(np.ndarray), np.load(path / f"{name}.labels.npy"))
    about = json.loads((path / "dataset.json").read_text())
    return Dataset(num_classes=about["num_classes"], classes=about["classes"] and tuple(about["classes"]), **parts)
