"""A finished run of every model config, without training: small networks with random weights."""

import json
from pathlib import Path

import motivation.conf
import torch
import yaml

from motivation.registry import build
from motivation.run.model_choice import BY_NAME
from motivation.run_folder.checkpoints import save_checkpoint

MODEL_CONFIGS = sorted(path.stem for path in (Path(motivation.conf.__path__[0]) / "model").glob("*.yaml"))

# Where a config's own networks are large: the same families, fewer and narrower layers. The two networks of a pair get
# options of their own.
SMALL = {
    "resnet50_101": ("+model.options.channels=[8,8,8,8]", "+model.options.stem_width=8",
                     "+model.base_options.layers=[1,1,1,1]", "+model.motivated_options.layers=[1,1,2,1]"),
    "timm": ("+model.options.channels=[8,8,8,8]", "+model.options.stem_width=8",
             "+model.base_options.layers=[1,1,1,1]", "+model.motivated_options.layers=[1,2,1,1]",
             "model.batch_norm=separate"),
    "vit_tiny_small": ("+model.base_options={embed_dim:12,depth:1}", "+model.motivated_options={embed_dim:24,depth:2}"),
    "classical": ("model.network=convnext_atto", "+model.options={depths:[1,1,1,1],dims:[4,4,4,8],patch_size:1}"),
}


def finish_untrained(folder, config, image_shape=(3, 8, 8)):
    """A run folder as export reads it, and its networks, with random weights in every layer."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "data.json").write_text(json.dumps({
        "num_classes": 4, "classes": list("abcd"), "image_shape": image_shape,
        "mean": [0.5] * image_shape[0], "std": [0.25] * image_shape[0]}))
    (folder / "summary.json").write_text(json.dumps(
        {"base/top1": 50.0, "motivated/top1": 60.0, "budget/flops": 1, "seed": 0}))
    model = build(BY_NAME, config["model"], "model").build(4, image_shape[0], seed=0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.02 * torch.randn_like(tensor))
    save_checkpoint(folder / "checkpoints" / "final.pt", model.state_dict())
    return {"base": model.base, "motivated": model.motivated} if hasattr(model, "motivated") else {"base": model}
