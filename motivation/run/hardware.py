"""What a config leaves to the hardware, decided, and what that hardware is: both set the bits of a run."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import torch

from motivation.training.engine import Engine
from motivation.training.precision import fastest

logger = logging.getLogger(__name__)


def decided(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose ``engine.precision: auto`` is the precision that its device computes fastest; said once."""
    engine = config.get("engine")
    if not isinstance(engine, Mapping) or engine.get("precision") != "auto":
        return dict(config)
    try:
        device = Engine(device=engine.get("device", "auto")).torch_device
    except ValueError:
        # A device that is not there: named where the engine is built.
        return dict(config)
    precision, reason = fastest(device.type)
    _say(precision, reason)
    return {**config, "engine": {**engine, "precision": precision}}


def describe(device: torch.device) -> str:
    """The name of a GPU, or the instructions that torch takes on a CPU, such as ``AVX2`` or ``AVX512``.

    Runs on other instructions differ by rounding.
    """
    return torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()


@functools.cache
def _say(precision: str, reason: str) -> None:
    logger.info("precision: %s, since %s", precision, reason)
