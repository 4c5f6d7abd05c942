"""Recipes of conf/recipe/ from config to run folder, at a size that the digits can bear."""

import csv
import json
import re
from pathlib import Path

import motivation.conf
import numpy as np
import pytest
import timm
import yaml
from conftest import QUICK, compose_config
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from motivation.run.export import export_run
from motivation.run.prepare import prepare
from motivation.run.run import run
from motivation.run_folder.checkpoints import load_checkpoint
from motivation.training.ledger import forward_flops
from motivation.training.recipe import Recipe

SMALL_VIT = ("model=timm", "model.base=vit_tiny_patch16_224", "model.motivated=vit_small_patch16_224",
             "+model.base_options={img_size: 8, patch_size: 4, depth: 2, embed_dim: 24, num_heads: 2}",
             "+model.motivated_options={img_size: 8, patch_size: 4, depth: 2, embed_dim: 48, num_heads: 4}")
SMALL_RESNET = ("model=timm", "model.base=resnet50", "model.motivated=resnet101",
                "+model.base_options={layers: [1, 1, 1, 1], channels: [8, 16, 16, 16]}",
                "+model.motivated_options={layers: [1, 2, 2, 1], channels: [8, 16, 16, 16]}")
PAIRS = {
    "digits": ("model=resnet8_14",),
    "resnet_cifar": ("model=resnet8_14",),
    "vit_cifar": (*SMALL_VIT, "recipe.image_size=8"),
    "efficientnet_cifar": ("model=timm", "model.base=tinynet_e", "model.motivated=tinynet_d", "recipe.image_size=16"),
    "a3_imagenet": (*SMALL_RESNET, "recipe.image_size=16", "recipe.test_size=20"),
    "transfer": (*SMALL_RESNET, "recipe.image_size=16"),
}
STACK = ("recipe.image_size=10", "recipe.auto_augment=cifar10", "recipe.random_erasing=0.5", "recipe.mixup=0.8",
         "recipe.cutmix=1.0", "recipe.repeats=2")


def steps_of(folder):
    with open(folder / "steps.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("recipe", PAIRS)
def test_every_recipe_trains_both_networks(recipe, tmp_path):
    """A step of each, with held-out losses as the monitor's signal."""
    config = compose_config(f"recipe={recipe}", *PAIRS[recipe], "recipe.epochs=null", "recipe.steps=2",
                            "recipe.batch_size=8", "recipe.schedule.warmup_epochs=0", "monitor=heldout",
                            "data.heldout=0.1", "schedule=periodic", "schedule.period=2", "schedule.length=1",
                            "tracker=none", "engine.threads=1")
    folder = run(config, tmp_path / "run")
    assert [row["phase"] for row in steps_of(folder)] == ["base", "motivated"]
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 <= summary["base/top1"] <= 100
    assert 0 <= summary["motivated/top1"] <= 100
    fed = json.loads((folder / "data.json").read_text())
    size = next((int(text.split("=")[1]) for text in PAIRS[recipe] if text.startswith("recipe.image_size")), 8)
    assert fed["image_shape"] == [1, size, size]
    assert fed["test_image_shape"] == ([1, 20, 20] if recipe == "a3_imagenet" else [1, size, size])


# What paper.md prints of each set-up; what it leaves open is marked in the files.
PRINTED = {
    "resnet_cifar": {"batch_size": 128, "epochs": 200, "optimizer.name": "sgd", "optimizer.momentum": 0.9,
                     "optimizer.weight_decay": 5e-4, "schedule.name": "cosine"},
    "vit_cifar": {"image_size": 224, "batch_size": 64, "epochs": 300, "schedule.warmup_epochs": 20,
                  "optimizer.name": "adamw", "optimizer.weight_decay": 0.05, "optimizer.lr": 2.5e-4},
    "efficientnet_cifar": {"image_size": 224, "batch_size": 64, "epochs": 350, "optimizer.momentum": 0.9,
                           "optimizer.weight_decay": 10e-5, "optimizer.lr": 0.01, "schedule.decay_rate": 0.97,
                           "schedule.decay_epochs": 2, "schedule.warmup_epochs": 5, "auto_augment": "cifar10",
                           "flip": True},
    "a3_imagenet": {"batch_size": 2048, "epochs": 100, "optimizer.name": "lamb", "optimizer.weight_decay": 0.02,
                    "optimizer.lr": 8e-3},
    "transfer": {"batch_size": 384, "epochs": 300, "optimizer.name": "sgd", "optimizer.weight_decay": 1e-4,
                 "optimizer.lr": 0.01, "schedule.name": "cosine"},
}
NAMED = {"vit_cifar": ("auto_augment", "random_erasing", "mixup", "cutmix"),
         "efficientnet_cifar": ("dropout", "drop_path"),
         "a3_imagenet": ("auto_augment", "mixup", "cutmix"), "transfer": ("auto_augment", "mixup", "cutmix")}


@pytest.mark.parametrize("recipe", PRINTED)
def test_printed_values_are_the_papers(recipe):
    config = compose_config(f"recipe={recipe}")["recipe"]
    flat = config | {f"{key}.{inner}": value for key in ("optimizer", "schedule")
                     for inner, value in config[key].items()}
    assert {key: flat[key] for key in PRINTED[recipe]} == PRINTED[recipe]
    assert all(flat[key] for key in NAMED.get(recipe, ()))
    assert config["repeats"] == (3 if recipe == "transfer" else 1)


def test_never_equals_classical_training_with_the_whole_stack(tmp_path):
    """Invariant 8, mixed targets and all."""
    never, classical = (run(compose_config(*QUICK, *STACK, "recipe.epochs=1", choice), tmp_path / str(number))
                        for number, choice in enumerate(("schedule=never", "model=resnet8")))
    assert [row | {"score": ""} for row in steps_of(never)] == [row | {"score": ""} for row in steps_of(classical)]
    with np.load(never / "predictions.npz") as a, np.load(classical / "predictions.npz") as b:
        assert a["base"].tobytes() == b["base"].tobytes()
    ours, theirs = (load_checkpoint(folder / "checkpoints/final.pt") for folder in (never, classical))
    assert all(ours[f"base.{name}"].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in theirs.items())


def test_flops_and_exports_are_of_the_size_trained_on(tmp_path):
    config = compose_config("recipe=a3_imagenet", *SMALL_RESNET, *QUICK, "recipe.image_size=16", "recipe.test_size=20",
                            "recipe.epochs=null", "recipe.steps=1", "recipe.schedule.warmup_epochs=0")
    folder = run(config, tmp_path / "run")
    network = timm.create_model("resnet50", num_classes=10, in_chans=1, layers=[1, 1, 1, 1], channels=[8, 16, 16, 16])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["base/forward_flops"] == forward_flops(network, (1, 16, 16))
    assert summary["budget/flops"] == 3 * 128 * summary["base/forward_flops"]


def test_an_export_says_what_its_network_is_fed(tmp_path):
    config = compose_config(*QUICK, "model=resnet8", "recipe.image_size=10", "recipe.test_size=12",
                            "recipe.test_crop=0.9", "recipe.epochs=1")
    [exported] = export_run(run(config, tmp_path / "run"))
    fed = json.loads((exported / "config.json").read_text())["pretrained_cfg"]
    assert (fed["input_size"], fed["test_input_size"], fed["crop_pct"]) == ([1, 10, 10], [1, 12, 12], 0.9)


@pytest.mark.parametrize(("override", "option"), [("recipe.dropout=0.1", "drop_rate"),
                                                  ("recipe.drop_path=0.1", "drop_path_rate")])
def test_a_network_without_dropout_refuses_it_in_one_line(override, option):
    with pytest.raises(ValueError, match=rf"^{override}: the model takes none .*{option}.*; leave it out") as caught:
        prepare(compose_config(*QUICK, override))
    assert "\n" not in str(caught.value)


def test_dropout_reaches_the_networks():
    session = prepare(compose_config(*QUICK, "model=timm", "model.base=tinynet_e", "model.motivated=tinynet_d",
                                     "recipe.image_size=16", "recipe.dropout=0.3", "recipe.drop_path=0.2"))
    for network in (session.trainer.pair.base, session.trainer.pair.motivated):
        assert network.drop_rate == 0.3
        assert max(getattr(module, "drop_prob", 0) for module in network.modules()) > 0.1


def test_an_odd_batch_cannot_be_mixed():
    with pytest.raises(ValueError, match=r"^recipe\.batch_size=63: must be even with Mixup or CutMix"):
        prepare(compose_config(*QUICK, "recipe.batch_size=63", "recipe.mixup=0.2"))


DOCS = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()


def test_the_docs_table_is_what_the_files_hold():
    """Every cell of docs/recipes.md is its file's value; every value that is not a default has a cell."""
    lines = [line.strip("|").split("|") for line in DOCS.splitlines() if line.startswith("|")]
    header = next(index for index, cells in enumerate(lines) if cells[0].strip() == "key")
    names = [cell.strip(" `") for cell in lines[header][1:]]
    assert {*names} == {path.stem for path in (Path(motivation.conf.__path__[0]) / "recipe").glob("*.yaml")}
    defaults = yaml.safe_load((Path(motivation.conf.__path__[0]) / "recipe_defaults.yaml").read_text())
    known = compose_config()["recipe"]
    table = {cells[0].strip(" `"): [cell.strip(" *°") for cell in cells[1:]] for cells in lines[header + 2:]
             if cells[0].strip(" `").split(".")[0] in known and len(cells) == len(lines[header])}
    for column, name in enumerate(names):
        flat = {}
        for key, value in compose_config(f"recipe={name}")["recipe"].items():
            inner = {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
            flat |= inner
        told = {key: yaml.safe_load(cells[column]) for key, cells in table.items() if cells[column]}
        # YAML 1.1 takes 1e-06 for text.
        told = {key: float(value) if re.fullmatch(r"[\d.]+e-\d+", str(value)) else value for key, value in told.items()}
        assert told == {key: value for key, value in flat.items()
                        if value is not None and value != defaults.get(key, "no default")}


@pytest.mark.parametrize("command", [line.split()[2:] for line in re.search(r"```\n(.*?)```", DOCS, re.DOTALL)[1]
                                     .replace("\\\n", "").splitlines()], ids=" ".join)
def test_the_docs_commands_compose(command):
    assert compose_config(*command)["recipe"]["epochs"] >= 300


def test_the_docs_own_recipe_trains(tmp_path):
    """A file that leaves most keys out is whole."""
    text = re.search(r"```yaml\n(.*?)```", DOCS, re.DOTALL)[1]
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "short.yaml").write_text(text)
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("recipe/short", ["hydra.searchpath=[pkg://motivation.conf]"])
    assert Recipe(**OmegaConf.to_container(config.recipe)).mixup == 0.2
