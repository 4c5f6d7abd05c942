"""Runs on tokens: trained, resumed, compared, diagnosed and exported like runs on images."""

import json

import numpy as np
import pytest
import torch
from commands import refused
from conftest import QUICK, compose_config
from stopping import left, stopped

from motivation.cli.main import main
from motivation.run.export import export_run, load_network
from motivation.run.run import run
from motivation.run_folder.checkpoints import load_checkpoint

TOKENS = ("model=gpt_pair", "model.base=gpt_1x16", "model.motivated=gpt_2x16", "data=chains", "data.train=640",
          "data.test=48", "recipe=chains", "recipe.epochs=2", "recipe.batch_size=64")


@pytest.mark.parametrize("overrides", [(), ("monitor=paired_heldout", "monitor.every=2", "data.heldout=0.1",
                                            "schedule=threshold")], ids=["consecutive", "heldout losses"])
def test_stop_and_resume_is_exact(overrides, tmp_path, monkeypatch, finished):
    folder, config = tmp_path / "run", compose_config(*QUICK, *TOKENS, *overrides)
    stopped(config, folder, monkeypatch, 7)
    run(config, folder, resume=True)
    assert left(folder) == left(finished(*TOKENS, *overrides))


def test_accuracy_is_exact_match_of_greedy_answers(finished):
    """Each network decodes every problem of every split token by token; the run counted what it gets right."""
    from motivation.data.sources.problems import ChainProblems

    folder = finished(*TOKENS, "data.values=3", "data.functions=2", "data.unseen_functions=0", "data.depth=[1,2]",
                      "data.longer=3", "recipe.epochs=12", "data.unseen_paths=0.0")
    task = ChainProblems(train=640, test=48, values=3, functions=2, unseen_functions=0, depth=(1, 2), longer=3,
                         unseen_paths=0.0)
    summary, data = json.loads((folder / "summary.json").read_text()), task.load()
    exported = {path.name: load_network(path) for path in export_run(folder, folder / "greedy")}
    assert set(exported) == {"base", "motivated"}
    counted = []
    for key, split, part in (("top1", "seen", data.test), ("longer_top1", "longer", data.further_tests["longer"])):
        for phase, network in exported.items():
            right = 0
            for problem, row in zip(task.problems(split, 48), part.tokens, strict=True):
                given = torch.from_numpy(row[:row.tolist().index(1) + 1])[None]
                for _ in problem.answer:
                    with torch.no_grad():
                        given = torch.cat((given, network(given)[..., -1:].argmax(1)), 1)
                answer = [task.vocabulary[token] for token in given[0, -len(problem.answer):]]
                right += task.accepts(problem, answer)
            assert summary[f"{phase}/{key}"] == pytest.approx(right / 48 * 100)
            counted.append(right)
    assert max(counted) > 5  # something was learned


def test_probabilities_are_kept_and_compared(finished, tmp_path, capsys):
    folder = finished(*TOKENS)
    with np.load(folder / "predictions.npz") as file:
        assert file["base"].shape == file["motivated"].shape == (48, 20, 15)
        assert file["labels"].shape == (48, 15)
    alone = finished(*TOKENS[3:], "model=classical", "model.network=gpt_1x16")
    assert main(["compare", str(folder), str(alone), "--figure", str(tmp_path / "figure.png")]) == 0
    assert main(["diagnose", str(folder), "--figure", str(tmp_path / "diagnosis.png")]) == 0
    printed = capsys.readouterr().out
    assert "gpt_1x16 + gpt_2x16" in printed
    assert "expected calibration error" in printed
    assert "Left out" not in printed


def test_exported_networks_are_the_trained_ones(finished, tmp_path):
    folder = finished(*TOKENS)
    final, tokens = load_checkpoint(folder / "checkpoints" / "final.pt"), torch.arange(20)[None]
    for path in export_run(folder, tmp_path):
        network = load_network(path)
        assert all(torch.equal(value, final[f"{path.name}.{name}"]) for name, value in network.state_dict().items())
        assert network(tokens).shape == (1, 20, 20)
        described = json.loads((path / "config.json").read_text())["pretrained_cfg"]
        assert described["label_names"][:3] == ["_", "=", "0"]
        assert "mean" not in described


@pytest.mark.soak
def test_onnx_takes_sequences_of_any_length(finished, tmp_path):
    import onnxruntime

    for file in export_run(finished(*TOKENS), tmp_path, format="onnx"):
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        assert session.run(None, {"tokens": np.zeros((5, 9), np.int64)})[0].shape == (5, 20, 9)


def test_micro_batches_and_precision(tmp_path):
    """Half batches give the same losses up to rounding: a sequence counts like an image."""
    losses = {}
    for parts in (1, 2):
        folder = run(compose_config(*QUICK, *TOKENS, "recipe.epochs=null", "recipe.steps=4", "schedule=never",
                                    f"engine.accumulation={parts}"), tmp_path / str(parts))
        losses[parts] = [float(line.split(",")[3]) for line in (folder / "steps.csv").read_text().splitlines()[1:]]
    assert losses[1] == pytest.approx(losses[2], rel=1e-4)


@pytest.mark.parametrize(("overrides", "message"), [
    (("model=resnet8_14",), "model: the data has tokens, the network takes images; choose a network of tokens"),
    (("data=digits", "recipe=digits"), "model: the network takes tokens, the data has images; choose data of tokens"),
    (("recipe=digits",), "recipe.crop_padding=1: is for images, and these are tokens; must be 0"),
    (("recipe.loss=bce",), "recipe.loss=bce: is for images, and these are tokens; must be cross_entropy"),
    (("data.noise=2",), "data.noise=2: must be at most 1"),
    (("data.depth=[1]",), r"data.depth=[1]: must be a list of at least 2"),
    (("model.base=gpt_2x20",), "model: width=20: must be a multiple of 16"),
    (("recipe.dropout=0.1",), "recipe.dropout=0.1: the model takes none")])
def test_what_cannot_be_is_one_line_that_names_the_key(overrides, message, capsys, tmp_path):
    tokens = [part for part in TOKENS if not (overrides[0].startswith("model=") and part.startswith("model"))
              and not (overrides[0].startswith("data=") and part.startswith(("data", "recipe")))
              and not (overrides[0] == "recipe=digits" and part.startswith("recipe"))]
    base = [part for part in QUICK if not part.startswith(("model", "recipe"))]
    assert message in refused(capsys, "train", *base, *tokens, *overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_task_brings_its_recipe_unless_one_is_given():
    assert compose_config("data=chains")["recipe"]["optimizer"]["name"] == "adamw"
    assert compose_config("data=noisy_chains")["recipe"] == compose_config("data=chains")["recipe"]
    assert compose_config("data=chains", "recipe=digits")["recipe"] == compose_config()["recipe"]
    assert compose_config("data=chains", "recipe.epochs=2")["recipe"]["epochs"] == 2
