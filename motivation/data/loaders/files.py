"""Batches of images that are in files: read, decoded and cropped by worker processes, finished on the device.

Augmentation depends on (seed, epoch, place in the epoch) alone: not on the number of workers, nor on where a run was
started. timm's create_loader has neither: it seeds a worker once and shuffles from an epoch's start. Its
transforms are used as they are, in a plain DataLoader whose sampler starts anywhere.
"""

import atexit
import contextlib
import gc
import logging
import random
import signal
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.utils.data
from PIL import Image
from torch import Tensor

from motivation.data.augment.augmentation import Augmentation
from motivation.data.loaders.resident import EVALUATION_BATCH, EpochLoader, Normalization, _laid_out, epoch_order
from motivation.data.sources.files import CorruptImage, Files
from motivation.randomness import AUGMENTATION, IMAGE, derived_generator, random_state, restore_random_state

# What asks a job to stop (SLURM, Ctrl-C, kill) reaches its workers too.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
logger = logging.getLogger(__name__)
# Images that are looked at before training, and the largest value of images that are almost black.
DARK_SAMPLE, DARKEST = 8, 16
# Of timm's recipes.
INTERPOLATION = "bicubic"
# One epoch, places in it, and the images at them: what a worker makes a batch of.
Order = tuple[int, np.ndarray, np.ndarray]


class FileLoader(EpochLoader):
    """Training and evaluation batches of images in files.

    Worker processes continue from epoch to epoch, so that none starts with a pause; `close` ends them.

    Args:
        files: the training images.
        batch_size: images a batch; see `EpochLoader` for this and the rest.
        normalization: applied to augmented images.
        options: of `EpochLoader`; with a ``share``, its images are mixed with one another, as much as the whole
            batch's are.

    Raises:
        ValueError: fewer images than a batch, or no ``image_size``.
    """

    interpolation = INTERPOLATION

    def __init__(self, files: Files, batch_size: int, normalization: Normalization, **options: Any):
        super().__init__(files, batch_size, normalization, **options)
        if self.augmentation.image_size is None:
            raise ValueError("image_size=null: images in files have no one size; give one in pixels, such as "
                             "image_size=224")
        mine = len(range(batch_size)[self.share])
        if self.augmentation.mixes and mine % 2:
            raise ValueError(f"batch_size={batch_size}: each process' share, {mine}, must be even with Mixup or "
                             "CutMix, which mix pairs")
        self.files = files
        _warn_if_dark(files)
        self._stream: Generator | None = None
        self._place = (0, 0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `EpochLoader.epoch`.

        Raises:
            CorruptImage: an image cannot be read.
        """
        for step in range(start, len(self)):
            if self._stream is None or self._place != (epoch, step):
                self.close()
                orders = _orders(self.count, self.batch_size, self.seed, self.augmentation.repeats, self.share, epoch,
                                 step)
                transform = training_transform(self.augmentation, self.normalization.mean)
                self._stream = _decoded(self.files, orders, transform, self.image_shape[1], self.seed, self.device)
            try:
                images, labels = next(self._stream)
            except BaseException:
                self.close()
                raise
            self._place = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
            generator = derived_generator(self.seed, AUGMENTATION, epoch, step)
            yield self._finished(images, labels, generator, epoch, step, self.share)

    def evaluation_batches(self, part: Files, batch_size: int = EVALUATION_BATCH) -> Iterator[Tensor]:
        """See `EpochLoader.evaluation_batches`."""
        size = self.augmentation.test_shape(part.image_shape)[1]
        places = np.arange(len(part))
        orders = [(0, places[first:first + batch_size], places[first:first + batch_size])
                  for first in range(0, len(part), batch_size)]
        transform = evaluation_transform(size, self.augmentation.test_crop)
        for images, _ in _decoded(part, orders, transform, size, None, self.device):
            yield _laid_out(self.normalization.apply(images), self.channels_last)

    def close(self) -> None:
        """End the worker processes; the next batch starts them again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _warn_if_dark(files: Files) -> None:
    """Warn of images that are almost black: of 10 or 12 bits in files of 16, or class numbers in place of pixels."""
    brightest = 0
    for index in np.linspace(0, len(files) - 1, DARK_SAMPLE).astype(int):
        # An image that cannot be read is named when its batch comes.
        with contextlib.suppress(CorruptImage):
            brightest = max(brightest, int(np.asarray(files.image(index)).max()))
        if brightest > DARKEST:
            return
    logger.warning("%s: %d of its images, read for a look, have no value above %d of 255, almost black: values "
                   "of 10 or 12 bits in files of 16 must be stretched first", files.root, DARK_SAMPLE, brightest)


def _orders(count: int, batch_size: int, seed: int, repeats: int, share: slice, epoch: int,
            step: int) -> Iterator[Order]:
    """What the batches are made of, from a place on and without an end."""
    while True:
        order = epoch_order(count, seed, epoch, repeats).numpy()
        for first in range(step * batch_size, count - batch_size + 1, batch_size):
            places = np.arange(first, first + batch_size)[share]
            yield epoch, places, order[places]
        epoch, step = epoch + 1, 0


# Generators that have worker processes. Python waits for those when it ends, and does not know how to end them.
_running: weakref.WeakSet[Generator] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    for batches in list(_running):
        batches.close()


def _decoded(files: Files, orders: Iterable[Order], transform: Callable[[Image.Image], Image.Image], size: int,
             seed: int | None, device: torch.device) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Batches on the device: images uint8 ``(N, H, W, C)`` and labels ``(N,)``."""
    cuda = device.type == "cuda"
    loader = torch.utils.data.DataLoader(
        _Batches(files, transform, size, seed), batch_size=None, sampler=orders, num_workers=files.reading.workers,
        pin_memory=cuda, worker_init_fn=_start_worker,
        # One of its own: DataLoader would draw its workers' seeds from the generator that dropout draws from.
        generator=torch.Generator())

    def batches() -> Generator[tuple[Tensor, Tensor], None, None]:
        decoded = iter(loader)
        try:
            while (batch := next(decoded, None)) is not None:
                if isinstance(batch, CorruptImage):
                    raise batch
                images, labels = batch
                yield images.to(device, non_blocking=cuda), labels.to(device, non_blocking=cuda)
        except RuntimeError as error:
            raise ValueError(f"a process that reads images was ended from outside ({' '.join(str(error).split())}); "
                             "is memory short? Resume with fewer workers") from error
        finally:
            # Ends the workers now; an error's traceback may keep this frame for long.
            del decoded

    made = batches()
    _running.add(made)
    return made


class _Batches(torch.utils.data.Dataset):
    """What a worker does: an order -> images uint8 ``(N, H, W, C)`` and labels, or the error that one cannot be read.

    An error is handed back as a value: raised, it would arrive with the worker's traceback for a message.
    """

    def __init__(self, files: Files, transform: Callable[[Image.Image], Image.Image], size: int, seed: int | None):
        self.files, self.transform, self.size, self.seed = files, transform, size, seed

    def __getitem__(self, order: Order) -> tuple[Tensor, Tensor] | CorruptImage:
        epoch, places, indices = order
        images = torch.empty(len(indices), self.size, self.size, 3, dtype=torch.uint8)
        # Without workers these are the generators of training itself.
        state = random_state()
        try:
            for pixels, place, index in zip(images.numpy(), places.tolist(), indices, strict=True):
                if self.seed is not None:
                    _start_generators(self.seed, epoch, place)
                pixels[:] = self.transform(self.files.image(index))
        except CorruptImage as error:
            return error
        finally:
            restore_random_state(state)
        return images, torch.from_numpy(self.files.labels[indices])


def _start_generators(seed: int, epoch: int, place: int) -> None:
    """Start all generators that timm's and torchvision's transforms draw from, for one image."""
    numbers = np.random.SeedSequence(entropy=seed, spawn_key=(IMAGE, epoch, place)).generate_state(3).tolist()
    random.seed(numbers[0])
    np.random.seed(numbers[1])  # noqa: NPY002
    torch.default_generator.manual_seed(numbers[2])


def _start_worker(worker: int) -> None:
    """Set a worker process apart from the one that it is a copy of."""
    # Signals to a whole job ask the training process to stop; a worker that died of one would take the run along.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # What the copy holds and does not need is not its to clean up: that would end another loader's workers.
    gc.freeze()


def training_transform(augmentation: Augmentation, mean: tuple[float, ...]) -> Callable[[Image.Image], Image.Image]:
    """timm's training transform up to the last image: crop to ``image_size``, mirror, policy.

    Args:
        augmentation: without ``scale``, the crop is the centre square; ``crop_padding`` moves it.
        mean: by channel, in units of 0 to 255; what timm's policies fill corners with.
    """
    from timm.data import create_transform
    from torchvision import transforms

    size, policy = augmentation.image_size, augmentation.auto_augment
    crop, augment, _ = create_transform(
        size, is_training=True, scale=augmentation.scale, hflip=0.5 * augmentation.flip, color_jitter=None,
        auto_augment=None if policy == "cifar10" else policy, interpolation=INTERPOLATION,
        mean=tuple(value / 255 for value in mean), use_prefetcher=True, separate=True)
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

    whole = create_transform(size, is_training=False, crop_pct=share, interpolation=INTERPOLATION, use_prefetcher=True)
    return transforms.Compose(whole.transforms[:-1])
