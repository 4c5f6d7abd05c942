"""Boxes of images, brought to another size on the device: resize, centre crop, random resized crop."""

import math

import torch
from torch import Tensor

# Tries to draw a box inside the image; torchvision and timm take ten too.
TRIES = 10


def resample(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """One box of every image at a new size: bilinear, and antialiased where that shrinks it.

    Nothing outside the box is seen. On the whole image this is ``torch.nn.functional.interpolate`` with
    ``antialias=True``; here every image may have its own box.

    Args:
        images: uint8 ``(N, H, W, C)``.
        boxes: ``(N, 4)``, or ``(1, 4)`` for one box of all: top, left, height, width in pixels.
        size: rows and columns of the result.

    Returns:
        uint8 ``(N, rows, columns, C)``.
    """
    boxes = boxes.to(images.device, torch.float32)
    rows = _weights(boxes[:, 0], boxes[:, 2], images.shape[1], size[0])
    columns = _weights(boxes[:, 1], boxes[:, 3], images.shape[2], size[1])
    pixels = images.permute(0, 3, 1, 2).float()
    # A box is a product of two intervals, so a resampled image is two matrix products.
    resized = rows[:, None] @ pixels @ columns[:, None].transpose(2, 3)
    return resized.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _weights(start: Tensor, length: Tensor, inputs: int, outputs: int) -> Tensor:
    """Shares ``(N, outputs, inputs)`` of input pixels in output pixels: a triangle as wide as an output pixel."""
    scale = (length / outputs)[:, None, None]
    begin, end = start[:, None, None], (start + length)[:, None, None]
    pixels = torch.arange(inputs, device=start.device) + 0.5
    centres = begin + (torch.arange(outputs, device=start.device)[:, None] + 0.5) * scale
    weights = (1 - (pixels - centres).abs() / scale.clamp(min=1)).clamp_(min=0)
    weights = weights * ((pixels > begin) & (pixels < end))
    return weights / weights.sum(2, keepdim=True)


def centre_box(height: int, width: int, share: float = 1.0) -> Tensor:
    """The square in the centre whose side is a share of the shorter side: ``(1, 4)``."""
    side = min(height, width) * share
    return torch.tensor([[(height - side) / 2, (width - side) / 2, side, side]])


def random_boxes(count: int, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float],
                 generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes inside an image, of uniform area and log-uniform ratio of sides.

    Args:
        count: of boxes.
        height: of the image, pixels.
        width: of the image, pixels.
        area: least and largest, as shares of the image's.
        ratio: least and largest width over height.
        generator: CPU generator.

    Returns:
        ``(count, 4)`` top, left, height, width in whole pixels; and ``(count,)`` whether one of ten tries lay inside.
        Where none did, the box is the whole image.
    """
    areas = torch.empty(count, TRIES).uniform_(*area, generator=generator) * (height * width)
    ratios = torch.empty(count, TRIES).uniform_(*map(math.log, ratio), generator=generator).exp()
    heights, widths = (areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first, found = fits.int().argmax(1, keepdim=True), fits.any(1)
    heights = torch.where(found, heights.gather(1, first)[:, 0], torch.tensor(float(height)))
    widths = torch.where(found, widths.gather(1, first)[:, 0], torch.tensor(float(width)))
    tops, lefts = ((torch.rand(count, generator=generator) * (most - sides + 1)).floor()
                   for most, sides in ((height, heights), (width, widths)))
    return torch.stack((tops, lefts, heights, widths), 1), found
