"""Distillation: targets of base steps against a mixture by hand, what it costs, exact resume, refusals."""

import functools
import json

import pytest
import torch
import torch.nn.functional as F
from commands import refused
from conftest import QUICK, compose_config
from stopping import left, stopped
from torch.optim import SGD

from motivation import Trainer, create_pair
from motivation.levers import Distillation
from motivation.models import create_model
from motivation.monitors import Consecutive
from motivation.run.run import run
from motivation.schedules import Periodic
from motivation.training.ledger import TRAINING_FORWARDS, forward_flops

PAIR = ("model=resnet8_14", "schedule=periodic", "schedule.period=3", "recipe.epochs=2")
LEVER = ("lever=distillation", "lever.share=0.25", "lever.temperature=2")


def test_base_steps_learn_a_mixture_and_motivated_ones_their_targets():
    torch.manual_seed(0)
    pair = create_pair("resnet8", "resnet14", 10)
    trainer = Trainer(pair, functools.partial(SGD, lr=0.1), F.cross_entropy, monitor=Consecutive(),
                      schedule=Periodic(period=2, length=1))
    images, targets = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    lever = Distillation(share=0.25, temperature=2.0)
    lever.check(trainer)
    before = {name: tensor.clone() for name, tensor in pair.state_dict().items()}
    _, mixed, weights = lever.batch(trainer, images, targets)
    assert weights is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in pair.state_dict().items())
    with torch.no_grad():
        taught = (trainer.network("motivated").eval()(images) / 2).softmax(1)
    assert torch.allclose(mixed, 0.75 * F.one_hot(targets, 10) + 0.25 * taught)
    assert lever.batch(trainer, images, mixed)[1].sum(1).tolist() == pytest.approx([1] * 4)
    trainer.step(images, mixed)
    assert trainer.phase == "motivated"
    assert lever.batch(trainer, images, targets)[1] is targets


def test_the_teachers_forwards_are_paid(finished):
    summary = json.loads((finished(*PAIR, *LEVER) / "summary.json").read_text())
    base, motivated = (forward_flops(create_model(name, 10, 1), (1, 8, 8)) for name in ("resnet8", "resnet14"))
    batch = summary["budget/images"] // (summary["steps/base"] + summary["steps/motivated"])
    taught = batch * summary["steps/base"] * motivated
    assert summary["budget/teacher_flops"] == taught
    assert summary["budget/flops"] == taught + TRAINING_FORWARDS * batch * (
        summary["steps/base"] * base + summary["steps/motivated"] * motivated)


@pytest.mark.parametrize("step", [1, 3])
def test_stop_and_resume_is_exact(tmp_path, monkeypatch, finished, step):
    folder, config = tmp_path / "run", compose_config(*QUICK, *PAIR, *LEVER)
    stopped(config, folder, monkeypatch, step)
    run(config, folder, resume=True)
    assert left(folder) == left(finished(*PAIR, *LEVER))


@pytest.mark.parametrize(("overrides", "message"), [
    (("model=resnet8",), "lever: the teacher is a pair's motivated network, and there is one network alone"),
    (("data=chains", "model=gpt_pair"), "lever: distillation mixes the targets of images, and the data has tokens"),
    (("model=resnet8_14", "lever.share=0"), "lever.share=0: must be above 0"),
    (("model=resnet8_14", "lever.share=1.5"), "lever.share=1.5: must be at most 1"),
    (("model=resnet8_14", "lever.temperature=0"), "lever.temperature=0: must be above 0"),
])
def test_refusals_name_the_key(tmp_path, capsys, overrides, message):
    assert message in refused(capsys, "train", "lever=distillation", *overrides, "tracker=none",
                              f"hydra.run.dir={tmp_path}/run")
