"""One run, config to run folder: the contract's files, the ledger, test data kept apart, and controls that agree."""

import csv
import json
import math

import numpy as np
import pytest
import torch
import yaml
from conftest import QUICK, compose_config, write_arrays

from motivation.data import Digits
from motivation.models import create_model
from motivation.run.evaluation import evaluate
from motivation.run.prepare import prepare
from motivation.run.run import run
from motivation.run.signals import StopRequest
from motivation.run_folder.checkpoints import load_checkpoint

EPOCH_KEYS = {"epoch", "base/top1", "motivated/top1", "base/val_top1", "motivated/val_top1", "train/loss",
              "budget/flops", "budget/forward_per_image", "base/forward_flops", "motivated/forward_flops",
              "budget/images", "budget/seconds", "budget/bytes_copied", "steps/base", "steps/motivated", "intervals"}


def steps_of(folder):
    with open(folder / "steps.csv", newline="") as file:
        return list(csv.DictReader(file))


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def without_seconds(folder):
    summary = summary_of(folder)
    del summary["budget/seconds"]
    return summary


def test_run_folder_is_the_contracts(finished):
    folder = finished()
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "steps.csv", "epochs.jsonl", "summary.json",
                                                        "predictions.npz", "checkpoints", "weights_map.json",
                                                        "data.json"}
    assert yaml.safe_load((folder / "config.yaml").read_text()) == compose_config(*QUICK)
    steps = steps_of(folder)
    assert list(steps[0]) == ["step", "epoch", "phase", "loss", "score", "lr", "flops"]
    assert [int(row["step"]) for row in steps] == list(range(16))
    assert [int(row["epoch"]) for row in steps] == [0] * 8 + [1] * 8
    assert all(repr(float(row[key])) == row[key] for row in steps for key in ("loss", "score", "lr"))
    rows = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [EPOCH_KEYS] * 2
    assert set(summary_of(folder)) == EPOCH_KEYS | {"seed", "null_rate", "null_kind", "null_rate_independent",
                                                 "pair/batch_norm", "pair/synchronized", "hardware", "torch"}
    assert rows[-1].items() <= summary_of(folder).items()


def test_ledger_is_the_sum_over_steps(finished):
    """Invariant 4, from the run folder alone."""
    steps, summary = steps_of(finished()), summary_of(finished())
    phases = [row["phase"] for row in steps]
    assert sum(int(row["flops"]) for row in steps) == summary["budget/flops"]
    assert phases.count("motivated") == summary["steps/motivated"] > 0
    assert phases.count("base") == summary["steps/base"]
    assert summary["intervals"] == sum(a != "motivated" and b == "motivated"
                                       for a, b in zip(["base", *phases], phases, strict=False))
    assert summary["budget/images"] == 16 * 128
    forward = {phase: summary[f"{phase}/forward_flops"] for phase in ("base", "motivated")}
    assert all(int(row["flops"]) == 3 * 128 * forward[row["phase"]] for row in steps)
    assert summary["budget/forward_per_image"] == pytest.approx(summary["budget/flops"] / summary["budget/images"] / 3)
    assert summary["null_rate"] == summary["null_rate_independent"] == pytest.approx(1 / 6 * (1 - 1 / 8))
    assert summary["null_kind"] == "analytic"
    assert summary["budget/seconds"] > 0


def test_classical_training_costs_images_times_three_forwards(finished):
    """Invariant 4: classical training equals images x 3 x forward FLOPs."""
    summary = summary_of(finished("model=resnet8"))
    assert summary["budget/flops"] == summary["budget/images"] * 3 * summary["base/forward_flops"]
    assert summary["motivated/top1"] is summary["motivated/forward_flops"] is summary["null_rate"] is None
    assert summary["null_kind"] is summary["null_rate_independent"] is None
    assert summary["steps/motivated"] == 0
    assert all(math.isnan(float(row["score"])) for row in steps_of(finished("model=resnet8")))


def test_never_equals_classical_training_of_the_base(finished):
    """Bit for bit: losses, learning rates, accuracy, probabilities and weights."""
    never, classical = finished("schedule=never"), finished("model=resnet8")
    assert [{**row, "score": ""} for row in steps_of(never)] == [{**row, "score": ""} for row in steps_of(classical)]
    assert summary_of(never)["base/val_top1"] == summary_of(classical)["base/val_top1"]
    with np.load(never / "predictions.npz") as a, np.load(classical / "predictions.npz") as b:
        assert np.array_equal(a["base"], b["base"])
    ours, theirs = (load_checkpoint(folder / "checkpoints/final.pt") for folder in (never, classical))
    assert all(torch.equal(ours[f"base.{name}"], tensor) for name, tensor in theirs.items())


def test_always_trains_the_motivated_network(finished):
    summary = summary_of(finished("schedule=always"))
    assert (summary["steps/base"], summary["steps/motivated"], summary["intervals"]) == (0, 16, 1)
    assert (summary["null_rate"], summary["null_kind"]) == (1, "set")


def test_the_same_seed_gives_the_same_bits(finished, tmp_path):
    again = run(compose_config(*QUICK), tmp_path / "again")
    assert steps_of(again) == steps_of(finished())
    assert without_seconds(again) == without_seconds(finished())
    other = run(compose_config(*QUICK, "seed=1"), tmp_path / "other")
    assert [row["loss"] for row in steps_of(other)] != [row["loss"] for row in steps_of(again)]


def test_predictions_and_networks_agree_with_the_summary(finished):
    """Probabilities of both networks give the accuracies, and the saved networks give the probabilities."""
    folder, data = finished(), Digits().load()
    session = prepare(compose_config(*QUICK))
    session.trainer.model.load_state_dict(load_checkpoint(folder / "checkpoints/final.pt"))
    again = evaluate(session, StopRequest(), data.test)[0]
    with np.load(folder / "predictions.npz") as saved:
        assert np.array_equal(saved["labels"], data.test.labels)
        for phase in ("base", "motivated"):
            assert saved[phase].shape == (360, 10)
            assert saved[phase].sum(1) == pytest.approx(np.ones(360), abs=1e-5)
            accuracy = (saved[phase].argmax(1) == saved["labels"]).mean() * 100
            assert accuracy == summary_of(folder)[f"{phase}/top1"]
            assert np.array_equal(saved[phase], again[phase])


def test_a_saved_base_works_alone(finished):
    """Train once, deploy twice: each half of the checkpoint loads into an ordinary network."""
    state = load_checkpoint(finished() / "checkpoints/final.pt")
    for role, name in (("base", "resnet8"), ("motivated", "resnet14")):
        network = create_model(name, 10, 1)
        network.load_state_dict({key.removeprefix(f"{role}."): tensor for key, tensor in state.items()
                                 if key.startswith(f"{role}.")})


def test_training_learns(tmp_path):
    summary = summary_of(run(compose_config(*QUICK, "recipe.epochs=8", "recipe.batch_size=64"), tmp_path / "run"))
    assert summary["base/top1"] > 85
    assert summary["motivated/top1"] > 85


def test_test_data_reaches_nothing_that_trains(tmp_path):
    """Invariant 6: other test images and labels change the reported accuracy and nothing else."""
    rng = np.random.default_rng(5)
    path = write_arrays(tmp_path / "a.npz", count=120)
    other = write_arrays(tmp_path / "b.npz", count=120, x_test=rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8),
                         y_test=np.arange(50) % 3)
    options = (*QUICK, "data=arrays", "data.validation=0.2", "data.heldout=0.2", "recipe.batch_size=16")
    a, b = (run(compose_config(*options, f"data.path={file}"), tmp_path / file.stem) for file in (path, other))
    assert (a / "steps.csv").read_bytes() == (b / "steps.csv").read_bytes()
    ours, theirs = (load_checkpoint(folder / "checkpoints/final.pt") for folder in (a, b))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    accuracies = [{**without_seconds(folder), "base/top1": 0, "motivated/top1": 0} for folder in (a, b)]
    assert accuracies[0] == accuracies[1]


def test_steps_set_the_length_and_evaluation_may_be_rare(tmp_path):
    """11 steps of 8 an epoch: a full epoch and a partial one; only the last is evaluated."""
    folder = run(compose_config(*QUICK, "recipe.epochs=null", "recipe.steps=11", "evaluate_every=5"), tmp_path / "run")
    assert [row["epoch"] for row in steps_of(folder)] == ["0"] * 8 + ["1"] * 3
    rows = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [row["base/top1"] is None for row in rows] == [True, False]


def test_nan_keeps_what_was_trained_and_no_summary(tmp_path):
    with pytest.raises(ValueError, match=r"loss is (nan|inf) at step"):
        run(compose_config(*QUICK, "recipe.optimizer.lr=1e30"), tmp_path / "run")
    assert len(steps_of(tmp_path / "run")) >= 1
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("override", ["schedule.k=0", "data.validation=2", "recipe.batch_size=99999",
                                      "model.motivated=resnet8x", "model.base=resnet44"])
def test_a_refused_run_leaves_nothing(tmp_path, override):
    with pytest.raises(ValueError, match=r"^[^\n]{20,}$"):
        run(compose_config(*QUICK, override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("overrides", [
    ("monitor.lag=99",), ("monitor=trend", "monitor.window=99"), ("monitor=heldout", "monitor.every=99"),
    ("monitor=noise_scale", "monitor.half_life=99"),
    ("monitor=smooth", "monitor.half_life=99", "monitor.monitor.window=8")])
def test_what_is_longer_than_training_is_refused_by_name(tmp_path, overrides):
    named = next(override for override in overrides if override.endswith("=99"))
    with pytest.raises(ValueError, match=rf"{named}(\.0)?: longer than training, which has 16 steps"):
        run(compose_config(*QUICK, "data.heldout=0.05", "schedule=threshold", *overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_held_run_is_not_overwritten(finished):
    folder = finished()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match="already holds a run"):
        run(compose_config(*QUICK), folder)
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("overrides", [("engine.precision=bfloat16",), ("engine.channels_last=false",),
                                       ("recipe.optimizer={name: adamw, lr: 0.001, momentum: null}",
                                        "recipe.label_smoothing=0.1")])
def test_other_engines_and_optimizers_train(tmp_path, overrides):
    summary = summary_of(run(compose_config(*QUICK, *overrides), tmp_path / "run"))
    assert math.isfinite(summary["train/loss"])
    assert summary["steps/motivated"] > 0


def test_summary_records_how_the_pair_was_evaluated(finished):
    """Mapped tensors are synchronised before evaluation, which the paper does not say; and the map itself is saved."""
    from motivation.pairing.weights_map import WeightsMap

    assert summary_of(finished())["pair/batch_norm"] == "shared"
    assert summary_of(finished())["pair/synchronized"] is True
    weights_map = WeightsMap.from_json((finished() / "weights_map.json").read_text())
    assert weights_map.differential_blocks == ("layer1.1", "layer2.1", "layer3.1")
    classical = summary_of(finished("model=resnet8"))
    assert classical["pair/batch_norm"] is classical["pair/synchronized"] is None


def test_recalibration_leaves_training_alone(finished):
    """Statistics recomputed before evaluation: the very losses of separate statistics, other motivated predictions."""
    folders = [finished(f"model.batch_norm={policy}", "+model.recalibration_batches=4")
               for policy in ("separate", "recalibrate")]
    losses = [[row["loss"] for row in steps_of(folder) if row["epoch"] == "0"] for folder in folders]
    assert losses[0] == losses[1]
    predictions = [np.load(folder / "predictions.npz")["motivated"] for folder in folders]
    assert not np.array_equal(*predictions)


@pytest.mark.parametrize("model", ["model=vit_tiny_small", "model=efficientnet_b0_b1",
                                   pytest.param("model=resnet50_101", marks=pytest.mark.soak),
                                   "model=timm model.base=convnext_atto model.motivated=convnext_femto"])
def test_named_pairs_train(model, tmp_path):
    """Pairs of timm models, from config to run folder, on small images."""
    path = write_arrays(tmp_path / "small.npz", size=32, count=30)
    size = ("model.options.img_size=32", "model.options.patch_size=16") if "vit" in model else ()
    folder = run(compose_config("tracker=none", "engine.threads=1", "data=arrays", f"data.path={path}",
                                "recipe.batch_size=10", "recipe.epochs=null", "recipe.steps=3", "schedule=always",
                                *model.split(), *size), tmp_path / "run")
    assert [row["phase"] for row in steps_of(folder)] == ["motivated"] * 3
    assert summary_of(folder)["motivated/top1"] is not None
