"""Deterministic kernels are asked for, and what has none is named once."""

import os
import warnings

import pytest
import torch
from torch import nn

from motivation.training.determinism import ask_for_deterministic_kernels
from motivation.training.engine import Engine


@pytest.fixture(autouse=True)
def _as_before():
    before, fill = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.set_deterministic_debug_mode(before)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags


def test_deterministic_is_asked_of_torch_and_taken_back():
    Engine(deterministic=True).configure()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert not torch.utils.deterministic.fill_uninitialized_memory
    Engine(deterministic=False).configure()
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.benchmark


def test_cublas_gets_its_workspace_unless_it_has_one(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    ask_for_deterministic_kernels(True, torch.device("cpu"))
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    ask_for_deterministic_kernels(True, torch.device("cuda"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    ask_for_deterministic_kernels(True, torch.device("cuda"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_an_operation_that_has_none_is_named_once(caplog):
    """One line an operation, however often it runs; other warnings are as they were."""
    for _ in range(2):
        Engine(deterministic=True).configure()
    for _ in range(3):
        values = torch.zeros(4).put_(torch.tensor([1]), torch.ones(1))
        pooled, places = nn.functional.max_pool1d(values[None, None], 2, return_indices=True)
        nn.functional.max_unpool1d(pooled, places, 2)
    assert [record.args[0] for record in caplog.records] == ["put_", "max_unpooling2d_forward_out"]
    with pytest.raises(UserWarning, match="another"):
        warnings.warn("another", stacklevel=1)
    Engine(deterministic=False).configure()
    values.put_(torch.tensor([1]), torch.ones(1))
    assert len(caplog.records) == 2
