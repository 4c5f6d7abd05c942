"""What training cost: FLOPs, steps, images and seconds, by phase; and FLOPs of what is no training step, by kind."""

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from motivation.pairing.tracing.example import example_input, takes_tokens
from motivation.phase import Phase

# Forward, and twice its cost for the backward: the field's convention, and exact for matrix products.
TRAINING_FORWARDS = 3

# What a step takes beside training its network: a monitor's probes; scores of candidates; the training of a reference
# and its forwards; sampled tokens; what a teacher writes or predicts; the training of a base that is a step's student.
Kind = Literal["probe", "scoring", "reference", "rollout", "teacher", "student"]

# What a forward of an image of the wrong shape, or of tensors without values, raises.
FORWARD_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError)


def forward_flops(network: nn.Module, image_shape: tuple[int, ...]) -> int:
    """FLOPs of one forward pass for one image, 2 per multiply-add.

    Counted on the meta device, where nothing is computed; a network that cannot run there (its forward reads a value,
    or makes tensors on a device of its own) is counted on one black image where it is. The network is untouched.

    Args:
        network: a network that maps ``(N, C, H, W)`` images, or ``(N, T)`` tokens, to logits.
        image_shape: ``(C, H, W)``, or ``(T,)``.

    Raises:
        ValueError: the network cannot take such an image.
    """
    parameter = next(network.parameters(), torch.empty(0))
    image = example_input(network, image_shape, device=parameter.device, dtype=parameter.dtype)
    tensors = {name: torch.empty_like(tensor, device="meta")
               for name, tensor in [*network.named_parameters(remove_duplicate=False),
                                    *network.named_buffers(remove_duplicate=False)]}
    training = {module: module.training for module in network.modules()}
    trained = [tensor for tensor in network.parameters() if tensor.requires_grad]
    network.eval()
    try:
        # The counter hangs hooks on what a module is called with, and fails on a view of a parameter.
        for tensor in trained:
            tensor.requires_grad_(False)
        with torch.no_grad(), _matrix_products():
            try:
                with FlopCounterMode(display=False) as counter:
                    torch.func.functional_call(network, tensors, (image.to("meta"),))
            except FORWARD_ERRORS:
                with FlopCounterMode(display=False) as counter:
                    network(image)
    except FORWARD_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        taken = "tokens of (T,)" if takes_tokens(network) else "an image of (C, H, W)"
        raise ValueError(f"{type(network).__name__} cannot take {taken} = {tuple(image_shape)}: {reason}") from error
    finally:
        for module, mode in training.items():
            module.training = mode
        for tensor in trained:
            tensor.requires_grad_(True)
    return counter.get_total_flops()


@contextmanager
def _matrix_products() -> Iterator[None]:
    """Attention, transformer layers and LSTMs run as matrix products inside, which the counter counts.

    On a device they are single kernels, and those of a CPU count as nothing. On the meta device there are none.
    """
    fast, libraries = torch.backends.mha.get_fastpath_enabled(), (torch.backends.mkldnn, torch.backends.cudnn)
    enabled = [library.enabled for library in libraries]
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for library in libraries:
            library.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for library, value in zip(libraries, enabled, strict=True):
            library.enabled = value


class Stopwatch:
    """Time of one step, running from its making on.

    On a GPU by events in its stream: the host launches the work and does not wait for it.

    Args:
        device: where the step runs.
    """

    def __init__(self, device: torch.device):
        self._events = None
        if device.type == "cuda":
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            self._stream = torch.cuda.current_stream(device)
            self._events[0].record(self._stream)
        self._start = perf_counter()

    def stop(self) -> "float | Stopwatch":
        """The seconds; on a GPU itself, since they are known once the GPU has got so far."""
        if self._events is None:
            return perf_counter() - self._start
        self._events[1].record(self._stream)
        return self

    @property
    def ready(self) -> bool:
        """Whether the GPU has got so far."""
        return self._events[1].query()

    def seconds(self) -> float:
        """The seconds between start and stop; waits for the GPU."""
        self._events[1].synchronize()
        return self._events[0].elapsed_time(self._events[1]) / 1000


def _by_phase() -> dict[Phase, float]:
    return {"base": 0, "motivated": 0}


@dataclass
class Ledger:
    """Running totals of one training run.

    Attributes:
        steps: optimizer steps, by phase.
        images: images trained on, by phase.
        flops: FLOPs by phase, 2 per multiply-add: images x 3 x forward, and all that was charged.
        forward_flops: FLOPs of one image's forward pass, by network.
        forward: forward FLOPs of all images trained on, by phase, charges left out.
        seconds: time inside training steps, by phase; without data loading and evaluation. On a GPU it lags behind
            until `settle`, as the GPU does.
        bytes_copied: what the switches copied.
        intervals: unbroken runs of at least one motivated step.
        charges: FLOPs charged, by kind.
        pending: FLOPs charged since the last step was recorded.
    """

    steps: dict[Phase, int] = field(default_factory=_by_phase)
    images: dict[Phase, int] = field(default_factory=_by_phase)
    flops: dict[Phase, int] = field(default_factory=_by_phase)
    forward_flops: dict[Phase, int] = field(default_factory=_by_phase)
    forward: dict[Phase, int] = field(default_factory=_by_phase)
    seconds: dict[Phase, float] = field(default_factory=_by_phase)
    bytes_copied: int = 0
    intervals: int = 0
    in_interval: bool = False
    charges: dict[Kind, int] = field(default_factory=dict)
    pending: int = 0
    _running: deque[tuple[Phase, Stopwatch]] = field(default_factory=deque, repr=False, compare=False)

    def charge(self, kind: Kind, flops: int) -> None:
        """Count FLOPs of something else than training; they are part of the step that is recorded next.

        Args:
            kind: of what was computed.
            flops: of all processes together.

        Raises:
            ValueError: no such kind.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind={kind!r}: must be one of {', '.join(get_args(Kind))}")
        if flops:
            self.charges[kind] = self.charges.get(kind, 0) + flops
            self.pending += flops

    def record(self, phase: Phase, images: int, forward: int, seconds: float | Stopwatch) -> int:
        """Enter one training step, with what was charged for it.

        Args:
            phase: the network it trained.
            images: number of images in the batch.
            forward: FLOPs of one image's forward pass.
            seconds: how long the step took, or the stopwatch that will know.

        Returns:
            The step's FLOPs.
        """
        flops, self.pending = images * TRAINING_FORWARDS * forward + self.pending, 0
        self.steps[phase] += 1
        self.images[phase] += images
        self.flops[phase] += flops
        self.forward[phase] += images * forward
        self.forward_flops[phase] = forward
        if isinstance(seconds, Stopwatch):
            self._running.append((phase, seconds))
            self.settle(wait=False)
        else:
            self.seconds[phase] += seconds
        self.intervals += phase == "motivated" and not self.in_interval
        self.in_interval = phase == "motivated"
        return flops

    def settle(self, wait: bool = True) -> None:
        """Add the seconds of steps that a GPU has finished.

        Args:
            wait: for all of them.
        """
        while self._running and (wait or self._running[0][1].ready):
            phase, stopwatch = self._running.popleft()
            self.seconds[phase] += stopwatch.seconds()

    def totals(self) -> dict[str, float]:
        """The keys that epochs.jsonl and summary.json carry."""
        self.settle()
        images = sum(self.images.values())
        return {
            "budget/flops": sum(self.flops.values()),
            "budget/forward_per_image": sum(self.forward.values()) / images if images else 0.0,
            "budget/images": images,
            "budget/seconds": sum(self.seconds.values()),
            "budget/bytes_copied": self.bytes_copied,
            "steps/base": self.steps["base"],
            "steps/motivated": self.steps["motivated"],
            "intervals": self.intervals,
            **{f"budget/{kind}_flops": flops for kind, flops in self.charges.items()},
        }

    def state_dict(self) -> dict:
        """All totals, as plain numbers."""
        self.settle()
        return {name: value for name, value in asdict(self).items() if name != "_running"}

    def load_state_dict(self, state: dict) -> None:
        """Restore totals saved by `state_dict`."""
        self._running.clear()
        for name, value in copy.deepcopy(state).items():
            setattr(self, name, value)
