"""How one step is executed: device, precision, memory layout."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Engine:
    """Runs forward, backward and update.

    Args:
        device: ``auto`` (a GPU where there is one), or a torch device such as ``cpu`` or ``cuda:1``.
        precision: ``float32``, or ``bfloat16`` for autocast with float32 weights.
        channels_last: keep images and convolution weights in channels-last layout, the faster one.
        deterministic: only kernels that give the same bits twice, and no autotuning.
        threads: CPU threads of torch; null leaves torch's choice.

    Raises:
        ValueError: a device that is not there, or threads below 1.
    """

    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    deterministic: bool = True
    threads: int | None = None

    def __post_init__(self):
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision={self.precision!r}: choose float32 or bfloat16")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads={self.threads}: must be at least 1, or null for torch's choice")
        try:
            device = self.torch_device
        except RuntimeError as error:
            raise ValueError(f"device={self.device!r} is not a torch device; try auto, cpu or cuda") from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device={self.device!r}: {torch.cuda.device_count()} GPUs are visible; try device=cpu")
        if device.type not in ("cpu", "cuda", "mps", "xpu"):
            raise ValueError(f"device={self.device!r} cannot train; try auto, cpu or cuda")

    @property
    def torch_device(self) -> torch.device:
        """The device, ``auto`` resolved."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def configure(self) -> None:
        """Set what torch keeps for the whole process: kernel choice and thread count."""
        torch.backends.cudnn.deterministic = self.deterministic
        torch.backends.cudnn.benchmark = not self.deterministic
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

    def step(self, network: nn.Module, optimizer: Optimizer, loss: Loss, images: Tensor, targets: Tensor) -> Tensor:
        """One forward, backward and update of one network.

        Args:
            network: the network that trains.
            optimizer: its optimizer.
            loss: ``(logits, targets) -> scalar``.
            images: ``(N, C, H, W)``.
            targets: ``(N,)`` class indices.

        Returns:
            The batch loss before the update, a scalar on the device.
        """
        optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            value = loss(network(images), targets)
        value.backward()
        optimizer.step()
        return value.detach()

    @torch.inference_mode()
    def predict(self, network: nn.Module, batches: Iterable[Tensor]) -> np.ndarray:
        """Class probabilities in evaluation mode, float32 ``(images, classes)``.

        Args:
            network: left in evaluation mode; the next training step sets it back.
            batches: images ``(N, C, H, W)``.
        """
        network.eval()
        with self.autocast():
            return torch.cat([network(images).float().softmax(1) for images in batches]).cpu().numpy()
