"""Exported networks give the run's own predictions; damaged and foreign folders are refused in one line."""

import json
import pickle
import shutil

import numpy as np
import pytest
import timm
import torch
from conftest import QUICK, compose_config
from safetensors.torch import load_file, save_file
from untrained import MODEL_CONFIGS, SMALL, finish_untrained

from motivation.cli.main import main
from motivation.data.sources.digits import Digits
from motivation.models import CIFAR_RESNETS, create_model
from motivation.run.export import export_run, load_network
from motivation.run.run import run
from motivation.run_folder.checkpoints import save_checkpoint


def probabilities(network, folder):
    """Test predictions, from what config.json says alone."""
    described = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    images = torch.from_numpy(Digits().load().test.images).permute(0, 3, 1, 2) / 255
    assert list(images.shape[1:]) == described["input_size"]
    mean, std = (torch.tensor(described[key]).view(-1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return network.eval()((images - mean) / std).softmax(1).numpy()


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished(), tmp_path / "run")


def test_exported_networks_give_the_runs_predictions(copied, tmp_path, capsys):
    assert main(["export", str(copied)]) == 0
    folders = [copied / "export" / phase for phase in ("base", "motivated")]
    assert capsys.readouterr().out.splitlines() == list(map(str, folders))
    with np.load(copied / "predictions.npz") as file:
        for folder, name in zip(folders, ("resnet8", "resnet14"), strict=True):
            described = json.loads((folder / "config.json").read_text())
            assert described["architecture"] == name
            fresh = create_model(described["architecture"], described["num_classes"], **described["model_args"])
            fresh.load_state_dict(load_file(folder / "model.safetensors"))
            for network in (fresh, load_network(folder)):
                np.testing.assert_allclose(probabilities(network, folder), file[folder.name], atol=1e-5)
            summary = json.loads((copied / "summary.json").read_text())
            assert described["motivation"] == {"network": folder.name, "top1": summary[f"{folder.name}/top1"],
                                               "training_flops": summary["budget/flops"], "seed": 0}
            assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    # One of them, elsewhere; and once more over it.
    for _ in range(2):
        assert export_run(copied, tmp_path / "out", "motivated") == [tmp_path / "out/motivated"]
    assert not (tmp_path / "out/base").exists()


def test_timm_loads_a_timm_network_by_itself(tmp_path):
    config = compose_config(*QUICK, "recipe.epochs=1", "model=resnet8", "model.network=test_resnet",
                            "+model.options={drop_rate:0.1}")
    [folder] = export_run(run(config, tmp_path / "run"))
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    with np.load(tmp_path / "run/predictions.npz") as file:
        np.testing.assert_allclose(probabilities(network, folder), file["base"], atol=1e-5)
    assert json.loads((folder / "config.json").read_text())["model_args"] == {"drop_rate": 0.1, "in_chans": 1}


def round_trip(folder, networks, image_shape=(3, 8, 8)):
    """Export, check that every reader's network gives the logits of the run's, and return the folders."""
    images = torch.randn(2, *image_shape)
    folders = export_run(folder)
    assert [folder.name for folder in folders] == list(networks)
    for folder, network in zip(folders, networks.values(), strict=True):
        with torch.no_grad():
            logits = network.eval()(images)
            assert logits.std() > 1e-3
            torch.testing.assert_close(load_network(folder)(images), logits)
            if json.loads((folder / "config.json").read_text())["architecture"] not in CIFAR_RESNETS:
                read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
                torch.testing.assert_close(read(images), logits)
                assert read.pretrained_cfg["label_names"] == list("abcd")
    return folders


# Of tokens: tests/run/test_tokens.py.
@pytest.mark.parametrize("name", [name for name in MODEL_CONFIGS if not name.startswith("gpt_")])
def test_every_model_config_makes_the_round_trip(name, tmp_path):
    """Exported and read again, by timm where it is timm's, a network gives the same logits."""
    config = {"model": compose_config(f"model={name}", *SMALL.get(name, ()))["model"]}
    if name == "transfer":
        config["model"]["network"] = "resnet8"
        finish_untrained(tmp_path / "source", {"model": {"name": "classical", "network": "resnet8"}})
        config["model"]["run"] = str(tmp_path / "source")
    round_trip(tmp_path / "run", finish_untrained(tmp_path / "run", config))


def test_an_image_size_of_timms_registry_makes_the_round_trip(tmp_path):
    """This one's is 384, where the architecture's own default is 224."""
    config = {"model": {"name": "classical", "network": "vit_base_patch32_384",
                        "options": {"embed_dim": 12, "depth": 1, "num_heads": 3}}}
    shape = (3, 384, 384)
    [folder] = round_trip(tmp_path / "run", finish_untrained(tmp_path / "run", config, image_shape=shape), shape)
    assert json.loads((folder / "config.json").read_text())["model_args"]["img_size"] == [384, 384]


def test_classical_training_has_one_network(finished, tmp_path, capsys):
    alone = finished("model=resnet8")
    assert export_run(alone, tmp_path / "out") == [tmp_path / "out/base"]
    assert main(["export", str(alone), "--network", "motivated"]) == 1
    assert "resnet8 alone: it has no motivated network" in capsys.readouterr().err


def test_a_transferred_network_needs_its_source_no_more(finished, tmp_path):
    source = shutil.copytree(finished(), tmp_path / "source")
    config = compose_config(*QUICK, "recipe.epochs=1")
    config["model"] = {"name": "transfer", "network": "resnet8", "run": str(source), "of": "base"}
    transferred = run(config, tmp_path / "run")
    shutil.rmtree(source)
    [folder] = export_run(transferred)
    with np.load(transferred / "predictions.npz") as file:
        np.testing.assert_allclose(probabilities(load_network(folder), folder), file["base"], atol=1e-5)


class Code:
    def __reduce__(self):
        return print, ("ran",)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(("damage", "said"), [
    (lambda run: (run / "config.yaml").unlink(), "it has no config.yaml"),
    (lambda run: (run / "summary.json").unlink(), "has no summary.json: its run did not finish"),
    (lambda run: (run / "data.json").unlink(), "has no data.json"),
    (lambda run: (run / "data.json").write_text("["), "data.json is damaged"),
    (lambda run: (run / "data.json").write_text("[]"), "data.json is damaged"),
    (lambda run: edit(run / "data.json", num_classes=7), "its base network cannot be exported: .*size mismatch"),
    (lambda run: edit(run / "data.json", image_shape=None), "its base network cannot be exported"),
    (lambda run: (run / "checkpoints/final.pt").unlink(), "final.pt cannot be read as a checkpoint"),
    (lambda run: (run / "checkpoints/final.pt").write_bytes(pickle.dumps(Code(), 2)), "final.pt cannot be read"),
    (lambda run: save_checkpoint(run / "checkpoints/final.pt", {}), "its base network cannot be exported: .*Missing"),
    (lambda run: (run / "config.yaml").write_text("model: {name: classical, network: nosuch}"), "unknown model"),
    (lambda run: (run / "config.yaml").write_text("model: {_target_: os.system}"), "model"),
])
def test_damaged_and_foreign_folders_are_refused(copied, tmp_path, capsys, damage, said):
    damage(copied)
    with pytest.raises(ValueError, match=said):
        export_run(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["export", str(copied)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_a_config_brings_no_weights_of_its_own(copied, tmp_path):
    """timm would read (and older versions unpickle) any file that checkpoint_path names."""
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Code(), 2))
    text = (copied / "config.yaml").read_text()
    options = f"options:\n    checkpoint_path: {tmp_path / 'evil.pt'}\n    pretrained: true\n"
    (copied / "config.yaml").write_text(text.replace("model:\n", f"model:\n  {options}"))
    for folder in export_run(copied):
        described = json.loads((folder / "config.json").read_text())
        assert described["model_args"] == {"in_chans": 1}
        edit(folder / "config.json", model_args={"in_chans": 1, "checkpoint_path": str(tmp_path / "evil.pt")})
        load_network(folder)


def test_a_damaged_export_is_named(copied, tmp_path):
    [folder] = export_run(copied, tmp_path / "out", "base")
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"out/base cannot be read as an exported network: .*Missing"):
        load_network(folder)
    (folder / "model.safetensors").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match="cannot be read as an exported network"):
        load_network(folder)
    with pytest.raises(ValueError, match=r"has no config\.json: it is no exported network"):
        load_network(tmp_path)
