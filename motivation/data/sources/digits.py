"""The 1,797 handwritten digits that scikit-learn carries: real images, nothing to download."""

from dataclasses import dataclass

import numpy as np

from motivation.data.dataset import Dataset, Split, check_shares
from motivation.data.sources.memory import prepare
from motivation.validation import Count, ShareBelowOne, check_arguments

TEST_IMAGES = 360
SPLIT_SEED = 0


@check_arguments
@dataclass(frozen=True)
class Digits:
    """8 x 8 grey images of ten classes (UCI "Optical Recognition of Handwritten Digits", test part).

    Args:
        validation: share of the training set kept for model selection.
        heldout: share of the training set kept for monitors.
        fold: which of 1 / validation equal parts is the validation part, for cross-validation; null for a random one.
        train_subset: training images to use, equal shares of every class, from which validation and held-out images
            are split off; null for all.
        size: stored pixels a side, by area averages; null for the images as they are.

    Raises:
        ValueError: shares outside [0, 1) or that leave nothing to train on; on loading, a subset or size that there is
            not.
    """

    validation: ShareBelowOne = 0.2
    heldout: ShareBelowOne = 0.0
    fold: int | None = None
    train_subset: Count | None = None
    size: Count | None = None

    def __post_init__(self):
        check_shares(self.validation, self.heldout, self.fold)

    def load(self) -> Dataset:
        """1,437 training images (validation and held-out split off them) and 360 test images, fixed and stratified."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
        everything = Split(images, digits.target.astype(np.int64))
        train, test = train_test_split(np.arange(len(everything)), test_size=TEST_IMAGES,
                                       stratify=everything.labels, random_state=SPLIT_SEED)
        return prepare(everything.take(np.sort(train)), everything.take(np.sort(test)), self.validation, self.heldout,
                       SPLIT_SEED, self.fold, tuple(map(str, digits.target_names)), train_subset=self.train_subset,
                       size=self.size)
