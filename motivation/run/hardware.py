"""What a config leaves to the hardware, decided, and what that hardware is: both set the bits of a run."""

import functools
import logging
import platform
import re
from collections.abc import Mapping
from pathlib import Path
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


def describe(engine: Engine) -> str:
    """What sets the last bits of a run: the name of a GPU, or a CPU's and its instructions that torch takes.

    Such as ``AVX2 on AMD EPYC``. Runs on others differ by rounding, unless the engine is portable: ``any x86 CPU``.
    """
    if engine.portable:
        return "any x86 CPU" if engine.threads == 1 else f"any x86 CPU, {engine.threads} threads"
    if engine.torch_device.type == "cuda":
        return torch.cuda.get_device_name(engine.torch_device)
    return f"{torch.backends.cpu.get_cpu_capability()} on {cpu_name()}"


@functools.cache
def cpu_name() -> str:
    """The CPU's model, as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.M) if cpuinfo.is_file() else None
    return model[1] if model else platform.processor() or platform.machine()


@functools.cache
def _say(precision: str, reason: str) -> None:
    logger.info("precision: %s, since %s", precision, reason)
