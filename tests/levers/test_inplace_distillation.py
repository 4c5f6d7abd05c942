"""Inplace distillation: one motivated step against both losses by hand, what it costs, exact resume, refusals."""

import copy
import functools
import json

import pytest
import torch
import torch.nn.functional as F
from commands import refused
from conftest import QUICK, compose_config, mlp
from stopping import left, stopped
from torch import nn
from torch.func import functional_call
from torch.optim import SGD

from motivation import Pair, Trainer
from motivation.levers import InplaceDistillation
from motivation.models import create_model
from motivation.monitors import Consecutive
from motivation.pairing.weights_map import tensor_of
from motivation.run.run import run
from motivation.schedules import Periodic
from motivation.training.engine import Engine
from motivation.training.ledger import TRAINING_FORWARDS, forward_flops

PAIR = ("model=resnet8_14", "schedule=periodic", "schedule.period=3", "recipe.epochs=2")
LEVER = ("lever=inplace_distillation", "lever.share=0.25", "lever.temperature=2")
# By depth, all tensors of the base are the motivated network's; by width, most are slices.
PAIRS = {"depth": lambda: Pair(create_model("resnet8", 5, 1), create_model("resnet14", 5, 1)),
         "width": lambda: Pair(mlp(4), mlp(8, seed=1)),
         "width, no BatchNorm": lambda: Pair(dense(4), dense(8))}


def dense(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 5))


def in_motivated_phase(pair: Pair, **options) -> Trainer:
    """A trainer whose next step is a motivated one, with the lever."""
    trainer = Trainer(pair, functools.partial(SGD, lr=0.1), F.cross_entropy, monitor=Consecutive(),
                      schedule=Periodic(period=2, length=1), **options)
    InplaceDistillation(share=0.25, temperature=2.0).check(trainer)
    return trainer


def both_losses(pair: Pair, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The motivated network's loss and the base's, whose tensors are taken from the motivated network's."""
    logits = pair.motivated.train()(images)
    tensors = {entry.base: entry.slice_of(tensor_of(pair.motivated, entry.motivated))
               for entry in pair.weights_map.entries}
    student = functional_call(pair.base.train(), tensors, (images,))
    mixed = 0.75 * F.one_hot(targets, 5) + 0.25 * (logits.detach() / 2).softmax(1)
    return F.cross_entropy(logits, targets) + F.cross_entropy(student, mixed)


@pytest.mark.parametrize(("kind", "parts"), [("depth", 1), ("width", 1), ("width, no BatchNorm", 2)])
def test_a_motivated_step_takes_both_losses(kind, parts):
    """One update by the sum of two gradients, in micro-batches too."""
    torch.manual_seed(0)
    pair = PAIRS[kind]()
    images, targets = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    trainer = in_motivated_phase(pair, engine=Engine(device="cpu", accumulation=parts, channels_last=False))
    trainer.step(images, targets)
    assert trainer.phase == "motivated"
    by_hand = copy.deepcopy(pair)
    by_hand.tie()
    parameters = dict(by_hand.motivated.named_parameters())
    gradients = torch.autograd.grad(both_losses(by_hand, images, targets), list(parameters.values()))
    result = trainer.step(images, targets)
    assert result.loss == pytest.approx(F.cross_entropy(by_hand.motivated(images), targets).item(), rel=1e-5)
    after = dict(pair.motivated.named_parameters())
    for (name, before), gradient in zip(parameters.items(), gradients, strict=True):
        torch.testing.assert_close(after[name], before - 0.1 * gradient, rtol=1e-4, atol=1e-6)
    trainer.synchronize()
    assert pair.is_synchronized()


def test_base_steps_are_unchanged():
    torch.manual_seed(0)
    pair = PAIRS["width"]()
    other = copy.deepcopy(pair)
    other.tie()
    plain = Trainer(other, functools.partial(SGD, lr=0.1), F.cross_entropy, monitor=Consecutive(),
                    schedule=Periodic(period=2, length=1))
    batch = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    assert in_motivated_phase(pair).step(*batch).loss == plain.step(*batch).loss
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in pair.state_dict().items())


def test_the_students_training_is_paid(finished):
    summary = json.loads((finished(*PAIR, *LEVER) / "summary.json").read_text())
    base, motivated = (forward_flops(create_model(name, 10, 1), (1, 8, 8)) for name in ("resnet8", "resnet14"))
    batch = TRAINING_FORWARDS * summary["budget/images"] // (summary["steps/base"] + summary["steps/motivated"])
    assert summary["budget/student_flops"] == batch * summary["steps/motivated"] * base
    assert summary["budget/flops"] == batch * (
        (summary["steps/base"] + summary["steps/motivated"]) * base + summary["steps/motivated"] * motivated)


@pytest.mark.parametrize("step", [1, 3])
def test_stop_and_resume_is_exact(tmp_path, monkeypatch, finished, step):
    folder, config = tmp_path / "run", compose_config(*QUICK, *PAIR, *LEVER)
    stopped(config, folder, monkeypatch, step)
    run(config, folder, resume=True)
    assert left(folder) == left(finished(*PAIR, *LEVER))


@pytest.mark.parametrize(("overrides", "message"), [
    (("model=resnet8",), "lever: the teacher is a pair's motivated network, and there is one network alone"),
    (("data=chains", "model=gpt_pair"), "lever: distillation mixes the targets of images, and the data has tokens"),
    (("model=resnet8_14", "engine.compile=default"),
     "lever: the logits of a compiled step are not to be had; choose an engine that compiles nothing"),
])
def test_refusals_name_the_key(tmp_path, capsys, overrides, message):
    assert message in refused(capsys, "train", "lever=inplace_distillation", *overrides, "tracker=none",
                              f"hydra.run.dir={tmp_path}/run")
