"""Oxford's flowers and pets, from torchvision's downloadable classes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motivation.data.sources.download import open_or_download
from motivation.data.sources.files import Files, FileSource
from motivation.validation import check_arguments


@check_arguments
@dataclass(frozen=True)
class Oxford(FileSource):
    """A data set of Oxford's Visual Geometry Group.

    Args:
        root: folder that holds, or will hold, the data.
        download: fetch the data where it is missing.

    Raises:
        ValueError: as every data set in files.
    """

    root: str = "data"
    download: bool = False

    def _parts(self, what: str, size: str, source: Callable[..., Any], *splits: str) -> list[Any]:
        """torchvision's data set of each split."""
        return open_or_download(lambda: [source(self.root, split=split, download=self.download) for split in splits],
                                what, self.root, size, self.download)


@dataclass(frozen=True)
class Flowers(Oxford):
    """Oxford Flowers-102 (Nilsback and Zisserman 2008): 2,040 training images (the authors' train and val, as is
    usual) and 6,149 test images of 102 kinds, in ``flowers-102`` below the root.
    """

    def find(self) -> tuple[Files, Files, tuple[str, ...]]:
        """See `FileSource.find`.

        Raises:
            ValueError: the data is missing or damaged, or the download failed.
        """
        import torchvision.datasets

        source = torchvision.datasets.Flowers102
        train, validation, test = self._parts("Flowers-102", "329 MiB", source, "train", "val", "test")
        # torchvision has no public list of a part's files that does without decoding them.
        return (Files.whole(Path(self.root), [*train._image_files, *validation._image_files],
                            [*train._labels, *validation._labels], self.reading),
                Files.whole(Path(self.root), test._image_files, test._labels, self.reading), tuple(source.classes))


@dataclass(frozen=True)
class Pets(Oxford):
    """Oxford-IIIT Pet (Parkhi et al. 2012): 3,680 training and 3,669 test images of 37 breeds, in
    ``oxford-iiit-pet`` below the root.
    """

    def find(self) -> tuple[Files, Files, tuple[str, ...]]:
        """See `FileSource.find`.

        Raises:
            ValueError: the data is missing or damaged, or the download failed.
        """
        import torchvision.datasets

        train, test = self._parts("Oxford-IIIT Pet", "774 MiB", torchvision.datasets.OxfordIIITPet, "trainval", "test")
        return (*(Files.whole(Path(self.root), part._images, part._labels, self.reading) for part in (train, test)),
                tuple(train.classes))
