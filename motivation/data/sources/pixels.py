"""Pillow's images as 8-bit RGB, whatever their mode; modes whose values have no known range are refused."""

import numpy as np
from PIL import Image

# Modes that Pillow itself converts without clipping.
CONVERTED = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
SIXTEEN_BITS = 2 ** 16 - 1
BITS_PER_SAMPLE = 258  # The tag of TIFF 6.0, section 4.


def mode_fault(image: Image.Image) -> str | None:
    """Why an image cannot become 8-bit RGB, from its header; None if it can."""
    if image.mode in CONVERTED or _largest(image):
        return None
    kind = {"I": "32-bit or signed", "F": "floating-point"}.get(image.mode, f"of mode {image.mode}")
    return f"is {kind}, values without a known range; save it with 8 or 16 bits"


def as_rgb(image: Image.Image) -> Image.Image:
    """An image as 8-bit RGB; grey ones of up to 16 bits are scaled from their format's whole range to 0 to 255.

    Pillow would clip them at 255 (its issue 1108). The orientation in EXIF data is not applied.

    Raises:
        ValueError: the mode has no known range.
    """
    if fault := mode_fault(image):
        raise ValueError(f"it {fault}")
    if largest := _largest(image):
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((values * 255 + largest // 2) // largest).astype(np.uint8))
    return image.convert("RGB")


def _largest(image: Image.Image) -> int | None:
    """The largest value of a grey image of more than 8 bits; None for other modes, or if it is unknown."""
    if image.mode.startswith("I;16"):
        # A TIFF of 12 bits has this mode too.
        bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
        return 2 ** bits[0] - 1
    # Grey PNGs of 16 bits have mode I in older versions of Pillow, PGMs of more than 8 bits in all.
    return SIXTEEN_BITS if image.mode == "I" and image.format in ("PNG", "PPM") else None
