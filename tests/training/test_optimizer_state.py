"""Optimizer state through the map: every optimizer of the table beside the oracle, policies at a switch, refusals."""

import copy
import math

import pytest
import timm.optim
import torch
import torch.nn.functional as F
from beside_oracle import Script, assert_same_state, train_beside_oracle
from conftest import batches, mlp
from networks import vits
from torch import nn

from motivation import Pair, Trainer
from motivation.monitors import Consecutive
from motivation.training.optimizer_state import INITIAL_VALUES
from motivation.training.recipe import Recipe, optimizer_class

SLICED = ["sgd", "sgdw", "adam", "adamw", "nadam", "nadamw", "radam", "rmsprop", "rmsproptf", "lamb", "lion", "adan",
          "adabelief"]


def factory(name, **options):
    build = optimizer_class(name)
    options = {"lr": 1e-3, **options}
    if name in ("sgd", "sgdw", "rmsprop", "rmsproptf"):
        options["momentum"] = 0.9
    return lambda params: build(params, **options)


@pytest.mark.parametrize("name", SLICED)
def test_sliced_state_equals_two_copies(name):
    """Invariant 1 for every optimizer of the table, where every base tensor is a slice."""
    base, motivated = mlp(4), mlp(7, seed=1)
    phases = train_beside_oracle(base, motivated, [(key, key) for key in base.state_dict()], factory(name), k=1,
                                 steps=40)
    assert phases.count("motivated") > 5


def test_muon_takes_matrices_and_vectors():
    base, motivated = mlp(4), mlp(7, seed=1)
    phases = train_beside_oracle(base, motivated, [(key, key) for key in base.state_dict()],
                                 lambda params: timm.optim.create_optimizer_v2(params, "muon", lr=1e-3), k=1, steps=20)
    assert phases.count("motivated") > 3


def test_table_has_every_optimizer_that_is_tested():
    made = {type(factory(name)([nn.Parameter(torch.zeros(2, 2))])).__name__ for name in SLICED}
    assert made <= INITIAL_VALUES.keys()


def test_group_counters_are_carried_for_mapped_groups_only(resnets):
    """Lamb counts steps by group: the mapped half goes on, what only the motivated network has counts its own."""
    trainer = Trainer(Pair(*resnets), factory("lamb"), F.cross_entropy, Consecutive(), Script(3, 4))
    for images, targets in batches(6):
        trainer.step(images, targets)
    steps = {group["mapped"]: int(group["step"]) for group in trainer.optimizers[1].param_groups}
    assert steps == {True: 5, False: 2}
    assert int(trainer.optimizers[0].param_groups[0]["step"]) == 6


@pytest.mark.parametrize("name", ["adagrad", "adadelta", "madgrad", "adafactor"])
def test_optimizers_that_cannot_be_sliced_are_refused_by_name(name):
    make = factory(name)
    kind = type(make([nn.Parameter(torch.zeros(2, 2))])).__name__
    with pytest.raises(ValueError, match=f"the state of {kind} cannot be carried for sliced weights; choose one of"):
        Trainer(Pair(mlp(4), mlp(7)), make, F.cross_entropy, Consecutive(), Script(1))


def test_state_of_another_shape_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(INITIAL_VALUES, "Adafactor", {})
    trainer = Trainer(Pair(mlp(4), mlp(7)), factory("adafactor"), F.cross_entropy, Consecutive(), Script(1))
    with pytest.raises(ValueError, match=r"Adafactor keeps 'row_var' of shape .* for 1\.weight of shape \(4, 64\)"):
        trainer.step(*next(batches(1)))


@pytest.mark.parametrize("networks", [lambda: (mlp(4), mlp(7)), lambda: vits(8, 8, (1, 2), (2, 2))])
@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsproptf", "lamb"])
def test_reset_starts_an_interval_without_state(networks, name):
    """The network that trains after a switch moves as a fresh optimizer would."""
    torch.manual_seed(0)
    pair = Pair(*networks())
    trainer = Trainer(pair, factory(name), F.cross_entropy, Consecutive(), Script(3, 4), state="reset")
    stream = list(batches(6))
    for number, (images, targets) in enumerate(stream):
        phase = trainer.phase
        if number in (3, 5):  # the first step after a switch
            assert phase == {3: "motivated", 5: "base"}[number]
            network = pair.network(phase)
            before = {key: p.detach().clone() for key, p in network.named_parameters()}
            fresh = factory(name)(list(network.parameters()))
            network.train()
            network.zero_grad()
            F.cross_entropy(network(images), targets).backward()
            buffers = {key: b.clone() for key, b in network.named_buffers()}
            fresh.step()
            expected = {key: p.detach().clone() for key, p in network.named_parameters()}
            with torch.no_grad():
                for key, parameter in network.named_parameters():
                    parameter.copy_(before[key])
            trainer.step(images, targets)
            tolerance = {"rtol": 1e-5, "atol": 1e-7}
            assert all(torch.allclose(p, expected[key], **tolerance) for key, p in network.named_parameters())
            assert buffers.keys() == dict(network.named_buffers()).keys()
        else:
            trainer.step(images, targets)


def test_decay_shrinks_moments_towards_their_start():
    pair = Pair(mlp(4), mlp(7, seed=1))
    trainers = [Trainer(pair, factory("rmsproptf"), F.cross_entropy, Consecutive(), Script(2), state=state)
                for state in ("carry", 0.25)]
    base = pair.base[1].weight
    large = pair.motivated[1].weight
    stream = list(batches(2))
    saved = {key: tensor.clone() for key, tensor in pair.state_dict().items()}
    for trainer in trainers:
        pair.load_state_dict(saved)
        for batch in stream:
            trainer.step(*batch)
    carried, decayed = (trainer.optimizers[1].state[large] for trainer in trainers)
    assert torch.equal(carried["square_avg"][:4], trainers[0].optimizers[0].state[base]["square_avg"])
    assert torch.allclose(decayed["square_avg"], 1 + 0.25 * (carried["square_avg"] - 1))
    assert torch.allclose(decayed["momentum_buffer"], 0.25 * carried["momentum_buffer"])
    assert carried["step"] == decayed["step"]


@pytest.mark.parametrize("state", ["never", -0.1, 1.5, math.nan, None, [1], True])
def test_unknown_policies_are_refused(resnets, state):
    with pytest.raises(ValueError, match="must be carry, reset, or a factor from 0 to 1"):
        Trainer(Pair(*resnets), factory("sgd"), F.cross_entropy, Consecutive(), Script(1), state=state)


def test_differential_tensors_have_their_own_rate_and_decay(resnets):
    trainer = Trainer(Pair(*resnets), factory("sgd", weight_decay=0.1), F.cross_entropy, Consecutive(), Script(1),
                      differential_lr=0.5, differential_weight_decay=0.0)
    assert {group["mapped"]: (group["lr"], group["weight_decay"]) for group in trainer.optimizers[1].param_groups} \
        == {True: (1e-3, 0.1), False: (5e-4, 0.0)}
    with pytest.raises(ValueError, match=r"wholly differential; 1\.weight is mapped in part"):
        Trainer(Pair(mlp(4), mlp(7)), factory("sgd"), F.cross_entropy, Consecutive(), Script(1), differential_lr=0.5)


def test_a_rate_that_is_a_tensor_is_not_every_groups(resnets):
    """torch takes a tensor for a learning rate, and puts the same one into each group."""
    rate = torch.tensor(1e-3)
    trainer = Trainer(Pair(*resnets), factory("adamw", lr=rate), F.cross_entropy, Consecutive(), Script(1),
                      differential_lr=0.5)
    assert rate.item() == trainer.optimizers[0].param_groups[0]["lr"].item() == torch.tensor(1e-3).item()
    assert [group["lr"].item() / rate.item() for group in trainer.optimizers[1].param_groups] == [1.0, 0.5]


@pytest.mark.parametrize(("option", "value"), [("differential_lr", -0.1), ("differential_lr", math.nan),
                                               ("differential_weight_decay", -1.0),
                                               ("differential_weight_decay", math.inf)])
def test_impossible_differential_options_are_refused(resnets, option, value):
    with pytest.raises(ValueError, match=f"^{option}={value}: must be "):
        Trainer(Pair(*resnets), factory("sgd"), F.cross_entropy, **{option: value})
    with pytest.raises(ValueError, match=f"^{option}={value}: must be "):
        Recipe(epochs=1, **{option: value})


@pytest.mark.parametrize("option", [{"state": "reset"}, {"differential_lr": 0.5}, {"differential_weight_decay": 0.1}])
def test_one_network_has_no_switch(resnets, option):
    with pytest.raises(ValueError, match="say what a switch between two networks does; give the trainer a Pair"):
        Trainer(resnets[0], factory("sgd"), F.cross_entropy, **option)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_restored_sliced_trainer_resumes_bit_identical(name):
    """Saved inside an interval and loaded into other networks: cached copies are listed again."""
    stream = list(batches(16))
    trainers = []
    for seed in (1, 2):
        trainers.append(Trainer(Pair(mlp(4, seed), mlp(7, seed + 5)), factory(name), F.cross_entropy, Consecutive(),
                                Script(2, 3, 6, 7, 8, 12)))
    whole, resumed = trainers
    for batch in stream[:7]:
        whole.step(*batch)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    resumed.schedule.step = whole.schedule.step
    assert resumed.phase == "motivated"
    for batch in stream[7:]:
        ours, theirs = whole.step(*batch), resumed.step(*batch)
        assert (ours.loss, ours.phase, ours.score) == (theirs.loss, theirs.phase, theirs.score)
    for number in (0, 1):
        assert_same_state((whole.pair.base, whole.pair.motivated)[number], whole.optimizers[number],
                          (resumed.pair.base, resumed.pair.motivated)[number], resumed.optimizers[number])


@pytest.mark.parametrize(("groups", "split"), [
    (lambda network: [p for name, p in network.named_parameters() if not name.startswith("conv1")], (1, 2)),
    (lambda network: network.named_parameters(), (1, 2)),
    (lambda network: [{"params": network.fc.weight}, {"params": [network.fc.bias]}], (2, 2)),
], ids=["a frozen stem", "named", "single tensors"])
def test_groups_as_torch_takes_them(resnets, groups, split):
    """Parameters left out, named ones and single tensors train, and the state goes round."""
    trainer = Trainer(Pair(*resnets), factory("sgd"), F.cross_entropy, Consecutive(), Script(2, 3), groups=groups)
    for batch in batches(6):
        trainer.step(*batch)
    assert tuple(len(optimizer.param_groups) for optimizer in trainer.optimizers) == split
    trainer.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert trainer.ledger.steps["motivated"] == 2


def test_a_mapped_parameter_of_one_optimizer_only_is_named(resnets):
    base = resnets[0]
    with pytest.raises(ValueError, match=r"gives conv1\.weight to the optimizer of one network only"):
        Trainer(Pair(*resnets), factory("sgd"), F.cross_entropy, groups=lambda network: [
            p for name, p in network.named_parameters() if network is base or not name.startswith("conv1")])
