"""ONNX files give torch's logits in batches of any size, and their metadata says how to feed them.

Torch's exporter takes seconds a network: here the smallest of each kind, every model config in `make soak`.
"""

import importlib.util
import json

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import compose_config
from untrained import MODEL_CONFIGS, SMALL, finish_untrained

import motivation.run.onnx_file
from motivation.cli.main import main
from motivation.run.export import export_run
from motivation.run.onnx_file import write_onnx

# Of the largest logit, or of 1 where all are smaller: a deep network with random weights has logits of 1e5.
ATOL = 1e-4
SHAPE = (3, 8, 8)
SMALLEST = {"resnet20": ("model.network=resnet8",),
            "vit_tiny_small": ("+model.base_options={embed_dim:12,depth:1,patch_size:4,img_size:8}",
                               "+model.motivated_options={embed_dim:24,depth:2,patch_size:4,img_size:8}")}


def exported_run(name, tmp_path, overrides, phases=None):
    """The run of a model config that export reads, with each network's file beside it; their logits are the same."""
    config = {"model": compose_config(f"model={name}", *overrides)["model"]}
    if name == "transfer":
        finish_untrained(tmp_path / "source", {"model": {"name": "classical", "network": "resnet8"}})
        config["model"] |= {"run": str(tmp_path / "source"), "network": "resnet8"}
    networks = finish_untrained(tmp_path / "run", config, SHAPE)
    for phase in phases or networks:
        [file] = export_run(tmp_path / "run", network=phase, format="onnx")
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for count in (1, 2, 5):
            images = torch.randn(count, *SHAPE)
            with torch.no_grad():
                logits = networks[phase].eval()(images).numpy()
            assert logits.std() > 1e-3
            [found] = session.run(["logits"], {"images": images.numpy()})
            np.testing.assert_allclose(found, logits, rtol=0, atol=ATOL * max(1, np.abs(logits).max()))
    return tmp_path / "run", session


def test_a_cifar_resnet(tmp_path, capsys):
    run, session = exported_run("resnet20", tmp_path, SMALLEST["resnet20"])
    metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata == {"architecture": "resnet8", "num_classes": 4, "classes": list("abcd"), "input_size": [3, 8, 8],
                        "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 1.0, "interpolation": "bilinear",
                        "network": "base", "top1": 50.0, "training_flops": 1, "seed": 0}
    assert [put.shape for put in (*session.get_inputs(), *session.get_outputs())] == [["batch", 3, 8, 8], ["batch", 4]]
    assert [path.name for path in (run / "export/base").iterdir()] == ["model.onnx"]


def test_a_vision_transformer(tmp_path):
    exported_run("vit_tiny_small", tmp_path, SMALLEST["vit_tiny_small"], ["base"])


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MODEL_CONFIGS)
def test_every_model_config(name, tmp_path):
    exported_run(name, tmp_path, SMALLEST.get(name, SMALL.get(name, ())))


def test_the_command(finished, tmp_path, monkeypatch, capsys):
    """`--format onnx` with the other options; without its packages one line names pip's command."""
    monkeypatch.setattr("motivation.run.export.write_onnx", lambda folder, described, model: folder / "model.onnx")
    command = ["export", str(finished()), "--format", "onnx", "--out", str(tmp_path)]
    assert main(command) == 0
    assert capsys.readouterr().out.split() == [f"{tmp_path}/base/model.onnx", f"{tmp_path}/motivated/model.onnx"]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    assert main(command) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "needs onnxscript" in line
    assert line.endswith("pip install motivation[onnx]")


class Fixed(torch.nn.Module):
    """A network for batches of two images."""

    def forward(self, images):
        return images.mean(1).reshape(2, 64)


class Wrong:
    """An exporter whose file holds another network's logits, or a NaN."""

    def __init__(self, scale):
        self.scale = scale

    def run(self, _, feed):
        return [self.scale * feed["images"].mean((2, 3))]


def described():
    return {"architecture": "own", "num_classes": 3,
            "pretrained_cfg": {"test_input_size": [3, 8, 8], "label_names": None, "mean": [0] * 3, "std": [1] * 3,
                               "crop_pct": 1.0, "interpolation": "bilinear"}, "motivation": {}}


def test_what_cannot_be_exported_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^no ONNX of own: [^\n]+ 1 images[^\n]+$"):
        write_onnx(tmp_path / "export", described(), Fixed())
    assert not list((tmp_path / "export").iterdir())


@pytest.mark.parametrize("scale", [1.1, float("nan")])
def test_other_logits_are_refused(tmp_path, monkeypatch, scale):
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: Wrong(scale))
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(ValueError, match="other logits than torch"):
        motivation.run.onnx_file._check_logits(tmp_path / "model.onnx", network, [3, 8, 8])
