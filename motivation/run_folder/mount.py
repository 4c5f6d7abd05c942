"""What a network or FUSE mount may refuse: flushing, locks, renaming over a file, removing an open one.

A refusal costs a line, once a mount and kind, never the run. A disk that is full or fails is an error as everywhere.
"""

import errno
import logging
import os
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)
# Of a mount that does not know an operation, or not for this file; none is of a full or failing disk.
REFUSALS = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOLCK,
                      errno.EBUSY, errno.ETXTBSY, errno.EACCES, errno.EPERM, errno.EXDEV, errno.EEXIST, errno.EISDIR})
FLUSH = "to flush a file to its disk: a power cut may cost what was written last"
FLUSH_NAMES = "to flush a folder to its disk: a power cut may cost the newest names"
RENAME = "to move a file over another: it is copied, and a kill in that moment may leave half of it"
REMOVE = "to remove a file: it stays, and may be removed by hand"
LOCK = "to lock a file: see to it that no other process writes the same run folder"
# What has been said: kind of refusal and mount.
_said: set[tuple[str, int]] = set()


def say(kind: str, path: Path, error: BaseException) -> None:
    """Log a refusal, once for a kind and mount.

    Args:
        kind: what is refused and what that costs: one of the above.
        path: the file.
        error: with the reason.
    """
    folder = path if path.is_dir() else path.parent
    try:
        mount = folder.stat().st_dev
    except OSError:
        mount = 0
    if (kind, mount) not in _said:
        _said.add((kind, mount))
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        logger.warning("%s: its file system refuses (%s) %s", folder, reason, kind)


def flush(descriptor: int, path: Path) -> None:
    """Wait until an open file is on the disk.

    Args:
        descriptor: of the open file.
        path: its name.

    Raises:
        OSError: the disk is full or fails.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        say(FLUSH, path, error)


def flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a rename is durable only then."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # The files themselves are there.
        say(FLUSH_NAMES, folder, error)


def move(path: Path, target: Path) -> None:
    """Move a file to a name, in the place of what has it: at once, or by a copy where that is refused.

    Raises:
        OSError: the disk is full or fails, or refuses the copy too.
    """
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        # Into the file that has the name, which may be open elsewhere.
        shutil.copyfile(path, target)
        with open(target, "rb") as file:
            flush(file.fileno(), target)
        say(RENAME, target, error)
        remove(path)


def remove(path: Path) -> None:
    """Remove a file that nothing depends on, if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        say(REMOVE, path, error)
