"""Anyone's images, from one .npz file."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motivation.data.dataset import Dataset, Split, check_shares
from motivation.data.sources.memory import prepare
from motivation.validation import Count, Seed, ShareBelowOne, check_arguments

KEYS = ("x_train", "y_train", "x_test", "y_test")


@check_arguments
@dataclass(frozen=True)
class Arrays:
    """An .npz file with x_train, y_train, x_test, y_test; it may be sorted by class.

    Args:
        path: the file. Images are uint8 ``(N, H, W, C)`` or ``(N, H, W)``, labels integers ``(N,)`` from 0.
        validation: share of the training set kept for model selection.
        heldout: share of the training set kept for monitors.
        fold: which of 1 / validation equal parts is the validation part, for cross-validation; null for a random one.
        split_seed: seed of those splits and of the subset, separate from the run's seed so that all runs share them.
        train_subset: training images to use, equal shares of every class, from which validation and held-out images
            are split off; null for all.
        size: stored pixels a side, by area averages; null for the images as they are.

    Raises:
        ValueError: no path, a file that is not there, or shares outside [0, 1).
    """

    path: str | None = None
    validation: ShareBelowOne = 0.0
    heldout: ShareBelowOne = 0.0
    fold: int | None = None
    split_seed: Seed = 0
    train_subset: Count | None = None
    size: Count | None = None

    def __post_init__(self):
        check_shares(self.validation, self.heldout, self.fold)
        if self.path is None:
            raise ValueError("path is missing: give an .npz file")
        if not Path(self.path).is_file():
            raise ValueError(f"path={self.path}: no such file; it must be an .npz with {', '.join(KEYS)}")

    def load(self) -> Dataset:
        """Read and check the arrays.

        Raises:
            ValueError: a file that is no .npz, a missing array, a wrong shape or type, labels out of range, or no such
                subset or size.
        """
        try:
            if not zipfile.is_zipfile(self.path):
                raise ValueError("it is no archive of arrays, or cut short")
            # allow_pickle stays off: an array file from others must never run code.
            with np.load(self.path, allow_pickle=False) as file:
                if missing := [key for key in KEYS if key not in file.files]:
                    raise ValueError(f"array {missing[0]} is missing; it has {', '.join(file.files) or 'none'}")
                arrays = {key: file[key] for key in KEYS}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"path={self.path}: no .npz with {', '.join(KEYS)}: {error}") from error
        try:
            train = _split(arrays["x_train"], arrays["y_train"], "train")
            test = _split(arrays["x_test"], arrays["y_test"], "test")
            _check_classes(train, test)
        except ValueError as error:
            raise ValueError(f"path={self.path}: {error}") from error
        return prepare(train, test, self.validation, self.heldout, self.split_seed, self.fold,
                       train_subset=self.train_subset, size=self.size)


def _split(images: np.ndarray, labels: np.ndarray, part: str) -> Split:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and _channels_first(*images.shape[1:]):
        raise ValueError(f"x_{part} is {images.shape}, which looks like (N, C, H, W); images must be (N, H, W, C): "
                         "x.transpose(0, 2, 3, 1)")
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"x_{part} is {images.dtype} {images.shape}; images must be uint8 (N, H, W, C) or (N, H, W)")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"y_{part} is {labels.dtype} {labels.shape}; labels must be integers (N,)")
    if len(images) != len(labels):
        raise ValueError(f"x_{part} has {len(images)} images, y_{part} {len(labels)} labels")
    if not images.size:
        raise ValueError(f"x_{part} is empty, shape {images.shape}")
    if labels.max() > np.iinfo(np.int64).max:
        raise ValueError(f"y_{part} has a label of {labels.max()}; labels must be 0 to classes - 1")
    return Split(images, labels.astype(np.int64))


def _channels_first(first: int, second: int, third: int) -> bool:
    """Whether the axes of an image look like channels, height, width: one that is 13 pixels high and 64 wide, with 64
    channels, is 13 channels of 64 x 64.
    """
    return third > 4 and first != second and (second == third or first < min(second, third))


def _check_classes(train: Split, test: Split) -> None:
    """Labels must run from 0 without a gap, and the test set must know no others."""
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(f"x_train has images of {train.images.shape[1:]}, x_test of {test.images.shape[1:]}")
    classes = np.unique(train.labels)
    if classes[0] < 0 or classes[-1] != len(classes) - 1:
        raise ValueError(f"y_train has labels from {classes[0]} to {classes[-1]} and {len(classes)} different ones; "
                         "they must be 0 to classes - 1, each at least once")
    if len(classes) < 2:
        raise ValueError("y_train has a single class; there is nothing to learn")
    low, high = test.labels.min(), test.labels.max()
    if low < 0 or high >= len(classes):
        raise ValueError(f"y_test has labels from {low} to {high}; the training set has classes 0 to "
                         f"{len(classes) - 1}")
