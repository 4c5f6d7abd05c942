"""The trainer: Algorithm 1 bit for bit, what a base step leaves alone, and the plain loop."""

import copy
import math

import pytest
import timm.optim
import torch
import torch.nn.functional as F
from algorithm1 import resnet_mapping
from beside_oracle import (
    FOREACH,
    FUSED,
    LOOP,
    OPTIMIZERS,
    Script,
    assert_same_state,
    train_beside_oracle,
)
from conftest import batches, mlp, snapshot
from torch import nn
from torch.optim import SGD

from motivation import Pair, Trainer
from motivation.models import CifarResNet
from motivation.monitors import Consecutive, Monitor
from motivation.schedules import Always, Never, Threshold, WarmUp
from motivation.training.trainer import NonFiniteLoss


@pytest.mark.parametrize(("name", "k"), [
    (name, k) if k == 2 or name == "momentum" else pytest.param(name, k, marks=pytest.mark.soak)
    for name in OPTIMIZERS for k in (1, 2, 3)])
def test_equals_algorithm_1(name, k):
    """Invariant 1 over 300 steps and eight epoch edges, for every optimizer and k."""
    torch.manual_seed(0)
    resnets = CifarResNet(8, num_classes=5, in_chans=1), CifarResNet(14, num_classes=5, in_chans=1)
    phases = train_beside_oracle(*resnets, resnet_mapping(*resnets), OPTIMIZERS[name](), k, steps=300)
    assert phases.count("motivated") >= {1: 60, 2: 20, 3: 3}[k]


@pytest.mark.parametrize(("name", "how"), [("momentum", LOOP), ("momentum", FOREACH), ("momentum", FUSED),
                                           ("nesterov", FUSED), ("adamw", LOOP), ("adamw", FOREACH),
                                           ("adamw", FUSED), ("rmsprop", LOOP), ("rmsprop", FOREACH)])
def test_equals_algorithm_1_in_every_implementation(resnets, name, how):
    """Invariant 1 where the optimizer runs as a loop, foreach or fused."""
    phases = train_beside_oracle(*resnets, resnet_mapping(*resnets), OPTIMIZERS[name](**how), k=1, steps=60)
    assert "motivated" in phases


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_algorithm_1_for_a_sliced_pair(name):
    """Invariant 1 where every base tensor is a slice, weights, statistics and optimizer state copied at a switch."""
    base, motivated = mlp(6), mlp(9, seed=1)
    names = list(base.state_dict())
    phases = train_beside_oracle(base, motivated, list(zip(names, names, strict=True)), OPTIMIZERS[name](), k=1,
                                 steps=300, weights_map="literal")
    assert phases.count("motivated") > 60


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_base_step_leaves_differential_weights_alone(resnets, optimizer):
    """Invariant 3: no differential weight, buffer or optimizer state changes in base steps, bit for bit."""
    pair = Pair(*resnets)
    trainer = Trainer(pair, optimizer(), F.cross_entropy, Consecutive(), Script(3, 4))
    mapped = {entry.motivated for entry in pair.weights_map.entries}
    stream = batches(30)
    for _ in range(6):
        trainer.step(*next(stream))
    before = snapshot(pair.motivated)
    states = copy.deepcopy([state for p, state in trainer.optimizers[1].state.items()
                            if all(p is not q for q in pair.base.parameters())])
    assert states
    for images, targets in stream:
        assert trainer.step(images, targets).phase == "base"
    after = pair.motivated.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name not in mapped)
    assert any(not torch.equal(before[name], after[name]) for name in mapped)
    now = [state for p, state in trainer.optimizers[1].state.items() if all(p is not q for q in pair.base.parameters())]
    for old, new in zip(states, now, strict=True):
        assert all(torch.equal(torch.as_tensor(old[key]), torch.as_tensor(new[key])) for key in old)


def test_base_step_leaves_a_sliced_motivated_network_alone():
    """Invariants 2 and 3: sliced tensors are copied at a switch and only then; in between the other network sleeps."""
    pair = Pair(mlp(6), mlp(9, seed=1), weights_map="literal", init="native")
    trainer = Trainer(pair, OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Script(2, 3))
    aliased = {entry.base for entry in pair.weights_map.aliased}
    assert aliased == {"2.num_batches_tracked", "6.bias"}
    phases, copies = [], []
    for images, targets in batches(6):
        sleeping = pair.motivated if trainer.phase == "base" else pair.base
        before = snapshot(sleeping)
        copied = trainer.ledger.bytes_copied
        phases.append(trainer.step(images, targets).phase)
        copies.append(trainer.ledger.bytes_copied - copied)
        if not copies[-1]:
            assert all(torch.equal(before[name], tensor) for name, tensor in sleeping.state_dict().items()
                       if name not in aliased)
    assert phases == ["base", "base", "motivated", "motivated", "base", "base"]
    parameters = 4 * (64 * 6 + 6 + 6 + 6 + 6 * 6 + 6 + 6 * 5)
    statistics = 4 * (6 + 6)
    assert copies == [0, 2 * parameters + statistics, 0, 2 * parameters + statistics, 0, 0]
    for entry in pair.weights_map.sliced:
        large = pair.motivated.state_dict()[entry.motivated]
        assert not torch.equal(entry.slice_of(large), pair.base.state_dict()[entry.base])


def test_what_evaluation_copies_is_no_cost_of_a_switch():
    """Both networks are brought up to date before they are evaluated; without a switch no copied byte is counted."""
    trainer = Trainer(Pair(mlp(6), mlp(9, seed=1), weights_map="literal", init="native"), OPTIMIZERS["momentum"](),
                      F.cross_entropy, Consecutive(), Never())
    for batch in batches(2):
        trainer.step(*batch)
    assert not trainer.pair.is_synchronized()
    trainer.synchronize()
    assert trainer.pair.is_synchronized()
    assert trainer.ledger.totals()["budget/bytes_copied"] == 0


def plain_loop(network, optimizer, stream):
    losses = []
    for images, targets in stream:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("schedule", "number"), [(Never(), 0), (Always(), 1)])
def test_one_phase_throughout_is_the_plain_loop(resnets, schedule, number):
    """Never is classical training of the base, Always of the motivated network, bit for bit."""
    pair = Pair(*resnets)
    twin = copy.deepcopy((pair.base, pair.motivated)[number])
    trainer = Trainer(pair, OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), schedule)
    losses = [trainer.step(*batch).loss for batch in batches(30)]
    assert losses == plain_loop(twin, OPTIMIZERS["momentum"]()(twin.parameters()), batches(30))
    trained = (pair.base, pair.motivated)[number]
    assert all(torch.equal(tensor, twin.state_dict()[name]) for name, tensor in trained.state_dict().items())


def test_single_network_is_the_plain_loop(resnets):
    """Classical training through the trainer changes nothing."""
    network, twin = resnets[0], copy.deepcopy(resnets[0])
    trainer = Trainer(network, OPTIMIZERS["adamw"](), F.cross_entropy)
    results = [trainer.step(*batch) for batch in batches(20)]
    assert [r.loss for r in results] == plain_loop(twin, OPTIMIZERS["adamw"]()(twin.parameters()), batches(20))
    assert {r.phase for r in results} == {"base"}
    assert all(math.isnan(r.score) for r in results)


def test_ledger_counts_what_the_steps_say(resnets):
    """Invariant 4: the ledger is the sum over the steps; intervals are unbroken runs of motivated steps."""
    trainer = Trainer(Pair(*resnets), OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Script(2, 3, 6, 9, 10))
    results = [trainer.step(*batch) for batch in batches(12)]
    totals = trainer.ledger.totals()
    assert [r.phase for r in results].count("motivated") == totals["steps/motivated"] == 5
    assert totals["intervals"] == 3
    assert totals["budget/flops"] == sum(r.flops for r in results)
    assert totals["budget/images"] == 12 * 8
    assert totals["budget/flops"] == 3 * 8 * (7 * trainer.ledger.forward_flops["base"]
                                              + 5 * trainer.ledger.forward_flops["motivated"])
    assert totals["budget/forward_per_image"] == pytest.approx(totals["budget/flops"] / 3 / 96)
    assert totals["budget/bytes_copied"] == 0


def test_interval_without_a_step_is_not_counted(resnets):
    """An expansion decided at an epoch's last step is undone at its edge: Algorithm 1 trains nothing in between."""
    trainer = Trainer(Pair(*resnets), OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Threshold(1))
    images, targets = next(batches(1))
    assert trainer.step(images, targets).score == 1
    assert trainer.phase == "motivated"
    trainer.end_epoch()
    assert trainer.phase == "base"
    assert trainer.ledger.intervals == 0


def test_carrying_edge_keeps_the_interval(resnets):
    trainer = Trainer(Pair(*resnets), OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(),
                      Threshold(1, epoch_edge="carry"))
    trainer.step(*next(batches(1)))
    trainer.end_epoch()
    assert trainer.phase == "motivated"


def test_switch_frees_the_gradients_of_dormant_weights(resnets):
    pair = Pair(*resnets)
    trainer = Trainer(pair, OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Script(1))
    for batch in batches(3):
        trainer.step(*batch)
    blocks = [pair.motivated.get_submodule(name) for name in pair.weights_map.differential_blocks]
    assert blocks
    assert all(p.grad is None for block in blocks for p in block.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("stop", [9, 11])
def test_restored_trainer_resumes_bit_identical(resnets, optimizer, stop):
    """A trainer saved at a base step or inside an interval, loaded into other networks, equals the uninterrupted."""
    def trainer(networks):
        return Trainer(Pair(*networks), optimizer(), F.cross_entropy, Consecutive(), Script(4, 5, 10, 11, 12, 20))

    other_networks = copy.deepcopy(resnets)
    whole = trainer(resnets)
    stream = list(batches(30))
    for batch in stream[:stop]:
        whole.step(*batch)
    state = copy.deepcopy(whole.state_dict())
    resumed = trainer(other_networks)
    resumed.load_state_dict(state)
    resumed.schedule.step = whole.schedule.step
    assert resumed.phase == {9: "base", 11: "motivated"}[stop]
    for batch in stream[stop:]:
        ours, theirs = whole.step(*batch), resumed.step(*batch)
        assert (ours.loss, ours.phase, ours.score) == (theirs.loss, theirs.phase, theirs.score)
    for number, networks in enumerate(zip((whole.pair.base, whole.pair.motivated),
                                          (resumed.pair.base, resumed.pair.motivated), strict=True)):
        assert_same_state(networks[0], whole.optimizers[number], networks[1], resumed.optimizers[number])


def test_train_mode_is_set_on_the_network_that_trains_only(resnets):
    pair = Pair(*resnets)
    trainer = Trainer(pair, OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Never())
    pair.eval()
    trainer.step(*next(batches(1)))
    assert pair.base.training
    assert not pair.motivated.training


def test_groups_apply_to_both_networks(resnets):
    """Norms and biases go without decay in both networks, mapped and differential alike."""
    def groups(network):
        flat = [p for p in network.parameters() if p.dim() < 2]
        return [{"params": [p for p in network.parameters() if p.dim() >= 2]}, {"params": flat, "weight_decay": 0.0}]

    trainer = Trainer(Pair(*resnets), OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Threshold(1),
                      groups=groups)
    for optimizer, network in zip(trainer.optimizers, resnets, strict=True):
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert len(decay) == len(list(network.parameters()))
        assert all(decay[id(p)] == (5e-4 if p.dim() >= 2 else 0.0) for p in network.parameters())
    phases = {trainer.step(*batch).phase for batch in batches(10)}
    assert phases == {"base", "motivated"}


@pytest.mark.parametrize("phase", ["base", "motivated"])
def test_nan_loss_is_named(resnets, phase):
    trainer = Trainer(Pair(*resnets), OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(),
                      Never() if phase == "base" else Always())
    images, targets = next(batches(1))
    with pytest.raises(NonFiniteLoss, match=f"the {phase} network's loss is nan at step 0"):
        trainer.step(images * math.nan, targets)


class Spoiling(nn.Module):
    """A finite loss whose gradient is not: that of a root at zero is infinite, times zero it is NaN."""

    def __init__(self, factor):
        super().__init__()
        self.weight, self.root, self.factor = nn.Parameter(torch.ones(64, 5)), nn.Parameter(torch.zeros(1)), factor

    def forward(self, images):
        return images.flatten(1) @ self.weight + self.root.sqrt() * self.factor


@pytest.mark.parametrize("optimizer", [lambda params: SGD(params, lr=0.0), timm.optim.Lion])
@pytest.mark.parametrize("factor", [torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]), torch.zeros(5)])
def test_a_gradient_that_is_not_finite_is_named_in_its_own_step(optimizer, factor):
    """By any optimizer, also one whose weights would not show it: the sign of NaN is 0."""
    trainer = Trainer(Spoiling(factor), optimizer, F.cross_entropy)
    with pytest.raises(NonFiniteLoss, match="the base network's gradient is not finite at step 0"):
        trainer.step(*next(batches(1)))


def test_untied_pair_is_refused_before_the_first_step(resnets):
    """Converting one network of a pair replaces its buffers: the trainer says so instead of training two statistics."""
    pair = Pair(*resnets)
    pair.motivated.to(torch.float64).to(torch.float32)
    trainer = Trainer(pair, OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Never())
    with pytest.raises(ValueError, match="no longer shared"):
        trainer.step(*next(batches(1)))


def test_impossible_combinations_are_refused(resnets):
    optimizer = OPTIMIZERS["momentum"]()
    with pytest.raises(ValueError, match="give the trainer a Pair"):
        Trainer(resnets[0], optimizer, F.cross_entropy, Consecutive(), Threshold(2))

    class Greedy(Monitor):
        needs = frozenset({"heldout"})

    with pytest.raises(ValueError, match="Greedy needs heldout"):
        Trainer(Pair(*resnets), optimizer, F.cross_entropy, Greedy(), Threshold(2))
    with pytest.raises(ValueError, match="Adadelta cannot be carried for sliced weights"):
        Trainer(Pair(mlp(6), mlp(9), weights_map="literal"), torch.optim.Adadelta, F.cross_entropy, Consecutive(),
                Threshold(2))


@pytest.mark.parametrize(("changes", "said"), [
    ({"model": "resnet20"}, "model='resnet20'"), ({"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1)}, "SGD"),
    ({"monitor": "consecutive"}, "monitor='consecutive'"), ({"monitor": Consecutive}, "monitor=<class"),
    ({"schedule": Threshold}, "schedule=<class"), ({"lag": 1.5}, "lag=1.5"), ({"lag": -1}, "lag=-1"),
])
def test_parts_of_another_kind_are_named(resnets, changes, said):
    parts = {"model": Pair(*resnets), "optimizer": OPTIMIZERS["momentum"](), "loss": F.cross_entropy,
             "monitor": Consecutive(), "schedule": Threshold(2), **changes}
    with pytest.raises(ValueError, match=said):
        Trainer(**parts)


def test_an_empty_batch_is_refused(resnets):
    trainer = Trainer(Pair(*resnets), OPTIMIZERS["momentum"](), F.cross_entropy)
    images, targets = next(batches(1))
    with pytest.raises(ValueError, match="images is empty"):
        trainer.step(images[:0], targets[:0])
    assert trainer.steps == 0


def test_groups_of_different_number_are_refused(resnets):
    def groups(network):
        count = len(list(network.modules()))
        return [{"params": [p]} for p in list(network.parameters())[:count % 7 + 1]]

    with pytest.raises(ValueError, match="same groups in the same order"):
        Trainer(Pair(*resnets), OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Never(), groups=groups)


def test_works_inside_anyones_loop():
    """The contract's snippet: any loader, any learning-rate schedule, two ordinary networks at the end."""
    import motivation

    torch.manual_seed(0)
    pair = motivation.create_pair("resnet20", "resnet32", num_classes=5, in_chans=1)
    trainer = motivation.Trainer(pair, optimizer=lambda params: SGD(params, lr=0.1, momentum=0.9),
                                 loss=F.cross_entropy, monitor=motivation.monitors.Consecutive(),
                                 schedule=motivation.schedules.Threshold(2))
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40) for optimizer in trainer.optimizers]
    losses = []
    for _ in range(2):
        for images, targets in batches(20):
            result = trainer.step(images, targets)
            assert isinstance(result.loss, float)
            assert result.phase in ("base", "motivated")
            losses.append(result.loss)
            for scheduler in schedulers:
                scheduler.step()
        trainer.end_epoch()
    assert sum(losses[-10:]) < sum(losses[:10]) / 2
    assert isinstance(pair.base, nn.Module)
    assert pair.motivated(next(batches(1))[0]).shape == (8, 5)


class BareMonitor:
    """All that the contract asks of a monitor."""

    def observe(self, signal):
        return -signal.loss


class BareSchedule:
    """All that the contract asks of a schedule."""

    def decide(self, score):
        return "motivated" if score < -1 else "base"


@pytest.mark.parametrize("schedule", [BareSchedule, lambda: WarmUp(BareSchedule(), 3)])
def test_a_monitor_and_a_schedule_of_ones_own_need_no_more_than_observe_and_decide(schedule, resnets):
    """Base at first, intervals go on across epochs; what cannot be saved is said when it is to be saved."""
    trainer = Trainer(Pair(*resnets), lambda params: SGD(params, lr=0.05), F.cross_entropy, BareMonitor(), schedule())
    phases = []
    for batch in batches(6):
        phases.append(trainer.step(*batch).phase)
        trainer.end_epoch()
    assert phases[0] == "base"
    assert "motivated" in phases
    with pytest.raises(ValueError, match="BareMonitor has no state_dict, and a checkpoint holds its state"):
        trainer.state_dict()
    trainer.monitor = Consecutive()
    with pytest.raises(ValueError, match="BareSchedule has no state_dict"):
        trainer.state_dict()
