"""The cache of torch.compile on disk, which runs share: compilations that were killed are removed from it.

Inductor lets the C++ compiler write a library under its final name, in a folder ``NAME_CxxBuild`` that it removes
afterwards, while it holds a lock. Where the folder is left and nobody holds the lock, both were killed, and the library
may be half of one, which ends every process that loads it by a bus error.
"""

import logging
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)
BUILD = "_CxxBuild"


def remove_killed_builds(cache: Path) -> list[Path]:
    """Remove the libraries whose compilation was killed; they are compiled again when they are needed.

    Args:
        cache: folder of Inductor's cache; need not exist.

    Returns:
        The libraries that were removed.
    """
    removed = []
    for folder in cache.glob(f"*/*{BUILD}"):
        name = folder.name.removesuffix(BUILD)
        try:
            # Of the source's hash, as Inductor names it.
            with FileLock(cache / "locks" / f"{name.partition('.')[0]}.lock", timeout=0):
                for library in (folder.with_name(f"{name}{suffix}") for suffix in (".so", ".o")):
                    if library.exists():
                        library.unlink()
                        removed.append(library)
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue  # Another process compiles it now.
        except OSError as error:
            logger.warning("%s, left by a compilation that was killed, cannot be removed: %s", folder, error)
    return removed
