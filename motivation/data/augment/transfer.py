"""What is drawn on the CPU, on its way to the device that the images are on."""

import torch
from torch import Tensor


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; a GPU is not waited for."""
    if device.type != "cuda":
        return drawn.to(device)
    return drawn.pin_memory().to(device, non_blocking=True)
