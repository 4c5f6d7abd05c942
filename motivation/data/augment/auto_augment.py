"""AutoAugment (Cubuk et al. 2019) and RandAugment (2020) on uint8 batches: a few calls an operation, not an image.

Policies are timm's and torchvision's; what is drawn for an image is an operation and its argument, and all images that
drew one operation run it at once, each with its own argument.
"""

import math
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SYNTAX = re.compile(r"(rand|original|originalr|v0|v0r)(-[a-z]+[0-9.]+|-tweights)*")
Argument = Callable[[Tensor, Tensor], Tensor]
# 0, then what changes values where they are, then what moves them.
KINDS = ("nothing", "autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add", "color", "contrast",
         "brightness", "sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y")
FIRST_MOVE = KINDS.index("rotate")


def _signed(most: float) -> Argument:
    return lambda level, sign: sign * level * most


def _nothing(level: Tensor, sign: Tensor) -> Tensor:
    return torch.zeros_like(level)


def _factor(level: Tensor, sign: Tensor) -> Tensor:
    return 0.1 + 1.8 * level


def _factor_around_one(level: Tensor, sign: Tensor) -> Tensor:
    return (1 + sign * 0.9 * level).clamp(min=0.1)


def _threshold(level: Tensor, sign: Tensor) -> Tensor:
    return (256 * level).floor().clamp(max=256)


# What an operation is called -> what it does, and (level from 0 to 1, sign) -> its argument: degrees, shares of the
# side, bits kept, grey values, or the factor of a blend with the image's grey, mean, black or smoothed version.
_COMMON = {
    "AutoContrast": ("autocontrast", _nothing), "Equalize": ("equalize", _nothing), "Invert": ("invert", _nothing),
    "Rotate": ("rotate", _signed(30)), "ShearX": ("shear_x", _signed(0.3)), "ShearY": ("shear_y", _signed(0.3)),
}
_BLENDS = ("Color", "Contrast", "Brightness", "Sharpness")
TIMM: dict[str, tuple[str, Argument]] = _COMMON | {
    "TranslateXRel": ("translate_x", _signed(0.45)), "TranslateYRel": ("translate_y", _signed(0.45)),
    "Posterize": ("posterize", lambda level, sign: (4 * level).floor()),
    "PosterizeIncreasing": ("posterize", lambda level, sign: 4 - (4 * level).floor()),
    "PosterizeOriginal": ("posterize", lambda level, sign: 4 + (4 * level).floor()),
    "Solarize": ("solarize", _threshold),
    "SolarizeIncreasing": ("solarize", lambda level, sign: 256 - _threshold(level, sign)),
    "SolarizeAdd": ("solarize_add", lambda level, sign: (110 * level).floor().clamp(max=128)),
    "Desaturate": ("color", lambda level, sign: 0.5 - 0.5 * level),
    **{name: (name.lower(), _factor) for name in _BLENDS},
    **{f"{name}Increasing": (name.lower(), _factor_around_one) for name in _BLENDS},
}
CIFAR10: dict[str, tuple[str, Argument]] = _COMMON | {
    "TranslateX": ("translate_x", _signed(150 / 331)), "TranslateY": ("translate_y", _signed(150 / 331)),
    "Posterize": ("posterize", lambda level, sign: 8 - (4 * level).round()),
    "Solarize": ("solarize", lambda level, sign: 255 * (1 - level)),
    **{name: (name.lower(), _factor_around_one) for name in _BLENDS},
}


class Drawn(NamedTuple):
    """What a batch is augmented by; rows are images, so that a part of the batch is a slice of both.

    Attributes:
        kinds: ``(N, layers)`` index into `KINDS`; 0 for nothing.
        arguments: ``(N, layers)``.
    """

    kinds: Tensor
    arguments: Tensor


class Policy:
    """A policy by name.

    Args:
        text: timm's ``rand-m9-mstd0.5-inc1`` (m, n, p, mstd, mmax, inc, tweights) or ``original``, ``originalr``,
            ``v0``, ``v0r``, each with ``-mstd``; or ``cifar10``, AutoAugment's for CIFAR-10.

    Raises:
        ValueError: none of these.
    """

    def __init__(self, text: str):
        self._weights: Tensor | None = None
        self._choices = 1
        if text == "cifar10":
            rows = _cifar10()
            self._std, self._most, self._unit = 0.0, 9.0, 9.0
        else:
            rows = self._of_timm(text)
        names, flat = TIMM if text != "cifar10" else CIFAR10, [operation for row in rows for operation in row]
        made = list(dict.fromkeys(names[name] for name, *_ in flat))
        self._made = made
        self._rows = torch.arange(len(flat)).view(len(rows), -1)
        self._which = torch.tensor([made.index(names[name]) for name, *_ in flat])
        self._probability = torch.tensor([probability for _, probability, _ in flat], dtype=torch.float64)
        self._magnitude = torch.tensor([magnitude for *_, magnitude in flat], dtype=torch.float64)

    def _of_timm(self, text: str) -> list[list[tuple[str, float, float]]]:
        from timm.data.auto_augment import auto_augment_transform, rand_augment_transform

        try:
            # timm passes over what it does not understand.
            if not SYNTAX.fullmatch(text):
                raise ValueError
            if text.startswith("rand"):
                made = rand_augment_transform(text, {})
                rows = [[operation] for operation in made.ops]
                self._choices = made.num_layers
                if made.choice_weights is not None:
                    self._weights = torch.from_numpy(made.choice_weights)
            else:
                rows = auto_augment_transform(text, {}).policy
        except (AssertionError, ValueError, KeyError) as error:
            raise ValueError(f"{text!r} is no policy: give cifar10, original, or timm's string, such as "
                             "rand-m9-mstd0.5-inc1") from error
        first = rows[0][0]
        self._std, self._most, self._unit = first.magnitude_std, float(first.magnitude_max or 10), 10.0
        return [[(operation.name, operation.prob, operation.magnitude) for operation in row] for row in rows]

    def draw(self, count: int, generator: torch.Generator) -> Drawn:
        """Operations and arguments of a batch.

        Args:
            count: images.
            generator: CPU generator.
        """
        if self._weights is None:
            picked = torch.randint(len(self._rows), (count, self._choices), generator=generator)
        else:
            picked = torch.multinomial(self._weights.expand(count, -1), self._choices, generator=generator)
        operation = self._rows[picked].flatten(1)
        uniform = torch.rand(3, *operation.shape, generator=generator, dtype=torch.float64)
        magnitude = self._magnitude[operation]
        if self._std == math.inf:
            magnitude = uniform[2] * magnitude
        elif self._std:
            magnitude = magnitude + self._std * torch.randn(operation.shape, generator=generator, dtype=torch.float64)
        level, sign = magnitude.clamp(0, self._most) / self._unit, torch.where(uniform[1] < 0.5, -1.0, 1.0)
        kinds, arguments = torch.zeros_like(operation), torch.zeros_like(level)
        which = self._which[operation]
        for number, (kind, argument) in enumerate(self._made):
            here = which == number
            kinds[here] = KINDS.index(kind)
            arguments[here] = argument(level[here], sign[here])
        kinds[uniform[0] >= self._probability[operation]] = 0
        return Drawn(kinds, arguments)


def _cifar10() -> list[list[tuple[str, float, float]]]:
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    return [[(name, probability, magnitude or 0) for name, probability, magnitude in row]
            for row in AutoAugment(AutoAugmentPolicy.CIFAR10).policies]


def apply(images: Tensor, drawn: Drawn, fill: Tensor) -> Tensor:
    """Augment a batch.

    Args:
        images: uint8 ``(N, H, W, C)``, C 1 or 3; overwritten.
        drawn: of `Policy.draw`, for these images.
        fill: ``(C,)`` grey values of 0 to 255 around an image that is rotated, sheared or moved.

    Returns:
        uint8 ``(N, H, W, C)``.
    """
    pixels = images.permute(0, 3, 1, 2)
    for kinds, arguments in zip(drawn.kinds.T, drawn.arguments.T, strict=True):
        moved = (kinds >= FIRST_MOVE).nonzero()[:, 0]
        if len(moved):
            rows = moved.to(images.device)
            pixels[rows] = _move(pixels[rows], kinds[moved], arguments[moved], fill)
        for kind in kinds.unique().tolist():
            if 0 < kind < FIRST_MOVE:
                chosen = (kinds == kind).nonzero()[:, 0]
                rows = chosen.to(images.device)
                argument = arguments[chosen].to(images.device, torch.float32).view(-1, 1, 1, 1)
                pixels[rows] = _tones()[KINDS[kind]](pixels[rows], argument)
    return images


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``other`` at factor 0, the image at 1, beyond it above; truncated as torchvision and PIL do."""
    return (images * factor + other * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Against the image smoothed inside its one-pixel rim."""
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    channels = images.shape[1]
    smooth = images.float()
    smooth[..., 1:-1, 1:-1] = F.conv2d(smooth, (kernel / kernel.sum()).expand(channels, 1, 3, 3),
                                       groups=channels).round_()
    return _blend(images, smooth, factor)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    return images & (256 - 2 ** (8 - bits.clamp(max=8))).to(torch.uint8)


@cache
def _tones() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What changes values in place: ``(images (N, C, H, W), arguments (N, 1, 1, 1)) -> images``."""
    # Imported when it is needed: torchvision takes longer to import than all of this package.
    from torchvision.transforms.v2 import functional as vision

    def grey(images: Tensor) -> Tensor:
        return vision.rgb_to_grayscale(images, 1) if images.shape[1] == 3 else images

    return {
        "autocontrast": lambda images, argument: vision.autocontrast(images),
        "equalize": lambda images, argument: vision.equalize(images),
        "invert": lambda images, argument: 255 - images,
        "posterize": _posterize,
        "solarize": lambda images, threshold: torch.where(images >= threshold, 255 - images, images),
        "solarize_add": lambda images, add: torch.where(images < 128, (images + add).clamp(max=255),
                                                        images).to(torch.uint8),
        "color": lambda images, factor: _blend(images, grey(images), factor),
        "contrast": lambda images, factor: _blend(images, grey(images).float().mean((1, 2, 3), keepdim=True).floor(),
                                                  factor),
        "brightness": lambda images, factor: _blend(images, torch.zeros_like(images), factor),
        "sharpness": _sharpness,
    }


def _move(images: Tensor, kinds: Tensor, arguments: Tensor, fill: Tensor) -> Tensor:
    """Rotations, shears and translations of all images in one bilinear sampling.

    Args:
        images: uint8 ``(N, C, H, W)``.
        kinds: ``(N,)``.
        arguments: ``(N,)``: degrees counter-clockwise about the centre, shear from the top left corner, or shares.
        fill: ``(C,)``.
    """
    height, width = images.shape[2:]
    # From a place in the result (x, y, 1) to the place it shows, in pixels from the top left corner.
    shown = torch.eye(2, 3, dtype=torch.float64).repeat(len(images), 1, 1)
    for kind, (row, column, scale) in {"shear_x": (0, 1, 1), "shear_y": (1, 0, 1), "translate_x": (0, 2, width),
                                       "translate_y": (1, 2, height)}.items():
        here = kinds == KINDS.index(kind)
        shown[here, row, column] = arguments[here] * scale
    here = kinds == FIRST_MOVE
    cosine, sine = torch.deg2rad(arguments[here]).cos(), torch.deg2rad(arguments[here]).sin()
    turn = torch.stack((torch.stack((cosine, -sine), 1), torch.stack((sine, cosine), 1)), 1)
    centre = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    shown[here] = torch.cat((turn, (centre - turn @ centre)[:, :, None]), 2)
    shown = shown.to(images.device, torch.float32)
    y, x = torch.meshgrid(torch.arange(height, device=images.device) + 0.5,
                          torch.arange(width, device=images.device) + 0.5, indexing="ij")
    places = torch.stack((x, y, torch.ones_like(x)), 2).view(1, -1, 3) @ shown.transpose(1, 2)
    grid = places.view(-1, height, width, 2) * torch.tensor([2 / width, 2 / height], device=images.device) - 1
    fill = fill.to(images.device, torch.float32).view(1, -1, 1, 1)
    sampled = F.grid_sample(images.float() - fill, grid, align_corners=False) + fill
    return sampled.round_().clamp_(0, 255).to(torch.uint8)

