"""Images a second of the loader of image files, against timm's create_loader.

The same folder of JPEGs of 500 x 375, random resized crop to 224, flip and RandAugment, in turn; what training takes of
the cores is not in it.
"""

import functools
import tempfile
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np
import timm.data
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from motivation.data import Augmentation, ImageFolder, open_loader
from motivation.data.loaders.files import INTERPOLATION
from motivation.validation import Count, NotNegative

from .table import Table
from .turns import RATIO, alternate, ratios

CLASSES, SIZE = 4, (375, 500)


def write_images(root: Path, count: int) -> None:
    """JPEGs as large as ImageNet's, with its kind of detail: noise that is smooth at two scales."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse, fine = (Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(SIZE[::-1])
                        for side in (6, 90))
        for part in ("train", "val"):
            path = root / part / str(number % CLASSES) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.blend(coarse, fine, 0.3).save(path, quality=90)


def timms(root: Path, augmentation: Augmentation, batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of timm's loader, epoch after epoch."""
    loader = timm.data.create_loader(
        timm.data.create_dataset("torch/image_folder", str(root / "train"), search_split=False),
        augmentation.image_size, batch_size, is_training=True, scale=augmentation.scale,
        hflip=0.5 * augmentation.flip, color_jitter=None, auto_augment=augmentation.auto_augment,
        interpolation=INTERPOLATION, num_workers=workers, device=torch.device("cpu"))
    while True:
        yield from loader


def images_a_second(open_batches: Callable[[], Iterator], close: Callable[[], None], workers: int, batches: int,
                    batch: int) -> float:
    """Of one block. Its workers start and end with it: idle ones fill their queues, which would be the other's loss."""
    stream = open_batches()
    # Batches that were made while the first one was waited for are not timed.
    for _ in islice(stream, 3 * max(1, workers)):
        pass
    start = perf_counter()
    for _ in islice(stream, batches):
        pass
    taken = perf_counter() - start
    stream.close()
    close()
    return batches * batch / taken


def measure(seconds: NotNegative = 15, workers: Annotated[int, Field(ge=0)] = 2, images: Count = 256, batch: Count = 32,
            batches: Count = 8) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all.
        workers: processes that decode.
        images: in the folder.
        batch: images a batch.
        batches: of a block.
    """
    augmentation = Augmentation(image_size=224, flip=True, scale=(0.08, 1.0), auto_augment="rand-m6-mstd0.5-inc1")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, images)
        ours = open_loader(ImageFolder(root=folder, workers=workers).load(), batch, augmentation=augmentation)
        # A generator, which can be closed.
        opening = {"motivation": (lambda: (one for epoch in count() for one in ours.epoch(epoch)), ours.close),
                   "timm": (functools.partial(timms, root, augmentation, batch, workers), lambda: None)}
        rates = alternate({name: functools.partial(images_a_second, *how, workers, batches, batch)
                           for name, how in opening.items()}, seconds)
    table = Table("Image folders", {"loader": "", "workers": "d", "batch": "d", "images/s": ",.0f", "x timm": ".3f",
                                    **RATIO}, [])
    table.rows += [(name, workers, batch, median(values), *ratios(values, rates["timm"]))
                   for name, values in rates.items()]
    return [table]
