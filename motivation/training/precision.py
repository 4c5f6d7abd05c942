"""Precision of a forward pass: which one the hardware computes fastest, and the loss scale that float16 needs."""

import functools
from typing import Literal

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

Precision = Literal["float32", "bfloat16", "float16", "auto"]
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# A gradient that overflows without being scaled up is no matter of scale.
LEAST_SCALE = 1.0
SKIPPED = 1.0


@functools.cache
def fastest(device_type: str) -> tuple[Precision, str]:
    """The precision that the hardware is made for, bfloat16 or float32, and why in words."""
    if device_type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "this GPU has it") if has else ("float32", "this GPU has no bfloat16")
    if device_type == "cpu":
        for unit, here in (("AMX", torch.cpu._is_amx_tile_supported), ("AVX512-BF16", _avx512_bf16)):
            if here():
                return "bfloat16", f"this CPU has {unit}"
        return "float32", "this CPU has neither AMX nor AVX512-BF16"
    return "float32", f"{device_type} is not known to be faster in bfloat16"


def _avx512_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported()


def scaled_update(scaler: GradScaler, optimizer: Optimizer, spoiled: Tensor) -> Tensor:
    """Update the weights from unscaled gradients, unless one of them overflowed: then the scale falls instead.

    Args:
        scaler: of this network; its `unscale_` has been called.
        optimizer: takes the step.
        spoiled: 0, or infinity where a gradient is not finite.

    Returns:
        0 for an update, `SKIPPED` where there was none, infinity where the scale cannot fall any more.
    """
    scale = scaler.scale(torch.ones((), device=spoiled.device))
    scaler.step(optimizer)
    scaler.update()
    return torch.where(scale > LEAST_SCALE, spoiled.clamp(max=SKIPPED), spoiled)
