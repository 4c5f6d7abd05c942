"""How one step is executed: device, precision, compilation, memory layout, micro-batches."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from motivation.phase import Phase
from motivation.training import compiled
from motivation.training.allocator import keep_freed_memory
from motivation.training.compiled import Loss, Mode
from motivation.training.determinism import ask_for_deterministic_kernels, ask_for_portable_kernels, check_portable
from motivation.training.distributed import all_reduce_mean, local_rank, processes, running_statistics
from motivation.training.precision import AUTOCAST, Precision, fastest, scaled_update
from motivation.validation import Count, check_arguments

# Beyond it, starting the threads takes longer than any training.
MOST_THREADS = 1024


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
        precision: ``float32``; ``bfloat16`` or ``float16`` for autocast with float32 weights, float16 with a loss scale
            of each network's own; ``auto`` for bfloat16 where the hardware is made for it, else float32.
        matmul_precision: of float32 matrix products: ``highest``, or ``high`` and ``medium`` for TensorFloat-32 and
            bfloat16 inside them where the device has such products. Convolutions follow torch's own default.
        compile: the mode of torch.compile for forward and loss, and for evaluation: ``default``, ``reduce-overhead``
            (CUDA graphs, on GPUs) or ``max-autotune`` (kernels chosen by timing them); null for eager. A network that
            cannot be compiled runs eager, with one warning.
        channels_last: keep images and convolution weights in channels-last layout, the faster one.
        deterministic: kernels that give the same bits twice, and no autotuning; an operation without such a kernel is
            named once.
        portable: kernels that give the same bits on every x86 CPU, the slower ones, see
            `motivation.training.determinism.check_portable`.
        threads: CPU threads of torch; null leaves torch's choice.
        accumulation: micro-batches that a batch is run in, one after another, gradients added up; with ``auto`` a run
            doubles it before training until both networks fit in memory. BatchNorm sees the micro-batches.
        evaluation_batch: images that evaluation predicts at once; with ``accumulation="auto"`` a run halves it before
            training until both networks fit in memory.

    Raises:
        ValueError: a device that is not there, threads or parts below 1, kernels chosen by time that shall be
            deterministic, or ``portable`` where it cannot hold.
    """

    device: str = "auto"
    precision: Precision = "float32"
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    compile: Mode | None = None
    channels_last: bool = True
    deterministic: bool = True
    portable: bool = False
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
        if self.compile == "max-autotune" and self.deterministic:
            raise ValueError("compile='max-autotune' chooses kernels by timing them, another one each time; set "
                             "deterministic=false, or compile=default")
        if self.precision == "auto":
            object.__setattr__(self, "precision", fastest(device.type)[0])
        if self.portable:
            check_portable(device, self.precision, self.compile, self.threads, self.deterministic)

    @functools.cached_property
    def torch_device(self) -> torch.device:
        """The device, ``auto`` resolved."""
        best = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(best if self.device == "auto" else self.device)
        if device == torch.device("cuda") and processes() > 1:
            return torch.device("cuda", local_rank())
        return device

    def configure(self) -> None:
        """Set what torch and malloc keep for the whole process: kernel choice, precision of products, graphs, threads,
        freed memory.
        """
        compiled.forget()
        torch.set_float32_matmul_precision(self.matmul_precision)
        ask_for_deterministic_kernels(self.deterministic, self.torch_device)
        ask_for_portable_kernels(self.portable)
        if self.torch_device.type == "cuda":
            torch.cuda.set_device(self.torch_device.index or 0)
        if self.torch_device.type == "cpu":
            keep_freed_memory()
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network or pair to the device, in the engine's memory layout."""
        if self.channels_last:
            return model.to(self.torch_device, memory_format=torch.channels_last)
        return model.to(self.torch_device)

    def autocast(self) -> AbstractContextManager:
        """The precision of a forward pass."""
        device = self.torch_device.type
        if self.precision in AUTOCAST:
            return torch.autocast(device, AUTOCAST[self.precision])
        # Entering one that is off takes as long as a small layer.
        return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()

    @property
    def micro_batches(self) -> int:
        """Micro-batches a step; ``auto`` starts at 1."""
        return 1 if self.accumulation == "auto" else self.accumulation

    def scaler(self) -> GradScaler | None:
        """A new loss scale for one network; None where the precision needs none."""
        return GradScaler(self.torch_device.type) if self.precision == "float16" else None

    def loss(self, network: nn.Module, loss: Loss, images: Tensor, targets: Tensor, weights: Tensor | None = None
             ) -> Tensor:
        """The loss of one micro-batch, a scalar, compiled where that is asked for; arguments as in `gradients`."""
        with self.autocast():
            if weights is not None:
                return compiled.call(compiled.weighted_loss, self.compile, self.deterministic, network, images,
                                     compiled.per_unit(loss), targets, weights)
            return compiled.call(compiled.batch_loss, self.compile, self.deterministic, network, images, loss, targets)

    def gradients(self, network: nn.Module, loss: Loss, images: Tensor, targets: Tensor,
                  scaler: GradScaler | None = None, weights: Tensor | None = None) -> Tensor:
        """Forward and backward of one batch; gradients are left in the network's parameters.

        Args:
            network: the network that trains; its gradients must be clear.
            loss: ``(logits, targets) -> scalar``, a mean over images.
            images: ``(N, C, H, W)``.
            targets: ``(N,)`` class indices, or what else the loss takes, such as ``(N, classes)`` shares.
            scaler: scales the gradients up; None leaves them.
            weights: of each unit's loss, see `Trainer.step`; None for the loss itself.

        Returns:
            The batch loss, a scalar on the device, not scaled.
        """
        compiled.begin_step(self.compile)
        total = None
        for part, labels, shares in self.parts(images, targets, weights):
            value = self.loss(network, loss, part, labels, shares)
            if len(part) != len(images):
                value = value * (len(part) / len(images))
            (value if scaler is None else scaler.scale(value)).backward()
            total = value.detach() if total is None else total + value.detach()
        return total

    def parts(self, images: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """The micro-batches of a batch, with their weights."""
        count = self.micro_batches
        if count == 1:
            return [(images, targets, weights)]
        chunks = images.chunk(count)
        shares = [None] * len(chunks) if weights is None else weights.chunk(count)
        return list(zip(chunks, targets.chunk(count), shares, strict=True))

    def step(self, network: nn.Module, optimizer: Optimizer, loss: Loss, images: Tensor, targets: Tensor,
             before_update: Callable[[], None] | None = None, scaler: GradScaler | None = None,
             weights: Tensor | None = None, also: Callable[[], None] | None = None) -> Tensor:
        """One forward, backward and update of one network; arguments as in `gradients`.

        Where several processes train together, their gradients are averaged, and so are BatchNorm's running statistics.
        ``also`` is called after the backward, and may add to the gradients; ``before_update`` between that and the
        update, when the gradients are whole.

        Returns:
            ``(2,)`` on the device: the batch loss before the update, and 0, or infinity where a gradient that the
            optimizer takes is NaN or infinite. With a scaler, 1 where the update was left out since a scaled gradient
            overflowed, and infinity only where it would without a scale.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # What zero_grad does, in a tenth of its time.
        for parameter in parameters:
            parameter.grad = None
        value = self.gradients(network, loss, images, targets, scaler, weights)
        if also is not None:
            also()
        if processes() > 1:
            gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
            all_reduce_mean([*gradients, *running_statistics(network)])
        if scaler is not None:
            scaler.unscale_(optimizer)
        if before_update is not None:
            before_update()
        spoiled = _not_finite(parameters, value.device).to(value.dtype)
        if scaler is None:
            optimizer.step()
        else:
            spoiled = scaled_update(scaler, optimizer, spoiled)
        return torch.stack((value, spoiled))

    @torch.inference_mode()
    def predict(self, network: nn.Module, batches: Iterable[Tensor]) -> np.ndarray | None:
        """Class probabilities in evaluation mode, float32 ``(images, classes)``; None without a batch.

        Args:
            network: left in evaluation mode; the next training step sets it back.
            batches: images ``(N, C, H, W)``; those of ``evaluation_batch`` images run compiled where that is asked for,
                others eager: the last one of a data set would need a graph of its own.
        """
        network.eval()
        with self.autocast():
            predicted = [self._probabilities(network, images) for images in batches]
            return torch.cat(predicted).cpu().numpy() if predicted else None

    def _probabilities(self, network: nn.Module, images: Tensor) -> Tensor:
        mode = self.compile if len(images) == self.evaluation_batch else None
        compiled.begin_step(mode)
        return compiled.call(compiled.probabilities, mode, self.deterministic, network, images)


def _not_finite(parameters: list[Tensor], device: torch.device) -> Tensor:
    """0, or infinity where a gradient is NaN or infinite: a scalar on the device.

    With the one kernel of torch's GradScaler, a sixth of the time that the gradients' norms take; a scale of 1 changes
    no bit of them.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    found = torch.zeros((), device=device)
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, _one(device))
    # It found 0 or 1; of all functions that keep 0 and make 1 infinite, this one is a single call.
    return found.atanh_()


@functools.cache
def _one(device: torch.device) -> Tensor:
    return torch.ones((), device=device)
