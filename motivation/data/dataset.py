"""A data set: images and labels, in memory or in files, split into train, validation, held-out and test."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

from motivation.tasks.problem import Problem, Task


class Part(Protocol):
    """One part of a data set: images in memory (`Split`) or in files (`Files`), or token sequences (`Sequences`).

    Attributes:
        labels: int64 ``(N,)``, class indices from 0; of sequences ``(N, T)``.
    """

    labels: np.ndarray

    def __len__(self) -> int:
        """Number of images."""

    def take(self: "AnyPart", indices: np.ndarray | slice) -> "AnyPart":
        """The images at these indices."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` of one image; H and W are 0 where every image has its own. ``(T,)`` of a sequence."""

    @property
    def fingerprinted(self) -> tuple[np.ndarray, ...]:
        """What is hashed to know it again."""


AnyPart = TypeVar("AnyPart", bound=Part)


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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of one image."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    @property
    def fingerprinted(self) -> tuple[np.ndarray, ...]:
        """Every pixel and label."""
        return self.images, self.labels


@dataclass(frozen=True)
class Dataset:
    """All parts of a data set.

    Args:
        train: images trained on.
        test: images that only the final figures see.
        num_classes: number of classes.
        validation: images for model selection, split off the training set; None without one.
        heldout: training images kept for monitors; None without any.
        classes: their names, in the order of the labels; None where they have none. Of tokens the vocabulary.
        further_tests: other test sets by name, such as ``longer`` problems.
        task: of problems, the one that drew them and verifies answers; else None.
        problems: of a task, those of the training sequences, in their order.
    """

    train: Part
    test: Part
    num_classes: int
    validation: Part | None = None
    heldout: Part | None = None
    classes: tuple[str, ...] | None = None
    further_tests: Mapping[str, Part] = field(default_factory=dict)
    task: Task | None = None
    problems: Sequence[Problem] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every part: two runs with one fingerprint saw the same data.

        Of images in memory the pixels and labels count; of images in files the names, sizes and labels.
        """
        digest = hashlib.sha256()
        parts = {name: getattr(self, name) for name in ("train", "validation", "heldout", "test")}
        for name, split in (parts | dict(self.further_tests)).items():
            for array in () if split is None else split.fingerprinted:
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` of one stored image; H and W are 0 where every image has its own. ``(T,)`` of a sequence."""
        return self.train.image_shape


def split_train(train: AnyPart, test: AnyPart, validation: float, heldout: float, seed: int, fold: int | None = None,
                classes: tuple[str, ...] | None = None) -> Dataset:
    """Split validation and held-out images off the training set, stratified by class.

    Args:
        train: the whole training set, in any order.
        test: the test set, untouched.
        validation: share of the training set kept for model selection, 0 for none.
        heldout: share of the training set kept for monitors, 0 for none.
        seed: of the split, the same for every run of an experiment.
        fold: which of 1 / validation equal parts is the validation part; None for a random one.
        classes: their names, in the order of the labels.

    Raises:
        ValueError: the shares leave nothing to train on, or a class has too few images for the split.
    """
    from sklearn.model_selection import StratifiedKFold, train_test_split

    check_shares(validation, heldout, fold)
    counts = np.bincount(train.labels)
    remaining = np.arange(len(train))
    parts: dict[str, np.ndarray] = {}
    for name, share in (("validation", validation), ("heldout", heldout)):
        if not share:
            continue
        try:
            if name == "validation" and fold is not None:
                folds = StratifiedKFold(round(1 / validation), shuffle=True, random_state=seed)
                if counts.min() < folds.n_splits:
                    raise ValueError("a class has fewer images than there are folds")
                remaining, part = list(folds.split(remaining, train.labels))[fold]
                parts[name] = part
                continue
            remaining, part = train_test_split(remaining, test_size=round(share * len(train)),
                                               stratify=train.labels[remaining], random_state=seed)
        except ValueError as error:
            rarest = int(counts.argmin())
            raise ValueError(f"{name}={share}: a stratified split needs at least one image of every class on both "
                             f"sides, the training set has {len(train)} images of {len(counts)} classes and "
                             f"{counts[rarest]} of class {classes[rarest] if classes else rarest}") from error
        parts[name] = np.sort(part)
    return Dataset(train.take(np.sort(remaining)) if parts else train, test, len(counts), classes=classes,
                   **{name: train.take(part) for name, part in parts.items()})


def check_shares(validation: float, heldout: float, fold: int | None = None) -> None:
    """Raise ValueError for shares that together leave nothing to train on, or an impossible fold."""
    if validation + heldout >= 1:
        raise ValueError(f"validation={validation} and heldout={heldout} leave nothing to train on")
    if fold is not None and not (0 < validation <= 0.5 and 0 <= fold < round(1 / validation)):
        raise ValueError(f"fold={fold}: with validation={validation} there are "
                         f"{round(1 / validation) if 0 < validation <= 0.5 else 'no'} folds; give validation=0.2 for "
                         "five, numbered from 0")
