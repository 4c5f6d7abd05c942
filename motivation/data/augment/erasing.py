"""Random Erasing (Zhong et al. 2017), a batch at a time, with timm's ranges."""

import torch
from torch import Tensor

from motivation.data.augment.resample import random_boxes

AREA = (0.02, 1 / 3)
RATIO = (0.3, 1 / 0.3)


def erase(images: Tensor, probability: float, generator: torch.Generator, count: int | None = None,
          share: slice = slice(None)) -> Tensor:
    """Replace a rectangle of some images by noise of zero mean and unit variance.

    timm's mode ``pixel``, but that the rectangles of a batch show parts of one noise image: noise is drawn on the CPU,
    so that a run is the same wherever its images live.

    Args:
        images: normalised, ``(N, C, H, W)``.
        probability: of an image to lose a rectangle.
        generator: CPU generator.
        count: images of the whole batch, for all of which is drawn; default N.
        share: which of them the images are.

    Returns:
        ``(N, C, H, W)``.
    """
    channels, height, width = images.shape[1:]
    count = len(images) if count is None else count
    boxes, found = random_boxes(count, height, width, AREA, RATIO, generator)
    found &= torch.rand(count, generator=generator) < probability
    noise = torch.randn(channels, height, width, generator=generator).to(images.device)
    boxes, found = boxes[share], found[share]
    tops, lefts, heights, widths = boxes.T[:, :, None]
    rows, columns = torch.arange(height), torch.arange(width)
    erased = (((rows >= tops) & (rows < tops + heights))[:, :, None]
              & ((columns >= lefts) & (columns < lefts + widths))[:, None, :]
              & found[:, None, None])
    return torch.where(erased[:, None].to(images.device), noise, images)
