"""torch.compile of a network's forward, with its loss in training and its softmax in evaluation; eager where it fails.

One compiled function serves every network, and torch keeps one graph for each network, mode and shape. A network is
compiled when it first runs; a run makes that happen before step 0, where both networks are rehearsed.
"""

import functools
import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motivation.training.compile_cache import remove_killed_builds

Mode = Literal["default", "reduce-overhead", "max-autotune"]
Loss = Callable[[Tensor, Tensor], Tensor]

logger = logging.getLogger(__name__)
# Graphs of one function that a process keeps; a run has one for each network and size of micro-batch.
MOST_GRAPHS = 64
# Tests put torch's cheap ones here.
BACKEND = "inductor"

_eager: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_said: set[str] = set()


def batch_loss(network: nn.Module, images: Tensor, loss: Loss, targets: Tensor) -> Tensor:
    """The loss of a batch, a scalar; float32 in every precision, since monitors compare small differences of it."""
    return loss(full_precision(network(images)), targets)


def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """Class probabilities float32 ``(N, classes)``."""
    return network(images).float().softmax(1)


def full_precision(logits: Tensor) -> Tensor:
    """Logits of a lower precision as float32."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def call(function: Callable[..., Tensor], mode: Mode | None, deterministic: bool, network: nn.Module,
         *arguments: Any) -> Tensor:
    """A function of a network and further arguments, compiled; eager, with one warning, where that cannot be done.

    Args:
        function: `batch_loss` or `probabilities`.
        mode: of torch.compile; None for eager.
        deterministic: compile to the same kernels every time.
        network: its first argument.
        arguments: its others.
    """
    if mode is None or network in _eager:
        return function(network, *arguments)
    try:
        # A CUDA graph writes its next result over this one.
        return _compiled(function, mode, deterministic, BACKEND)(network, *arguments).clone()
    except _failures() as error:
        _eager.add(network)
        reason = " ".join(_reason(error).split())[:200]
        message = f"{type(network).__name__} runs eager, since torch.compile failed: {reason}"
        if message not in _said:
            _said.add(message)
            logger.warning("%s", message)
        return function(network, *arguments)


def begin_step(mode: Mode | None) -> None:
    """Say that all results of compiled functions so far have been used: CUDA graphs may take their memory."""
    if mode in ("reduce-overhead", "max-autotune") and torch.cuda.is_available():
        torch.compiler.cudagraph_mark_step_begin()


def is_compiled(network: nn.Module, mode: Mode | None) -> bool:
    """Whether a network that has run with this mode did not have to fall back to eager."""
    return mode is not None and network not in _eager


def forget() -> None:
    """Drop the graphs of earlier runs in this process, and what could not be compiled in them."""
    _eager.clear()
    _said.clear()
    if _compiled.cache_info().currsize:
        _compiled.cache_clear()
        torch._dynamo.reset()


@functools.cache
def _compiled(function: Callable[..., Tensor], mode: Mode, deterministic: bool, backend: str) -> Callable[..., Tensor]:
    import torch._dynamo.config
    import torch._functorch.config
    import torch._inductor
    import torch._inductor.runtime.cache_dir_utils

    torch._dynamo.config.recompile_limit = max(MOST_GRAPHS, torch._dynamo.config.recompile_limit)
    # A backward that cannot be compiled is known before the forward has run.
    if hasattr(torch._functorch.config, "force_non_lazy_backward_lowering"):
        torch._functorch.config.force_non_lazy_backward_lowering = True
    options = None
    if backend == "inductor":
        remove_killed_builds(Path(torch._inductor.runtime.cache_dir_utils.cache_dir()))
        # Random numbers as eager draws them: the masks of dropout are those of an eager second forward.
        options = torch._inductor.list_mode_options(mode) | {"fallback_random": True}
        if "deterministic" in torch._inductor.list_options():
            options["deterministic"] = deterministic
    # The whole forward or nothing: a part that had run before a failure would have moved BatchNorm's statistics.
    return torch.compile(function, backend=backend, options=options, dynamic=False, fullgraph=True)


def _failures() -> tuple[type[BaseException], ...]:
    """What torch raises when it cannot compile; a function, since importing the compiler takes seconds."""
    import torch._dynamo.exc
    import torch._inductor.exc

    return (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit,
            torch._inductor.exc.InvalidCxxCompiler, torch._inductor.exc.CppCompileError)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong that says something."""
    inner = getattr(error, "inner_exception", None) or error
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return f"{type(inner).__name__}: {lines[0]}" if lines else type(inner).__name__
