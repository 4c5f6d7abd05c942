"""A data set in memory: uint8 images and labels, split into train, validation, held-out and test."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Split:
    """Images and labels of one part of a data set.

    Args:
        images: uint8 ``(N, H, W, C)``.
        labels: int64 ``(N,)``, class indices from 0.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray | slice) -> "Split":
        """The images at these indices."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """All parts of a data set.

    Args:
        train: images trained on.
        test: images that only the final figures see.
        num_classes: number of classes.
        validation: images for model selection, split off the training set; None without one.
        heldout: training images kept for monitors; None without any.
    """

    train: Split
    test: Split
    num_classes: int
    validation: Split | None = None
    heldout: Split | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the images and labels of every part: two runs with one fingerprint saw the same data."""
        digest = hashlib.sha256()
        for name in ("train", "validation", "heldout", "test"):
            split = getattr(self, name)
            for array in () if split is None else (split.images, split.labels):
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of one image."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width


def split_train(train: Split, test: Split, validation: float, heldout: float, seed: int,
                fold: int | None = None) -> Dataset:
    """Split validation and held-out images off the training set, stratified by class.

    Args:
        train: the whole training set, in any order.
        test: the test set, untouched.
        validation: share of the training set kept for model selection, 0 for none.
        heldout: share of the training set kept for monitors, 0 for none.
        seed: of the split, the same for every run of an experiment.
        fold: which of 1 / validation equal parts is the validation part; None for a random one.

    Raises:
        ValueError: the shares leave nothing to train on, or a class has too few images for the split.
    """
    from sklearn.model_selection import StratifiedKFold, train_test_split

    check_shares(validation, heldout, fold)
    remaining = np.arange(len(train))
    parts: dict[str, np.ndarray] = {}
    for name, share in (("validation", validation), ("heldout", heldout)):
        if not share:
            continue
        try:
            if name == "validation" and fold is not None:
                folds = StratifiedKFold(round(1 / validation), shuffle=True, random_state=seed)
                remaining, part = list(folds.split(remaining, train.labels))[fold]
                parts[name] = part
                continue
            remaining, part = train_test_split(remaining, test_size=round(share * len(train)),
                                               stratify=train.labels[remaining], random_state=seed)
        except ValueError as error:
            raise ValueError(f"{name}={share}: a stratified split needs at least one image of every class on both "
                             f"sides, the training set has {len(train)} images of {len(np.unique(train.labels))} "
                             "classes") from error
        parts[name] = np.sort(part)
    num_classes = int(train.labels.max()) + 1
    return Dataset(train.take(np.sort(remaining)) if parts else train, test, num_classes,
                   **{name: train.take(part) for name, part in parts.items()})


def check_shares(validation: float, heldout: float, fold: int | None = None) -> None:
    """Raise ValueError for shares of the training set that cannot be split off."""
    for name, share in (("validation", validation), ("heldout", heldout)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}={share}: must be a share of the training set from 0 (none) to below 1")
    if validation + heldout >= 1:
        raise ValueError(f"validation={validation} and heldout={heldout} leave nothing to train on")
    if fold is not None and not (0 < validation <= 0.5 and 0 <= fold < round(1 / validation)):
        raise ValueError(f"fold={fold}: with validation={validation} there are "
                         f"{round(1 / validation) if 0 < validation <= 0.5 else 'no'} folds; give validation=0.2 for "
                         "five, numbered from 0")
