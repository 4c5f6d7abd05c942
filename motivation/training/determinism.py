"""Kernels that give the same bits: from run to run, and on every x86 CPU.

torch is asked for deterministic kernels, and an operation that has none is named once, in a logged line. They give the
same bits on one machine. Those of oneDNN and NNPACK, which compute most convolutions on a CPU, cut a layer into blocks
that suit its caches, and MKL has code for each maker's CPUs: other sums, so other last bits, also where two CPUs have
the same vector instructions. Portable kernels are torch's own, with one set of instructions, and MKL's for all CPUs.
"""

import logging
import os
import platform
import re
import warnings
from typing import Any

import torch

logger = logging.getLogger(__name__)
# How torch says so: of an operation, at its every call, and of attention.
SAID = (r"(?P<operation>\S+) does not have a deterministic implementation"
        r"|(?P<attention>.+?) defaults to a non-deterministic algorithm")
# What portable kernels need of the environment: torch and MKL read it at their first operation.
PORTABLE = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE"}
_named: set[str] = set()


def ask_for_deterministic_kernels(wanted: bool, device: torch.device) -> None:
    """Set for the whole process which kernels torch takes, and name every operation that has no deterministic one.

    Args:
        wanted: deterministic kernels where there are any, and no autotuning; False takes the fastest.
        device: that will run them.
    """
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = not wanted
    # The same as use_deterministic_algorithms, which also imports the compiler: seconds.
    torch.set_deterministic_debug_mode("warn" if wanted else "default")
    _named.clear()
    if not wanted:
        return
    # Filling new memory would cost time, and shows only in kernels that read what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False
    if device.type == "cuda":
        # Read by cuBLAS when it starts; without it its products differ between streams.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    warnings.filterwarnings("always", message=SAID, category=UserWarning)
    if not isinstance(warnings.showwarning, _NamesOnce):
        warnings.showwarning = _NamesOnce(warnings.showwarning)


def check_portable(device: torch.device, precision: str, compile_mode: str | None, threads: int | None,
                   deterministic: bool) -> None:
    """Refuse what would give other bits on another x86 CPU; arguments as in `motivation.training.engine.Engine`.

    Raises:
        ValueError: no x86 CPU with MKL, another precision than float32, a compiler that writes code for this CPU,
            kernels that need not be deterministic, a number of threads that is left to torch, or an environment that
            leaves the instructions to the libraries.
    """
    if device.type != "cpu" or not torch.backends.mkl.is_available():
        raise ValueError(f"portable=true is for x86 CPUs, not for {device.type} on {platform.machine()}")
    if precision != "float32" or compile_mode is not None:
        raise ValueError(f"portable=true needs precision=float32 and compile=null, not {precision} and {compile_mode}")
    if not deterministic:
        raise ValueError("portable=true needs deterministic=true")
    if threads is None:
        raise ValueError("portable=true needs a fixed number of threads, such as threads=1: it sets the order of sums")
    if unset := [f"{key}={value}" for key, value in PORTABLE.items() if os.environ.get(key) != value]:
        raise ValueError(f"portable=true needs {' '.join(unset)} in the environment before the program starts")
    if (capability := torch.backends.cpu.get_cpu_capability()) != "AVX2":
        raise ValueError(f"portable=true needs a CPU with AVX2; this one has {capability}")


def ask_for_portable_kernels(wanted: bool) -> None:
    """Set for the whole process whether a CPU computes without oneDNN and NNPACK, see `check_portable`."""
    torch.backends.mkldnn.enabled = not wanted  # type: ignore[assignment]
    torch.backends.nnpack.set_flags(not wanted)


class _NamesOnce:
    """Shows a warning as before, unless it names an operation without a deterministic kernel: that is logged, once.

    Args:
        shown: how warnings are shown.
    """

    def __init__(self, shown: Any):
        self.shown = shown

    def __call__(self, message: Warning | str, category: type[Warning], filename: str, lineno: int,
                 file: Any = None, line: str | None = None) -> None:
        found = re.match(SAID, str(message))
        if not found:
            self.shown(message, category, filename, lineno, file, line)
        elif (operation := found["operation"] or found["attention"]) not in _named:
            _named.add(operation)
            logger.warning("%s has no deterministic implementation on this device: the same run may give other bits",
                           operation)
