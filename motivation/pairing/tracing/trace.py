"""One forward pass on the meta device that notes how a network divides its axes, and where residual branches end.

Nothing is computed and the network is untouched. Every operation equates the axes it brings together (a layer's
output is the next one's input), divides those it views, concatenates or splits, and fixes those it mixes in a way that
depends on their size. An operation without a rule fixes everything it touches, which is sound: what is fixed must
have one size in both networks.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from motivation.pairing.tracing.axes import Layout, equate, fix, fresh, layout
from motivation.pairing.tracing.example import example_input
from motivation.pairing.tracing.rules import BATCH_NORMS, POINTWISE, RULES, broadcast
from motivation.pairing.tracing.views import VIEWS, axes_of


@dataclass
class Trace:
    """What one forward pass showed.

    Args:
        layouts: of every parameter and buffer, one a dimension.
        branch_ends: by block, the parameters whose zeroing makes its residual branches give zero.
        inputs: by block, the arguments and keywords of its forward pass (meta tensors).
        image_shape: of the images, ``(C, H, W)``.
    """

    layouts: dict[str, tuple[Layout, ...]] = field(default_factory=dict)
    branch_ends: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, tuple[tuple, dict]] = field(default_factory=dict)
    image_shape: tuple[int, ...] = ()


def mixes_channels(module: nn.Module) -> bool:
    """Whether a module is a norm over channels, so that its statistics change with the width; BatchNorm is none."""
    name = type(module).__name__.lower()
    return ("norm" in name and "batchnorm" not in name and "act" not in name and not any(module.children())) \
        or "responsenorm" in name or name.startswith("groupnorm")


@contextmanager
def evaluation_mode(*networks: nn.Module) -> Iterator[None]:
    """Networks in evaluation mode inside the block, every module in its own mode after it."""
    training = {module: module.training for network in networks for module in network.modules()}
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def trace(network: nn.Module, image_shape: tuple[int, ...], blocks: Iterable[str] = ()) -> Trace:
    """Trace a network.

    Args:
        network: maps ``(N, *image_shape)`` to logits ``(N, classes)``.
        image_shape: ``(C, H, W)``, or whatever the network takes: ``(T,)`` of tokens.
        blocks: qualified names of modules whose inputs and residual branches to note.

    Raises:
        Exception: whatever the network raises for such images.
    """
    tensors = {name: torch.empty_like(tensor, device="meta")
               for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
    recorder = _Recorder()
    for name, tensor in tensors.items():
        tensor.axes = [fresh(size) for size in tensor.shape]
        tensor.parameter = name
    found = Trace(branch_ends={name: [] for name in blocks}, image_shape=tuple(image_shape))
    handles = []
    norms = [module for module in network.modules() if mixes_channels(module) and "forward" not in vars(module)]
    recurrent = [module for module in network.modules() if isinstance(module, nn.RNNBase)
                 and not getattr(module, "proj_size", 0) and "forward" not in vars(module)]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for module in norms:
            module.forward = partial(_norm_without_statistics, module)
        for module in recurrent:
            module.forward = partial(_recurrent, module)
        for name in found.branch_ends:
            handles += _watch(network.get_submodule(name), name, found, recorder)
        dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None)
        image = example_input(network, image_shape, device="meta", dtype=dtype)
        image.axes = [fresh(size) for size in image.shape]
        for axes in image.axes:
            fix(axes, "is the image's")
        with torch.no_grad(), evaluation_mode(network), recorder:
            logits = torch.func.functional_call(network, tensors, (image,))
        classes = getattr(network, "num_classes", None) != 0
        for output in (logits if isinstance(logits, tuple | list) else (logits,)) if classes else ():
            for axes in getattr(output, "axes", []):
                fix(axes, "is the number of classes")
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for handle in handles:
            handle.remove()
        for module in norms + recurrent:
            del module.forward
    found.layouts = {name: tuple(map(layout, tensor.axes)) for name, tensor in tensors.items()}
    return found


def _norm_without_statistics(module: nn.Module, x: Tensor, *_, **__) -> Tensor:
    """In place of a channel norm's forward: equates its input's channels with its weights, and does nothing else."""
    out = torch.empty_like(x)
    axes = axes_of(x)
    last = not (isinstance(module, nn.GroupNorm) or "2d" in type(module).__name__
                or getattr(module, "channel_dim", -1) == 1)
    ends = []
    for parameter in [*module._parameters.values(), *module._buffers.values()]:
        if parameter is None or parameter.dim() == 0:
            continue
        dims = [dim for dim in axes_of(parameter) if dim]
        where = axes[len(axes) - len(dims):] if last else axes[1:1 + len(dims)]
        for ours, theirs in zip(where, dims, strict=True):
            equate(ours, theirs)
        ends.append(getattr(parameter, "parameter", None))
    out.axes = axes
    out.ends = tuple(name for name in ends if name)
    return out


def _recurrent(module: nn.RNNBase, x: Tensor, *_, **__) -> tuple[Tensor, None]:
    """In place of an LSTM's or GRU's forward: one operation, whose sizes are fixed; torch runs it step by step."""
    out = x.new_empty(*x.shape[:-1], module.hidden_size * (2 if module.bidirectional else 1))
    for tensor in (*module._parameters.values(), out):
        for axes in axes_of(tensor):
            fix(axes, "goes through a recurrent layer")
    fix(axes_of(x)[-1], "goes through a recurrent layer")
    out.axes = [*axes_of(x)[:-1], out.axes[-1]]
    return out, None


def _watch(module: nn.Module, name: str, found: Trace, recorder: "_Recorder") -> list:
    """Note a block's inputs, and while it runs the ends of its residual branches."""
    def enter(_, args, keywords):
        found.inputs.setdefault(name, (args, keywords))
        for value in args:
            if isinstance(value, Tensor):
                value.stream = name
        recorder.block, recorder.ends = name, found.branch_ends[name]

    def leave(*_):
        recorder.block, recorder.ends = None, []

    return [module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)]


class _Recorder(TorchDispatchMode):
    """Applies the rule of every operation to the axes of its tensors."""

    def __init__(self):
        super().__init__()
        self.block: str | None = None
        self.ends: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._overloadpacket.__name__
        if name.endswith("_") and not name.endswith("__"):
            name = name[:-1]
        if name in BATCH_NORMS:
            # torch works out a meta tensor's normalisation step by step, half of a trace's time; its shape is known.
            out = torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        else:
            out = func(*args, **(kwargs or {}))
        inputs = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if name in VIEWS:
            VIEWS[name](out, *args, **(kwargs or {}))
            for result in out if isinstance(out, tuple | list) else (out,):
                for mark in ("parameter", "ends", "stream"):
                    if hasattr(inputs[0], mark):
                        setattr(result, mark, getattr(inputs[0], mark))
        elif name in RULES:
            RULES[name](out, *args, **(kwargs or {}))
        elif torch.Tag.pointwise in func.tags or name in POINTWISE:
            broadcast(out, inputs)
            self._residual(name, out, inputs)
        elif inputs:
            for tensor in inputs:
                for axes in axes_of(tensor):
                    fix(axes, f"goes through {name}")
        return out

    def _residual(self, name: str, out: Tensor, inputs: list[Tensor]) -> None:
        """Carry where a branch ends, and note the end of one that is added to the block's stream."""
        if not isinstance(out, Tensor):
            return
        parameters = [t.parameter for t in inputs if hasattr(t, "parameter")]
        activations = [t for t in inputs if not hasattr(t, "parameter") and t.dim()]
        if len(activations) == 1 and parameters:
            old = getattr(activations[0], "ends", ())
            out.ends = tuple(parameters) if name == "mul" else (*old, *parameters)
            if name == "mul" and getattr(activations[0], "stream", None) == self.block is not None:
                out.stream = self.block  # a scale of the stream: the block hands on while it is 1
        elif len(activations) == 1:
            out.ends = getattr(activations[0], "ends", ())
        elif name in ("add", "sub") and len(activations) == 2:
            on_stream = [getattr(t, "stream", None) == self.block is not None for t in activations]
            # Read before `out` is marked: after an in-place addition it is one of the two.
            ends = [getattr(t, "ends", ()) for t in activations]
            out.ends = sum(ends, ())
            if any(on_stream):
                out.stream = self.block
                self.ends += [name for branch, is_stream in zip(ends, on_stream, strict=True) if not is_stream
                              for name in branch if name.startswith(f"{self.block}.")]
        elif name == "mul":
            # A gate: zero where the gated branch is.
            out.ends = next((t.ends for t in activations if getattr(t, "ends", ())), ())
