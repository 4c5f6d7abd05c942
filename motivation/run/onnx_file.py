"""A network as an ONNX file, for batches of any size of images or tokens; its metadata says how to feed it."""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from motivation.pairing.tracing.example import example_input, takes_tokens

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Largest difference of a logit from torch's, of the largest logit or of 1 where all are smaller.
TOLERANCE = 1e-3


def check_onnx() -> None:
    """Raise ValueError where a package that writes or checks ONNX is missing."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(f"--format onnx needs {', '.join(missing)}: pip install motivation[onnx]")


def write_onnx(folder: Path, described: Mapping[str, Any], model: nn.Module) -> Path:
    """Write ``model.onnx``, whole or not at all, once onnxruntime gives the network's own logits.

    Its input ``images`` is float32 ``(batch, C, H, W)`` of 0 to 1, minus ``mean`` and divided by ``std``; its output
    ``logits`` is ``(batch, classes)``. Metadata, each value JSON: ``architecture``, ``num_classes``, ``classes`` (their
    names, or null), ``input_size``, ``mean``, ``std``, ``crop_pct``, ``interpolation``, and of the run ``network``,
    ``top1``, ``training_flops``, ``seed``.

    A decoder's input ``tokens`` is int64 ``(batch, T)`` of any length, places in ``classes``, and its output ``logits``
    is ``(batch, classes, T)``; there is no normalisation.

    Args:
        folder: of the file.
        described: what the export of the run says of the network, see `motivation.run.export`.
        model: the network.

    Raises:
        ValueError: torch cannot export the network, or the file gives other logits.
    """
    model.eval()
    name, feed = described["architecture"], described["pretrained_cfg"]
    shape = feed["test_input_size"]
    images = example_input(model, shape, 2, seed=0)
    dynamic = {0: torch.export.Dim("batch")} | ({1: torch.export.Dim("tokens")} if takes_tokens(model) else {})
    try:
        program = torch.onnx.export(model, (images,), input_names=[_input_name(model)], output_names=["logits"],
                                    dynamo=True, dynamic_shapes=(dynamic,), verbose=False)
    except Exception as error:
        # Torch's own errors have no common class; the first line says which step failed.
        raise ValueError(f"no ONNX of {name}: torch cannot export it: {' '.join(str(error).split())[:300]}") from error
    facts = {"architecture": name, "num_classes": described["num_classes"],
             "classes": feed["label_names"], "input_size": shape,
             **{key: feed[key] for key in ("mean", "std", "crop_pct", "interpolation") if key in feed},
             **described["motivation"]}
    program.model.metadata_props.update({key: json.dumps(value) for key, value in facts.items()})
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "model.onnx.tmp"
    try:
        program.save(str(temporary), external_data=False)
        try:
            _check_logits(temporary, model, shape)
        except ValueError as error:
            raise ValueError(f"no ONNX of {name}: {error}") from error
        os.replace(temporary, folder / "model.onnx")
    finally:
        temporary.unlink(missing_ok=True)
    return folder / "model.onnx"


def _input_name(model: nn.Module) -> str:
    return "tokens" if takes_tokens(model) else "images"


def _check_logits(file: Path, model: nn.Module, shape: list[int]) -> None:
    """Compare the file with the network, also at a batch size that the exporter did not see."""
    import onnxruntime

    for count in (1, 3):
        longer = count if takes_tokens(model) else 0
        images = example_input(model, (*shape[:-1], shape[-1] + longer), count, seed=count)
        try:
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            [found] = session.run(None, {_input_name(model): images.numpy()})
        except Exception as error:
            # Nor have onnxruntime's; the exporter fixes the batch size of a network that it cannot trace without one.
            raise ValueError(f"onnxruntime does not run it on {count} images: {' '.join(str(error).split())[:300]}"
                             ) from error
        with torch.no_grad():
            logits = model(images).numpy()
        apart = np.abs(found - logits).max() / max(1, np.abs(logits).max())
        # A NaN is no agreement.
        if not apart <= TOLERANCE:
            raise ValueError(f"onnxruntime gives other logits than torch, apart by {apart:.1g} of the largest")
