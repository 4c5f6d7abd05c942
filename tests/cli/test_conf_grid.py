"""Every monitor with every schedule that conf/ can compose trains the digits."""

import math
from pathlib import Path

import motivation.conf
import pytest
import torch
from conftest import QUICK, compose_config, mlp
from omegaconf import OmegaConf
from torch.optim import SGD

from motivation import Pair, Trainer, monitors, schedules
from motivation.data import Digits
from motivation.registry import build
from motivation.run.run import run
from motivation.run.session import FACTS, split_lag

CONF = Path(motivation.conf.__file__).parent
STEPS, BATCH = 14, 32
FACTS_HERE = dict(zip(FACTS, (0, 1000, 5, 100, 170), strict=True))


def options(group):
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def spec(group, option):
    return OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))


@pytest.fixture(scope="module")
def digits():
    train = Digits().load().train
    return torch.from_numpy(train.images).float().permute(0, 3, 1, 2) / 255, torch.from_numpy(train.labels)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run's steps.csv for the controls that read one."""
    folder = tmp_path_factory.mktemp("source")
    rows = [f"{step},{step // 5},{'motivated' if step % 5 == 3 else 'base'}" for step in range(1000)]
    (folder / "steps.csv").write_text("\n".join(["step,epoch,phase", *rows]))
    return str(folder)


@pytest.mark.parametrize("schedule_name", options("schedule"))
@pytest.mark.parametrize("monitor_name", options("monitor"))
def test_every_monitor_trains_with_every_schedule(monitor_name, schedule_name, digits, source):
    """Or is refused in one line: a level that no score can cross, or no level where the monitor has none."""
    monitor = build(monitors.BY_NAME, split_lag(spec("monitor", monitor_name))[0], "monitor", **FACTS_HERE)
    wanted = spec("schedule", schedule_name)
    if "run" in wanted:
        wanted["run"] = source
    schedule = build(schedules.BY_NAME, wanted, "schedule", **FACTS_HERE)
    torch.manual_seed(0)
    pair = Pair(mlp(6, classes=10), mlp(9, 1, classes=10), weights_map="literal", init="native")
    images, labels = digits

    def make():
        return Trainer(pair, lambda params: SGD(params, lr=0.1, momentum=0.9), torch.nn.CrossEntropyLoss(), monitor,
                       schedule, heldout=(images[-16:], labels[-16:]))

    try:
        trainer = make()
    except ValueError as error:
        no_level = math.isnan(monitor.level) and "no level of its own" in str(error)
        out_of_reach = schedule_name == "paper" and "k=2" in str(error) and "must be at most 1" in str(error)
        assert no_level or out_of_reach
        return
    for step in range(STEPS):
        place = slice(step * BATCH, (step + 1) * BATCH)
        result = trainer.step(images[place], labels[place])
        assert math.isfinite(result.loss)
        if step % 5 == 4:
            trainer.end_epoch()
    assert trainer.ledger.steps["base"] + trainer.ledger.steps["motivated"] == STEPS


@pytest.mark.parametrize("monitor_name", options("monitor"))
def test_every_monitor_trains_from_the_command_line(monitor_name, tmp_path):
    """The run folder holds what the monitor read, where that is more than the loss."""
    quota = () if monitor_name != "prediction_gain" else ("schedule=quota",)
    config = compose_config(*QUICK, f"monitor={monitor_name}", "schedule=threshold", *quota, "data.heldout=0.05",
                            "recipe.epochs=null", "recipe.steps=12", "recipe.batch_size=8")
    config["model"] = {"name": "pair", "base": "resnet20", "motivated": "resnet32"}
    for key in ("window", "every", "half_life"):
        inner = [config["monitor"], config["monitor"].get("monitor", {}),
                 *(pair[0] for pair in config["monitor"].get("pairs", []))]
        for part in inner:
            if key in part:
                part[key] = {"window": 8 if part["name"] != "learning_progress" else 4, "every": 2, "half_life": 3}[key]
    folder = run(config, tmp_path / "run")
    probing = not {"heldout", "gradient", "after"}.isdisjoint(
        build(monitors.BY_NAME, split_lag(config["monitor"])[0], "monitor", total_steps=12).needs)
    signals = folder / "signals.csv"
    assert signals.exists() is probing
    if probing:
        header, *rows = signals.read_text().splitlines()
        names = build(monitors.BY_NAME, split_lag(config["monitor"])[0], "monitor").reads
        assert header.split(",") == ["step", *names]
        assert rows
        steps = [int(row.split(",")[0]) for row in rows]
        assert steps == sorted(set(steps))
        assert all(len(row.split(",")) == len(names) + 1 for row in rows)
