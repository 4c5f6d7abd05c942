"""Every monitor with every schedule that conf/ can compose: the monitor scores, and the schedule expands."""

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

CONF = Path(motivation.conf.__file__).parent
STEPS, EPOCH, BATCH = 40, 10, 32
FACTS = {"seed": 0, "total_steps": STEPS, "steps_per_epoch": EPOCH, "base_flops": 100, "motivated_flops": 170}
# What conf/ says in hundreds of steps, in so few. A moving average of 0.02 has not moved yet.
SHORT = {"window": 8, "every": 2, "half_life": 3.0, "alpha": 0.5, "steps": 3}
# A level of its own that the score reaches while the loss falls steeply, where the monitor's is not or there is none.
REACHED = {"prediction_gain": 0.0, "invert": -100.0, "mastery": 0.0}


def options(group):
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def short(spec):
    """A spec of conf/ whose windows and intervals fit into `STEPS`, however deep they are."""
    if isinstance(spec, list):
        return [short(part) for part in spec]
    if isinstance(spec, dict):
        return {key: SHORT.get(key, short(value)) for key, value in spec.items() if key != "lag"}
    return spec


def spec(group, option):
    return short(OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml")))


@pytest.fixture(scope="module")
def digits():
    train = Digits().load().train
    return torch.from_numpy(train.images).float().permute(0, 3, 1, 2) / 255, torch.from_numpy(train.labels)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run's steps.csv for the controls that read one."""
    folder = tmp_path_factory.mktemp("source")
    rows = [f"{step},{step // EPOCH},{'motivated' if step % 5 == 3 else 'base'}" for step in range(STEPS)]
    (folder / "steps.csv").write_text("\n".join(["step,epoch,phase", *rows]))
    return str(folder)


def threshold_of(schedule):
    """The threshold's spec itself, or inside a gate; None without one."""
    while schedule["name"] != "threshold":
        if "schedule" not in schedule:
            return None
        schedule = schedule["schedule"]
    return schedule


@pytest.mark.parametrize("schedule_name", options("schedule"))
@pytest.mark.parametrize("monitor_name", options("monitor"))
def test_every_monitor_scores_and_every_schedule_expands(monitor_name, schedule_name, digits, source):
    """A level that no score can cross, or none where the monitor has none, is refused; another one then expands."""
    wanted = spec("schedule", schedule_name)
    if "run" in wanted:
        wanted["run"] = source
    threshold = threshold_of(wanted)
    images, labels = digits

    def trainer():
        monitor = build(monitors.BY_NAME, spec("monitor", monitor_name), "monitor", **FACTS)
        schedule = build(schedules.BY_NAME, wanted, "schedule", **FACTS)
        torch.manual_seed(0)
        pair = Pair(mlp(6, classes=10), mlp(9, 1, classes=10), weights_map="literal", init="native")
        return Trainer(pair, lambda params: SGD(params, lr=0.1, momentum=0.9), torch.nn.CrossEntropyLoss(), monitor,
                       schedule, heldout=(images[-16:], labels[-16:]))

    if threshold is not None:
        monitor = build(monitors.BY_NAME, spec("monitor", monitor_name), "monitor", **FACTS)
        k = threshold["k"]
        refused = ("k is missing: .*no default level" if k is None and math.isnan(monitor.level) else
                   f"k={k}.*must be at most 1" if k is not None and monitor.levels[1] < k else None)
        if refused:
            with pytest.raises(ValueError, match=refused):
                trainer()
        if k is not None or monitor_name in REACHED:
            threshold["k"] = REACHED.get(monitor_name, monitor.level)
    training = trainer()
    results = []
    for step in range(STEPS):
        place = slice(step * BATCH % 1024, step * BATCH % 1024 + BATCH)
        results.append(training.step(images[place], labels[place]))
        if step % EPOCH == EPOCH - 1:
            training.end_epoch()
    assert all(math.isfinite(result.loss) for result in results)
    assert any(math.isfinite(result.score) for result in results)
    motivated = training.ledger.steps["motivated"]
    assert motivated == sum(result.phase == "motivated" for result in results)
    assert (motivated > 0) is (schedule_name != "never")
    assert (motivated < STEPS) is (schedule_name != "always")


@pytest.mark.parametrize("monitor_name", options("monitor"))
def test_every_monitor_trains_from_the_command_line(monitor_name, tmp_path):
    """steps.csv holds its scores; signals.csv what it read, where that is more than the loss."""
    schedule = "quota" if monitor_name == "prediction_gain" else "threshold"
    config = compose_config(*QUICK, f"monitor={monitor_name}", f"schedule={schedule}", "data.heldout=0.05",
                            "recipe.epochs=null", "recipe.steps=18", "recipe.batch_size=8")
    config["model"] = {"name": "pair", "base": "resnet8", "motivated": "resnet14"}
    config["monitor"] = short(config["monitor"])
    folder = run(config, tmp_path / "run")
    header, *rows = (folder / "steps.csv").read_text().splitlines()
    scores = [float(row.split(",")[header.split(",").index("score")]) for row in rows]
    assert len(scores) == 18
    assert any(map(math.isfinite, scores))
    monitor = build(monitors.BY_NAME, config["monitor"], "monitor", total_steps=18)
    probing = not {"heldout", "gradient", "after"}.isdisjoint(monitor.needs)
    signals = folder / "signals.csv"
    assert signals.exists() is probing
    if probing:
        header, *rows = signals.read_text().splitlines()
        assert header.split(",") == ["step", *monitor.reads]
        assert rows
        steps = [int(row.split(",")[0]) for row in rows]
        assert steps == sorted(set(steps))
        assert all(len(row.split(",")) == len(monitor.reads) + 1 for row in rows)
