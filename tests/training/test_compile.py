"""The compiled engine: eager's trajectory, Algorithm 1, exact resume, nothing compiled after step 0, eager where it
fails. Wiring is tested with torch's cheap backends, arithmetic with the real one on tiny networks.
"""

import copy
import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from algorithm1 import Algorithm1, resnet_mapping
from beside_oracle import OPTIMIZERS, Script, train_beside_oracle
from conftest import QUICK, batches, compose_config, mlp
from stopping import left, stopped
from torch import nn

from motivation import Engine, Pair, Trainer
from motivation.models import CifarResNet
from motivation.monitors import Consecutive, Monitor
from motivation.run.prepare import prepare
from motivation.run.run import run
from motivation.run.session import Session
from motivation.run_folder.read import read_run
from motivation.schedules import Never
from motivation.training import compiled

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
# A step's loss and weights against eager's, relative: fused kernels add in another order.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _forgotten():
    compiled.forget()
    yield
    compiled.forget()


# The real compiler takes seconds a graph.
SOAK = pytest.mark.soak


@pytest.fixture(params=["aot_eager", pytest.param("inductor", marks=SOAK)])
def backend(request, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", request.param)


@pytest.fixture
def cheap(monkeypatch):
    """Traced and differentiated as torch.compile does, run by eager kernels."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that were compiled so far."""
    found = []

    def keep(graph, _):
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(compiled, "BACKEND", keep)
    return found


class CompiledAlgorithm1(Algorithm1):
    """The literal two networks, their forward and loss compiled."""

    def forward(self, network, images, targets):
        return compiled.call(compiled.batch_loss, "default", True, network, images, self.loss, targets)


def dropout_mlp(width, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5),
                         nn.Linear(width, 5))


@pytest.fixture
def resnets():
    """Smaller than everywhere else: torch traces every layer."""
    torch.manual_seed(0)
    return CifarResNet(8, num_classes=5, in_chans=1), CifarResNet(14, num_classes=5, in_chans=1)


def trainer_of(pair, engine=None, monitor=None, schedule=None, lr=None, **options):
    optimizer = OPTIMIZERS["momentum"]() if lr is None else lambda params: torch.optim.SGD(params, lr=lr)
    return Trainer(pair, optimizer, F.cross_entropy, monitor or Consecutive(), schedule or Script(2, 3, 6, 7),
                   engine=engine, **options)


def assert_eagers_trajectory(make, engine, steps=10):
    """Losses and weights of a pair that switches, compiled and eager."""
    eager, fast = (trainer_of(make(), chosen) for chosen in (replace(engine, compile=None), engine))
    for batch in batches(steps):
        ours, theirs = fast.step(*batch), eager.step(*batch)
        assert ours.phase == theirs.phase
        assert ours.loss == pytest.approx(theirs.loss, rel=TOLERANCE["rtol"])
    for name, tensor in fast.model.state_dict().items():
        torch.testing.assert_close(tensor, eager.model.state_dict()[name], **TOLERANCE)
    assert fast.ledger.totals()["steps/motivated"] == 4
    for phase in ("base", "motivated"):
        assert compiled.is_compiled(fast.network(phase), engine.compile)


def sliced():
    return Pair(mlp(6), mlp(9, seed=1), weights_map="literal", init="native")


def test_a_sliced_pair_has_eagers_trajectory(backend):
    """Through four switches, with batches in micro-batches of unequal size."""
    assert_eagers_trajectory(sliced, Engine(compile="default", accumulation=3))


def test_a_pair_that_shares_storage_has_eagers_trajectory(resnets, backend):
    """Weights and running statistics that both graphs write in place."""
    assert_eagers_trajectory(lambda: Pair(*copy.deepcopy(resnets)), Engine(compile="default"))


def test_frozen_parameters_stay(cheap):
    pair = sliced()
    pair.base[1].weight.requires_grad_(False)
    pair.motivated[1].weight.requires_grad_(False)
    before = pair.base[1].weight.clone()
    trainer = trainer_of(pair, Engine(compile="default"))
    for batch in batches(4):
        trainer.step(*batch)
    assert torch.equal(pair.base[1].weight, before)
    assert compiled.is_compiled(pair.base, "default")


def test_equals_algorithm_1_compiled(backend):
    """Invariant 1, compiled on both sides, bit for bit, for a sliced pair."""
    base, motivated = mlp(6), mlp(9, seed=1)
    names = list(base.state_dict())
    phases = train_beside_oracle(base, motivated, list(zip(names, names, strict=True)), OPTIMIZERS["momentum"](), 1, 60,
                                 weights_map="literal", engine=Engine(compile="default"),
                                 algorithm=CompiledAlgorithm1)
    assert phases.count("motivated") > 10


def test_equals_algorithm_1_with_shared_storage(resnets, cheap):
    phases = train_beside_oracle(*resnets, resnet_mapping(*resnets), OPTIMIZERS["adamw"](), 1, 20,
                                 engine=Engine(compile="default"), algorithm=CompiledAlgorithm1)
    assert "motivated" in phases


@pytest.mark.soak
def test_restored_trainer_resumes_bit_identical():
    """The real compiler, dropout's masks included: compiled again by the one that resumes."""
    def trainer():
        return trainer_of(Pair(dropout_mlp(6), dropout_mlp(9, 1), weights_map="literal", init="native"),
                          Engine(compile="default"))

    stream = list(batches(8))
    torch.manual_seed(3)
    whole = trainer()
    losses = [whole.step(*batch).loss for batch in stream]
    torch.manual_seed(3)
    first = trainer()
    for batch in stream[:4]:
        first.step(*batch)
    state, random = copy.deepcopy(first.state_dict()), torch.get_rng_state()
    compiled.forget()
    second = trainer()
    second.load_state_dict(state)
    torch.set_rng_state(random)
    assert [second.step(*batch).loss for batch in stream[4:]] == losses[4:]
    assert all(torch.equal(tensor, whole.model.state_dict()[name])
               for name, tensor in second.model.state_dict().items())


class KeepAfter(Monitor):
    needs = frozenset({"after"})

    def __init__(self):
        self.signals = []

    def observe(self, signal):
        self.signals.append(signal)
        return 0.0


def test_the_loss_after_an_update_is_of_the_same_graph_and_masks(backend):
    """Where nothing was updated it is the loss before, bit for bit; running statistics and random numbers stay."""
    monitor = KeepAfter()
    pair = Pair(dropout_mlp(6), dropout_mlp(9, 1), weights_map="literal", init="native")
    trainer = trainer_of(pair, Engine(compile="default"), monitor, Never(), lr=0.0)
    alone = Trainer(copy.deepcopy(pair.base), lambda params: torch.optim.SGD(params, lr=0.0), F.cross_entropy,
                    engine=Engine(compile="default"))
    torch.manual_seed(0)
    losses = [trainer.step(*batch).loss for batch in batches(3)]
    torch.manual_seed(0)
    assert [alone.step(*batch).loss for batch in batches(3)] == losses
    assert [signal.after for signal in monitor.signals] == losses
    assert torch.equal(pair.base[2].running_mean, alone.model[2].running_mean)


@pytest.mark.parametrize("overrides", [
    ("model=resnet8",),
    *(pytest.param(of_a_pair, marks=SOAK) for of_a_pair in (
        (), ("engine.accumulation=2", "monitor=prediction_gain", "schedule=quota"), ("engine.precision=bfloat16",),
        ("recipe.mixup=0.8", "recipe.cutmix=1.0", "monitor=gradient_norm", "schedule=always"),
        ("monitor=heldout", "monitor.lag=1", "data.heldout=0.1")))], ids=" ".join)
def test_stopped_run_resumes_exactly(tmp_path, monkeypatch, cheap, overrides):
    config = compose_config(*QUICK, "recipe.epochs=1", "recipe.batch_size=256", "engine.compile=default", *overrides)
    whole = run(config, tmp_path / "whole")
    folder = stopped(config, tmp_path / "run", monkeypatch, 2)
    run(config, folder, resume=True)
    assert left(folder) == left(whole)


def test_both_networks_are_compiled_before_step_0(tmp_path, monkeypatch, graphs, caplog):
    """Two sizes of micro-batch and one of evaluation for each; no more in training, partial evaluation batches
    included.
    """
    caplog.set_level("INFO")
    at_first_step = []
    step = Session.step
    monkeypatch.setattr(Session, "step", lambda *args: (at_first_step.append(len(graphs)), step(*args)))
    run(compose_config(*QUICK, "engine.compile=default", "engine.accumulation=3", "engine.evaluation_batch=100"),
        tmp_path / "run")
    assert at_first_step[0] == len(graphs) == 2 * 3
    [line] = [line for line in caplog.messages if line.startswith("compile: ")]
    assert line.startswith("compile: both networks compiled (default) for training and evaluation in ")


def test_evaluation_is_eagers(cheap):
    network = mlp(6)
    images = [batch for batch, _ in batches(2)] + [next(batches(1, size=3))[0]]
    expected = Engine().predict(network, images)
    assert Engine(compile="default", evaluation_batch=8).predict(network, images) == pytest.approx(expected, abs=1e-6)


class Breaks(nn.Module):
    """What no graph holds: a branch on a value."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 5)

    def forward(self, images):
        x = self.norm(images.flatten(1))
        return self.head(x) if x.sum() > 0 else self.head(-x)


def losses_of(network, engine):
    trainer = Trainer(network, OPTIMIZERS["momentum"](), F.cross_entropy, engine=engine)
    return [trainer.step(*batch).loss for batch in batches(4)]


def test_a_network_that_breaks_the_graph_runs_eager_with_one_warning(caplog):
    """Bit for bit as without a compiler: nothing of it had run before."""
    assert losses_of(Breaks(), Engine(compile="default")) != []
    torch.manual_seed(0)
    network = Breaks()
    twin = copy.deepcopy(network)
    caplog.clear()
    compiled.forget()
    assert losses_of(network, Engine(compile="default")) == losses_of(twin, Engine())
    assert torch.equal(network.norm.running_mean, twin.norm.running_mean)
    [line] = [record for record in caplog.records if record.name.startswith("motivation")]
    assert line.levelno == logging.WARNING
    assert line.getMessage().startswith("Breaks runs eager, since torch.compile failed: Unsupported: ")
    assert not compiled.is_compiled(network, "default")


def test_without_a_c_compiler_both_networks_run_eager_with_one_warning(tmp_path, caplog):
    import torch._inductor.config

    # Of another shape than every other test's, so that no compiled kernel is on disk.
    pair = Pair(mlp(11), mlp(13, seed=1), weights_map="literal", init="native")
    trainer = trainer_of(pair, Engine(compile="default"))
    with torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "no-compiler"),), "fx_graph_cache": False}):
        for batch in batches(4):
            trainer.step(*batch)
    [line] = [message for message in caplog.messages if "runs eager" in message]
    assert line.startswith("Sequential runs eager, since torch.compile failed: InvalidCxxCompiler: ")


@pytest.mark.parametrize(("overrides", "said"), [
    (("engine.compile=fastest",), r"^engine\.compile='fastest': must be one of default, reduce-overhead, max-autotune"),
    (("engine.compile=max-autotune",), r"^engine\.compile='max-autotune' .*deterministic=false"),
    (("engine.matmul_precision=low",), r"^engine\.matmul_precision='low': must be one of highest, high, medium"),
])
def test_bad_values_are_one_line(overrides, said):
    with pytest.raises(ValueError, match=said) as error:
        prepare(compose_config(*QUICK, *overrides))
    assert "\n" not in str(error.value)


def test_resume_with_another_engine_is_in_the_history(tmp_path, cheap):
    alone = (*QUICK, "model=resnet8", "recipe.batch_size=256")
    folder = run(compose_config(*alone, "recipe.epochs=1"), tmp_path / "run")
    run(compose_config(*alone, "recipe.epochs=2", "engine.compile=default", "engine.matmul_precision=high"), folder,
        resume=True)
    [row] = read_run(folder).history
    assert row["changed"]["engine.compile"] == [None, "default"]
    assert row["changed"]["engine.matmul_precision"] == ["highest", "high"]


@pytest.mark.parametrize("mode", [pytest.param("default", marks=gpu), pytest.param("reduce-overhead", marks=gpu)])
def test_on_a_gpu_it_has_eagers_trajectory(resnets, mode):
    """CUDA graphs of both networks in one pool, with micro-batches: gradients outlive the graph that made them."""
    def trainer(engine):
        pair = engine.place(Pair(*copy.deepcopy(resnets)))
        return trainer_of(pair, engine)

    eager, fast = trainer(Engine(device="cuda")), trainer(Engine(device="cuda", compile=mode, accumulation=2))
    eager.engine = Engine(device="cuda", accumulation=2)
    for images, targets in batches(12):
        batch = images.cuda(), targets.cuda()
        assert fast.step(*batch).loss == pytest.approx(eager.step(*batch).loss, rel=1e-3)
    engine = Engine(device="cuda", compile=mode, evaluation_batch=8)
    images = [images.cuda() for images, _ in batches(3)]
    for phase in ("base", "motivated"):
        assert engine.predict(fast.network(phase), images) == pytest.approx(
            Engine(device="cuda").predict(fast.network(phase), images), abs=1e-3)
        assert compiled.is_compiled(fast.network(phase), mode)
