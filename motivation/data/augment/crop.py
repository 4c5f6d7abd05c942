"""Random crop after black padding, and a random mirror: whole rows of pixels are copied, for all images at once."""

import torch
from torch import Tensor

from motivation.data.augment.transfer import to_device


def draw_crops(count: int, generator: torch.Generator, padding: int, flip: bool) -> Tensor:
    """What a batch is cropped and mirrored by.

    Args:
        count: images.
        generator: CPU generator; where the images live makes no difference to the draw.
        padding: pixels on every side; 0 for no crop.
        flip: mirror each image with probability 1/2.

    Returns:
        ``(3, N)`` whole numbers on the CPU: first row and first column of the crop, and 1 for a mirrored image.
    """
    tops, lefts = (torch.randint(0, 2 * padding + 1, (count,), generator=generator) for _ in range(2))
    mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count)
    return torch.stack((tops, lefts, mirrored.long()))


def crop(images: Tensor, indices: Tensor, drawn: Tensor, padding: int) -> Tensor:
    """Take images from a data set, padded, cropped to their size and mirrored.

    Args:
        images: the data set, uint8 ``(images, H, W, C)``, contiguous.
        indices: ``(N,)`` on the same device.
        drawn: ``(3, N)`` of `draw_crops`.
        padding: black pixels on every side.

    Returns:
        uint8 ``(N, H, W, C)``.
    """
    count, (height, width, channels) = len(indices), images.shape[1:]
    high, wide = height + 2 * padding, width + 2 * padding
    tops, lefts, mirrored = drawn
    # Mirrored images come last and are turned round whole, so that a row of a crop is a row of them, pixel by pixel.
    order = mirrored.argsort(stable=True)
    plain = count - int(mirrored.sum())
    places = torch.empty_like(order)
    places[order] = torch.arange(count)
    lefts = torch.where(mirrored.bool(), 2 * padding - lefts, lefts)
    rows = ((places * high + tops)[:, None] + torch.arange(height)) * wide + lefts[:, None]
    order, rows = to_device(torch.cat((order, rows.flatten())), images.device).split((count, count * height))

    chosen = images.index_select(0, indices.index_select(0, order))
    padded = chosen.new_zeros(count, high, wide, channels)
    inside = padded[:, padding:padding + height, padding:padding + width]
    inside[:plain] = chosen[:plain]
    inside[plain:] = chosen[plain:].flip(2)
    # Every run of `width` pixels in memory, one a first pixel.
    runs = padded.view(-1).as_strided((count * high * wide - width + 1, width * channels), (channels, 1))
    return runs.index_select(0, rows).view(count, height, width, channels)
