"""A reference: a network of a finished run that scores what another one is trained on."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from motivation.data import Dataset, Sequences
from motivation.models import create_model
from motivation.phase import Phase
from motivation.run_folder.checkpoints import load_checkpoint
from motivation.run_folder.read import read_figures
from motivation.training.ledger import forward_flops
from motivation.training.trainer import Trainer


@dataclass(frozen=True)
class Reference:
    """A trained network and what it costs.

    Args:
        network: in evaluation mode.
        forward: FLOPs of its forward pass of one image or sequence.
        training: FLOPs that its run took in all.
    """

    network: nn.Module
    forward: int
    training: int

    def charge_training(self, trainer: Trainer) -> None:
        """Charge what its run took, before the first step."""
        if trainer.steps == 0:
            trainer.ledger.charge("reference", self.training)


def read_reference(run: str, of: Phase, dataset: Dataset, image_shape: tuple[int, ...] | None = None) -> Reference:
    """The network of a finished run, for the data that it scores.

    Args:
        run: its folder.
        of: which of its networks.
        dataset: what it scores: of the kind, and with the classes or the vocabulary, that it was trained on.
        image_shape: ``(C, H, W)`` of its images as they are trained on, ``(T,)`` of a sequence; None for
            those of the run.

    Raises:
        ValueError: no finished run, no such network, or one of other data.
    """
    folder = Path(run)
    if not (folder / "checkpoints" / "final.pt").is_file():
        raise ValueError(f"run={run}: no finished run; give the folder of one")
    found = read_figures(folder)
    if of not in found.networks:
        raise ValueError(f"of={of}: run={run} is of {found.networks['base']} alone; use of=base")
    try:
        about = json.loads((folder / "data.json").read_text())
        shape, classes, num_classes = about["image_shape"], about["classes"], about["num_classes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"run={run}: what its data was cannot be read: {' '.join(str(error).split())}") from error
    tokens = isinstance(dataset.train, Sequences)
    if (len(shape) == 1) != tokens:
        raise ValueError(f"run={run}: is of {'tokens' if len(shape) == 1 else 'images'}, and the data has "
                         f"{'tokens' if tokens else 'images'}; give a run on data of that kind")
    if num_classes != dataset.num_classes or (classes and dataset.classes and tuple(classes) != dataset.classes):
        raise ValueError(f"run={run}: it has {num_classes} {'tokens' if tokens else 'classes'}, {_some(classes)}, and "
                         f"the data {dataset.num_classes}, {_some(dataset.classes)}; give a run with the same ones")
    task_seed = found.config["data"].get("task_seed")
    if dataset.task is not None and task_seed != dataset.task.task_seed:
        raise ValueError(f"run={run}: its task has task_seed={task_seed}, and the data's {dataset.task.task_seed}: "
                         "other functions; give a run of the same task")
    shape, asked = tuple(shape), tuple(image_shape or shape)
    if not tokens and shape != asked:
        raise ValueError(f"run={run}: its images are {shape}, and those of the data {asked}; give a run at that size")
    name, options = found.network(of)
    network = create_model(name, num_classes, **(options if tokens else {"in_chans": shape[0], **options}))
    weights = load_checkpoint(folder / "checkpoints" / "final.pt")
    prefix = f"{of}." if len(found.networks) > 1 else ""
    network.load_state_dict({key.removeprefix(prefix): tensor for key, tensor in weights.items()
                             if key.startswith(prefix)})
    return Reference(network.eval().requires_grad_(False), forward_flops(network, asked),
                     found.summary["budget/flops"])


def _some(classes: list[str] | tuple[str, ...] | None) -> str:
    """The last classes, which tell vocabularies apart."""
    return "without names" if not classes else f"the last {classes[-1]}"
