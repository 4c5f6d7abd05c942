"""Which images a network takes, found out by tracing it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

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
    return _first(base, image_shape, lambda shape: (trace(base, shape), trace(motivated, shape)))


def first_trace(network: nn.Module, image_shape: tuple[int, ...] | None, blocks: Iterable[str]) -> Trace:
    """Trace a network on images of the first shape it takes.

    Args:
        network: the network.
        image_shape: ``(C, H, W)``; None tries what timm says of the network, then common sizes.
        blocks: see `motivation.trace.trace`.

    Raises:
        ValueError: it takes none of them.
    """
    return _first(network, image_shape, lambda shape: trace(network, shape, blocks))


def _first(network: nn.Module, image_shape: tuple[int, ...] | None, traced: Callable[[tuple[int, ...]], Any]) -> Any:
    shapes = [image_shape] if image_shape else [*dict.fromkeys(likely_image_shapes(network))]
    refusals = []
    for shape in shapes:
        try:
            return traced(shape)
        except Exception as error:
            refusals.append(" ".join(f"{type(error).__name__}: {error}".split())[:200])
    tried = ", ".join(" x ".join(map(str, shape)) for shape in shapes) or "none"
    raise ValueError("no image runs through the network to show how its tensors are divided; give "
                     f"image_shape=(C, H, W) (tried {tried}{'; ' if refusals else ''}{''.join(refusals[:1])})")


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
            yield tuple(config["input_size"])
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if size:
        yield channels, *size
    for size in SIZES:
        yield channels, *[size] * dims
