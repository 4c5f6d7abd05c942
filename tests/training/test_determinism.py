"""Deterministic kernels are asked for, and what has none is named once."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from motivation.training.determinism import PORTABLE, ask_for_deterministic_kernels
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


def kernels() -> set[str]:
    """Names of the operations that a convolution calls."""
    layer, images = nn.Conv2d(3, 8, 3), torch.ones(16, 3, 8, 8)
    with torch.autograd.profiler.profile() as profile:
        layer(images).sum().backward()
    return {event.name for event in profile.function_events}


def test_portable_kernels_are_neither_onednns_nor_nnpacks(portable_environment):
    if not torch.backends.mkl.is_available():
        with pytest.raises(ValueError, match="is for x86 CPUs"):
            Engine(device="cpu", portable=True, threads=1)
        return
    Engine(device="cpu", portable=True, threads=torch.get_num_threads()).configure()
    assert not any("mkldnn" in name or "nnpack_spatial" in name for name in kernels())
    Engine(device="cpu").configure()
    assert any("mkldnn" in name for name in kernels())


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="portable is for x86 CPUs")
@pytest.mark.parametrize(("options", "line"), [
    ({"deterministic": False}, "needs deterministic=true"),
    ({"threads": None}, "a fixed number of threads, such as threads=1"),
    ({"precision": "bfloat16"}, "precision=float32 and compile=null, not bfloat16 and None"),
    ({"compile": "default"}, "precision=float32 and compile=null, not float32 and default"),
])
def test_portable_refuses_what_depends_on_the_cpu(portable_environment, options, line):
    with pytest.raises(ValueError, match=line):
        Engine(**{"device": "cpu", "portable": True, "threads": 1} | options)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="portable is for x86 CPUs")
def test_portable_names_what_the_environment_lacks(portable_environment, monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    with pytest.raises(ValueError, match="portable=true needs MKL_CBWR=COMPATIBLE in the environment"):
        Engine(device="cpu", portable=True, threads=1)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(ValueError, match="needs a CPU with AVX2; this one has DEFAULT"):
        Engine(device="cpu", portable=True, threads=1)


@pytest.mark.soak
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="portable is for x86 CPUs")
def test_a_portable_run_is_the_same_whatever_onednn_takes(tmp_path):
    """In place of another CPU: oneDNN is told to take older instructions, which the reference engine's bits show."""
    def steps(engine: str, instructions: str) -> str:
        folder = tmp_path / f"{engine}_{instructions}"
        subprocess.run([sys.executable, "-m", "motivation", "train", "model=resnet8_14", "schedule=periodic",
                        "recipe=digits", "recipe.epochs=1", f"engine={engine}", "engine.threads=1", "tracker=none",
                        f"hydra.run.dir={folder}"],
                       env={**os.environ, **PORTABLE, "ONEDNN_MAX_CPU_ISA": instructions}, check=True)
        return (folder / "steps.csv").read_text()

    assert steps("portable", "SSE41") == steps("portable", "DEFAULT")
    assert steps("reference", "SSE41") != steps("reference", "DEFAULT")
