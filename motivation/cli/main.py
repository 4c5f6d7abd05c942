"""The ``motivation`` command. Everything heavy is imported by the subcommand that needs it."""

import os
import sys

from motivation.cli import commands
from motivation.cli.logs import LOGGER, launched, on_stderr, one_line
from motivation.cli.parser import command_parser, parse_report, parse_with_overrides
from motivation.cli.streams import standard_streams


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; returns the exit status.

    Args:
        arguments: the command line without the program's name; default the process's own.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    before = os.environ.get("MOTIVATION_TRACEBACK")
    if "--traceback" in arguments:
        arguments.remove("--traceback")
        # A variable, since the processes that a launcher starts inherit it.
        os.environ["MOTIVATION_TRACEBACK"] = "1"
    try:
        with standard_streams(), on_stderr():
            return _guarded(arguments)
    finally:
        os.environ.pop("MOTIVATION_TRACEBACK", None)
        if before is not None:
            os.environ["MOTIVATION_TRACEBACK"] = before


def _run(arguments: list[str]) -> int:
    """Run a subcommand."""
    if arguments[:1] == ["train"]:
        from motivation.cli.train import train

        # Its own parser, since Hydra's options and overrides follow.
        return train(arguments[1:])
    if launched():
        if os.environ["RANK"] != "0":
            return 1
        raise ValueError("torchrun starts `motivation train` only; every other command is one process")
    if arguments[:1] in (["table"], ["bench"], ["problems"]):
        options = parse_with_overrides(arguments)
    elif arguments[:1] == ["report"]:
        options = parse_report(arguments)
    else:
        options = command_parser().parse_args(arguments)
    return getattr(commands, options.command.replace("-", "_"))(options)


def _guarded(arguments: list[str]) -> int:
    """Run a subcommand; an error becomes one line on stderr and a status that is not 0."""
    try:
        return _run(arguments)
    except KeyboardInterrupt as error:
        # A shell's convention: 128 and the signal's number.
        return _fail(error, str(error) or "interrupted", 128 + getattr(error, "number", 2))
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        return _fail(error, one_line(error))
    except Exception as error:
        return _fail(error, f"{type(error).__name__}: {one_line(error)} (unexpected; --traceback shows where)")


def _fail(error: BaseException, message: str, status: int = 1) -> int:
    # One of several processes reports the error; alone, torch need not even be loaded.
    distributed = sys.modules.get("motivation.training.distributed")
    if distributed is None or distributed.speaks():
        LOGGER.error(message, exc_info=error)
    return status
