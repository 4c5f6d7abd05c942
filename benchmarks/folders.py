"""Images per second of the file loader against timm's create_loader: same folder, same transform, blocks in turn."""

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import timm.data
import torch
from PIL import Image
from torch import Tensor

from motivation.data import Augmentation, ImageFolder, open_loader
from motivation.data.loaders.files import INTERPOLATION

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--batches", type=int, default=8, help="of a block")
    options = parser.parse_args()
    torch.set_num_threads(1)
    augmentation = Augmentation(image_size=224, flip=True, scale=(0.08, 1.0), auto_augment="rand-m6-mstd0.5-inc1")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, options.images)
        ours = open_loader(ImageFolder(root=folder, workers=options.workers).load(), options.batch_size,
                           augmentation=augmentation)
        rates: dict[str, list[float]] = {"ours": [], "timm": []}
        for _ in range(options.blocks):
            for name in rates:
                # One at a time has workers: idle ones fill their queues, which would be the other's loss.
                batches = (batch for epoch in range(10 ** 9) for batch in ours.epoch(epoch)) if name == "ours" else \
                    timms(root, augmentation, options.batch_size, options.workers)
                # Batches that were made while the first one was waited for are not timed.
                for _ in islice(batches, 3 * max(1, options.workers)):
                    pass
                start = perf_counter()
                for _ in islice(batches, options.batches):
                    pass
                rates[name].append(options.batches * options.batch_size / (perf_counter() - start))
                batches.close()
                ours.close()
        for name, values in rates.items():
            print(f"{name}: {median(values):.0f} images/s (median of {options.blocks} blocks)")
        ratio = median(one / other for one, other in zip(*rates.values(), strict=True))
        print(f"ratio {ratio:.3f}, {options.workers} workers, batch {options.batch_size}")


if __name__ == "__main__":
    main()
