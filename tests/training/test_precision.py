"""Precision: float32 losses in every one, float16's loss scale, and what `auto` chooses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from beside_oracle import OPTIMIZERS, Script
from conftest import QUICK, batches, compose_config, mlp

from motivation import Engine, Pair, Trainer
from motivation.cli.compose import compose, plain
from motivation.monitors import Consecutive, GradientNorm
from motivation.run.hardware import decided
from motivation.run.run import run
from motivation.run_folder.config import read_config
from motivation.training import precision
from motivation.training.trainer import NonFiniteLoss

HALVES = ("bfloat16", "float16")


@pytest.fixture
def hardware(monkeypatch):
    """`hardware(amx, avx512)`: a CPU that has these units or not."""
    def have(amx=False, avx512=False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        precision.fastest.cache_clear()

    yield have
    precision.fastest.cache_clear()


def pair():
    return Pair(mlp(6), mlp(9, seed=1), weights_map="literal", init="native")


def overflowing(logits, targets):
    """Its gradients are too large for float16 with the scale that a run starts with, and not with a smaller one."""
    return 1e3 * F.cross_entropy(logits, targets)


def half_trainer(loss=F.cross_entropy, monitor=None):
    return Trainer(pair(), OPTIMIZERS["momentum"](), loss, monitor or Consecutive(), Script(2, 3),
                   engine=Engine(precision="float16"))


@pytest.mark.parametrize("name", HALVES)
def test_losses_are_float32(name):
    """Monitors compare losses that differ by less than half a precision's spacing."""
    engine, network = Engine(precision=name), mlp(6)
    images, targets = next(batches(1))
    loss = engine.loss(network, F.cross_entropy, images, targets)
    assert loss.dtype == torch.float32
    with engine.autocast():
        logits = network(images)
    assert logits.dtype == getattr(torch, name)
    assert loss.item() == F.cross_entropy(logits.float(), targets).item()
    assert loss.item() == pytest.approx(F.cross_entropy(network(images), targets).item(), rel=0.02)


def test_float16_trains_as_float32_does():
    full = Trainer(pair(), OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Script(2, 3))
    half = half_trainer()
    for batch in batches(4):
        ours, theirs = half.step(*batch), full.step(*batch)
        assert (ours.phase, ours.loss) == (theirs.phase, pytest.approx(theirs.loss, rel=0.05))


def test_an_overflow_under_the_scale_leaves_the_update_out():
    """Neither weights nor optimizer state move, the scale halves, and the monitor reads no gradient."""
    monitor = GradientNorm()
    trainer = half_trainer(overflowing, monitor)
    before = copy.deepcopy(list(trainer.pair.base.parameters()))
    results = [trainer.step(*batch) for batch in batches(2)]
    assert all(torch.equal(now, then) for now, then in zip(trainer.pair.base.parameters(), before, strict=True))
    assert [result.reading for result in results] == [None, None]
    base, motivated = trainer.state_dict()["scalers"]
    assert (base["scale"], motivated["scale"]) == (2.0 ** 14, 2.0 ** 16)
    assert any(trainer.step(*batch).reading for batch in batches(12, seed=1))
    assert not torch.equal(next(trainer.pair.base.parameters()), before[0])


def test_an_overflow_without_a_scale_is_no_finite_gradient():
    trainer = half_trainer(lambda logits, targets: 1e7 * F.cross_entropy(logits, targets))
    with pytest.raises(NonFiniteLoss, match="gradient is not finite"):  # noqa: PT012
        for batch in batches(60):
            trainer.step(*batch).loss  # noqa: B018
    assert min(scaler["scale"] for scaler in trainer.state_dict()["scalers"]) >= 0.5


def test_a_loss_that_is_nan_is_named_at_once():
    trainer = half_trainer(lambda logits, targets: F.cross_entropy(logits, targets) * float("nan"))
    with pytest.raises(NonFiniteLoss, match="loss is nan"):
        trainer.step(*next(batches(1)))


def test_float16_resumes_exactly():
    """Between two steps whose updates overflow: the scale goes on from where it was."""
    stream = list(batches(8))
    whole = half_trainer(overflowing)
    losses = [whole.step(*batch).loss for batch in stream]
    first, second = half_trainer(overflowing), half_trainer(overflowing)
    for batch in stream[:2]:
        first.step(*batch)
    second.load_state_dict(first.state_dict())
    second.schedule.step = 2
    assert [second.step(*batch).loss for batch in stream[2:]] == losses[2:]
    assert second.state_dict()["scalers"] == whole.state_dict()["scalers"]


def test_restored_trainer_has_the_scale():
    one, other = half_trainer(overflowing), half_trainer()
    one.step(*next(batches(1)))
    other.load_state_dict(one.state_dict())
    assert [scaler["scale"] for scaler in other.state_dict()["scalers"]] == [2.0 ** 15, 2.0 ** 16]
    full = Trainer(pair(), OPTIMIZERS["momentum"](), F.cross_entropy, Consecutive(), Script(2, 3))
    full.load_state_dict(one.state_dict())
    assert full.state_dict()["scalers"] == [None, None]


@pytest.mark.parametrize(("amx", "avx512", "chosen"), [(True, True, "bfloat16"), (False, True, "bfloat16"),
                                                      (False, False, "float32")])
def test_auto_is_what_the_cpu_is_made_for(hardware, amx, avx512, chosen):
    hardware(amx, avx512)
    assert Engine(device="cpu", precision="auto").precision == chosen
    assert decided(compose_config("engine=fast", "engine.device=cpu"))["engine"]["precision"] == chosen


def test_fast_from_the_command_line_is_a_concrete_precision(hardware, caplog):
    """Two machines' runs are no repetitions of one another, and a table finds its own runs again."""
    hardware(amx=True)
    caplog.set_level("INFO")
    config = plain(compose(["engine=fast", "engine.device=cpu"]))
    assert (config["engine"]["precision"], config["engine"]["compile"]) == ("bfloat16", "default")
    assert plain(compose(["engine=reference"]))["engine"] == plain(compose([]))["engine"]
    assert decided(config) == config


def test_a_runs_folder_says_which_precision(tmp_path, hardware):
    hardware()
    folder = run(compose_config(*QUICK, "recipe.epochs=1", "engine.precision=auto", "engine.device=cpu"),
                 tmp_path / "run")
    assert read_config(folder)["engine"]["precision"] == "float32"


def test_matmul_precision_is_the_processs_until_the_next_run():
    try:
        Engine(device="cpu", matmul_precision="high").configure()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        Engine(device="cpu").configure()
    assert torch.get_float32_matmul_precision() == "highest"
