"""Cells on disk: finished, unfinished, broken, or of another run; and found where their data is missing."""

import json
import math
import shutil

import pytest
import torch
from conftest import QUICK, compose_config
from fabricated import fabricate, write_finished

import motivation.tables.train
from motivation.registry import build
from motivation.run_folder.read import read_run
from motivation.tables.cells import OF_FLOPS, OF_PHASES, UNREAD, Archive, Cell, set_aside
from motivation.tables.train import train_cell
from motivation.training.recipe import Recipe


@pytest.fixture
def cell():
    return Cell(compose_config(*QUICK, "recipe.epochs=1", "model=resnet20", "recipe.batch_size=1024"), "data")


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / "cells")


def test_a_cell_without_a_folder_or_with_an_empty_one_is_missing(archive, cell):
    assert archive.state(cell).kind == "missing"
    archive.path(cell).mkdir(parents=True)
    assert archive.state(cell).kind == "missing"


def test_a_finished_cell_is_read_once(archive, cell):
    folder = fabricate(archive, cell)
    assert archive.state(cell).kind == "finished"
    shutil.rmtree(folder)
    assert archive.state(cell).run.summary["base/top1"] == 90
    assert Archive(archive.folder).state(cell).kind == "missing"


def test_a_config_without_a_summary_can_be_resumed(archive, cell):
    (fabricate(archive, cell) / "summary.json").unlink()
    assert archive.state(cell).kind == "unfinished"


@pytest.mark.parametrize(("damage", "said"), [
    (lambda folder: (folder / "summary.json").write_text('{"base/top1": 9'), "cannot be read"),
    (lambda folder: (folder / "summary.json").write_text("{}"), "is missing"),
    (lambda folder: (folder / "summary.json").write_bytes(b"\xff\xfe"), "cannot be read"),
    (lambda folder: (folder / "config.yaml").unlink(), "no config.yaml"),
    (lambda folder: (folder / "config.yaml").write_text("model: {name: class"), "cannot be read"),
    (lambda folder: [(folder / "summary.json").unlink(), (folder / "config.yaml").write_text("a: [")], "is damaged"),
    (lambda folder: [(folder / "summary.json").unlink(), (folder / "config.yaml").write_text("seed: 0")], "data"),
])
def test_a_broken_cell_says_why_and_is_set_aside(archive, cell, caplog, monkeypatch, damage, said):
    monkeypatch.setattr(motivation.tables.train, "run", write_finished)
    folder = fabricate(archive, cell)
    damage(folder)
    state = archive.state(cell)
    assert (state.kind, state.run) == ("broken", None)
    assert said in state.trouble
    assert train_cell(cell, archive.folder, "table") is None
    assert f"set aside as {folder.name}.broken-1" in caplog.text
    assert folder.with_name(f"{folder.name}.broken-1").is_dir()
    assert archive.state(cell).kind == "finished"


def test_a_broken_cell_is_trained_again(archive, cell):
    folder = fabricate(archive, cell)
    (folder / "summary.json").write_text("{}")
    assert train_cell(cell, archive.folder, "table") is None
    assert read_run(folder).summary["steps/base"] == 1
    assert archive.state(cell).kind == "finished"


def test_what_is_set_aside_keeps_what_was_before(tmp_path):
    for number in (1, 2):
        (tmp_path / "a").mkdir()
        assert set_aside(tmp_path / "a") == tmp_path / f"a.broken-{number}"


def test_another_run_in_a_cell_is_no_run_of_it(archive, cell):
    folder = fabricate(archive, cell)
    other = Cell(cell.config | {"seed": 5}, "data")
    shutil.copy(fabricate(archive, other) / "config.yaml", folder / "config.yaml")
    state = archive.state(cell)
    assert (state.kind, state.trouble) == ("foreign", "it holds a run of another config: seed is 5, not 0")
    # How it was executed is not what was run.
    changed = cell.config | {"engine": cell.config["engine"] | {"threads": 7}}
    (folder / "config.yaml").write_text(json.dumps(changed))
    assert archive.state(cell).kind == "finished"


@pytest.mark.parametrize("control", ["matched_random", "replay", *OF_FLOPS, "transfer", "reference"])
def test_a_control_is_its_sources(archive, control, tmp_path):
    """Wherever the folder of all cells has been moved since."""
    pair = Cell(compose_config(*QUICK), "data")
    alone = compose_config(*QUICK, "model=resnet20", *["lever=samples"] * (control == "reference"))
    made = Cell(pair.config if control in OF_PHASES else alone, "data", pair, control)
    fabricate(archive, pair)
    folder = fabricate(archive, made)
    moved = Archive(archive.folder.rename(tmp_path / "elsewhere"))
    assert moved.state(made).kind == "finished"
    config = json.loads(json.dumps(moved.runnable(made)))
    group = {"transfer": "model", "reference": "lever"}.get(control, "schedule" if control in OF_PHASES else "recipe")
    config[group] |= {"batch_size": 7} if control in OF_FLOPS else {"run": "cells/another"}
    (moved.path(made) / "config.yaml").write_text(json.dumps(config))
    assert Archive(moved.folder).state(made).kind == "foreign"
    assert moved.path(made).name == folder.name


@pytest.mark.parametrize(("control", "part", "forward"), [
    ("equal_flops", 1, 80e6), ("equal_flops_motivated", 1, 160e6), ("split_flops", 1 / 3, 80e6),
    ("split_flops_motivated", 2 / 3, 160e6)])
def test_a_control_of_flops_trains_as_long_as_they_last(archive, control, part, forward):
    """A fabricated pair has networks of 80 and 160 MFLOP; two of split FLOPs take as many steps."""
    pair = Cell(compose_config(*QUICK), "data")
    folder = fabricate(archive, pair)
    recipe = archive.runnable(Cell(compose_config(*QUICK, "model=resnet8"), "data", pair, control))["recipe"]
    spent = json.loads((folder / "summary.json").read_text())["budget/flops"]
    assert recipe["epochs"] is None
    assert recipe["steps"] * 3 * forward * 128 == pytest.approx(part * spent, rel=1e-3)


def test_a_control_needs_both_networks_flops(archive):
    pair = Cell(compose_config(*QUICK), "data")
    folder = fabricate(archive, pair)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"motivated/forward_flops": None}))
    with pytest.raises(ValueError, match="forward FLOPs of both networks"):
        archive.runnable(Cell(compose_config(*QUICK, "model=resnet8"), "data", pair, "split_flops"))


@pytest.mark.parametrize("warmup", [0, 2])
def test_a_shorter_run_anneals_to_the_end(warmup):
    """The cosine of a control ends where the control does, however many steps it has."""
    lr = {}
    for steps in (37, 170):
        recipe = build({"recipe": Recipe}, {"name": "recipe", **compose_config(
            "recipe=resnet_cifar", f"recipe.schedule.warmup_epochs={warmup}", "recipe.epochs=null",
            f"recipe.steps={steps}")["recipe"]}, "recipe")
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        [scheduler] = recipe.learning_rates([optimizer], steps_per_epoch=17)
        lr[steps] = []
        for step in range(recipe.total_steps(17)):
            scheduler.step_update(step)
            lr[steps].append(optimizer.param_groups[0]["lr"])
    assert [len(values) for values in lr.values()] == [37, 170]
    for steps, values in lr.items():
        begin = warmup * 17
        assert max(values) == pytest.approx(0.1, rel=0.1 if warmup else 1e-6)
        assert values[begin:] == sorted(values[begin:], reverse=True)
        # The last step's rate is the cosine's at (steps - 1) / steps: (pi / 2 / steps)^2 of the first.
        assert values[-1] == pytest.approx(0.1 * (math.pi / 2 / steps) ** 2, rel=0.1)


def test_a_null_that_a_later_version_adds_changes_no_cell(cell):
    later = cell.config | {"recipe": cell.config["recipe"] | {"new": None}}
    assert Cell(later, "data").name == cell.name != Cell(cell.config | {"seed": 1}, "data").name


def test_controls_of_other_sources_are_other_runs(archive):
    """Rows of a table have equal-FLOPs controls of one network and seed, alike in all that their configs say."""
    pairs = [Cell(compose_config(*QUICK, f"schedule.k={k}"), "data") for k in (2, 3)]
    alone = compose_config(*QUICK, "model=resnet8")
    controls = [Cell(alone, "data", pair, "equal_flops") for pair in pairs]
    for pair, share in zip(pairs, (1 / 6, 1 / 6), strict=True):
        fabricate(archive, pair, share=share)
    first = fabricate(archive, controls[0])
    assert archive.state(controls[1]).kind == "missing"
    assert fabricate(archive, controls[1]) != first
    assert [archive.state(control).kind for control in controls] == ["finished"] * 2


def test_a_cell_keeps_its_folder_of_an_earlier_format(archive, cell):
    """Its name holds a hash that changed; its config says that it is the same run."""
    old = fabricate(archive, cell)
    old.rename(old.with_name(f"{cell.kind}_{12 * chr(48)}-{old.name[-8:]}"))
    assert archive.state(cell).kind == "finished"
    half = cell.config | {"engine": cell.config["engine"] | {"precision": "bfloat16"}}
    assert archive.state(Cell(half, "data")).kind == "missing"
    assert archive.state(Cell(cell.config, "other")).kind == "missing"


def test_finished_cells_are_found_without_their_data(archive, cell):
    """Where a data set is not, what was trained on it elsewhere still shows."""
    pair = Cell(compose_config(*QUICK), "data")
    control = Cell(pair.config, "data", pair, "matched_random")
    for one in (cell, pair, control):
        fabricate(archive, one)
    unread = Cell(pair.config, UNREAD)
    cells = [Cell(cell.config, UNREAD), unread, Cell(pair.config, UNREAD, unread, "matched_random")]
    assert [archive.state(one).kind for one in cells] == ["finished"] * 3
    assert archive.state(Cell(cell.config | {"seed": 9}, UNREAD)).kind == "missing"
    # Other data is another run.
    assert archive.state(Cell(cell.config, "other")).kind == "missing"
