"""The training set lives on the device as uint8; augmentation and normalisation run there, a batch at a time.

Epoch order and augmentation are derived from (seed, epoch, step), so that a resumed run needs no replay.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motivation.data.augment.augmentation import Augmentation
from motivation.data.augment.auto_augment import Policy, apply
from motivation.data.augment.crop import crop, draw_crops
from motivation.data.augment.erasing import erase
from motivation.data.augment.mixing import Mixing
from motivation.data.augment.resample import centre_box, random_boxes, resample
from motivation.data.dataset import Part, Split
from motivation.randomness import AUGMENTATION, ORDER, derived_generator

EVALUATION_BATCH = 512
# Values of the small batches that are made together, in a tenth of the time: a megabyte of float32.
VALUES_AT_ONCE = 2 ** 18
# Of a batch that starts where memory of its own would: kernels may compute other bits elsewhere.
ALIGNED_VALUES = 16
# Values of images looked at at once: their copy for counting takes 8 bytes each.
VALUES_COUNTED = 2 ** 20
NO_AUGMENTATION = Augmentation()
# Width over height of random resized crops, as everywhere since Szegedy et al. 2015.
CROP_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation of the training images, in units of 0 to 255.

    Args:
        mean: ``(C,)``.
        std: ``(C,)``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, train: Split) -> "Normalization":
        """Of the training images alone, exact, from how often each value occurs; a constant channel keeps its scale."""
        counts = np.zeros((train.images.shape[-1], 256), np.int64)
        images = max(1, VALUES_COUNTED // max(1, train.images[0].size))
        for start in range(0, len(train), images):
            for channel, of_value in enumerate(counts):
                of_value += np.bincount(train.images[start:start + images, ..., channel].ravel(), minlength=256)
        mean, std = [], []
        for occurrences in counts.tolist():
            total, first, second = (sum(value ** power * count for value, count in enumerate(occurrences))
                                    for power in range(3))
            mean.append(first / total)
            std.append(math.sqrt((total * second - first ** 2) / total ** 2) or 1.0)
        return cls(tuple(mean), tuple(std))

    def apply(self, images: Tensor) -> Tensor:
        """uint8 ``(N, H, W, C)`` -> float32 ``(N, C, H, W)`` of zero mean and unit variance, channels-last layout."""
        mean, scale = _rows(self, images.shape[2], images.device)
        return images.float().sub_(mean).mul_(scale).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=16)
def _rows(normalization: Normalization, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal standard deviation of a row of pixels ``(W, C)``.

    Arithmetic with three numbers in turn takes ten times as long as with a row of them, and a GPU would be waited for
    in every batch.
    """
    # Kept for training, wherever they are first made.
    with torch.inference_mode(False):
        mean, std = torch.tensor(normalization.mean), torch.tensor(normalization.std)
        return mean.repeat(width, 1).to(device), (1 / std).repeat(width, 1).to(device)


class EpochLoader:
    """What the loaders of images in memory and in files share: an epoch's order, and the last steps of augmentation.

    Args:
        part: the training images.
        batch_size: images a batch; a last partial batch is dropped.
        normalization: applied to augmented images, before erasing and mixing.
        seed: of order and augmentation.
        device: where the batches are wanted.
        augmentation: how they are changed. Padding is black, as torchvision's random crop pads; what a policy moves in
            from outside has the mean of the normalisation.
        num_classes: width of mixed targets; None for what the labels say.
        channels_last: layout of the batches.
        share: which images of every batch are given; order and augmentation are those of the whole batch.

    Attributes:
        interpolation: how images are brought to their size.

    Raises:
        ValueError: fewer images than a batch, or an augmentation that such batches cannot have.
    """

    interpolation = "bilinear"

    def __init__(self, part: Part, batch_size: int, normalization: Normalization, *, seed: int = 0,
                 device: torch.device | str = "cpu", augmentation: Augmentation = NO_AUGMENTATION,
                 num_classes: int | None = None, channels_last: bool = True, share: slice = slice(None)):
        if len(part) < batch_size:
            raise ValueError(f"batch_size={batch_size} but there are only {len(part)} training images; "
                             f"choose a batch size of at most {len(part)}")
        if augmentation.mixes and batch_size % 2:
            raise ValueError(f"batch_size={batch_size}: must be even with Mixup or CutMix, which mix pairs")
        self.count = len(part)
        self.batch_size = batch_size
        self.normalization = normalization
        self.seed = seed
        self.device = torch.device(device)
        self.augmentation = augmentation
        self.channels_last = channels_last
        self.image_shape = augmentation.train_shape(part.image_shape)
        self._mixing = None
        if augmentation.mixes:
            self._mixing = Mixing(augmentation, num_classes or int(part.labels.max()) + 1, seed)
        self.share = share

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.count // self.batch_size

    def indices(self, epoch: int, step: int) -> Tensor:
        """Which of the training images are in a batch of an epoch, before anything is drawn: int64 ``(N,)``."""
        order = epoch_order(self.count, self.seed, epoch, self.augmentation.repeats)
        return order[step * self.batch_size:(step + 1) * self.batch_size][self.share]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, in its own order.

        Args:
            epoch: number of the epoch, from 0.
            start: first batch, to resume inside an epoch.

        Yields:
            Images float32 ``(N, C, H, W)`` and labels ``(N,)``; with Mixup or CutMix, targets ``(N, classes)``.
        """
        raise NotImplementedError

    def evaluation_batches(self, part: Part, batch_size: int = EVALUATION_BATCH) -> Iterator[Tensor]:
        """Normalised images in the part's order, the last partial batch included: float32 ``(N, C, H, W)``.

        Of the augmentation they have the size and centre crop of evaluation, and nothing that is drawn.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End what works in the background, if anything does."""

    def _finished(self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int, step: int,
                  share: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """A batch, or this share of one, as it is trained on, from augmented images uint8 ``(N, H, W, C)``."""
        images = self.normalization.apply(images)
        if self.augmentation.random_erasing:
            images = erase(images, self.augmentation.random_erasing, generator, self.batch_size, share)
        if self._mixing:
            images, labels = self._mixing(images, labels, epoch, step)
        return _laid_out(images, self.channels_last), labels


def epoch_order(count: int, seed: int, epoch: int, repeats: int = 1) -> Tensor:
    """Indices of an epoch; with repeats, fewer images and each of them several times in a row, as timm has it."""
    order = torch.randperm(count, generator=derived_generator(seed, ORDER, epoch))
    return order.repeat_interleave(repeats)[:count] if repeats > 1 else order


class Loader(EpochLoader):
    """Training batches of images that live on the device, augmented there.

    Args:
        split: the training images.
        batch_size: images a batch; see `EpochLoader` for this and the rest.
        normalization: applied to augmented images.
        options: of `EpochLoader`.

    Raises:
        ValueError: fewer images than a batch, or an augmentation that such images or batches cannot have.
    """

    def __init__(self, split: Split, batch_size: int, normalization: Normalization, **options: Any):
        super().__init__(split, batch_size, normalization, **options)
        augmentation = self.augmentation
        height, width, channels = split.images.shape[1:]
        if augmentation.crop_padding > max(height, width):
            raise ValueError(f"crop_padding={augmentation.crop_padding}: must be at most the images' size, "
                             f"{max(height, width)}")
        if augmentation.auto_augment and channels not in (1, 3):
            raise ValueError(f"auto_augment={augmentation.auto_augment}: the images have {channels} channels; a "
                             "policy takes grey or RGB ones")
        self.images = torch.from_numpy(split.images).to(self.device)
        self.labels = torch.from_numpy(split.labels).to(self.device)
        self._policy = Policy(augmentation.auto_augment) if augmentation.auto_augment else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `EpochLoader.epoch`."""
        order = epoch_order(self.count, self.seed, epoch, self.augmentation.repeats).to(self.device)
        for first in range(start, len(self), self._together):
            steps = range(first, min(first + self._together, len(self)))
            indices = order[first * self.batch_size:steps.stop * self.batch_size]
            generators = [derived_generator(self.seed, AUGMENTATION, epoch, step) for step in steps]
            # Where more is drawn than crops and mirrors, this is one batch and its generator.
            images = self._augmented(indices, generators)
            images, labels = self._finished(images, self.labels.index_select(0, indices), generators[0], epoch, first)
            for place in range(0, len(indices), self.batch_size):
                batch = slice(place, place + self.batch_size)
                yield images[batch][self.share], labels[batch][self.share]

    @property
    def _together(self) -> int:
        """Batches that are made at once: several small ones, where only crops and mirrors are drawn."""
        wanted, values = self.augmentation, self.batch_size * math.prod(self.image_shape)
        alone = (wanted.image_size or wanted.scale or wanted.auto_augment or wanted.random_erasing or wanted.mixes
                 or values % ALIGNED_VALUES)
        return 1 if alone else max(1, VALUES_AT_ONCE // values)

    def evaluation_batches(self, part: Split, batch_size: int = EVALUATION_BATCH) -> Iterator[Tensor]:
        """See `EpochLoader.evaluation_batches`."""
        return evaluation_batches(part, self.normalization, self.device, batch_size, self.channels_last,
                                  self.augmentation)

    def _augmented(self, indices: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Images uint8 ``(N, H, W, C)`` of the size that is trained on: a batch a generator."""
        wanted, (_, *size) = self.augmentation, self.image_shape
        count, (height, width, _), generator = len(indices), self.images.shape[1:], generators[0]
        if wanted.crop_padding or wanted.flip:
            drawn = [draw_crops(self.batch_size, each, wanted.crop_padding, wanted.flip) for each in generators]
            images = crop(self.images, indices, torch.cat(drawn, 1), wanted.crop_padding)
        else:
            images = self.images.index_select(0, indices)
        if wanted.scale:
            boxes, _ = random_boxes(count, height, width, wanted.scale, CROP_RATIO, generator)
            images = resample(images, boxes, size)
        elif wanted.image_size:
            images = resample(images, centre_box(height, width), size)
        if self._policy:
            images = apply(images, self._policy.draw(count, generator), torch.tensor(self.normalization.mean).round())
        return images


def evaluation_batches(split: Split, normalization: Normalization, device: torch.device | str,
                       batch_size: int = EVALUATION_BATCH, channels_last: bool = True,
                       augmentation: Augmentation = NO_AUGMENTATION) -> Iterator[Tensor]:
    """Normalised images in the split's order, the last partial batch included: float32 ``(N, C, H, W)``.

    Of ``augmentation`` they have the size and centre crop of evaluation, and nothing that is drawn.
    """
    height, width, channels = split.images.shape[1:]
    stored = (channels, height, width)
    shape = augmentation.test_shape(stored)
    for start in range(0, len(split), batch_size):
        images = torch.from_numpy(split.images[start:start + batch_size]).to(device)
        if shape != stored or augmentation.test_crop < 1:
            images = resample(images, centre_box(height, width, augmentation.test_crop), shape[1:])
        yield _laid_out(normalization.apply(images), channels_last)


def _laid_out(images: Tensor, channels_last: bool) -> Tensor:
    """Normalised images already are channels-last, and stay as they are; the other layout is a copy."""
    return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
