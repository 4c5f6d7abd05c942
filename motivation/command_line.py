"""Command lines that a message prints: pasted into a shell they do what they say, whatever a path is called."""

import os
import re
import shlex
from pathlib import Path

# Both Hydra and a shell take these as they are, and Hydra as text.
PLAIN = re.compile(r"\.{0,2}[A-Za-z/][A-Za-z0-9_./-]*")
WORDS = {"null", "true", "false", "nan", "inf"}


def override(key: str, value: str | Path) -> str:
    """``key=value`` such that Hydra reads the value as this text; not yet quoted for a shell."""
    return f"{key}={literal(str(value))}"


def literal(text: str) -> str:
    """A text in Hydra's grammar of overrides, in quotes where it needs them."""
    if PLAIN.fullmatch(text) and text.lower() not in WORDS:
        return text
    # OmegaConf: an interpolation is escaped by one backslash, and each backslash before it by one more.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Hydra: likewise the quote; backslashes elsewhere are literal.
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return f'"{text}"'


def pasteable(*words: str | Path) -> str:
    """Words as one command line, each quoted where a shell needs it."""
    return shlex.join(map(str, words))


def resume_command(run: Path, processes: int = 1) -> str:
    """The command that resumes a run, in as many processes as it had on this machine."""
    # resume=auto means something else.
    words = ["motivation", "train", override("resume", "./auto" if str(run) == "auto" else run)]
    if processes > 1:
        words = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", str(processes)), "-m", *words]
    return pasteable(*words)
