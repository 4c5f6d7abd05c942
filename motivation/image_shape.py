"""Which images two networks take, found out by tracing them."""

from collections.abc import Iterator

from torch import nn

from motivation.trace import Trace, trace

SIZES = (224, 32, 64, 28, 256, 96)


def trace_both(base: nn.Module, motivated: nn.Module, image_shape: tuple[int, ...] | None) -> tuple[Trace, Trace]:
    """Trace two networks on images of one shape.

    Args:
        base: the smaller network.
        motivated: the larger one.
        image_shape: ``(C, H, W)``; None tries what timm says of the base, then common sizes.

    Raises:
        ValueError: no shape that both networks take.
    """
    shapes = [image_shape] if image_shape else [*dict.fromkeys(likely_image_shapes(base))]
    refusal = "it has no convolution or dense layer to tell its input by"
    for shape in shapes:
        try:
            return trace(base, shape), trace(motivated, shape)
        except Exception as error:
            refusal = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    tried = ", ".join(" x ".join(map(str, shape)) for shape in shapes) or "none"
    raise ValueError(f"both networks must run on one image to see how their tensors are divided; give "
                     f"image_shape=(C, H, W) (tried {tried}; the last said {refusal})")


def likely_image_shapes(network: nn.Module) -> Iterator[tuple[int, ...]]:
    """Image shapes to try, the likeliest first."""
    first = next((module for module in network.modules()
                  if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)), None)
    if first is None:
        return
    if isinstance(first, nn.Linear):
        yield first.in_features,
        return
    dims, channels = len(first.kernel_size), first.in_channels
    for config in (getattr(network, "pretrained_cfg", None), getattr(network, "default_cfg", None)):
        if config and len(config.get("input_size", ())) == 3:
            yield channels, *config["input_size"][1:]
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if size:
        yield channels, *size
    for size in SIZES:
        yield channels, *[size] * dims
