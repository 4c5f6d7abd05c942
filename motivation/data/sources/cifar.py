"""CIFAR-10 and CIFAR-100 from torchvision's downloadable classes, or as arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from motivation.data.dataset import Dataset, Split, check_shares
from motivation.data.sources.arrays import Arrays
from motivation.data.sources.download import open_or_download
from motivation.data.sources.memory import prepare
from motivation.validation import Count, Seed, ShareBelowOne, check_arguments


@check_arguments
@dataclass(frozen=True)
class Cifar:
    """50,000 training and 10,000 test images of 32 x 32 (Krizhevsky 2009).

    Args:
        classes: 10 or 100.
        root: folder that holds, or will hold, the data: torchvision's files; or ``cifar10.npz`` (``cifar100.npz``) with
            the same images in any order, as `Arrays` takes them.
        download: fetch the data (163 MiB) where it is missing.
        validation: share of the training set kept for model selection.
        heldout: share of the training set kept for monitors.
        fold: which of 1 / validation equal parts is the validation part, for cross-validation; null for a random one.
        split_seed: seed of those splits and of the subset, separate from the run's seed so that all runs share them.
        train_subset: training images to use, equal shares of every class, from which validation and held-out images
            are split off; null for all.
        size: stored pixels a side, by area averages; null for the images as they are.

    Raises:
        ValueError: another number of classes, or shares outside [0, 1).
    """

    classes: Literal[10, 100] = 10
    root: str = "data"
    download: bool = False
    validation: ShareBelowOne = 0.0
    heldout: ShareBelowOne = 0.0
    fold: int | None = None
    split_seed: Seed = 0
    train_subset: Count | None = None
    size: Count | None = None

    def __post_init__(self):
        check_shares(self.validation, self.heldout, self.fold)

    def load(self) -> Dataset:
        """Read the data, downloading it first if asked to.

        Raises:
            ValueError: the data is missing or damaged, the download failed, or there is no such subset or size.
        """
        options = {"train_subset": self.train_subset, "size": self.size}
        if (arrays := Path(self.root) / f"cifar{self.classes}.npz").is_file():
            return Arrays(str(arrays), self.validation, self.heldout, self.fold, self.split_seed, **options).load()
        import torchvision.datasets

        source = getattr(torchvision.datasets, f"CIFAR{self.classes}")
        train, test = open_or_download(
            lambda: [source(self.root, train=part, download=self.download) for part in (True, False)],
            f"CIFAR-{self.classes}", self.root, "163 MiB", self.download)
        images, test_images = (Split(np.asarray(part.data), np.asarray(part.targets, np.int64))
                               for part in (train, test))
        return prepare(images, test_images, self.validation, self.heldout, self.split_seed, self.fold,
                       tuple(train.classes), **options)
