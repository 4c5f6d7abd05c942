"""The command line's lines on standard error: ``motivation: text``, and ``motivation: error: text`` for errors."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOGGER = logging.getLogger("motivation")


@contextmanager
def on_stderr() -> Iterator[None]:
    """Context in which the package's loggers write to standard error; inside another one it changes nothing."""
    if any(isinstance(handler, StandardError) for handler in LOGGER.handlers):
        yield
        return
    handler, level = StandardError(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        _discard_unwritten()


def start_worker() -> None:
    """Log to standard error for the rest of this process; call it first in a worker process."""
    LOGGER.addHandler(StandardError())
    LOGGER.setLevel(logging.INFO)


class StandardError(logging.Handler):
    """Writes one line a record. A line that cannot be written is lost, and nothing else: the run and its exit status
    do not depend on who reads it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and the traceback of its exception where the user asked for tracebacks."""
        error = record.levelno >= logging.ERROR
        # Only one of several processes narrates; which of them reports an error is decided by the caller.
        if sys.stderr is None or (launched() and os.environ["RANK"] != "0" and not error):
            return
        text = f"motivation: {'error: ' if error else ''}{record.getMessage()}"
        if record.exc_info and tracebacks():
            text = f"{logging.Formatter().formatException(record.exc_info)}\n{text}"
        # ValueError: a closed stream.
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def _discard_unwritten() -> None:
    """Python flushes standard error once more at exit; a failure there would become the exit status."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except ValueError:
        pass
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def tracebacks() -> bool:
    """Whether the user asked for the traceback of every error."""
    return os.environ.get("MOTIVATION_TRACEBACK", "0") not in ("", "0")


def one_line(error: BaseException) -> str:
    """An error's message without line breaks; its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process beside others."""
    return "MASTER_ADDR" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
