"""Values of the blocks that only the motivated network has: ``identity``, ``native`` or ``copy``.

``identity`` zeroes what each residual branch ends with (a projection, a norm's weight and bias, a layer scale), found
by tracing, so that the block hands its input on and the first expansion changes no logit. Whether it does is checked
by running one block of each kind.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from motivation.image_shape import first_trace
from motivation.nesting import mapped_tensors
from motivation.trace import Trace
from motivation.weights_map import WeightsMap, tensor_of

Init = Literal["identity", "native", "copy"]


class Initialization:
    """What to do to the differential blocks; nothing is changed before `apply`.

    Args:
        motivated: the larger network.
        weights_map: where the base lies in it.
        init: ``identity``, ``native`` or ``copy`` (of the nearest mapped block of the stage, tensor by tensor where
            shapes agree).
        image_shape: for tracing, see `motivation.weights_map.map_weights`.

    Raises:
        ValueError: an unknown init, or ``identity`` for a network that cannot be traced.
    """

    def __init__(self, motivated: nn.Module, weights_map: WeightsMap, init: Init,
                 image_shape: tuple[int, ...] | None = None):
        if init not in get_args(Init):
            raise ValueError(f"unknown init {init!r}; choose one of {', '.join(get_args(Init))}")
        self.motivated = motivated
        self.weights_map = weights_map
        self.init = init
        self.trace: Trace | None = None
        if init == "identity" and weights_map.differential_blocks:
            try:
                self.trace = first_trace(motivated, image_shape, weights_map.differential_blocks)
            except ValueError as error:
                raise ValueError(f"{weights_map.differential_blocks[0]} cannot start as the identity: {error}; or use "
                                 "init='native'") from error

    @torch.no_grad()
    def apply(self) -> tuple[str, ...]:
        """Set the differential blocks; returns why the first expansion changes logits, nothing where it does not."""
        notes = list(self.weights_map.notes)
        if self.weights_map.sliced:
            notes.append("widths differ: what only the motivated network has within mapped tensors starts native")
        blocks = self.weights_map.differential_blocks
        if self.init == "copy":
            for name, nearest in zip(blocks, self.weights_map.nearest_blocks, strict=True):
                self._copy(name, nearest)
        if self.trace is not None:
            for name in dict.fromkeys(end for ends in self.trace.branch_ends.values() for end in ends):
                tensor_of(self.motivated, name).zero_()
            notes += self._inexact_blocks()
        elif blocks:
            notes.append(f"{len(blocks)} blocks start {'as copies' if self.init == 'copy' else self.init}")
        return tuple(notes)

    def _copy(self, name: str, nearest: str) -> None:
        ours = mapped_tensors(self.motivated.get_submodule(name))
        theirs = mapped_tensors(self.motivated.get_submodule(nearest)) if nearest else {}
        for leaf, tensor in ours.items():
            if leaf in theirs and theirs[leaf].shape == tensor.shape:
                tensor.copy_(theirs[leaf])

    def _inexact_blocks(self) -> Iterator[str]:
        """Run one block of each kind: does it hand its input on?"""
        known: dict[tuple, bool] = {}
        for name in self.weights_map.differential_blocks:
            block = self.motivated.get_submodule(name)
            inputs = self.trace.inputs.get(name)
            if not _has_parameters(block):
                continue
            kind = (type(block), str(tree_map(lambda value: getattr(value, "shape", None), inputs)))
            if kind not in known:
                known[kind] = inputs is not None and hands_on(block, *inputs)
                if not known[kind]:
                    yield (f"{name} ({type(block).__name__}) does not start as the identity: no skip around it, or an "
                           "activation after the addition that changes its own output")


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


@torch.no_grad()
def hands_on(block: nn.Module, args: tuple, keywords: dict) -> bool:
    """Whether a block returns its first argument, to the bit; on values of any sign, or as a ReLU leaves them.

    Args:
        block: in any mode; run in evaluation mode on random values, with its own generator.
        args: positional arguments; tensors tell shapes only.
        keywords: keyword arguments, likewise.
    """
    tensor = next((t for t in block.parameters()), torch.empty(0))
    if tensor.is_meta:
        return False
    generator = torch.Generator(tensor.device).manual_seed(0)

    def random(value):
        if not isinstance(value, Tensor):
            return value
        if not value.is_floating_point():
            return torch.zeros(value.shape, dtype=value.dtype, device=tensor.device)
        return torch.randn(value.shape, dtype=value.dtype, device=tensor.device, generator=generator)

    training = {module: module.training for module in block.modules()}
    args, keywords = tree_map(random, args), tree_map(random, keywords)
    block.eval()
    try:
        for first in (args[0], args[0].abs()):
            out = block(first, *args[1:], **keywords)
            if isinstance(out, Tensor) and torch.equal(out, first):
                return True
    except Exception:
        # The random values are not what the block takes (an index, a grid): then nothing is known of it.
        return False
    finally:
        for module, mode in training.items():
            module.training = mode
    return False
