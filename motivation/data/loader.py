"""The training set lives on the device as uint8; crop, flip and normalisation run there, a batch at a time.

Epoch order and augmentation are derived from (seed, epoch, step), so that a resumed run needs no replay.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motivation.data.dataset import Split
from motivation.randomness import AUGMENTATION, ORDER, derived_generator

EVALUATION_BATCH = 512


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
        normalization: applied after augmentation; padding is black, as torchvision's random crop pads.
        seed: of order and augmentation.
        device: where the images live.
        crop_padding: pixels of padding before a random crop to the original size; 0 for no crop.
        flip: mirror half of the images left to right.
        channels_last: layout of the batches.
        share: which images of every batch are given; order and augmentation are those of the whole batch.

    Raises:
        ValueError: fewer images than a batch.
    """

    def __init__(self, split: Split, batch_size: int, normalization: Normalization, *, seed: int = 0,
                 device: torch.device | str = "cpu", crop_padding: int = 0, flip: bool = False,
                 channels_last: bool = True, share: slice = slice(None)):
        if len(split) < batch_size:
            raise ValueError(f"recipe.batch_size={batch_size} but there are only {len(split)} training images; "
                             f"choose a batch size of at most {len(split)}")
        if crop_padding > max(split.images.shape[1:3]):
            raise ValueError(f"recipe.crop_padding={crop_padding}: must be at most the images' size, "
                             f"{max(split.images.shape[1:3])}")
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.batch_size = batch_size
        self.normalization = normalization
        self.seed = seed
        self.crop_padding = crop_padding
        self.flip = flip
        self.channels_last = channels_last
        self.share = share

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, in its own order.

        Args:
            epoch: number of the epoch, from 0.
            start: first batch, to go on inside an epoch.

        Yields:
            Images float32 ``(N, C, H, W)`` and labels ``(N,)``.
        """
        order = torch.randperm(len(self.labels), generator=derived_generator(self.seed, ORDER, epoch))
        order = order.to(self.images.device)
        for step in range(start, len(self)):
            indices = order[step * self.batch_size:(step + 1) * self.batch_size]
            images = self.images[indices]
            if self.crop_padding or self.flip:
                images = augment(images, derived_generator(self.seed, AUGMENTATION, epoch, step),
                                 self.crop_padding, self.flip)
            images = self.normalization.apply(images[self.share])
            yield _laid_out(images, self.channels_last), self.labels[indices[self.share]]


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


def evaluation_batches(split: Split, normalization: Normalization, device: torch.device | str,
                       batch_size: int = EVALUATION_BATCH, channels_last: bool = True) -> Iterator[Tensor]:
    """Normalised images in the split's order, the last partial batch included: float32 ``(N, C, H, W)``."""
    for start in range(0, len(split), batch_size):
        images = torch.from_numpy(split.images[start:start + batch_size]).to(device)
        yield _laid_out(normalization.apply(images), channels_last)


def _laid_out(images: Tensor, channels_last: bool) -> Tensor:
    """(N, H, W, C) storage already is channels-last; the other layout is a copy."""
    return images if channels_last else images.contiguous()
