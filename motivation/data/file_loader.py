"""Batches of images that are in files: read, decoded and cropped by worker processes, finished on the device.

What an image becomes depends on (seed, epoch, place in the epoch) alone: not on the number of workers, nor on where a
run was started. timm's create_loader has neither: it seeds a worker once and shuffles from an epoch's start. Its
transforms are used as they are, in a plain DataLoader whose sampler starts anywhere.
"""

import random
import signal
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.utils.data
from PIL import Image
from torch import Tensor

from motivation.data.augmentation import Augmentation
from motivation.data.files import CorruptImage, Files
from motivation.data.loader import Normalization, _laid_out
from motivation.interruption import SIGNALS
from motivation.randomness import AUGMENTATION, ORDER, derived_generator, random_state, restore_random_state

EVALUATION_BATCH = 128
# One epoch, place of the first image in it, and indices of the images: what a worker makes a batch of.
Order = tuple[int, int, np.ndarray]


class FileLoader:
    """Training and evaluation batches of images in files.

    Worker processes run on from epoch to epoch, so that none starts with a pause. They stop with the loader.

    Args:
        files: the training images.
        batch_size: images a batch; a last partial batch is dropped.
        augmentation: sizes and augmentation.
        seed: of order and augmentation.
        device: where the batches are wanted.
        channels_last: layout of the batches.

    Raises:
        ValueError: fewer images than a batch, or no ``image_size``.
    """

    def __init__(self, files: Files, batch_size: int, augmentation: Augmentation, *, seed: int = 0,
                 device: torch.device | str = "cpu", channels_last: bool = True):
        if len(files) < batch_size:
            raise ValueError(f"recipe.batch_size={batch_size} but there are only {len(files)} training images; "
                             f"choose a batch size of at most {len(files)}")
        if augmentation.image_size is None:
            raise ValueError("recipe.image_size=null: images in files have no one size; give one in pixels, such as "
                             "recipe.image_size=224")
        self.files = files
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.normalization = Normalization(*(tuple(255 * value for value in values)
                                             for values in (files.reading.mean, files.reading.std)))
        self.seed = seed
        self.device = torch.device(device)
        self.channels_last = channels_last
        self._stream: Iterator | None = None
        self._place = (0, 0)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.files) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, in its own order.

        Args:
            epoch: number of the epoch, from 0.
            start: first batch, to go on inside an epoch.

        Yields:
            Images float32 ``(N, C, H, W)`` and labels ``(N,)``.

        Raises:
            CorruptImage: an image cannot be read.
        """
        for step in range(start, len(self)):
            if self._stream is None or self._place != (epoch, step):
                orders = _orders(len(self.files), self.batch_size, self.seed, epoch, step)
                transform = training_transform(self.augmentation, self.files.reading.mean)
                self._stream = _decoded(self.files, orders, transform, self.augmentation.image_size, self.seed,
                                        self.device)
            images, labels = next(self._stream)
            self._place = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
            yield _laid_out(self.normalization.apply(images), self.channels_last), labels

    def evaluation_batches(self, part: Files) -> Iterator[Tensor]:
        """Normalised images in the part's order, the last partial batch included: float32 ``(N, C, H, W)``."""
        size = self.augmentation.evaluation_size
        orders = [(0, first, np.arange(first, min(first + EVALUATION_BATCH, len(part))))
                  for first in range(0, len(part), EVALUATION_BATCH)]
        transform = evaluation_transform(size, self.augmentation.test_crop)
        for images, _ in _decoded(part, orders, transform, size, None, self.device):
            yield _laid_out(self.normalization.apply(images), self.channels_last)


def _orders(count: int, batch_size: int, seed: int, epoch: int, step: int) -> Iterator[Order]:
    """What the batches are made of, from a place on and without an end."""
    while True:
        order = torch.randperm(count, generator=derived_generator(seed, ORDER, epoch)).numpy()
        for first in range(step * batch_size, count - batch_size + 1, batch_size):
            yield epoch, first, order[first:first + batch_size]
        epoch, step = epoch + 1, 0


def _decoded(files: Files, orders: Iterable[Order], transform: Callable[[Image.Image], Image.Image], size: int,
             seed: int | None, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the device: images uint8 ``(N, H, W, C)`` and labels ``(N,)``."""
    cuda = device.type == "cuda"
    loader = torch.utils.data.DataLoader(
        _Batches(files, transform, size, seed), batch_size=None, sampler=orders, num_workers=files.reading.workers,
        pin_memory=cuda, worker_init_fn=_ignore_signals,
        # One of its own: DataLoader would draw its workers' seeds from the generator that dropout draws from.
        generator=torch.Generator())
    for batch in loader:
        if isinstance(batch, CorruptImage):
            raise batch
        images, labels = batch
        yield images.to(device, non_blocking=cuda), labels.to(device, non_blocking=cuda)


class _Batches(torch.utils.data.Dataset):
    """What a worker does: an order -> images uint8 ``(N, H, W, C)`` and labels, or the error that one cannot be read.

    An error is handed back as a value: raised, it would arrive with the worker's traceback for a message.
    """

    def __init__(self, files: Files, transform: Callable[[Image.Image], Image.Image], size: int, seed: int | None):
        self.files, self.transform, self.size, self.seed = files, transform, size, seed

    def __getitem__(self, order: Order) -> tuple[Tensor, Tensor] | CorruptImage:
        epoch, first, indices = order
        images = torch.empty(len(indices), self.size, self.size, 3, dtype=torch.uint8)
        # Without workers these are the generators of training itself.
        state = random_state()
        try:
            for place, index in enumerate(indices):
                if self.seed is not None:
                    _start_generators(self.seed, epoch, first + place)
                images.numpy()[place] = self.transform(self.files.image(index))
        except CorruptImage as error:
            return error
        finally:
            restore_random_state(state)
        return images, torch.from_numpy(self.files.labels[indices])


def _start_generators(seed: int, epoch: int, place: int) -> None:
    """Start all generators that timm's and torchvision's transforms draw from, for one image."""
    numbers = np.random.SeedSequence(entropy=seed, spawn_key=(AUGMENTATION, epoch, place)).generate_state(3).tolist()
    random.seed(numbers[0])
    np.random.seed(numbers[1])  # noqa: NPY002
    torch.default_generator.manual_seed(numbers[2])


def _ignore_signals(worker: int) -> None:
    """Signals ask the training process to stop; a worker ends with it. Killed first, it would take the run along."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def training_transform(augmentation: Augmentation, mean: tuple[float, ...]) -> Callable[[Image.Image], Image.Image]:
    """timm's training transform up to the last image: crop to ``image_size``, mirror, policy.

    Args:
        augmentation: without ``scale``, the crop is the centre square; ``crop_padding`` moves it.
        mean: by channel, from 0 to 1; what timm's policies fill corners with.
    """
    from timm.data import create_transform
    from torchvision import transforms

    size, policy = augmentation.image_size, augmentation.auto_augment
    crop, augment, _ = create_transform(
        size, is_training=True, scale=augmentation.scale, hflip=0.5 * augmentation.flip, color_jitter=None,
        auto_augment=None if policy == "cifar10" else policy, interpolation="bicubic", mean=mean, use_prefetcher=True,
        separate=True)
    stages = [*crop.transforms, *augment.transforms]
    if augmentation.scale is None:
        stages[0] = evaluation_transform(size)
    if augmentation.crop_padding:
        stages.insert(1, transforms.RandomCrop(size, padding=augmentation.crop_padding))
    if policy == "cifar10":
        stages.append(transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10))
    return transforms.Compose(stages)


def evaluation_transform(size: int, share: float = 1.0) -> Callable[[Image.Image], Image.Image]:
    """timm's evaluation transform up to the last image: the centre square, resized.

    Args:
        size: pixels a side.
        share: of the shorter side that is seen.
    """
    from timm.data import create_transform
    from torchvision import transforms

    whole = create_transform(size, is_training=False, crop_pct=share, interpolation="bicubic", use_prefetcher=True)
    return transforms.Compose(whole.transforms[:-1])
