"""Images a second that the loader gives with each recipe's augmentation.

Images of 32 x 32 that are on the device. In turn with the same loader with the crop and flip of the ResNet recipe, and
with nothing on, at the same batch size.
"""

import statistics
from collections.abc import Callable
from itertools import chain, count
from typing import Literal

import numpy as np

from motivation.cli.compose import composing
from motivation.data import Augmentation, Loader, Normalization, Split
from motivation.registry import build
from motivation.training.recipe import Recipe
from motivation.validation import Count, NotNegative

from .table import Table
from .turns import take_turns, timed
from .workload import DEVICES, is_here

RECIPES = ("resnet_cifar", "vit_cifar", "efficientnet_cifar", "transfer", "a3_imagenet")


def recipe_of(name: str) -> Recipe:
    """A recipe of conf/recipe/."""
    with composing() as compose:
        return build({"recipe": Recipe}, {"name": "recipe", **compose((f"recipe={name}",))["recipe"]}, "recipe")


def next_batch(loader: Loader) -> Callable[[], object]:
    """Takes the loader's next batch, epoch after epoch."""
    return chain.from_iterable(map(loader.epoch, count())).__next__


def measure(seconds: NotNegative = 15, batch: Count | None = None,
            recipes: tuple[Literal["resnet_cifar", "vit_cifar", "efficientnet_cifar", "transfer", "a3_imagenet"],
                           ...] = RECIPES) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all.
        batch: images; null for each recipe's.
        recipes: whose augmentation.
    """
    table = Table("Augmentation", {"device": "", "recipe": "", "batch": "d", "px": "d", "augmented, images/s": ",.0f",
                                   "crop and flip, images/s": ",.0f", "nothing, images/s": ",.0f"}, [])
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8), np.arange(10_000) % 10)
    devices = list(filter(is_here, DEVICES))
    for device in devices:
        for name in recipes:
            recipe = recipe_of(name)
            size = batch or recipe.batch_size
            loaders = {label: Loader(split, size, Normalization.of(split), device=device, augmentation=augmentation)
                       for label, augmentation in (("augmented", recipe.augmentation),
                                                   ("crop and flip", Augmentation(crop_padding=4, flip=True)),
                                                   ("nothing", Augmentation()))}
            rates, _ = take_turns({label: timed(next_batch(loader), device) for label, loader in loaders.items()},
                                  seconds / len(recipes) / len(devices))
            table.rows.append((device, name, size, loaders["augmented"].image_shape[1],
                               *(size * statistics.median(values) for values in rates.values())))
    if not is_here("cuda"):
        table.unmeasured("cuda", "all")
    return [table]
