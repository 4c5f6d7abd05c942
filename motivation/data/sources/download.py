"""torchvision's downloadable data sets: fetched where that is asked for, or said to be missing."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")


def open_or_download(make: Callable[[], Made], what: str, root: str, size: str, download: bool) -> Made:
    """What torchvision makes of the data in a folder.

    Args:
        make: builds torchvision's data sets, which download what is missing where ``download`` says so.
        what: name of the data set.
        root: the folder.
        size: of the download, for the message.
        download: whether it was asked for.

    Raises:
        ValueError: the root is a file, the data is missing or damaged, or the download failed.
    """
    if Path(root).is_file():
        raise ValueError(f"root={root}: is a file; give the folder that holds the data of {what}")
    try:
        return make()
    except (RuntimeError, OSError, ValueError, tarfile.TarError) as error:
        told = str(error).partition("\n")[0].partition(". You can use")[0]
        reason, remedy = ("the download failed", "try again") if download else (
            "it is missing or damaged", f"fetch it with download=true ({size})")
        raise ValueError(f"download={download}: {what} in {Path(root).resolve()}: {reason} ({told}); {remedy}, or give "
                         "the root of a copy") from error
