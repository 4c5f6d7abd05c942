"""Data sets in memory: a subset of the training set, a smaller stored size, and the splits, the same for every source.
"""

import numpy as np
import torch
import torch.nn.functional as F

from motivation.data.dataset import Dataset, Split, split_train
from motivation.randomness import SUBSET, derived_seed

# Images averaged at once: of 32 x 32 in three channels 12 MiB as float32.
AT_ONCE = 1000


def prepare(train: Split, test: Split, validation: float, heldout: float, seed: int, fold: int | None = None,
            classes: tuple[str, ...] | None = None, *, train_subset: int | None = None,
            size: int | None = None) -> Dataset:
    """A data set of images in memory: subset first, then the stored size, then the splits inside the subset.

    With a subset both parts are sorted, see `ordered`: the same images in another order are the same data, and give the
    same subset, whoever stored them.

    Args:
        train: the whole training set, in any order.
        test: the test set; it is resized, and otherwise whole.
        validation: see `split_train`.
        heldout: see `split_train`.
        seed: of the subset and of the splits.
        fold: see `split_train`.
        classes: see `split_train`.
        train_subset: training images to keep, see `stratified_subset`; validation and held-out images are split off
            these. None for all.
        size: pixels a side, see `reduced`; None for the images as they are.

    Raises:
        ValueError: as these functions do.
    """
    if train_subset is not None:
        train, test = ordered(train), ordered(test)
        train = train.take(stratified_subset(train.labels, train_subset, seed))
    if size is not None:
        train, test = reduced(train, size), reduced(test, size)
    return split_train(train, test, validation, heldout, seed, fold, classes)


def ordered(split: Split) -> Split:
    """The images by class, and in a class by their pixels."""
    pixels = np.ascontiguousarray(split.images).reshape(len(split), -1)
    by_pixels = np.argsort(pixels.view(f"S{pixels.shape[1]}")[:, 0], kind="stable")
    return split.take(by_pixels[np.argsort(split.labels[by_pixels], kind="stable")])


def stratified_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices, ascending, of a subset in which every class has the share that it has in the whole.

    A smaller subset of the same seed is part of a larger one, as far as rounding a class's share to whole images lets
    it: the largest remainders are rounded up, of equal ones the lower class.

    Args:
        labels: int64 ``(N,)``, class indices from 0.
        count: images to keep.
        seed: of the choice.

    Raises:
        ValueError: there are fewer images, or a class would have none.
    """
    counts = np.bincount(labels)
    if count > len(labels):
        raise ValueError(f"train_subset={count}: the training set has {len(labels)} images")
    # In integers, so that equal remainders are equal.
    kept, remainders = np.divmod(counts * count, len(labels))
    kept[np.argsort(-remainders, kind="stable")[:count - kept.sum()]] += 1
    if not kept[counts > 0].all():
        rarest = int(np.flatnonzero((kept == 0) & (counts > 0))[0])
        raise ValueError(f"train_subset={count}: leaves no image of class {rarest}, which has {counts[rarest]} of the "
                         f"training set's {len(labels)}")
    chosen = [np.random.default_rng(derived_seed(seed, SUBSET, label)).permutation(np.flatnonzero(labels == label))[:n]
              for label, n in enumerate(kept)]
    return np.sort(np.concatenate(chosen))


def reduced(split: Split, size: int) -> Split:
    """Images at a smaller size: area averages (torch's ``interpolate(mode="area")``), rounded to whole values, a
    half to the even one.

    Args:
        split: square images.
        size: pixels a side.

    Raises:
        ValueError: the images are no squares, or smaller.
    """
    height, width = split.images.shape[1:3]
    if height != width or height < size:
        why = "smaller; enlarging them is the recipe's" if height == width else "no squares"
        raise ValueError(f"size={size}: the images are {height} x {width}, {why}")
    if height == size:
        return split
    made = np.empty((len(split), size, size, split.images.shape[3]), np.uint8)
    for start in range(0, len(split), AT_ONCE):
        # Sums of whole numbers below 2^24 are exact in any order: the same images on every machine.
        images = torch.from_numpy(split.images[start:start + AT_ONCE]).permute(0, 3, 1, 2).float()
        means = F.interpolate(images, size=(size, size), mode="area")
        made[start:start + AT_ONCE] = means.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return Split(made, split.labels)
