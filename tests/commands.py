"""The `motivation` command as a process, and refusals of one line."""

import subprocess
import sys

from motivation.cli.main import main

FAST = ("model=resnet8_14", "tracker=none", "recipe.epochs=1", "recipe.batch_size=256", "engine.threads=1")


def command(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "motivation", *arguments], capture_output=True, text=True,
                          timeout=120, **options)


def refused(capsys, *arguments):
    """Run a command that must fail; its one line on stderr."""
    assert main(list(arguments)) != 0
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("motivation: error: ")
    return line
