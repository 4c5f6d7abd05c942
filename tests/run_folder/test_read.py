"""Run folders from others: what is no finished run, or damaged, is an error that names the folder."""

import json
import shutil

import pytest
import yaml

from motivation.analysis.runs import read_runs
from motivation.run_folder.read import finished_runs, read_readings, read_run


def test_folders_that_are_no_finished_run_are_named(finished, tmp_path):
    with pytest.raises(ValueError, match="no such run folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"is no run folder: it has no config\.yaml"):
        read_runs([tmp_path])
    half = shutil.copytree(finished(), tmp_path / "half")
    (half / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"half has no summary\.json: its run did not finish"):
        read_runs([half])
    for name, text in (("summary.json", "{"), ("summary.json", "{}"), ("config.yaml", "a: [")):
        foreign = shutil.copytree(finished(), tmp_path / f"foreign-{name}-{len(text)}")
        (foreign / name).write_text(text)
        with pytest.raises(ValueError, match="cannot be read as a run folder"):
            read_runs([foreign])


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(("name", "damage", "said"), [
    ("summary.json", lambda path: edit(path, lambda values: values.pop("null_rate")), "'null_rate' is missing"),
    ("summary.json", lambda path: edit(path, lambda values: values.update({"base/top1": None})), "base/top1 is None"),
    ("summary.json", lambda path: edit(path, lambda values: values.update({"steps/base": 0, "steps/motivated": 0})),
     "summary.json says 0 steps"),
    ("epochs.jsonl", lambda path: path.write_text('{"base/top1": 3}\n'), "'budget/flops' is missing"),
    ("steps.csv", lambda path: path.write_text(path.read_text()[:-20]), "cannot be read as a run folder"),
    ("steps.csv", lambda path: path.write_text(""), "steps.csv has 0 rows"),
    ("steps.csv", lambda path: path.write_bytes(bytes(range(256))), "cannot be read as a run folder"),
    ("config.yaml", lambda path: path.write_text("model: {name: classical, network: resnet8}"), "'data' is missing"),
])
def test_a_damaged_run_folder_is_named(finished, tmp_path, name, damage, said):
    folder = shutil.copytree(finished(), tmp_path / "run")
    damage(folder / name)
    with pytest.raises(ValueError, match=str(folder)) as error:
        read_run(folder)
    assert said in str(error.value)


@pytest.mark.parametrize(("group", "spec"), [
    ("monitor", "consecutive"), ("schedule", {"name": "min_interval", "steps": 2, "schedule": {"k": 1}}),
    ("monitor", {"name": "all_of", "pairs": [[{"name": "trend"}, "high"]]})])
def test_a_monitor_or_schedule_without_a_name_is_refused(finished, tmp_path, group, spec):
    folder = shutil.copytree(finished(), tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {group: spec}))
    with pytest.raises(ValueError, match=str(folder)):
        read_run(folder)


def test_readings_are_signals_or_losses(finished, tmp_path):
    folder = shutil.copytree(finished(), tmp_path / "run")
    at, readings = read_readings(folder)
    assert at.tolist() == list(range(len(at)))
    assert readings[:, 0].tolist() == read_run(folder).steps["loss"].tolist()
    (folder / "signals.csv").write_text("step,x,y\n0,1,2\n2,nan,4\n")
    at, readings = read_readings(folder)
    assert at.tolist() == [0, 2]
    assert readings[:, 1].tolist() == [2, 4]
    (folder / "signals.csv").write_text("step,x,y\n0,1,2\n2,x\n")
    with pytest.raises(ValueError, match=r"signals\.csv cannot be read"):
        read_readings(folder)


def test_a_sweep_without_a_finished_run_is_refused(finished, tmp_path):
    (shutil.copytree(finished(), tmp_path / "sweep" / "0") / "summary.json").unlink()
    with pytest.raises(ValueError, match="no finished run"):
        finished_runs([tmp_path / "sweep"])
    with pytest.raises(ValueError, match="no finished run"):
        finished_runs([tmp_path / "*" / "0"])
    with pytest.raises(ValueError, match="no run folder matches"):
        finished_runs([tmp_path / "*" / "9"])
