"""The machine's matrix-product peak by precision, of which a training step reaches a share.

Square matrix products, the best of all blocks. Float32 on a GPU is TensorFloat-32, which torch takes for convolutions.
"""

import functools
from typing import Annotated

import torch
from pydantic import Field

from motivation.training.precision import AUTOCAST
from motivation.validation import NotNegative

from .table import Table
from .turns import take_turns, timed
from .workload import DEVICES, is_here

# Rows of the largest matrices, and a product that takes so many seconds is large enough.
MOST = {"cpu": 2048, "cuda": 8192}
LONG = 0.1


def peak(device: str, precision: str, seconds: float, largest: int | None = None) -> tuple[float, int]:
    """FLOPs a second of square matrix products, the best of all blocks, and their rows.

    Args:
        device: of the products.
        precision: ``float32`` or ``bfloat16``.
        seconds: of all.
        largest: rows; None for `MOST`.
    """
    before = torch.get_float32_matmul_precision()
    rows, taken = 64, 0.0
    try:
        if device == "cuda":
            torch.set_float32_matmul_precision("high")
        # Where a precision is emulated, large products take minutes.
        while taken < LONG and rows < (largest or MOST[device]):
            rows *= 2
            matrix = torch.randn(rows, rows, device=device, dtype=AUTOCAST.get(precision))
            loop = timed(functools.partial(torch.mm, matrix, matrix), device)
            loop(1)
            taken = loop(1)
        rates, _ = take_turns({precision: loop}, seconds)
    finally:
        torch.set_float32_matmul_precision(before)
    return 2 * rows ** 3 * max(rates[precision]), rows


def measure(seconds: NotNegative = 6, largest: Annotated[int, Field(ge=128)] | None = None) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all.
        largest: rows of the matrices; null for 2048, and 8192 on a GPU.
    """
    table = Table("Matrix-product peak", {"device": "", "precision": "", "GFLOP/s": ",.1f", "rows": "d"}, [])
    for device in DEVICES:
        for precision in ("float32", "bfloat16"):
            if is_here(device):
                flops, rows = peak(device, precision, seconds / 2, largest)
                table.rows.append((device, precision, flops / 1e9, rows))
            else:
                table.unmeasured(device, precision)
    return [table]
