"""Printed commands work when pasted: Hydra reads back the very path, after the shell has split the line."""

import shlex
import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from omegaconf import OmegaConf

from motivation.command_line import override, pasteable, resume_command

NAMES = ("my run", "lr=0.1", "a,b", "é", "run(1)", "it's", 'a"b', "a\\", "a\\'b", "$HOME", "${seed}", "\\${seed}",
         "[x]", "{x}", "2024_01_01", "1e5", "007", "null", "True", "inf", "~", "#1", "a:b", "50%", "-m", "*",
         "a&b;c|d", "runs/x-1.0", "/tmp/日本")


def read(line):
    """The value of ``resume`` that Hydra finds in a command line."""
    config = OmegaConf.create({"resume": None, "seed": 0})
    word = shlex.split(line)[-1]
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides([word]), config)
    return config.resume


@pytest.mark.parametrize("name", NAMES)
def test_a_resume_command_names_the_run(name):
    assert read(resume_command(name)) == name


@given(st.text(st.sampled_from("ab1_.-/ \\${}\"'=,()[]:é~%#*?!&|"), min_size=1))
def test_every_path_is_read_back(name):
    assert read(pasteable("motivation", "train", override("resume", name))) == name


def test_a_shell_hands_over_the_same_words():
    words = [override("resume", name) for name in NAMES]
    line = pasteable(sys.executable, "-c", "import sys; print(*map(ascii, sys.argv[1:]), sep='\\n')", *words)
    printed = subprocess.run(line, shell=True, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.splitlines() == [ascii(word) for word in words]


def test_plain_names_stay_plain():
    assert resume_command("runs/2026-01-01/12-00-00_resnet20_paper_seed0") == (
        "motivation train resume=runs/2026-01-01/12-00-00_resnet20_paper_seed0")
    assert resume_command("auto") == "motivation train resume=./auto"


def test_several_processes_are_started_again(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert resume_command("my run", 2) == "torchrun --nproc-per-node 2 -m motivation train 'resume=\"my run\"'"
