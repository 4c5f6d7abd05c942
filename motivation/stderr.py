"""Lines on standard error: one that cannot be written, to a full disk or a closed pipe, is lost and nothing else."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class Expendable:
    """A stream whose failing writes are passed over.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write as far as it goes."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush as far as it goes."""
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def say(line: str) -> None:
    """Write a line to standard error."""
    print(line, file=Expendable(sys.stderr), flush=True)


def settle() -> None:
    """Before the process ends: what could not be written must not become its exit status."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
