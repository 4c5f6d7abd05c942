"""What README.md says can be done."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code):
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["trainer"].steps > 0


def test_opens_with_the_two_commands_and_both_are_targets():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert re.findall(r"make (\w+)", blocks("")[0]) == ["demo", "test"]
    assert {"demo", "test"} <= targets


TRAIN = [line.split("#")[0].split()[2:] for block in blocks("") for line in block.splitlines()
         if line.startswith("motivation train ") and "--help" not in line and "resume=runs" not in line]


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
    table = README[README.index("| group |"):README.index("A config names things")]
    missing = sorted(option for option in options if f"`{option}`" not in table
                     and option not in ("resnet32", "resnet44", "resnet56"))
    assert not missing
