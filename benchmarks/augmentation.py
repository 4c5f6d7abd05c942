"""Images a second that the loader gives with each recipe's augmentation: ``motivation bench augmentation``.

CIFAR-sized images, on the GPU where there is one; else on one CPU thread, in CPU seconds, which other processes hardly
change. Beside it the same loader with the crop and flip of the ResNet recipe, and with nothing on, at
the same batch size; the three take turns, and the figure is the median over turns.
"""

import argparse
import statistics
from time import perf_counter, process_time

import numpy as np
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from motivation.data import Augmentation, Loader, Normalization, Split
from motivation.registry import build
from motivation.training.recipe import Recipe

RECIPES = ("resnet_cifar", "vit_cifar", "efficientnet_cifar", "transfer", "a3_imagenet")


def recipe_of(name: str) -> Recipe:
    """A recipe of conf/recipe/."""
    with initialize_config_module("motivation.conf", version_base="1.3"):
        values = OmegaConf.to_container(compose("config", [f"recipe={name}"]).recipe, resolve=True)
    return build({"recipe": Recipe}, {"name": "recipe", **values}, "recipe")


def rate(loader: Loader, batches: int, epoch: int) -> float:
    """Images a second over some batches."""
    clock = perf_counter if loader.images.is_cuda else process_time
    start = clock()
    for _ in zip(range(batches), loader.epoch(epoch), strict=False):
        pass
    if loader.images.is_cuda:
        torch.cuda.synchronize()
    return batches * loader.batch_size / (clock() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=None, help="default: each recipe's")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8), np.arange(10_000) % 10)
    torch.set_num_threads(1)
    print(f"{device}; images/s, median of {options.turns} turns")
    print(f"{'recipe':20}{'batch':>7}{'px':>5}{'augmented':>12}{'crop, flip':>12}{'plain':>12}")
    for name in RECIPES:
        recipe = recipe_of(name)
        size = options.batch_size or recipe.batch_size
        loaders = [Loader(split, size, Normalization.of(split), device=device, augmentation=augmentation)
                   for augmentation in (recipe.augmentation, Augmentation(crop_padding=4, flip=True), Augmentation())]
        batches = max(1, 512 // size)
        for loader in loaders:
            rate(loader, 1, 0)
        turns = [[rate(loader, batches, turn) for loader in loaders] for turn in range(options.turns)]
        figures = "".join(f"{statistics.median(column):12,.0f}" for column in zip(*turns, strict=True))
        print(f"{name:20}{size:7}{loaders[0].image_shape[1]:5}{figures}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
