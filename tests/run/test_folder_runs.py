"""Runs on images in files: trained, killed and resumed bit for bit, compared and exported like any other."""

import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from conftest import compose_config, write_folder

from motivation.analysis.compare import comparison_table
from motivation.run.export import export_run, load_network
from motivation.run.run import run
from motivation.run.session import Session
from motivation.run.signals import Interrupted
from motivation.run_folder.checkpoints import load_checkpoint
from motivation.run_folder.read import read_run

RECIPE = ("model=resnet8_14", "recipe.batch_size=6", "recipe.epochs=2", "recipe.crop_padding=0", "recipe.image_size=20",
          "recipe.test_size=24", "recipe.test_crop=0.9", "recipe.flip=true", "recipe.scale=[0.3,1]",
          "recipe.auto_augment=rand-m6-n1", "recipe.random_erasing=0.3", "recipe.mixup=0.2", "recipe.cutmix=1.0",
          "recipe.repeats=2", "tracker=none", "engine.threads=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"), count=10)


def config(folder, *overrides, workers=0):
    return compose_config("data=image_folder", f"data.root={folder}", f"data.workers={workers}", "data.validation=0.2",
                          "data.heldout=0.1", "monitor=heldout", "schedule=threshold", *RECIPE, *overrides)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A run that was never stopped."""
    return run(config(folder), tmp_path_factory.mktemp("runs") / "whole")


def state(path):
    return load_checkpoint(path / "checkpoints" / "final.pt")


def assert_same_run(run, other):
    for name in ("steps.csv", "signals.csv"):
        assert (run / name).read_text() == (other / name).read_text()
    for key, tensor in state(run).items():
        assert torch.equal(tensor, state(other)[key])
    with np.load(run / "predictions.npz") as ours, np.load(other / "predictions.npz") as theirs:
        assert set(ours.files) == {"labels", "base", "motivated"}
        for name in ours.files:
            assert np.array_equal(ours[name], theirs[name])


def test_a_run_folder_is_complete_and_says_what_was_fed(whole, folder):
    fed = json.loads((whole / "data.json").read_text())
    assert fed["classes"] == ["ant", "bee", "cat"]
    assert (fed["image_shape"], fed["test_image_shape"], fed["test_crop"]) == ([3, 20, 20], [3, 24, 24], 0.9)
    assert fed["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert fed["std"] == pytest.approx([0.229, 0.224, 0.225])
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["budget/images"] == 2 * 18
    assert summary["steps/base"] + summary["steps/motivated"] == 6
    assert summary["base/val_top1"] is not None
    with np.load(whole / "predictions.npz") as predictions:
        assert predictions["base"].shape == (30, 3)
        assert summary["base/top1"] == pytest.approx(
            100 * np.mean(predictions["base"].argmax(1) == predictions["labels"]))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_stopped_inside_an_epoch_resumes_bit_identical(whole, folder, tmp_path, workers, monkeypatch):
    """With any number of workers, another one after the stop, and the images moved in between."""
    step = Session.step

    def stopped(session, *batch):
        step(session, *batch)
        if session.trainer.steps == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Session, "step", stopped)
        with pytest.raises(Interrupted, match="at step 4 of 6"):
            run(config(folder, workers=workers), path)
    assert not multiprocessing.active_children()
    moved = shutil.copytree(folder, tmp_path / "moved")
    run(config(moved, workers=2 - workers), path, resume=True)
    assert_same_run(path, whole)


def test_an_image_that_breaks_stops_the_run_behind_its_last_checkpoint(folder, tmp_path, whole):
    root = shutil.copytree(folder, tmp_path / "images")
    path = root / "val" / "ant" / "0.jpg"
    good = path.read_bytes()
    # Behind a right header, in the Huffman tables: what the scan at the start cannot see.
    place = good.index(b"\xff\xc4") + 5
    path.write_bytes(good[:place] + b"\xff" * 16 + good[place + 16:])
    with pytest.raises(ValueError, match=rf"{path} cannot be read as an image.*resume from the last checkpoint"):
        run(config(root, workers=1), tmp_path / "run")
    assert not multiprocessing.active_children()
    assert not (tmp_path / "run" / "summary.json").exists()
    path.write_bytes(good)
    run(config(root), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)
    path.write_bytes(good + b"x")
    with pytest.raises(ValueError, match="the data set has changed since"):
        run(config(root, "recipe.epochs=3"), tmp_path / "run", resume=True)


def test_what_is_missing_is_said_before_anything_is_written(folder, tmp_path):
    for overrides, message in (((f"data.root={tmp_path}",), r"data\.?.*has no folder train"),
                               (("recipe.image_size=null",), r"recipe\.image_size=null: images in files"),
                               (("recipe.batch_size=40",), r"recipe\.batch_size=40 but there are only 21")):
        with pytest.raises(ValueError, match=message):
            run(config(folder, *overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_on_folders_are_compared_and_exported(whole, folder, tmp_path):
    again = run(config(folder, "seed=1", "data.workers=1"), tmp_path / "again")
    alone = run(config(folder, "model=resnet8"), tmp_path / "alone")
    table = comparison_table([read_run(path) for path in (whole, again, alone)])
    assert "| 2 |" in table.replace("  ", " ").replace("  ", " ")
    for path in export_run(whole, tmp_path / "export"):
        described = json.loads((path / "config.json").read_text())["pretrained_cfg"]
        assert described["interpolation"] == "bicubic"
        assert described["label_names"] == ["ant", "bee", "cat"]
        assert load_network(path)(torch.zeros(1, 3, 24, 24)).shape == (1, 3)
