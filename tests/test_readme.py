"""What README.md and the pages of docs/ say can be done."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
LIBRARY = ROOT / "docs" / "library.md"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language; "" for commands."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for found, text in fenced if found == language]


@pytest.mark.parametrize("code", [*blocks(README, "python"), *blocks(LIBRARY, "python")])
def test_python_runs(code):
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["trainer"].steps > 0


@pytest.mark.parametrize("page", [README, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")],
                         ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert not [target for target in targets if "://" not in target and not (page.parent / target).exists()]


def test_tests_that_the_docs_name_exist():
    """`test_x.py::test_y`, and `::test_z` of the same file after it."""
    tests = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for page in ROOT.glob("docs/*.md"):
        file = ""
        for name, test in re.findall(r"`(?:tests/)?(?:\w+/)?(test_\w+\.py)?(?:::(test_\w+)[^`]*)?`", page.read_text()):
            file = name or file
            assert not name or name in tests, f"{page.name}: {name}"
            assert not test or f"def {test}(" in tests[file], f"{page.name}: {file}::{test}"


def test_opens_with_the_two_commands_and_both_are_targets():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert re.findall(r"make (\w+)", blocks(README, "")[0]) == ["demo", "test"]
    assert {"demo", "test"} <= targets


TRAIN = [line.split("#")[0].split()[2:] for page in (README, COMMANDS) for block in blocks(page, "")
         for line in block.splitlines()
         if line.startswith("motivation train ") and "--help" not in line and "--cfg" not in line
         and "resume=runs" not in line]


@pytest.mark.parametrize("overrides", TRAIN, ids=" ".join)
def test_every_train_command_composes(overrides):
    sweep = "-m" in overrides
    overrides = [override.split(",")[0] if sweep else override for override in overrides if override != "-m"]
    with initialize_config_module("motivation.conf", version_base="1.3"):
        config = compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    assert config.model.name in ("pair", "classical")


def test_every_option_of_conf_is_named():
    options = {file.stem for file in (ROOT / "conf").glob("*/*.yaml")} - {"demo"}
    page = COMMANDS.read_text()
    table = page[page.index("| group |"):page.index("A config names things")]
    missing = sorted(option for option in options if f"`{option}`" not in table
                     and option not in ("resnet32", "resnet44", "resnet56"))
    assert not missing
