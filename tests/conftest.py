"""What the tests share: small networks and batches, small data files, a config, one finished run of each kind."""

import copy
import functools
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from motivation.models import CifarResNet
from motivation.training.determinism import PORTABLE, ask_for_portable_kernels


def pytest_configure(config):
    """One thread in every process that a test starts, and in pytest-xdist's workers, which start after this.

    And what is known of images stays out of the user's cache folder.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "MOTIVATION_CACHE" not in os.environ:
        os.environ["MOTIVATION_CACHE"] = tempfile.mkdtemp()
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop("MOTIVATION_CACHE"), ignore_errors=True))


def pytest_collection_modifyitems(items):
    """Tests that take minutes, or many processes, are those of `make soak`."""
    if "MOTIVATION_SOAK" not in os.environ:
        for item in items:
            if "soak" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="minutes long; make soak"))


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch, tmp_path):
    """No test reads a login, and none leaves files outside its own folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    # Small networks gain nothing from more, and threads of several test runs on one machine starve one another.
    torch.set_num_threads(1)


@pytest.fixture
def portable_environment(monkeypatch):
    """What `portable` needs; the instructions, which torch has chosen by now, are those of a process that had it."""
    for key, value in PORTABLE.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    yield
    ask_for_portable_kernels(False)


@pytest.fixture
def resnets():
    """ResNet-14 and ResNet-20 for 8 x 8 grey images: two and three blocks a stage."""
    torch.manual_seed(0)
    return CifarResNet(14, num_classes=5, in_chans=1), CifarResNet(20, num_classes=5, in_chans=1)


def mlp(width: int, seed: int = 0, classes: int = 5) -> nn.Module:
    """A small network of dense layers, for pairs that differ in width."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(),
                         nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))


def batches(count: int, size: int = 8, seed: int = 0):
    """Batches of 8 x 8 images of five classes that can be learned."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(5, 1, 8, 8, generator=generator)
    for _ in range(count):
        targets = torch.randint(0, 5, (size,), generator=generator)
        yield prototypes[targets] + torch.randn(size, 1, 8, 8, generator=generator), targets


def write_arrays(path: Path, *, count: int = 60, classes: int = 3, size: int = 8, **changes) -> Path:
    """An .npz of random images sorted by class; `changes` replaces arrays, None leaves one out."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = np.sort(np.arange(count) % classes)
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def write_folder(root: Path, parts=("train", "val"), classes=("ant", "bee", "cat"), count: int = 6,
                 size=(40, 32), seed: int = 0) -> Path:
    """Small JPEGs in folders, PART/CLASS/N.jpg, whose classes differ in colour; each image is its own."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 200, (len(classes), 3))
    for part in parts:
        for colour, name in zip(colours, classes, strict=True):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = colour + rng.integers(0, 56, (size[1], size[0], 3))
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{number}.jpg")
    return root


def compose_config(*overrides: str) -> dict:
    """The resolved config of some overrides, as `motivation train` composes it."""
    with initialize_config_module("motivation.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    del config["resume"]
    return config


@pytest.fixture(scope="session")
def composed(shared_folder):
    """`composed(overrides)`: `compose_config` of a tuple, each made once a test session; do not change it."""
    @functools.cache
    def once(overrides):
        path = shared_folder / f"{hashlib.sha256(repr(overrides).encode()).hexdigest()}.json"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                path.write_text(json.dumps(compose_config(*overrides)))
        return json.loads(path.read_text())

    return once


QUICK = ("model=resnet8_14", "tracker=none", "recipe.epochs=2", "recipe.batch_size=128", "engine.threads=1")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder that the workers of a test session share."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # A worker's own folder is inside the session's.
        session = session.parent
    shared = session / "shared"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="session")
def finished_once(shared_folder):
    """Run folders of short digits runs, each trained once a test session, by whichever worker asks first."""
    from motivation.run.run import run

    def finished(*overrides: str) -> Path:
        folder = shared_folder / hashlib.sha256(repr(overrides).encode()).hexdigest()[:8]
        with FileLock(f"{folder}.lock"):
            if not (folder / "summary.json").exists():
                # What a failure left would hide its error from the next test.
                shutil.rmtree(folder, ignore_errors=True)
                run(compose_config(*QUICK, *overrides), folder)
        return folder

    return finished


@pytest.fixture
def finished(finished_once):
    """`finished(*overrides)`: the run folder of a short digits run with these overrides; do not change it."""
    return finished_once


@pytest.fixture
def invented(finished, tmp_path):
    """`invented(name, seed, accuracy, **groups)`: a run like a finished one, with other figures and config groups.

    `config` holds groups too, where `model` is one of them.
    """
    from motivation.run_folder.read import read_run

    def invent(name, seed, accuracy, model=None, figures=(), config=(), **changes):
        folder = shutil.copytree(finished("model=resnet8") if model == "classical" else finished(), tmp_path / name)
        config = yaml.safe_load((folder / "config.yaml").read_text()) | {"seed": seed} | dict(config) | changes
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        summary = json.loads((folder / "summary.json").read_text()) | {"seed": seed, "base/top1": accuracy}
        summary |= dict(figures)
        (folder / "summary.json").write_text(json.dumps(summary))
        return read_run(folder)
    return invent


def snapshot(module: nn.Module) -> dict:
    """A copy of every parameter and buffer."""
    return copy.deepcopy(module.state_dict())
