"""The mirror of a run in W&B: the same history, one W&B run a training run."""

import csv
import itertools
import json
import math
import re
import struct
import time
from pathlib import Path

import pytest
import wandb
import yaml
from conftest import QUICK, compose_config
from served import serve
from stopping import stopped
from wandb.proto.wandb_internal_pb2 import Record

from motivation.cli.main import main
from motivation.run.mirror import STEP_KEYS, MirrorRows
from motivation.run.prepare import prepare
from motivation.run.run import run
from motivation.run.trackers import Wandb
from motivation.run_folder.checkpoints import Checkpoints

HEADER, BLOCK = 7, 32768
SMALL = (*QUICK, "tracker=wandb", "tracker.every=3", "model.base=resnet8", "model.motivated=resnet14")


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


def rows_of(folder: Path, every: int | None) -> list[dict]:
    """The history that a run folder gives, by steps.csv and epochs.jsonl alone."""
    with open(folder / "steps.csv", newline="") as file:
        steps = list(csv.DictReader(file))
    rows, flops, before = [], 0, "base"
    for line in (folder / "epochs.jsonl").read_text().splitlines():
        epoch = json.loads(line)
        trained = [row for row in steps if int(row["epoch"]) == epoch["epoch"]]
        for start in range(0, len(trained), every) if every else ():
            part = trained[start:start + every]
            flops += sum(int(row["flops"]) for row in part)
            phases = [before, *(row["phase"] for row in part)]
            before = phases[-1]
            scores = [float(row["score"]) for row in part]
            known = [score for score in scores if not math.isnan(score)]
            rows.append({
                "trainer/step": int(part[-1]["step"]) + 1,
                "trainer/loss": sum(float(row["loss"]) for row in part) / len(part),
                "trainer/motivated_share": phases[1:].count("motivated") / len(part),
                "trainer/expansions": list(itertools.pairwise(phases)).count(("base", "motivated")),
                **({"trainer/score_max": max(known)} if known else {}),
                "trainer/phase": int(before == "motivated"),
                **({} if math.isnan(scores[-1]) else {"trainer/score": scores[-1]}),
                "trainer/lr": float(part[-1]["lr"]), "budget/flops": flops})
        rows.append(epoch)
    return rows


def logged(records) -> list[dict]:
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in history(records)]


@pytest.fixture
def tracked(tmp_path):
    config = compose_config(*QUICK, "tracker=wandb", "tracker.tags=[mine]", "tracker.every=3")
    return run(config, tmp_path / "tracked")


def test_wandb_holds_the_same_history(tracked):
    """The offline file read back equals steps.csv and epochs.jsonl, and its summary summary.json."""
    records = wandb_records(wandb_file(tracked))
    rows = logged(records)
    assert rows == rows_of(tracked, 3)
    assert [row.get("trainer/step", "epoch") for row in rows] == [3, 6, 8, "epoch", 11, 14, 16, "epoch"]
    steps, epochs = ([row for row in rows if key in row] for key in ("trainer/step", "epoch"))
    # Nothing between the rows is lost.
    assert sum(row["trainer/expansions"] for row in steps) == epochs[-1]["intervals"] > 0
    assert [steps[2]["budget/flops"], steps[5]["budget/flops"]] == [row["budget/flops"] for row in epochs]
    assert set(STEP_KEYS) == set().union(*steps)
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
    assert {metrics[key] for key in STEP_KEYS if key not in ("trainer/step", "budget/flops")} == {"trainer/step"}
    assert metrics["trainer/step"] == metrics["budget/flops"] == metrics["epoch"] == ""
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
    """Every `key` of docs/wandb.md that looks like a metric is in summary.json or a row of steps; all of these are."""
    page = (Path(__file__).parents[2] / "docs/wandb.md").read_text()
    named = set(re.findall(r"`((?:base|motivated|budget|steps|trainer?)/\w+)`", page))
    assert set(STEP_KEYS) <= named
    assert named <= {*json.loads((finished() / "summary.json").read_text()), *STEP_KEYS}


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
    assert [row.get("trainer/step", "epoch") for row in history(whole)] == [8, "epoch", 16, "epoch"]


@pytest.mark.parametrize(("login", "expected"), [(True, "online"), (False, "offline")])
def test_online_where_there_is_a_login(tmp_path, monkeypatch, login, expected):
    """`auto` asks W&B for credentials without a prompt; WANDB_MODE wins."""
    seen = {}

    class Run:
        step, id = 0, "served"

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
    config = compose_config(*QUICK, "tracker=wandb", "tracker.every=3", "model=resnet8")
    folder = stopped(config, tmp_path / "run", monkeypatch, 12)
    run(config, folder, resume=True)
    first, second = (wandb_records(file) for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"),
                                                            key=lambda file: file.stat().st_ctime_ns))
    ids = {next(r.run for r in records if r.WhichOneof("record_type") == "run").run_id for records in (first, second)}
    assert ids == {(folder / "wandb" / "id").read_text()}
    assert logged(first) == logged(second)[:5]
    assert logged(second) == rows_of(folder, 3)


@pytest.mark.parametrize("lost", [0, 1], ids=["stopped", "the newest checkpoint is lost"])
def test_online_the_server_gets_every_row_once(tmp_path, monkeypatch, lost):
    """Also where it has rows of steps that are trained again, and where the last of them did not arrive."""
    server = serve(monkeypatch)
    config = compose_config(*SMALL)
    folder = stopped(config, tmp_path / "run", monkeypatch, 12)
    assert [row.get("trainer/step", "epoch") for row in server.rows] == [3, 6, 8, "epoch", 11]
    if lost:
        # Back to step 8; and to the server that is new.
        Checkpoints(folder / "checkpoints").found()[0].path.unlink()
    else:
        del server.rows[3:]
    run(config, folder, resume=True)
    assert server.options["resume"] == "allow"
    assert [without_seconds(row) for row in server.rows] == [without_seconds(row) for row in rows_of(folder, 3)]
    # Finished: a resume that trains one epoch more adds its rows.
    before = list(server.rows)
    run(compose_config(*SMALL, "recipe.epochs=3"), folder, resume=True)
    assert server.rows[:8] == before
    assert [without_seconds(row) for row in server.rows[8:]] == [without_seconds(row)
                                                                for row in rows_of(folder, 3)[8:]]
    assert len(server.rows) == 12


def without_seconds(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "budget/seconds"}


def test_a_history_goes_on_with_the_rows_that_it_began_with(tmp_path, monkeypatch, caplog):
    """Another `tracker.every` on a resume, and a W&B run from when there were rows of epochs only."""
    server = serve(monkeypatch)
    folder = stopped(compose_config(*SMALL), tmp_path / "run", monkeypatch, 12)
    run(compose_config(*SMALL, "tracker.every=5"), folder, resume=True)
    assert [row.get("trainer/step", "epoch") for row in server.rows] == [3, 6, 8, "epoch", 11, 14, 16, "epoch"]
    assert "tracker.every=5: stays 3" in caplog.text
    (folder / "wandb" / "every").unlink()
    tracker = Wandb()
    tracker.start(folder, compose_config())
    assert tracker.every is None


def test_an_interval_shorter_than_a_row_is_seen():
    rows = MirrorRows(50)
    closed = [found for step in range(100) for found in rows.step(
        "motivated" if step == 60 else "base", 1.0 + (step >= 50), float(step == 60), 0.1, 10)]
    assert [(number, row["trainer/motivated_share"], row["trainer/expansions"], row["trainer/phase"],
             row["trainer/score"], row["trainer/score_max"], row["trainer/loss"], row["budget/flops"])
            for number, row in closed] == [(0, 0, 0, 0, 0, 0, 1, 500), (1, 0.02, 1, 0, 0, 1, 2, 1000)]


def test_rows_of_epochs_only(tmp_path):
    folder = run(compose_config(*SMALL, "tracker.every=null"), tmp_path / "run")
    assert logged(wandb_records(wandb_file(folder))) == rows_of(folder, None)


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
