"""How one step is executed: device, precision, memory layout, micro-batches."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from motivation.phase import Phase
from motivation.training.determinism import ask_for_deterministic_kernels
from motivation.training.distributed import all_reduce_mean, local_rank, processes, running_statistics
from motivation.validation import Count, check_arguments

# Beyond it, starting the threads takes longer than any training.
MOST_THREADS = 1024
Loss = Callable[[Tensor, Tensor], Tensor]


class OutOfMemory(ValueError):
    """A forward or backward pass did not fit in memory.

    Args:
        message: names the network, the batch and its micro-batches.
        micro_batches: that the batch ran in.
    """

    def __init__(self, message: str, micro_batches: int):
        super().__init__(message)
        self.micro_batches = micro_batches


@contextmanager
def out_of_memory_named(phase: Phase, images: int, micro_batches: int) -> Iterator[None]:
    """Turn torch's out-of-memory errors into `OutOfMemory`, which says which network and batch did not fit.

    Args:
        phase: of the network that ran.
        images: in the batch.
        micro_batches: that it ran in.
    """
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise OutOfMemory(f"out of memory: the {phase} network does not fit with a batch of {images} images in "
                          f"{micro_batches} micro-batch{'es' * (micro_batches > 1)}", micro_batches) from error


@check_arguments
@dataclass(frozen=True)
class Engine:
    """Runs forward, backward and update.

    Args:
        device: ``auto`` (a GPU where there is one), or a torch device such as ``cpu`` or ``cuda:1``. Of several
            processes each takes a GPU of its own.
        precision: ``float32``, or ``bfloat16`` for autocast with float32 weights.
        channels_last: keep images and convolution weights in channels-last layout, the faster one.
        deterministic: kernels that give the same bits twice, and no autotuning; an operation without such a kernel is
            named once.
        threads: CPU threads of torch; null leaves torch's choice.
        accumulation: micro-batches that a batch is run in, one after another, gradients added up; with ``auto`` a run
            doubles it before training until both networks fit in memory. BatchNorm sees the micro-batches.
        evaluation_batch: images that evaluation predicts at once; with ``accumulation="auto"`` a run halves it before
            training until both networks fit in memory.

    Raises:
        ValueError: a device that is not there, or threads or parts below 1.
    """

    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    deterministic: bool = True
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    accumulation: Count | Literal["auto"] = 1
    evaluation_batch: Count = 512

    def __post_init__(self):
        try:
            device = self.torch_device
        except RuntimeError as error:
            raise ValueError(f"device={self.device!r} is not a torch device; try auto, cpu or cuda") from error
        if device.type == "cuda" and processes() > 1 and device.index != local_rank():
            raise ValueError(f"device={self.device!r}: each of several processes has a GPU of its own; use device=auto")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            needed = f", process {local_rank()} of this machine needs one of its own" if processes() > 1 else ""
            raise ValueError(f"device={self.device!r}: {torch.cuda.device_count()} GPUs are visible{needed}; "
                             "try device=cpu")
        if device.type in ("mps", "xpu") and not getattr(torch, device.type).is_available():
            raise ValueError(f"device={self.device!r}: there is none here; try device=cpu")
        if device.type not in ("cpu", "cuda", "mps", "xpu"):
            raise ValueError(f"device={self.device!r} cannot train; try auto, cpu or cuda")

    @property
    def torch_device(self) -> torch.device:
        """The device, ``auto`` resolved."""
        best = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(best if self.device == "auto" else self.device)
        if device == torch.device("cuda") and processes() > 1:
            return torch.device("cuda", local_rank())
        return device

    def configure(self) -> None:
        """Set what torch keeps for the whole process: kernel choice and thread count."""
        ask_for_deterministic_kernels(self.deterministic, self.torch_device)
        if self.torch_device.type == "cuda":
            torch.cuda.set_device(self.torch_device.index or 0)
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network or pair to the device, in the engine's memory layout."""
        if self.channels_last:
            return model.to(self.torch_device, memory_format=torch.channels_last)
        return model.to(self.torch_device)

    def autocast(self) -> torch.autocast:
        """The precision of a forward pass."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    @property
    def micro_batches(self) -> int:
        """Micro-batches a step; ``auto`` starts at 1."""
        return 1 if self.accumulation == "auto" else self.accumulation

    def gradients(self, network: nn.Module, loss: Loss, images: Tensor, targets: Tensor) -> Tensor:
        """Forward and backward of one batch; gradients are left in the network's parameters.

        Args:
            network: the network that trains; its gradients must be clear.
            loss: ``(logits, targets) -> scalar``, a mean over images.
            images: ``(N, C, H, W)``.
            targets: ``(N,)`` class indices, or what else the loss takes, such as ``(N, classes)`` shares.

        Returns:
            The batch loss, a scalar on the device.
        """
        total = None
        for part, labels in zip(images.chunk(self.micro_batches), targets.chunk(self.micro_batches), strict=True):
            with self.autocast():
                value = loss(network(part), labels)
            if len(part) != len(images):
                value = value * (len(part) / len(images))
            value.backward()
            total = value.detach() if total is None else total + value.detach()
        return total

    def step(self, network: nn.Module, optimizer: Optimizer, loss: Loss, images: Tensor, targets: Tensor,
             before_update: Callable[[], None] | None = None) -> Tensor:
        """One forward, backward and update of one network; arguments as in `gradients`.

        Where several processes train together, their gradients are averaged, and so are BatchNorm's running statistics.
        ``before_update`` is called between backward and update, when the gradients are whole.

        Returns:
            ``(2,)`` on the device: the batch loss before the update, and 0, or infinity where a gradient that the
            optimizer takes is NaN or infinite.
        """
        optimizer.zero_grad(set_to_none=True)
        value = self.gradients(network, loss, images, targets)
        if processes() > 1:
            gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
            all_reduce_mean([*gradients, *running_statistics(network)])
        if before_update is not None:
            before_update()
        spoiled = _not_finite(optimizer, value.device).to(value.dtype)
        optimizer.step()
        return torch.stack((value, spoiled))

    @torch.inference_mode()
    def predict(self, network: nn.Module, batches: Iterable[Tensor]) -> np.ndarray | None:
        """Class probabilities in evaluation mode, float32 ``(images, classes)``; None without a batch.

        Args:
            network: left in evaluation mode; the next training step sets it back.
            batches: images ``(N, C, H, W)``.
        """
        network.eval()
        with self.autocast():
            predicted = [network(images).float().softmax(1) for images in batches]
            return torch.cat(predicted).cpu().numpy() if predicted else None


def _not_finite(optimizer: Optimizer, device: torch.device) -> Tensor:
    """0, or infinity where a gradient is NaN or infinite: a scalar on the device.

    With the one kernel of torch's GradScaler, a sixth of the time that the gradients' norms take; a scale of 1 changes
    no bit of them. The optimizer's list, since walking through a network's modules takes as long again.
    """
    gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]
                 if parameter.grad is not None]
    found = torch.zeros((), device=device)
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, _one(device))
    return found / (1 - found)


@functools.cache
def _one(device: torch.device) -> Tensor:
    return torch.ones((), device=device)
