"""Cells on disk: finished, unfinished, broken, or of another run; and found where their data is missing."""

import json
import shutil

import pytest
from conftest import QUICK, compose_config
from fabricated import fabricate, write_finished

import motivation.tables.train
from motivation.run_folder.read import read_run
from motivation.tables.cells import UNREAD, Archive, Cell, set_aside
from motivation.tables.train import train_cell


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


@pytest.mark.parametrize("control", ["matched_random", "equal_flops", "transfer"])
def test_a_control_is_its_sources(archive, control, tmp_path):
    """Wherever the folder of all cells has been moved since."""
    pair = Cell(compose_config(*QUICK), "data")
    alone = compose_config(*QUICK, "model=resnet20")
    made = Cell(pair.config if control == "matched_random" else alone, "data", pair, control)
    fabricate(archive, pair)
    folder = fabricate(archive, made)
    moved = Archive(archive.folder.rename(tmp_path / "elsewhere"))
    assert moved.state(made).kind == "finished"
    config = json.loads(json.dumps(moved.runnable(made)))
    group = {"matched_random": "schedule", "transfer": "model", "equal_flops": "recipe"}[control]
    config[group] |= {"batch_size": 7} if control == "equal_flops" else {"run": "cells/another"}
    (moved.path(made) / "config.yaml").write_text(json.dumps(config))
    assert Archive(moved.folder).state(made).kind == "foreign"
    assert moved.path(made).name == folder.name


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
