"""torchvision's downloadable data sets: fetched where that is asked for, unpacked safely, or said to be missing."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        ValueError: the data is missing or damaged, or the download failed.
    """
    try:
        with _safe_extraction():
            return make()
    except (RuntimeError, OSError, ValueError, tarfile.TarError) as error:
        reason = "the download failed" if download else "it is missing or damaged, and data.download is off"
        told = str(error).partition("\n")[0].partition(". You can use")[0]
        raise ValueError(f"{what} in {Path(root).resolve()}: {reason} ({told}); fetch it with data.download=true "
                         f"({size}) or point data.root at a copy") from error


@contextmanager
def _safe_extraction() -> Iterator[None]:
    """Nothing unpacked inside leaves its folder, or is more than a file or a folder.

    torchvision unpacks with Python's default, which before 3.14 writes wherever an archive says.
    """
    before = vars(tarfile.TarFile).get("extraction_filter")
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before
