"""Images that cannot be read, found from their headers before training; those found right are remembered on disk."""

import hashlib
import logging
import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from motivation.data.sources.pixels import mode_fault

logger = logging.getLogger(__name__)
# How the formats of the usual endings begin, and what a crashed file system leaves: a damaged image. A file with
# another beginning is no image.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"RIFF", bytes(8),
              *(b"P%d" % kind for kind in range(1, 7)))
GIT_LFS = b"version "
NO_IMAGE = "is no image"
# Opening a file on a network waits, and does not compute.
THREADS = 16
# Files a task of a thread: handing over a task takes longer than reading a header.
CHUNK = 64
# Below this a scan takes seconds.
MANY = 50_000


@dataclass(frozen=True)
class Inspection:
    """What the headers of some files say.

    Args:
        sizes: bytes of each file, 0 where it cannot be read.
        faults: index of a file -> what is wrong with it.
    """

    sizes: np.ndarray
    faults: dict[int, str]


def inspect(root: Path, paths: Sequence[str]) -> Inspection:
    """Read the headers of files whose name, size or time has changed since they were last found right.

    Args:
        root: the folder they are in.
        paths: of the files.
    """
    sizes, keys = np.zeros(len(paths), np.int64), np.zeros(len(paths), np.uint64)
    faults = {}
    prefix = os.path.join(root, "")
    for index, path in enumerate(paths):
        try:
            found = os.stat(path)
        except OSError as error:
            incomplete = "; the copy of the data is incomplete" if isinstance(error, FileNotFoundError) else ""
            faults[index] = f"cannot be read: {error.strerror}{incomplete}"
            continue
        sizes[index] = found.st_size
        keys[index] = _key(path.removeprefix(prefix), found)
        if not stat.S_ISREG(found.st_mode):
            faults[index] = NO_IMAGE
        elif not found.st_size:
            faults[index] = "is empty"
    known = Known(root)
    fresh = [index for index in np.flatnonzero(~np.isin(keys, known.keys)).tolist() if index not in faults]
    if len(fresh) > MANY:
        logger.info("%s: reading the headers of %s images", root, f"{len(fresh):,}")
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as threads:
        # Of an image that is large, but not too large.
        warnings.simplefilter("ignore")
        chunks = [fresh[first:first + CHUNK] for first in range(0, len(fresh), CHUNK)]
        for read in threads.map(lambda chunk: [(index, header_fault(paths[index])) for index in chunk], chunks):
            faults |= {index: fault for index, fault in read if fault}
    known.add(keys[[index for index in fresh if index not in faults]])
    return Inspection(sizes, dict(sorted(faults.items())))


def header_fault(file: str | BinaryIO) -> str | None:
    """What is wrong with an image, as far as its header says; None if nothing is."""
    try:
        with Image.open(file) as image:
            return mode_fault(image)
    except Image.DecompressionBombError:
        return f"is too large: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    except UnidentifiedImageError:
        start = _start(file)
        if start == GIT_LFS:
            return "is a pointer of Git LFS, not the image"
        return "is damaged" if start.startswith(SIGNATURES) else NO_IMAGE
    except Exception as error:  # A damaged header makes decoders raise anything.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        return f"cannot be read: {reason}"


def _start(file: str | BinaryIO) -> bytes:
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return opened.read(8)
    file.seek(0)
    return file.read(8)


def _key(name: str, found: os.stat_result) -> int:
    """What a file is known again by; another Pillow may judge it otherwise."""
    text = f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0{PIL.__version__}\0{Image.MAX_IMAGE_PIXELS}"
    return int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest(), "little")


class Known:
    """Keys of the files below a folder that were found right, in a cache folder of the user's: ``MOTIVATION_CACHE``
    or ``~/.cache/motivation``.

    A cache that cannot be read or written costs the time of a scan, and nothing else.

    Args:
        root: the folder.

    Attributes:
        keys: uint64, one a file.
    """

    def __init__(self, root: Path):
        self.keys = np.zeros(0, np.uint64)
        self._path = None
        try:
            caches = os.environ.get("MOTIVATION_CACHE") or Path(
                os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "motivation")
            name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
            self._path = Path(caches, "images", name)
            content = self._path.read_bytes()
            self.keys = np.frombuffer(content[:len(content) // 8 * 8], "<u8")
        except (OSError, RuntimeError) as error:
            logger.debug("no images known of %s: %s", root, error)

    def has(self, name: str, found: os.stat_result) -> bool:
        """Whether one file was found right."""
        return bool(np.isin(np.uint64(_key(name, found)), self.keys))

    def add_file(self, name: str, found: os.stat_result) -> None:
        """Remember one file."""
        self.add(np.array([_key(name, found)], np.uint64))

    def add(self, keys: np.ndarray) -> None:
        """Remember files by their keys."""
        if not len(keys) or self._path is None:
            return
        self.keys = np.union1d(self.keys, keys).astype("<u8")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Processes of one job write at once: each its own file, moved into place whole.
            part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            try:
                part.write_bytes(self.keys.tobytes())
                os.replace(part, self._path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            logger.debug("images of %s are not remembered: %s", self._path, error)
