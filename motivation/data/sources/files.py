"""Images that stay in files, whole ones or members of tar archives, and are read when they are needed."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from motivation.data.dataset import Dataset, check_shares, split_train
from motivation.data.loaders.resident import Normalization
from motivation.data.sources.headers import inspect
from motivation.data.sources.pixels import as_rgb
from motivation.data.sources.scan import refuse
from motivation.validation import Probability, Seed, ShareBelowOne, check_arguments

# Of ImageNet's red, green and blue from 0 to 1: timm's default, which its weights were trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# More processes than this decode faster than one GPU trains on most recipes; more are a config value away.
MOST_WORKERS_UNASKED = 8
Deviation = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Reading:
    """How files become batches, whatever the recipe.

    Args:
        workers: processes that read and decode; 0 for none beside the training process.
        normalization: of their batches.
    """

    workers: int
    normalization: Normalization


@dataclass(frozen=True)
class Files:
    """One part of a data set whose images are in files. Arrays, not lists: worker processes share their memory.

    Args:
        root: folder that the files are in.
        names: of the images, unique, relative to the root; bytes ``(N,)``.
        containers: the file that holds each image, relative to the root; bytes ``(N,)``.
        offsets: of its first byte there, ``(N,)``.
        sizes: its bytes, ``(N,)``.
        labels: int64 ``(N,)``, class indices from 0.
        reading: how they become batches.
    """

    root: Path
    names: np.ndarray
    containers: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    reading: Reading

    @classmethod
    def whole(cls, root: Path, paths: Sequence[Path | str], labels: Sequence[int], reading: Reading,
              sizes: np.ndarray | None = None) -> "Files":
        """Images that are a file each.

        Args:
            root: folder that the files are in.
            paths: of the files.
            labels: of the files.
            reading: how they become batches.
            sizes: their bytes, of files that are known to be images; None to read their headers.

        Raises:
            ValueError: files that are not there, empty or no images.
        """
        paths = list(map(str, paths))
        if sizes is None:
            found = inspect(root, paths)
            refuse(root, paths, found.faults)
            sizes = found.sizes
        names = np.array([os.fsencode(os.path.relpath(path, root)) for path in paths])
        return cls(root, names, names, np.zeros(len(names), np.int64), sizes, np.asarray(labels, np.int64), reading)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(3, 0, 0)``: images differ in size."""
        return 3, 0, 0

    def take(self, indices: np.ndarray | slice) -> "Files":
        """The images at these indices."""
        return replace(self, **{name: getattr(self, name)[indices]
                                for name in ("names", "containers", "offsets", "sizes", "labels")})

    @property
    def fingerprinted(self) -> tuple[np.ndarray, ...]:
        """Names, sizes and labels; the pixels of a million images would take an hour."""
        return self.names, self.sizes, self.labels

    def path(self, index: int) -> str:
        """Where an image is, for messages."""
        return os.path.join(self.root, os.fsdecode(self.names[index]))

    def image(self, index: int) -> Image.Image:
        """An image, decoded, as RGB.

        Raises:
            CorruptImage: it cannot be read or decoded.
        """
        try:
            with open(os.path.join(self.root, os.fsdecode(self.containers[index])), "rb") as file:
                file.seek(self.offsets[index])
                content = file.read(self.sizes[index])
            with Image.open(io.BytesIO(content)) as image:
                return as_rgb(image)
        except Exception as error:  # A damaged file makes decoders raise anything.
            raise CorruptImage.at(self.path(index), error) from error


class CorruptImage(ValueError):
    """An image that cannot be read; the message names it and says how to continue."""

    @classmethod
    def at(cls, path: str, error: Exception) -> "CorruptImage":
        """The image at a path, and why."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return cls(f"{path} cannot be read as an image: {reason}; put the file back as it was and resume "
                   "from the last checkpoint, or remove it and train again")


@check_arguments
@dataclass(frozen=True)
class FileSource:
    """What every data set in files may be told; a subclass says where its images are.

    Args:
        validation: share of the training set kept for model selection.
        heldout: share of the training set kept for monitors.
        fold: which of 1 / validation equal parts is the validation part, for cross-validation; null for a random one.
        split_seed: seed of those splits, separate from the run's seed so that all runs share them.
        workers: processes that read and decode; null for one a CPU core, at most 8. Changes no result.
        mean: subtracted from the red, green and blue of images from 0 to 1; default ImageNet's.
        std: they are divided by it.

    Raises:
        ValueError: shares outside [0, 1), a negative number of workers, or no three channels.
    """

    validation: ShareBelowOne = 0.0
    heldout: ShareBelowOne = 0.0
    fold: int | None = None
    split_seed: Seed = 0
    workers: Annotated[int, Field(ge=0)] | None = None
    mean: tuple[Probability, Probability, Probability] = IMAGENET_MEAN
    std: tuple[Deviation, Deviation, Deviation] = IMAGENET_STD

    def __post_init__(self):
        check_shares(self.validation, self.heldout, self.fold)

    @property
    def reading(self) -> Reading:
        """How the files become batches."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(cores, MOST_WORKERS_UNASKED) if self.workers is None else self.workers
        return Reading(workers, Normalization(*(tuple(255 * value for value in values)
                                                for values in (self.mean, self.std))))

    def find(self) -> tuple[Files, Files, tuple[str, ...]]:
        """Training and test images, and the names of the classes. No pixel is read."""
        raise NotImplementedError

    def load(self) -> Dataset:
        """Find the images and split them; no pixel is read.

        Raises:
            ValueError: the data is missing or cannot be right, or a class is too small for the splits.
        """
        train, test, classes = self.find()
        if len(classes) < 2:
            raise ValueError(f"{train.root} has a single class, {classes[0]}; there is nothing to learn")
        return split_train(train, test, self.validation, self.heldout, self.split_seed, self.fold, classes)
