"""Standard streams that always take what is written: closed ones become the null device, and a text that the
terminal's or pipe's encoding does not know is written as the bytes of file names."""

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def standard_streams() -> Iterator[None]:
    """Context in which no standard stream is missing, and none fails for a letter."""
    with ExitStack() as opened:
        # In this order each takes the descriptor that is free in its place; otherwise the next file, such as
        # steps.csv, would have it, with whatever a library writes to descriptor 2.
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                stream = opened.enter_context(open(os.devnull, mode, encoding="utf-8"))
                # Processes that are started from here have the same three.
                os.set_inheritable(stream.fileno(), True)
                opened.callback(setattr, sys, name, None)
                setattr(sys, name, stream)
        for stream in (sys.stdout, sys.stderr):
            # OSError, ValueError: a full disk, a closed stream.
            with suppress(OSError, ValueError, AttributeError):
                before = stream.errors
                stream.reconfigure(errors="motivation")
                opened.callback(_restore, stream, before)
        yield


def _restore(stream, errors: str) -> None:
    with suppress(OSError, ValueError):
        stream.reconfigure(errors=errors)


def _bytes_of_names(error: UnicodeError) -> tuple[bytes, int]:
    """What an encoding does not know, as the file system's own bytes: a printed path stays one that can be opened."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return error.object[error.start:error.end].encode("utf-8", "surrogateescape"), error.end


codecs.register_error("motivation", _bytes_of_names)
