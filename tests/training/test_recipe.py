"""Recipes: optimizers and schedules by name, one learning rate for both networks, and refusals before anything runs."""

import math

import pytest
import timm
import timm.loss
import timm.optim
import torch
from torch import nn

import motivation
from motivation.data import Augmentation
from motivation.monitors import Consecutive
from motivation.schedules import Always
from motivation.training.recipe import Recipe, optimizer_class


def recipe(**changes):
    return Recipe(**{"epochs": 4, "optimizer": {"name": "sgd", "lr": 0.4}, **changes})


def test_optimizers_by_name():
    assert optimizer_class("sgd") is torch.optim.SGD
    assert optimizer_class("adamw") is torch.optim.AdamW
    assert optimizer_class("lamb") is timm.optim.Lamb
    with pytest.raises(ValueError, match="'sdg' is unknown; did you mean 'sgd'"):
        optimizer_class("sdg")


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_fused_where_torch_offers_it(name):
    optimizer = recipe(optimizer={"name": name, "lr": 0.1}).optimizer_factory()([nn.Parameter(torch.zeros(2))])
    assert optimizer.defaults.get("fused") is (None if name == "rmsprop" else True)


def test_both_networks_follow_one_cosine():
    optimizers = [recipe().optimizer_factory()([nn.Parameter(torch.zeros(2))]) for _ in range(2)]
    schedulers = recipe().learning_rates(optimizers, steps_per_epoch=25)
    for step in range(100):
        for scheduler in schedulers:
            scheduler.step_update(step)
        expected = 0.4 * (1 + math.cos(math.pi * step / 100)) / 2
        assert [o.param_groups[0]["lr"] for o in optimizers] == pytest.approx([expected] * 2)


def test_warm_up_and_steps_are_counted_in_epochs():
    optimizer = recipe().optimizer_factory()([nn.Parameter(torch.zeros(2))])
    schedule = {"name": "step", "decay_epochs": 2, "decay_rate": 0.1, "warmup_epochs": 1, "warmup_lr": 0.0}
    [scheduler] = recipe(schedule=schedule).learning_rates([optimizer], steps_per_epoch=10)
    lrs = []
    for step in range(40):
        scheduler.step_update(step)
        lrs.append(optimizer.param_groups[0]["lr"])
    assert lrs[:11] == pytest.approx([0.04 * step for step in range(11)])
    assert lrs[19] == pytest.approx(0.4)
    assert lrs[20] == lrs[39] == pytest.approx(0.04)
    [scheduler] = recipe(schedule={"name": "multistep", "decay_milestones": [1, 3], "decay_rate": 0.5}).learning_rates(
        [recipe().optimizer_factory()([nn.Parameter(torch.zeros(2))])], steps_per_epoch=10)
    scheduler.step_update(30)
    assert scheduler.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_length_in_epochs_or_steps():
    assert recipe().total_steps(10) == 40
    assert recipe(epochs=None, steps=25).total_steps(10) == 25
    for both in ({"steps": 3}, {"epochs": None}):
        with pytest.raises(ValueError, match="give exactly one"):
            recipe(**both)


def test_label_smoothing_reaches_the_loss():
    logits, targets = torch.tensor([[4.0, 0.0]]), torch.tensor([0])
    assert recipe(label_smoothing=0.2).loss_function()(logits, targets) == nn.functional.cross_entropy(
        logits, targets, label_smoothing=0.2)


@pytest.mark.parametrize(("changes", "message"), [
    ({"epochs": 0}, "epochs=0: must be at least 1"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
    ({"crop_padding": -1}, "crop_padding=-1"),
    ({"optimizer": {"lr": 0.1}}, r"optimizer\.name is missing"),
    ({"optimizer": {"name": "sgd", "lr": 0.0}}, r"optimizer\.lr=0\.0: must be above 0"),
    ({"optimizer": {"name": "sgd", "lr": "fast"}}, r"optimizer\.lr='fast': must be a number"),
    ({"optimizer": {"name": "sgd", "lr": 0.1, "momentun": 0.9}}, r"momentun: sgd takes no such.*did you mean momentum"),
    ({"optimizer": {"name": "sgd", "lr": 0.1, "momentum": -1}}, "optimizer sgd: Invalid momentum"),
    ({"optimizer": {"name": "sgd", "lr": 0.1, "nesterov": True}}, "Nesterov momentum requires a momentum"),
    ({"schedule": {"name": "cosin"}}, "schedule.name='cosin': choose one of cosine"),
    ({"schedule": {"name": "cosine", "warmup": 3}}, r"schedule\.warmup: unknown"),
    ({"schedule": {"name": "cosine", "warmup_epochs": "a"}}, "warmup_epochs='a'"),
    ({"schedule": {"name": "multistep", "decay_milestones": 3}}, "decay_milestones=3"),
    ({"schedule": {"name": "cosine", "warmup_prefix": True}}, r"schedule\.warmup_prefix=True: .* step schedule alone"),
    ({"loss": "mse"}, "loss='mse': must be one of cross_entropy, bce"),
    ({"dropout": 1.0}, r"dropout=1\.0"),
    ({"drop_path": -0.1}, r"drop_path=-0\.1"),
    ({"mixup": 0.2, "batch_size": 33}, "batch_size=33: must be even with Mixup or CutMix"),
    ({"mixup": -1.0}, "mixup=-1.0: must be"),
    ({"schedule": {}}, r"schedule\.name is missing"),
])
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_soft_targets_in_both_losses():
    """Cross-entropy of a mixture is the mixture of cross-entropies; a mixed image has both classes for bce."""
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    first, second = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2])
    targets = 0.7 * nn.functional.one_hot(first, 3) + 0.3 * nn.functional.one_hot(second, 3)
    loss = recipe(label_smoothing=0.1).loss_function()
    expected = 0.7 * loss(logits, first) + 0.3 * loss(logits, second)
    assert loss(logits, targets).item() == pytest.approx(expected.item())
    bce = recipe(loss="bce").loss_function()
    theirs = timm.loss.BinaryCrossEntropy(smoothing=0.0, target_threshold=0.2)
    for given in (first, targets, targets.flip(0)):
        assert bce(logits, given).item() == pytest.approx(theirs(logits, given).item())
    smooth = recipe(loss="bce", label_smoothing=0.3).loss_function()
    assert smooth(logits, first).item() == pytest.approx(
        timm.loss.BinaryCrossEntropy(smoothing=0.3)(logits, first).item())


def test_norms_and_biases_without_decay():
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=8, patch_size=4, embed_dim=8, depth=1,
                                num_heads=2)
    optimizer = recipe(optimizer={"name": "adamw", "lr": 0.1, "weight_decay": 0.05}, decay_norms=False)
    groups = optimizer.optimizer_factory()(optimizer.groups(network)).param_groups
    decay = {name: group["weight_decay"] for name, parameter in network.named_parameters()
             for group in groups if any(parameter is one for one in group["params"])}
    assert set(decay) == dict(network.named_parameters()).keys()
    assert all(value == (0.0 if network.get_parameter(name).ndim == 1 or name in ("pos_embed", "cls_token") else 0.05)
               for name, value in decay.items())
    assert list(recipe().groups(network)) == list(network.parameters())


def test_steps_are_counted_from_the_end_of_warm_up():
    """The paper's EfficientNet recipe: x 0.97 every 2 epochs after 5 of warm-up."""
    optimizer = recipe(epochs=20).optimizer_factory()([nn.Parameter(torch.zeros(2))])
    schedule = {"name": "step", "decay_epochs": 2, "decay_rate": 0.97, "warmup_epochs": 5, "warmup_prefix": True}
    [scheduler] = recipe(epochs=20, schedule=schedule).learning_rates([optimizer], steps_per_epoch=10)
    lrs = []
    for step in range(200):
        scheduler.step_update(step)
        lrs.append(optimizer.param_groups[0]["lr"])
    assert lrs[50:90:20] == pytest.approx([0.4, 0.4 * 0.97])
    assert lrs[199] == pytest.approx(0.4 * 0.97 ** 7)
    assert lrs[:50] == sorted(lrs[:50])


def test_a_recipe_is_its_augmentation_too():
    made = recipe(mixup=0.2, image_size=32, batch_size=64)
    assert made.augmentation == Augmentation(mixup=0.2, image_size=32)
    assert recipe(dropout=0.1, drop_path=0.0).network_options == {"drop_rate": 0.1, "drop_path_rate": 0.0}
    assert recipe().network_options == {}


SCHEDULES = {
    "cosine": {"name": "cosine", "warmup_epochs": 2, "warmup_lr": 1e-3, "min_lr": 1e-2},
    "step": {"name": "step", "decay_epochs": 2, "decay_rate": 0.5, "warmup_epochs": 1, "warmup_prefix": True},
    "multistep": {"name": "multistep", "decay_milestones": [2, 3], "decay_rate": 0.1},
    "tanh": {"name": "tanh", "min_lr": 1e-2}, "poly": {"name": "poly", "decay_rate": 2.0, "min_lr": 1e-2},
    "constant": {"name": "constant", "warmup_epochs": 1, "warmup_lr": 1e-3},
}


def dual_trainer(made, **options):
    pair = motivation.create_pair("resnet8", "resnet14", num_classes=3, in_chans=1)
    return motivation.Trainer(pair, made.optimizer_factory(), made.loss_function(), Consecutive(), Always(),
                              groups=made.groups, **options)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_differential_rates_and_decays_hold_all_through_training(name, factor):
    """Every differential group's rate is the factor times the base's, at every step, in warm-up and at the end too; its
    decay is its own, but that of norms and biases, which go without, stays 0.
    """
    made = recipe(schedule=SCHEDULES[name], decay_norms=False, differential_lr=factor, differential_weight_decay=0.3,
                  optimizer={"name": "sgd", "lr": 0.4, "momentum": 0.9, "weight_decay": 0.05})
    trainer = dual_trainer(made, differential_lr=factor, differential_weight_decay=0.3)
    alone = made.optimizer_factory()([nn.Parameter(torch.zeros(2))])
    schedulers = made.learning_rates([*trainer.optimizers, alone], steps_per_epoch=5)
    rates = set()
    for step in range(20):
        for scheduler in schedulers:
            scheduler.step_update(step)
        lr = alone.param_groups[0]["lr"]
        rates.add(lr)
        assert {group["lr"] for group in trainer.optimizers[0].param_groups} == {lr}
        for group in trainer.optimizers[1].param_groups:
            assert group["lr"] == pytest.approx(lr * (1 if group["mapped"] else factor), rel=1e-12)
            spared = all(parameter.ndim <= 1 for parameter in group["params"])
            assert group["weight_decay"] == (0 if spared else 0.05 if group["mapped"] else 0.3)
    assert len(rates) > 1
    assert max(rates) <= 0.4


def test_a_resumed_trainer_keeps_its_differential_rate():
    made = recipe(differential_lr=0.3)
    trainer = dual_trainer(made, differential_lr=0.3)
    state = trainer.state_dict()  # before there were schedulers: its groups have no scale
    [*schedulers] = made.learning_rates(trainer.optimizers, steps_per_epoch=5)
    trainer.load_state_dict(state)
    schedulers[1].step_update(0)
    assert {group["mapped"]: group["lr"] for group in trainer.optimizers[1].param_groups} == pytest.approx(
        {True: 0.4, False: 0.12})


def test_torch_schedulers_keep_the_differential_rate():
    trainer = dual_trainer(recipe(), differential_lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizers[1], 4)
    for step in range(4):
        rates = {group["mapped"]: group["lr"] for group in trainer.optimizers[1].param_groups}
        assert rates[False] == pytest.approx(0.3 * rates[True])
        assert rates[True] == pytest.approx(0.2 * (1 + math.cos(math.pi * step / 4)))
        trainer.step(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
        scheduler.step()
