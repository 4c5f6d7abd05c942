"""Which images or tokens a network takes: the first shape on which it runs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from motivation.pairing.tracing.example import example_input, first_layer
from motivation.pairing.tracing.trace import Trace, evaluation_mode, trace

SIZES = (224, 32, 64, 28, 256, 96)
# Enough for a 2 x 2 map at the end of most networks, and an eighth of the time of 224.
SMALL = 64
# Of a sequence: more than one, so that attention has something to attend to.
TOKENS = 16


def trace_all(networks: Sequence[nn.Module], image_shape: tuple[int, ...] | None, blocks: Iterable[str] = ()
              ) -> list[Trace]:
    """Trace networks on images of the first shape that all of them take.

    Args:
        networks: the smallest first.
        image_shape: ``(C, H, W)``; None tries what timm says of the first network, then common sizes.
        blocks: see `motivation.pairing.tracing.trace.trace`.

    Raises:
        ValueError: no shape that all take.
    """
    shapes = [image_shape] if image_shape else likely_image_shapes(networks[0])
    return _first(shapes, lambda shape: [trace(network, shape, blocks) for network in networks], len(networks))


def first_logits(networks: Sequence[nn.Module], tensors: Sequence[dict[str, Tensor]],
                 image_shape: tuple[int, ...] | None) -> list[list[Tensor]]:
    """What networks compute in evaluation mode from one random image, with other tensors in place of their own.

    Args:
        networks: run on the CPU; their modes and torch's generators stay as they are.
        tensors: by network, its parameters and buffers on the CPU.
        image_shape: ``(C, H, W)``; None tries a small image, then the likely ones.

    Raises:
        ValueError: no shape that all take.
    """
    dtype = next((tensor.dtype for tensor in tensors[0].values() if tensor.is_floating_point()), None)

    def run(shape: tuple[int, ...]) -> list[list[Tensor]]:
        image = example_input(networks[0], shape, dtype=dtype, seed=0)
        outputs = [torch.func.functional_call(network, values, (image,))
                   for network, values in zip(networks, tensors, strict=True)]
        return [[leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)] for output in outputs]

    likely = [*likely_image_shapes(networks[0])]
    shapes = [image_shape] if image_shape else [(shape[0], *[SMALL] * len(shape[1:])) for shape in likely] + likely
    with torch.no_grad(), torch.random.fork_rng(devices=()), evaluation_mode(*networks):
        return _first(shapes, run, len(networks))


def _first(shapes: Iterable[tuple[int, ...]], run: Callable[[tuple[int, ...]], Any], networks: int) -> Any:
    """Run on the first shape that raises nothing."""
    shapes = [*dict.fromkeys(shapes)]
    refusals = []
    for shape in shapes:
        try:
            return run(shape)
        except Exception as error:
            refusals.append(" ".join(f"{type(error).__name__}: {error}".split())[:200])
    tried = ", ".join(" x ".join(map(str, shape)) for shape in shapes) or "none"
    through = "both networks" if networks > 1 else "the network"
    raise ValueError(f"no image runs through {through}; give image_shape=(C, H, W) "
                     f"(tried {'; '.join([tried, *refusals[:1]])})")


def likely_image_shapes(network: nn.Module) -> Iterator[tuple[int, ...]]:
    """Image shapes to try, the likeliest first."""
    first = first_layer(network)
    if first is None:
        return
    if isinstance(first, nn.Embedding):
        yield TOKENS,
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
