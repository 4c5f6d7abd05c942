"""The training set lives on the device as uint8; augmentation and normalisation run there, a batch at a time.

Epoch order and augmentation are derived from (seed, epoch, step), so that a resumed run needs no replay.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motivation.data.augmentation import Augmentation
from motivation.data.auto_augment import Policy, apply
from motivation.data.dataset import Split
from motivation.data.erasing import erase
from motivation.data.mixing import Mixing
from motivation.data.resample import centre_box, random_boxes, resample
from motivation.randomness import AUGMENTATION, ORDER, derived_generator

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
        """Computed from the training images alone; a constant channel keeps its scale."""
        flat = train.images.reshape(-1, train.images.shape[-1])
        mean = flat.mean(0, dtype=np.float64)
        std = flat.std(0, dtype=np.float64)
        return cls(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))

    def apply(self, images: Tensor) -> Tensor:
        """uint8 ``(N, H, W, C)`` -> float32 ``(N, C, H, W)`` of zero mean and unit variance, channels-last layout."""
        mean = torch.tensor(self.mean, device=images.device)
        scale = 1 / torch.tensor(self.std, device=images.device)
        return images.float().sub_(mean).mul_(scale).permute(0, 3, 1, 2)


class Loader:
    """Training batches, augmented on the device.

    Args:
        split: the training images.
        batch_size: images a batch; a last partial batch is dropped.
        normalization: applied to augmented images, before erasing and mixing.
        seed: of order and augmentation.
        device: where the images live.
        augmentation: what becomes of them. Padding is black, as torchvision's random crop pads; what a policy moves in
            from outside has the training set's mean.
        num_classes: width of mixed targets; None for what the labels say.
        channels_last: layout of the batches.

    Raises:
        ValueError: fewer images than a batch, or an augmentation that such images or batches cannot have.
    """

    def __init__(self, split: Split, batch_size: int, normalization: Normalization, *, seed: int = 0,
                 device: torch.device | str = "cpu", augmentation: Augmentation = NO_AUGMENTATION,
                 num_classes: int | None = None, channels_last: bool = True):
        if len(split) < batch_size:
            raise ValueError(f"recipe.batch_size={batch_size} but there are only {len(split)} training images; "
                             f"choose a batch size of at most {len(split)}")
        height, width, channels = split.images.shape[1:]
        if augmentation.crop_padding > max(height, width):
            raise ValueError(f"recipe.crop_padding={augmentation.crop_padding}: must be at most the images' size, "
                             f"{max(height, width)}")
        if augmentation.auto_augment and channels not in (1, 3):
            raise ValueError(f"recipe.auto_augment={augmentation.auto_augment}: the images have {channels} channels; a "
                             "policy takes grey or RGB ones")
        if augmentation.mixes and batch_size % 2:
            raise ValueError(f"recipe.batch_size={batch_size}: must be even with Mixup or CutMix, which mix pairs")
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.batch_size = batch_size
        self.normalization = normalization
        self.seed = seed
        self.augmentation = augmentation
        self.channels_last = channels_last
        self.image_shape = augmentation.train_shape((channels, height, width))
        self._policy = Policy(augmentation.auto_augment) if augmentation.auto_augment else None
        self._mixing = None
        if augmentation.mixes:
            self._mixing = Mixing(augmentation, num_classes or int(split.labels.max()) + 1, seed)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, in its own order.

        Args:
            epoch: number of the epoch, from 0.
            start: first batch, to go on inside an epoch.

        Yields:
            Images float32 ``(N, C, H, W)`` and labels ``(N,)``; with Mixup or CutMix, targets ``(N, classes)``.
        """
        order = self._order(epoch)
        for step in range(start, len(self)):
            indices = order[step * self.batch_size:(step + 1) * self.batch_size]
            labels = self.labels[indices]
            generator = derived_generator(self.seed, AUGMENTATION, epoch, step)
            images = self.normalization.apply(self._augmented(self.images[indices], generator))
            if self.augmentation.random_erasing:
                images = erase(images, self.augmentation.random_erasing, generator)
            if self._mixing:
                images, labels = self._mixing(images, labels, epoch, step)
            yield _laid_out(images, self.channels_last), labels

    def _order(self, epoch: int) -> Tensor:
        """Indices of an epoch; with repeats, fewer images and each of them several times in a row, as timm has it."""
        order = torch.randperm(len(self.labels), generator=derived_generator(self.seed, ORDER, epoch))
        if self.augmentation.repeats > 1:
            order = order.repeat_interleave(self.augmentation.repeats)[:len(order)]
        return order.to(self.images.device)

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 ``(N, H, W, C)`` -> uint8, of the size that is trained on."""
        wanted, (_, *size) = self.augmentation, self.image_shape
        count, height, width, _ = images.shape
        if wanted.crop_padding or wanted.flip:
            images = augment(images, generator, wanted.crop_padding, wanted.flip)
        if wanted.scale:
            boxes, _ = random_boxes(count, height, width, wanted.scale, CROP_RATIO, generator)
            images = resample(images, boxes, size)
        elif wanted.image_size:
            images = resample(images, centre_box(height, width), size)
        if self._policy:
            images = apply(images, self._policy.draw(count, generator), torch.tensor(self.normalization.mean).round())
        return images


def augment(images: Tensor, generator: torch.Generator, padding: int, flip: bool) -> Tensor:
    """Random crop after black padding, and a random mirror, image by image in one gather.

    Args:
        images: uint8 ``(N, H, W, C)``.
        generator: CPU generator; where the images live makes no difference to the draw.
        padding: pixels on every side; 0 for no crop.
        flip: mirror each image with probability 1/2.

    Returns:
        uint8 ``(N, H, W, C)``.
    """
    count, height, width, channels = images.shape
    device = images.device
    rows = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator) + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    stride = padded.shape[2]
    image = torch.arange(count).view(-1, 1, 1) * (padded.shape[1] * stride)
    pixels = (image + rows.view(count, height, 1) * stride + columns.view(count, 1, width)).flatten()
    return padded.view(-1, channels).index_select(0, pixels.to(device)).view(count, height, width, channels)


def evaluation_batches(split: Split, normalization: Normalization, device: torch.device | str, batch_size: int = 512,
                       channels_last: bool = True, augmentation: Augmentation = NO_AUGMENTATION) -> Iterator[Tensor]:
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
