"""Images in WebDataset shards: tar archives whose members are an image and its label, KEY.jpg and KEY.cls.

The archives are indexed once, and then read at random: the order of an epoch is that of any other data set, exact also
in a resumed run. (timm's reader for them streams and shuffles in a buffer, so its order is that of its
processes.) Nothing is ever unpacked.
"""

import fnmatch
import os
import tarfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motivation.data.sources.files import Files, FileSource
from motivation.data.sources.headers import Known, header_fault
from motivation.data.sources.scan import listed, refuse
from motivation.validation import check_arguments


@check_arguments
@dataclass(frozen=True)
class WebDataset(FileSource):
    """Shards below a folder: plain .tar, each image KEY.jpg (or another image format) beside its label KEY.cls.

    Args:
        root: the folder.
        train: pattern of the training shards' paths below it; ``*`` matches anything, folders too.
        test: pattern of the test shards'.

    Raises:
        ValueError: no root, and as every data set in files.
    """

    root: str | None = None
    train: str = "*train*.tar"
    test: str = "*val*.tar"

    def __post_init__(self):
        super().__post_init__()
        if self.root is None:
            raise ValueError("root is missing: give the folder of the shards, root=FOLDER")

    def find(self) -> tuple[Files, Files, tuple[str, ...]]:
        """See `FileSource.find`; the classes are the numbers in the .cls members.

        Raises:
            ValueError: no shards, one that is damaged or packed, an image without a label, or classes that differ.
        """
        root = Path(self.root)
        shards = sorted(str(path.relative_to(root)) for path in root.rglob("*.tar"))
        parts = {part: fnmatch.filter(shards, getattr(self, part)) for part in ("train", "test")}
        for part, found in parts.items():
            if not found:
                raise ValueError(f"{part}={getattr(self, part)}: no such shard in {root.resolve()}, which has "
                                 f"{listed(shards) or 'no .tar file'}; give the pattern of the {part} shards")
        if both := sorted(set(parts["train"]) & set(parts["test"])):
            raise ValueError(f"train={self.train} and test={self.test} share shards: {listed(both)}")
        train, test = (self._part(root, found) for found in parts.values())
        counts = np.bincount(train.labels)
        if 0 in counts:
            raise ValueError(f"{root}: the training shards have labels up to {len(counts) - 1}, but none of class "
                             f"{counts.argmin()}; they must be 0 to classes - 1")
        if apart := sorted(set(test.labels.tolist()) ^ set(range(len(counts)))):
            raise ValueError(f"{root}: training and test images must have the same classes, but only one of them has "
                             f"{listed([str(label) for label in apart])}")
        return train, test, tuple(map(str, range(len(counts))))

    def _part(self, root: Path, shards: list[str]) -> Files:
        known = Known(root)
        members = [member for shard in shards for member in _index(root / shard, shard, known)]
        containers, names, offsets, sizes, labels = zip(*members, strict=True)
        return Files(root, np.array(names), np.array(containers), np.array(offsets, np.int64),
                     np.array(sizes, np.int64), np.array(labels, np.int64), self.reading)


def _index(path: Path, shard: str, known: Known) -> list[tuple[bytes, bytes, int, int, int]]:
    """Container, name, offset, size and label of every image in a shard; the headers of an unknown one are read."""
    from timm.data.readers.img_extensions import get_img_extensions

    extensions = get_img_extensions(as_set=True)
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        # "r:" takes no packed archive: there is no reading one from the middle.
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, name = os.path.split(member.name)
                # As WebDataset has it: a key ends at the first dot of the name.
                key, _, ending = name.partition(".")
                key = f"{folder}/{key}"
                if member.isfile() and f".{ending.lower()}" in extensions:
                    if key in images:
                        raise ValueError(f"{member.name} is there twice")
                    images[key] = member
                elif member.isfile() and ending == "cls":
                    text = archive.extractfile(member).read()
                    if not text.strip().isdigit():
                        raise ValueError(f"{member.name} must hold a class index from 0, not {text[:20]!r}")
                    labels[key] = int(text)
            found = os.stat(path)
            whole = [member for member in images.values() if member.offset_data + member.size <= found.st_size]
            faults = {}
            if not known.has(shard, found):
                with warnings.catch_warnings():
                    # Of an image that is large, but not too large.
                    warnings.simplefilter("ignore")
                    faults = {index: fault for index, member in enumerate(whole)
                              if member.size and (fault := header_fault(archive.extractfile(member)))}
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise ValueError(f"shard {path}: {error}; it must be a whole, plain .tar") from error
    for key, member in images.items():
        if key not in labels:
            raise ValueError(f"shard {path}: {member.name} has no label; it needs a member {key.lstrip('/')}.cls")
        if not member.size or member.offset_data + member.size > found.st_size:
            raise ValueError(f"shard {path}: {member.name} is {'cut short' if member.size else 'empty'}")
    if not images:
        raise ValueError(f"shard {path} has no image")
    refuse(path, [str(path / member.name) for member in whole], faults)
    known.add_file(shard, found)
    return [(os.fsencode(shard), os.fsencode(f"{shard}/{member.name}"), member.offset_data, member.size, labels[key])
            for key, member in images.items()]
