"""The mirror of a run in W&B: the same history, one W&B run a training run."""

import itertools
import json
import re
import struct
import time
from pathlib import Path

import pytest
import wandb
import yaml
from conftest import QUICK, compose_config
from stopping import stopped
from wandb.proto.wandb_internal_pb2 import Record

from motivation.cli.main import main
from motivation.run.run import run
from motivation.run.session import prepare
from motivation.run.trackers import Wandb

HEADER, BLOCK = 7, 32768


def wandb_records(path: Path) -> list:
    """Records of an offline W&B file; its writer, another process, may need a moment after `finish` returned."""
    for _ in range(600):
        records = list(read_records(path))
        if records and records[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.05)
    return records


def read_records(path: Path):
    """LevelDB's log format after a 7-byte header."""
    data, position, partial = path.read_bytes(), HEADER, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += 7
        if position + length > len(data):
            # Its writer is in the middle of this one.
            return
        partial += data[position:position + length]
        position += length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(partial)
            partial = b""
            yield record


def wandb_file(folder: Path) -> Path:
    [file] = folder.glob("wandb/offline-run-*/run-*.wandb")
    return file


def history(records):
    for record in records:
        if record.WhichOneof("record_type") == "history":
            yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


@pytest.fixture
def tracked(tmp_path):
    config = compose_config(*QUICK, "tracker=wandb", "tracker.tags=[mine]")
    return run(config, tmp_path / "tracked")


def test_wandb_holds_the_same_history(tracked):
    """The offline file read back equals epochs.jsonl, and its summary summary.json."""
    records = wandb_records(wandb_file(tracked))
    rows = [json.loads(line) for line in (tracked / "epochs.jsonl").read_text().splitlines()]
    logged = [{key: value for key, value in row.items() if not key.startswith("_")} for row in history(records)]
    assert logged == rows
    assert len(rows) == 2
    summary = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            summary |= {item.key or ".".join(item.nested_key): json.loads(item.value_json)
                        for item in record.summary.update}
    expected = json.loads((tracked / "summary.json").read_text())
    assert {key: summary[key] for key in expected} == expected
    start = next(r.run for r in records if r.WhichOneof("record_type") == "run")
    assert (start.project, start.run_group, start.job_type) == ("motivation", "resnet8-resnet14",
                                                                "consecutive-threshold")
    assert list(start.tags) == ["consecutive", "digits", "mine", "resnet8-resnet14", "threshold"]
    metrics = {r.metric.name or r.metric.glob_name: r.metric.step_metric for r in records
               if r.WhichOneof("record_type") == "metric"}
    assert metrics["base/top1"] == metrics["motivated/val_top1"] == "budget/flops"
    assert wandb.run is None


def test_a_sweep_is_a_group_and_its_methods_are_job_types(tmp_path):
    """Under -m runs are grouped by the sweep folder's name; a group that is named wins."""
    overrides = [*QUICK, "recipe.steps=1", "recipe.epochs=null", "tracker=wandb"]
    sweep = ["train", "-m", *overrides[1:], "model=resnet8,resnet8_14", f"hydra.sweep.dir={tmp_path / 'mine'}"]
    assert main(sweep) == 0
    named = run(compose_config(*overrides, "tracker.group=table1"), tmp_path / "mine/named")
    starts = [next(record.run for record in wandb_records(wandb_file(folder))
                   if record.WhichOneof("record_type") == "run")
              for folder in (tmp_path / "mine/0", tmp_path / "mine/1", named)]
    assert [(start.run_group, start.job_type) for start in starts] == [
        ("mine", "classical"), ("mine", "consecutive-threshold"), ("table1", "consecutive-threshold")]


def test_the_sweep_file_composes():
    """docs/wandb_sweep.yaml: its metric is one that a run logs, and every combination is a config that is accepted."""
    sweep = yaml.safe_load((Path(__file__).parents[2] / "docs/wandb_sweep.yaml").read_text())
    assert sweep["metric"]["name"] in ("base/val_top1", "motivated/val_top1")
    assert sweep["command"][:4] == ["${interpreter}", "-m", "motivation", "train"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    fixed = sweep["command"][4:-1]
    names, values = zip(*((name, choice["values"]) for name, choice in sweep["parameters"].items()), strict=True)
    grid = list(itertools.product(*values))
    assert len(grid) > 8
    for combination in grid:
        config = compose_config(*fixed, *(f"{name}={value}" for name, value in zip(names, combination, strict=True)))
        assert config["tracker"]["name"] == "wandb"
        # A metric of the validation split needs one.
        assert config["data"]["validation"] > 0
        config["model"] |= {"base": "resnet8", "motivated": "resnet14"}
        assert prepare(config).total_steps > 0


def test_the_docs_page_names_keys_that_a_run_logs(finished):
    """Every `key` of docs/wandb.md that looks like a metric is in summary.json."""
    page = (Path(__file__).parents[2] / "docs/wandb.md").read_text()
    named = set(re.findall(r"`((?:base|motivated|budget|steps|train)/\w+)`", page))
    assert len(named) > 8
    assert named <= set(json.loads((finished() / "summary.json").read_text()))


def test_one_wandb_run_a_training_run_also_after_an_error(tmp_path):
    """A run that fails is finished as failed, and the next is a W&B run of its own."""
    config = compose_config(*QUICK, "tracker=wandb", "model=resnet8")
    failing = compose_config(*QUICK, "tracker=wandb", "recipe.optimizer.lr=1e30")
    with pytest.raises(ValueError, match="lower the learning rate"):
        run(failing, tmp_path / "failed")
    assert wandb.run is None
    run(config, tmp_path / "whole")
    failed, whole = (wandb_records(wandb_file(tmp_path / name)) for name in ("failed", "whole"))
    runs = [next(r.run for r in records if r.WhichOneof("record_type") == "run") for records in (failed, whole)]
    assert runs[0].run_id != runs[1].run_id
    assert runs[1].job_type == "classical"
    exits = [next(r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit")
             for records in (failed, whole)]
    assert exits == [1, 0]
    assert len(list(history(failed))) == 0
    assert len(list(history(whole))) == 2


@pytest.mark.parametrize(("login", "expected"), [(True, "online"), (False, "offline")])
def test_online_where_there_is_a_login(tmp_path, monkeypatch, login, expected):
    """`auto` asks W&B for credentials without a prompt; WANDB_MODE wins."""
    seen = {}

    class Run:
        step, id = 0, "abc"

        def define_metric(self, *_, **__):
            pass

        def finish(self, **_):
            pass

    monkeypatch.setattr(wandb, "login", lambda prompt: login)
    monkeypatch.setattr(wandb, "init", lambda **options: seen.update(options) or Run())
    monkeypatch.delenv("WANDB_MODE")
    tracker = Wandb()
    tracker.start(tmp_path, compose_config())
    assert seen["mode"] == expected
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker.start(tmp_path, compose_config())
    assert seen["mode"] == "disabled"
    tracker.finish(None)


def test_a_resumed_run_keeps_its_id_and_one_file_holds_the_whole_history(tmp_path, monkeypatch):
    config = compose_config(*QUICK, "tracker=wandb", "model=resnet8")
    folder = stopped(config, tmp_path / "run", monkeypatch, 12)
    run(config, folder, resume=True)
    first, second = (wandb_records(file) for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"),
                                                            key=lambda file: file.stat().st_ctime_ns))
    ids = {next(r.run for r in records if r.WhichOneof("record_type") == "run").run_id for records in (first, second)}
    assert ids == {(folder / "wandb" / "id").read_text()}
    assert [row["epoch"] for row in history(first)] == [0]
    rows = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [{key: value for key, value in row.items() if not key.startswith("_")} for row in history(second)] == rows


def test_online_the_server_gets_the_rows_above_its_last_step(tmp_path, monkeypatch):
    logged = []

    class Run:
        step, id = 2, "served"

        def define_metric(self, *_, **__):
            pass

        def log(self, row):
            logged.append(row["epoch"])

    monkeypatch.setenv("WANDB_MODE", "online")
    seen = {}
    monkeypatch.setattr(wandb, "init", lambda **options: seen.update(options) or Run())
    Wandb().start(tmp_path, compose_config(), [{"epoch": epoch} for epoch in range(4)])
    assert logged == [2, 3]
    assert seen["resume"] == "allow"
    Wandb().start(tmp_path, compose_config(), [])
    assert seen["id"] == "served"


def test_a_resumed_run_has_the_id_that_the_agent_of_a_sweep_chose(tmp_path, monkeypatch):
    """`wandb agent` gives the run its id and passes over the one asked for."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "chosen")
    monkeypatch.setattr(wandb.sdk.wandb_setup, "singleton", wandb.sdk.wandb_setup.singleton)
    chosen = []
    init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **options: chosen.append(options["id"]) or init(
        **{**options, "id": "chosen"}))
    for _ in range(2):
        tracker = Wandb(mode="offline")
        tracker.start(tmp_path, compose_config())
        tracker.finish(None)
    assert chosen[1] == "chosen" != chosen[0]


def test_long_names_are_cut_to_what_wandb_takes(tmp_path, monkeypatch):
    """W&B takes tags and job types of 64 characters, names and groups of 128; an empty tag is none."""
    seen = {}

    class Run:
        step, id = 0, "served"

        def define_metric(self, *_, **__):
            pass

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **options: seen.update(options) or Run())
    config = compose_config()
    config["model"] |= {"base": "b" * 40, "motivated": "m" * 100}
    config["monitor"]["name"] = "c" * 100
    folder = tmp_path / ("f" * 200)
    folder.mkdir()
    Wandb(tags=("t" * 65, "")).start(folder, config)
    assert all(1 <= len(tag) <= 64 for tag in seen["tags"])
    assert "b" * 40 + "-" + "m" * 20 + "..." in seen["tags"]
    assert "t" * 61 + "..." in seen["tags"]
    assert (len(seen["name"]), len(seen["group"]), len(seen["job_type"])) == (128, 128, 64)
    wandb.Settings(run_tags=seen["tags"])
