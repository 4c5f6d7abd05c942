"""What a monitor asks for beyond the loss: held-out losses, a second forward, the gradient. A probe changes nothing.

All that a step shows is put into one tensor on the device, so that it is read with the loss, in one copy.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motivation.monitors import Monitor, Signal
from motivation.pairing.pair import Pair
from motivation.pairing.weights_map import tensor_of
from motivation.phase import PHASES, Phase
from motivation.training.compiled import begin_step, full_precision
from motivation.training.distributed import all_reduce_mean, processes
from motivation.training.engine import Engine, Loss

KINDS = frozenset({"heldout", "after", "gradient"})


class NonFiniteLoss(ValueError):
    """A training loss or gradient was NaN or infinite; the step's update has already spoiled the weights.

    Args:
        message: what was not finite.
        step: whose; with a lag, some steps before the trainer's.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def runs_ahead(device: torch.device) -> bool:
    """Whether the host launches the work of a device and does not wait for it."""
    return device.type == "cuda"


@dataclass
class Observation:
    """What one step showed, on its way from the device.

    Attributes:
        step: its number, from 0.
        phase: the network it trained.
        flops: its training FLOPs.
        values: the loss; 0, infinity where a gradient is not finite, or 1 where a scaled one was not and the update was
            left out; then the monitor's numbers, the loss after the update and the held-out losses, as far as due.
        measured: how many of them are the monitor's numbers.
        after: whether the loss after the update is among them.
        gradient: of the mapped weights, for a monitor that measures nothing on the device.
    """

    step: int
    phase: Phase
    flops: int
    values: Tensor | list[float]
    measured: int = 0
    after: bool = False
    gradient: list[Tensor] | None = None
    copied: Any = None

    def send(self) -> None:
        """Start the copy to the host without waiting for it: one small copy, into pinned memory."""
        if runs_ahead(self.values.device):
            stream = torch.cuda.current_stream(self.values.device)
            self.values = self.values.to("cpu", non_blocking=True)
            self.copied = torch.cuda.Event()
            self.copied.record(stream)

    def signal(self) -> Signal:
        """As the monitor sees it; waits for the device where it has not got so far.

        Raises:
            NonFiniteLoss: the loss or a gradient is NaN or infinite.
        """
        if torch.is_tensor(self.values):
            if self.copied is not None:
                self.copied.synchronize()
            self.values, self.copied = self.values.tolist(), None
        loss, gradient, *rest = self.values
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            what = f"loss is {loss}" if not math.isfinite(loss) else "gradient is not finite"
            raise NonFiniteLoss(f"the {self.phase} network's {what} at step {self.step}; lower the learning rate or "
                                "check the images", self.step)
        measured, rest = rest[:self.measured], rest[self.measured:]
        # A gradient that overflowed tells a monitor nothing.
        measured, of_update = (None, None) if gradient else (measured or None, self.gradient)
        return Signal(loss, self.phase, self.flops, rest[0] if self.after else None,
                      rest[self.after:] or None, of_update, measured)

    def state_dict(self) -> dict[str, Any]:
        """Itself, read from the device."""
        self.signal()
        return {name: value for name, value in asdict(self).items() if name != "copied"}


class Probes:
    """Runs the probes that a monitor needs, every ``monitor.every`` steps, from the first on.

    Args:
        model: what trains; a monitor needs a pair.
        monitor: or None.
        loss: ``(logits, targets) -> scalar``.
        heldout: images ``(N, C, H, W)`` and targets ``(N,)`` on the model's device, from the training set.

    Raises:
        ValueError: the monitor needs what is not there.
    """

    def __init__(self, model: Pair | nn.Module, monitor: Monitor | None, loss: Loss,
                 heldout: tuple[Tensor, Tensor] | None):
        self.needs: frozenset[str] = frozenset(getattr(monitor, "needs", ()))
        name = type(monitor).__name__
        if unknown := self.needs - KINDS:
            raise ValueError(f"monitor {name} needs {', '.join(sorted(unknown))}, which this trainer cannot give; it "
                             f"knows {', '.join(sorted(KINDS))}")
        if "heldout" in self.needs and heldout is None:
            raise ValueError(f"monitor {name} needs heldout images, which this trainer cannot give: pass "
                             "heldout=(images, targets) of training images that are not trained on")
        self.monitor, self.loss, self.heldout = monitor, loss, heldout
        self.every = getattr(monitor, "every", 1)
        self.numbers = getattr(monitor, "numbers", 0)
        self._mapped: dict[Phase, Callable[[], list[Tensor]]] = {}
        if "gradient" in self.needs:
            self._mapped = _mapped_gradients(model)
        self._random: list[Tensor] = []
        self._measured: Tensor | None = None
        self._gradient: list[Tensor] | None = None

    def due(self, step: int) -> frozenset[str]:
        """Probes of a step, by its number from 0."""
        return self.needs if self.needs and step % self.every == 0 else frozenset()

    def before_forward(self, due: frozenset[str], images: Tensor) -> None:
        """Keep the random state, so that the second forward draws the masks (dropout, drop path) of the first."""
        if "after" in due:
            self._random = [torch.get_rng_state()]
            if images.is_cuda:
                self._random.append(torch.cuda.get_rng_state(images.device))

    def before_update(self, phase: Phase) -> None:
        """Measure the gradient: between backward and update, since an optimizer may change it."""
        gradient = self._mapped[phase]()
        if self.numbers:
            with torch.no_grad():
                self._measured = self.monitor.measure(gradient)
        else:
            self._gradient = [part.clone() for part in gradient]

    def flops(self, due: frozenset[str], images: int, forward: int) -> int:
        """FLOPs of a step's probes: their forwards.

        Args:
            due: its probes.
            images: in the batch.
            forward: FLOPs of one image's forward pass.
        """
        return forward * (images * ("after" in due) + (len(self.heldout[1]) if "heldout" in due else 0))

    def observe(self, due: frozenset[str], step: int, phase: Phase, flops: int, network: nn.Module,
                loss_and_spoiled: Tensor, images: Tensor, targets: Tensor, engine: Engine,
                weights: Tensor | None = None) -> Observation:
        """Run what is due after the update, and put all that the step showed into one tensor.

        Args:
            due: its probes.
            step: its number.
            phase: the network it trained.
            flops: its FLOPs, probes included.
            network: that network.
            loss_and_spoiled: ``(2,)`` what `Engine.step` returned.
            images: the batch.
            targets: its labels, or shares of them.
            engine: its precision and micro-batches hold for probes too.
            weights: of the batch's losses, if any.
        """
        seen = Observation(step, phase, flops, loss_and_spoiled, after="after" in due, gradient=self._gradient,
                           measured=0 if self._measured is None else len(self._measured))
        if values := self.after_update(due, engine, network, images, targets, weights):
            seen.values = torch.cat([loss_and_spoiled, *values])
        if processes() > 1:
            seen.values = seen.values.clone()
            all_reduce_mean([seen.values])
        return seen

    def after_update(self, due: frozenset[str], engine: Engine, network: nn.Module, images: Tensor,
                     targets: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        """The numbers of what is due: the monitor's, the loss after the update, held-out losses; see `observe`."""
        values = [] if self._measured is None else [self._measured]
        if "after" in due:
            values.append(self.after(engine, network, images, targets, weights).reshape(1))
        if "heldout" in due:
            values.append(self.heldout_losses(engine, network))
        self._gradient = self._measured = None
        return values

    @torch.no_grad()
    def after(self, engine: Engine, network: nn.Module, images: Tensor, targets: Tensor,
              weights: Tensor | None = None) -> Tensor:
        """Loss of the batch once more, in training mode, with the masks of the first forward; the buffers are put back:
        running statistics stay. Where the update changed nothing it is the first loss, bit for bit.
        """
        buffers = [(module._buffers, name, buffer, buffer.clone()) for module in network.modules()
                   for name, buffer in module.named_buffers(recurse=False)]
        parts = engine.parts(images, targets, weights)
        begin_step(engine.compile)
        with self._rng(images):
            for state in self._random[:1]:
                torch.set_rng_state(state)
            for state in self._random[1:]:
                torch.cuda.set_rng_state(state, images.device)
            try:
                # The graph of the first forward, which a compiled one without gradients is not.
                with torch.set_grad_enabled(engine.compile is not None):
                    losses = [engine.loss(network, self.loss, *part).detach() for part in parts]
            finally:
                for holder, name, buffer, kept in buffers:
                    holder[name] = buffer.copy_(kept)
        if len(parts) == 1:
            return losses[0]
        return sum(loss * (len(part) / len(images)) for loss, (part, *_) in zip(losses, parts, strict=True))

    @torch.no_grad()
    def heldout_losses(self, engine: Engine, network: nn.Module) -> Tensor:
        """Per-image losses ``(N,)`` in evaluation mode, eager, in as many parts as a batch is trained in."""
        images, targets = self.heldout
        training = [module for module in network.modules() if module.training]
        network.eval()
        try:
            with self._rng(images), engine.autocast():
                parts = zip(images.chunk(engine.micro_batches), targets.chunk(engine.micro_batches), strict=True)
                losses = [torch.vmap(lambda logit, target: self.loss(logit[None], target[None]))(
                    full_precision(network(part)), labels) for part, labels in parts]
                return torch.cat(losses)
        finally:
            for module in training:
                module.training = True

    @staticmethod
    def _rng(images: Tensor) -> torch.random.fork_rng:
        device = images.device
        return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _mapped_gradients(pair: Pair | nn.Module) -> dict[Phase, Callable[[], list[Tensor]]]:
    """By phase, a function that lists the mapped weights' gradients in base order and shape; all of one network's."""
    if not isinstance(pair, Pair):
        parameters = list(pair.parameters())
        return dict.fromkeys(PHASES, lambda: [torch.zeros_like(weight) if weight.grad is None else weight.grad
                                              for weight in parameters])
    weights = {id(parameter) for parameter in pair.base.parameters()}
    entries = [entry for entry in pair.weights_map.entries if id(tensor_of(pair.base, entry.base)) in weights]
    base = [tensor_of(pair.base, entry.base) for entry in entries]
    motivated = [tensor_of(pair.motivated, entry.motivated) for entry in entries]

    def of(parameters: Sequence[Tensor], slices: bool) -> list[Tensor]:
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in parameters]
        if slices:
            gradients = [gradient if entry.aliased else entry.slice_of(gradient)
                         for entry, gradient in zip(entries, gradients, strict=True)]
        return gradients

    return {"base": lambda: of(base, False), "motivated": lambda: of(motivated, True)}
