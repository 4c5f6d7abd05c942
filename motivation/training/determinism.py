"""Deterministic kernels: torch is asked for them, and an operation that has none is named once, in a logged line."""

import logging
import os
import re
import warnings
from typing import Any

import torch

logger = logging.getLogger(__name__)
# How torch says so: of an operation, at its every call, and of attention.
SAID = (r"(?P<operation>\S+) does not have a deterministic implementation"
        r"|(?P<attention>.+?) defaults to a non-deterministic algorithm")
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
