"""Networks of a finished run as safetensors, each with a small JSON that says how to build and feed it; or as ONNX.

A safetensors folder is timm's own layout, ``model.safetensors`` and ``config.json``: `load_network` reads it for every
network, and ``timm.create_model("local-dir:FOLDER", pretrained=True)`` for timm's.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

import motivation.run.model_choice
from motivation.models import create_model
from motivation.phase import PHASES, Phase
from motivation.registry import check
from motivation.run.model_choice import PairModel
from motivation.run.onnx_file import check_onnx, write_onnx
from motivation.run_folder.checkpoints import load_checkpoint
from motivation.run_folder.config import read_config
from motivation.run_folder.mount import move, remove

# Arguments of timm.create_model that say where weights come from: an export brings its own.
WEIGHTS_OPTIONS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def export_run(run: Path, out: Path | None = None, network: Phase | None = None,
               format: Literal["safetensors", "onnx"] = "safetensors") -> list[Path]:
    """Export a finished run's final networks; an earlier export in the same folder is replaced.

    Nothing in the run folder is trusted: its checkpoint is read without running code, and its config names networks,
    never code or weights.

    Args:
        run: the run folder.
        out: gets a folder a network, ``base`` and ``motivated``; default ``export`` in the run folder.
        network: only this one.
        format: ``safetensors``, or ``onnx``: a file ``model.onnx`` in each folder, see `motivation.run.onnx_file`.

    Returns:
        The folders written; of ONNX the files.

    Raises:
        ValueError: no finished run, a damaged one, or a network that it does not have; or that ONNX cannot hold, or
            whose packages are missing.
        OSError: the export cannot be written.
    """
    if format == "onnx":
        check_onnx()
    config, data, summary = read_config(run), _read_json(run, "data.json"), _read_json(run, "summary.json")
    # Checked and not built: a transferred network's own source need not be here.
    maker, choice = check(motivation.run.model_choice.BY_NAME, config.get("model"), "model")
    names = {phase: choice[phase] for phase in PHASES} if maker is PairModel else {"base": choice["network"]}
    if network is not None and network not in names:
        raise ValueError(f"{run} is classical training of {names['base']} alone: it has no {network} network")
    state = load_checkpoint(run / "checkpoints" / "final.pt")
    written = []
    for phase, name in names.items() if network is None else [(network, names[network])]:
        prefix = "" if len(names) == 1 else f"{phase}."
        weights = {key.removeprefix(prefix): value for key, value in state.items() if str(key).startswith(prefix)}
        try:
            options = choice.get("options", {}) | choice.get(f"{phase}_options", {})
            shape = list(data["image_shape"])
            model_args, feed = _without_weights(options), {}
            if len(shape) > 1:  # images; tokens are fed as they are
                model_args |= {"in_chans": int(shape[0])}
                feed = {"crop_pct": data.get("test_crop", 1.0), "interpolation": data.get("interpolation", "bilinear"),
                        "mean": list(data["mean"]), "std": list(data["std"])}
            described = {
                "architecture": name, "num_classes": int(data["num_classes"]), "model_args": model_args,
                "pretrained_cfg": {"num_classes": int(data["num_classes"]), "input_size": shape,
                                   "test_input_size": list(data.get("test_image_shape", shape)),
                                   "label_names": data.get("classes"), **feed},
                "motivation": {"network": phase, "top1": summary[f"{phase}/top1"],
                               "training_flops": summary["budget/flops"], "seed": summary["seed"]}}
            # Built and filled as a reader will do it: what does not fit is known before anything is written.
            filled = _filled(described, weights)
            # An image size that timm took from its registry: it does not look there for a folder's network.
            registered = getattr(filled, "pretrained_cfg", {})
            if registered.get("fixed_input_size"):
                model_args.setdefault("img_size", list(registered["input_size"][1:]))
        except (KeyError, TypeError, ValueError, AssertionError, RuntimeError, AttributeError) as error:
            raise ValueError(f"{run}: its {phase} network cannot be exported: "
                             f"{' '.join(str(error).split())[:300]}") from error
        write = write_onnx if format == "onnx" else _write
        written.append(write((out or run / "export") / phase, described, filled))
    return written


def load_network(folder: Path | str) -> nn.Module:
    """The network in an exported folder, in evaluation mode.

    Images are RGB or grey of 0 to 1, minus ``mean`` and divided by ``std`` of ``pretrained_cfg`` in its config.json.
    Tokens are places in its ``label_names``.

    Raises:
        ValueError: no export, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    described = _read_json(folder, "config.json")
    try:
        return _filled(described, load_file(folder / "model.safetensors")).eval()
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{folder} cannot be read as an exported network: {' '.join(str(error).split())[:300]}"
                         ) from error


def _filled(described: Mapping[str, Any], weights: Mapping[str, Any]) -> nn.Module:
    model = create_model(described["architecture"], described["num_classes"],
                         **_without_weights(described["model_args"]))
    model.load_state_dict(weights)
    return model


def _without_weights(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in WEIGHTS_OPTIONS}


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{folder} has no {name}" + {
            "summary.json": ": its run did not finish",
            "data.json": ": its run is of an earlier version; train it again"}.get(name, ": it is no exported network"))
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged: it holds no mapping")
    return values


def _write(folder: Path, described: Mapping[str, Any], model: nn.Module) -> Path:
    """Both files, each whole or not at all."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    # Plain layout, and no storage shared between tensors: safetensors takes neither channels-last nor shared ones.
    weights = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    temporary = folder / "model.safetensors.tmp"
    try:
        save_file(weights, temporary, metadata={"format": "pt"})
        move(temporary, folder / "model.safetensors")
        temporary = folder / "config.json.tmp"
        temporary.write_text(json.dumps(described, indent=2) + "\n")
        move(temporary, folder / "config.json")
    finally:
        remove(temporary)
    return folder
