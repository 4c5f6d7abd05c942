"""How images are changed between a data set and a network: sizes, crops, policies, mixing. Numbers only."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from motivation.data.augment.auto_augment import Policy
from motivation.validation import Count, NotNegative, Probability, check_arguments


@check_arguments
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
        ValueError: an impossible value, named ``FIELD=VALUE``.
    """

    image_size: Count | None = None
    test_size: Count | None = None
    test_crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    crop_padding: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    scale: tuple[float, float] | None = None
    auto_augment: str | None = None
    random_erasing: Probability = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    mixup_prob: Probability = 1.0
    mixup_switch_prob: Probability = 0.5
    repeats: Count = 1

    def __post_init__(self):
        if self.scale is not None:
            if not 0 < self.scale[0] <= self.scale[1] <= 1:
                raise ValueError(f"scale={self.scale}: must be the least and the largest share of the image's area, "
                                 "such as [0.08,1]")
            if self.crop_padding:
                raise ValueError(f"scale={self.scale}: is a crop, and crop_padding={self.crop_padding} is another; "
                                 "choose one of them")
        if self.auto_augment is not None:
            try:
                Policy(self.auto_augment)
            except ValueError as error:
                raise ValueError(f"auto_augment={error}") from error

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
