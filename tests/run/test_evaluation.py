"""Evaluation: its memory is known before training, and what fails in it costs no training."""

import pytest
import torch
from conftest import QUICK, compose_config
from stopping import left

from motivation.run.preflight import fitting_evaluation_batch
from motivation.run.prepare import prepare
from motivation.run.run import run
from motivation.run_folder.checkpoints import Checkpoints
from motivation.training.engine import Engine

TINY = (*QUICK, "model.base=resnet8", "model.motivated=resnet14")


def memory_for(monkeypatch, images: int) -> None:
    """Networks predict no more than so many images at once."""
    predict = Engine.predict

    def limited(self, network, batches):
        def fitting():
            for batch in batches:
                if len(batch) > images:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
                yield batch
        return predict(self, network, fitting())

    monkeypatch.setattr(Engine, "predict", limited)


def test_an_evaluation_that_does_not_fit_is_known_before_step_0(tmp_path, monkeypatch):
    memory_for(monkeypatch, 100)
    with pytest.raises(ValueError, match=r"motivated network does not fit.*360 images.*engine\.evaluation_batch=180"):
        run(compose_config(*TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_its_batch_shrinks_until_both_networks_fit(tmp_path, monkeypatch):
    memory_for(monkeypatch, 100)
    run(compose_config(*TINY, "engine.accumulation=auto"), tmp_path / "run")
    assert (tmp_path / "run/summary.json").exists()


def test_its_batch_can_be_chosen(tmp_path, monkeypatch):
    memory_for(monkeypatch, 100)
    run(compose_config(*TINY, "engine.evaluation_batch=100"), tmp_path / "run")
    assert (tmp_path / "run/summary.json").exists()


def test_the_check_changes_nothing():
    session = prepare(compose_config(*TINY))
    assert session.test_batch == (360, 1, 8, 8)
    modes = [module.training for module in session.trainer.model.modules()]
    before = {name: tensor.clone() for name, tensor in session.trainer.model.state_dict().items()}
    random = torch.get_rng_state()
    assert fitting_evaluation_batch(session.trainer, session.test_batch) == 360
    assert [module.training for module in session.trainer.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], tensor) for name, tensor in session.trainer.model.state_dict().items())


def test_an_evaluation_that_fails_costs_no_training(tmp_path, monkeypatch):
    whole = run(compose_config(*TINY), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("motivation.run.run.evaluate_epoch", lambda *_: (_ for _ in ()).throw(OSError("bad image")))
        with pytest.raises(OSError, match="bad image"):
            run(compose_config(*TINY), tmp_path / "run")
    steps = len((tmp_path / "run/steps.csv").read_text().splitlines()) - 1
    assert Checkpoints(tmp_path / "run/checkpoints").found()[0].step == steps > 0
    run(compose_config(*TINY), tmp_path / "run", resume=True)
    assert left(tmp_path / "run") == left(whole)
