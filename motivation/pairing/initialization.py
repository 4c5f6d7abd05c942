"""Values of the blocks that only the motivated network has: ``identity``, ``native`` or ``copy``.

``identity`` zeroes what each residual branch ends with (a projection, a norm's weight and bias, a layer scale), found
by tracing, so that the block is the identity and the first expansion changes no logit. One block of each kind is run
to check that.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from motivation.pairing.tracing.shapes import first_logits, trace_all
from motivation.pairing.tracing.trace import Trace, evaluation_mode
from motivation.pairing.walk import mapped_tensors
from motivation.pairing.weights_map import Entry, WeightsMap, tensor_of

Init = Literal["identity", "native", "copy"]


class Initialization:
    """What to do to the differential blocks; nothing is changed before `apply`.

    Args:
        motivated: the larger network.
        weights_map: of the pair.
        init: ``identity``, ``native`` or ``copy`` (of the nearest mapped block of the stage, tensor by tensor where
            shapes agree).
        image_shape: for tracing, see `motivation.pairing.map_weights.map_weights`.

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
                [self.trace] = trace_all([motivated], image_shape, weights_map.differential_blocks)
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
        """Run one block of each kind; yields a note on each kind that is not the identity."""
        known: dict[tuple, bool] = {}
        for name in self.weights_map.differential_blocks:
            block = self.motivated.get_submodule(name)
            inputs = self.trace.inputs.get(name)
            if next(block.parameters(), None) is None:
                continue
            kind = (type(block), str(tree_map(lambda value: getattr(value, "shape", None), inputs)))
            if kind not in known:
                known[kind] = inputs is not None and is_identity(block, *inputs)
                if not known[kind]:
                    why = "what follows the addition changes it (an activation, a norm)" \
                        if self.trace.branch_ends[name] else "no skip around it was found"
                    yield f"{name} ({type(block).__name__}) does not start as the identity: {why}"


@torch.no_grad()
def is_identity(block: nn.Module, args: tuple, keywords: dict) -> bool:
    """Whether a block's output is bit-identical to its first argument, on random values or on those after a ReLU.

    Args:
        block: in any mode; run in evaluation mode on random values, with its own generator.
        args: positional arguments; of tensors only the shapes count.
        keywords: keyword arguments, likewise.
    """
    tensor = next(block.parameters(), torch.empty(0))
    if tensor.is_meta:
        return False
    generator = torch.Generator(tensor.device).manual_seed(0)

    def random(value):
        if not isinstance(value, Tensor):
            return value
        if not value.is_floating_point():
            return torch.zeros(value.shape, dtype=value.dtype, device=tensor.device)
        return torch.randn(value.shape, dtype=value.dtype, device=tensor.device, generator=generator)

    args, keywords = tree_map(random, args), tree_map(random, keywords)
    try:
        with evaluation_mode(block):
            for first in (args[0], args[0].abs()):
                out = block(first, *args[1:], **keywords)
                if isinstance(out, Tensor) and torch.equal(out, first):
                    return True
    except Exception:
        # The block does not take random values (an index, a grid): nothing is known of it.
        return False
    return False


def logit_change(base: nn.Module, motivated: nn.Module, entries: Iterable[Entry],
                 image_shape: tuple[int, ...] | None = None) -> tuple[str, ...]:
    """How much an expansion changes the logits of one random image, both networks in evaluation mode; () for nothing.

    The networks and torch's generators stay as they are. Base tensors that are constant so far (norms, a classifier
    that starts at zero) take random values: such start values would hide a difference.

    Args:
        base: the smaller network.
        motivated: the larger one, initialised.
        entries: the map; only whole tensors.
        image_shape: for images, see `motivation.pairing.map_weights.map_weights`.
    """
    networks = base, motivated
    unchecked = "whether the first expansion changes logits could not be checked: "
    if any(tensor.is_meta for network in networks for tensor in mapped_tensors(network).values()):
        return (f"{unchecked}the networks hold no values (meta device)",)
    values = [{name: tensor.detach().cpu() for name, tensor in network.named_parameters()}
              | {name: tensor.detach().cpu().clone() for name, tensor in network.named_buffers()}
              for network in networks]
    generator = torch.Generator().manual_seed(0)
    for name in mapped_tensors(base):
        tensor = values[0][name]
        if tensor.is_floating_point() and tensor.numel() and tensor.min() == tensor.max():
            random = torch.rand(tensor.shape, generator=generator) / 2 + 0.25
            fan_in = tensor[:1].numel() if tensor.dim() > 1 else 1
            values[0][name] = (random / fan_in ** 0.5).to(tensor.dtype)
    values[1].update({entry.motivated: values[0][entry.base] for entry in entries})
    try:
        ours, theirs = first_logits(networks, values, image_shape)
        if not ours or not all(logits.isfinite().all() for logits in ours):
            raise ValueError("the base computes no finite logits")
        difference = max(float((small - large).abs().max()) for small, large in zip(ours, theirs, strict=True))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        return (f"{unchecked}{error}",)
    return () if difference == 0 else (f"the first expansion changes the logits of a random image by up to "
                                       f"{difference:.2g}, of {max(float(x.abs().max()) for x in ours):.2g}",)
