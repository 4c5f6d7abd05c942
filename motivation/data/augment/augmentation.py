"""What becomes of an image between its data set and a network: sizes, crops, policies, mixing. Numbers only."""

import math
from dataclasses import dataclass

from motivation.data.augment.auto_augment import Policy


@dataclass(frozen=True)
class Augmentation:
    """Sizes and augmentation of a recipe, in the order in which they are applied.

    Args:
        image_size: pixels a side in training; null keeps the stored size.
        test_size: pixels a side in evaluation; null for ``image_size``.
        test_crop: side of the centre that evaluation sees, as a share of the image's.
        crop_padding: black pixels around an image before a random crop to its size; 0 for no crop.
        flip: mirror half of the images.
        scale: least and largest area of a random resized crop, as shares of the image's; null for none.
        auto_augment: a policy: timm's ``rand-...`` and ``original``, or ``cifar10``; null for none.
        random_erasing: probability that an image loses a rectangle.
        mixup: alpha of Mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        mixup_prob: probability that a batch is mixed.
        mixup_switch_prob: probability of CutMix where both are on.
        repeats: how often an image is in an epoch; the epoch stays as long.

    Raises:
        ValueError: an impossible value, named ``recipe.FIELD=VALUE``.
    """

    image_size: int | None = None
    test_size: int | None = None
    test_crop: float = 1.0
    crop_padding: int = 0
    flip: bool = False
    scale: tuple[float, float] | None = None
    auto_augment: str | None = None
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5
    repeats: int = 1

    def __post_init__(self):
        for name in ("image_size", "test_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                self._refuse(name, "must be at least 1 pixel, or null for " +
                             ("the stored size" if name == "image_size" else "image_size"))
        if not 0 < self.test_crop <= 1:
            self._refuse("test_crop", "must be a share of the image's side, above 0 and at most 1")
        if self.crop_padding < 0:
            self._refuse("crop_padding", "must be 0 or more pixels")
        if self.scale is not None:
            if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
                self._refuse("scale", "must be the least and the largest share of the image's area, such as [0.08,1]")
            if self.crop_padding:
                self._refuse("scale", f"is a crop, and crop_padding={self.crop_padding} is another; choose one of them")
        for name in ("random_erasing", "mixup_prob", "mixup_switch_prob"):
            if not 0 <= getattr(self, name) <= 1:
                self._refuse(name, "must be a probability from 0 to 1")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                self._refuse(name, "must be an alpha of 0 (none) or more")
        if self.repeats < 1:
            self._refuse("repeats", "must be at least 1")
        if self.auto_augment is not None:
            try:
                Policy(self.auto_augment)
            except ValueError as error:
                raise ValueError(f"recipe.auto_augment={error}") from error

    def _refuse(self, name: str, why: str) -> None:
        raise ValueError(f"recipe.{name}={getattr(self, name)}: {why}")

    @property
    def mixes(self) -> bool:
        """Whether targets are soft: ``(N, classes)`` shares in place of ``(N,)`` class indices."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mixup_prob > 0

    def train_shape(self, stored: tuple[int, int, int]) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images trained on, from that of the stored ones."""
        return stored if self.image_size is None else (stored[0], self.image_size, self.image_size)

    def test_shape(self, stored: tuple[int, int, int]) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images evaluated on, from that of the stored ones."""
        size = self.image_size if self.test_size is None else self.test_size
        if size is None:
            if self.test_crop == 1:
                return stored
            size = min(stored[1:])
        return stored[0], size, size
