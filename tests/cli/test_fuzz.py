"""Files and configs from others: whatever they hold, an error of ours or a right result, and no side effect."""

import io
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import QUICK, compose_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motivation.analysis.compare import comparison_table
from motivation.cli.main import main
from motivation.cli.train import ask
from motivation.data import Arrays
from motivation.run.prepare import prepare
from motivation.run.resume import check_changes
from motivation.run_folder.checkpoints import load_checkpoint
from motivation.run_folder.config import read_config
from motivation.run_folder.read import read_run

FUZZ = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**6), st.floats(), st.text(max_size=8),
                    st.sampled_from(["resnet20", "sgd", "${oc.env:HOME}", "../x", "_target_"]))
values = st.recursive(scalars, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "lr", "_target_", "x"]), inner, max_size=3)),
    max_leaves=5)


def leaves(config, where=()):
    """Paths of every key of nested mappings."""
    for key, value in config.items():
        yield (*where, key)
        if isinstance(value, dict):
            yield from leaves(value, (*where, key))


@contextmanager
def right_or_refused(path: Path | str = ""):
    """A ValueError of one story that names the file, or none."""
    try:
        yield
    except ValueError as error:
        if not str(error) or str(path) not in str(error):
            raise AssertionError(f"does not name {path}: {error}") from error


CONFIG = compose_config(*QUICK)


@FUZZ
@given(path=st.sampled_from(sorted(leaves(CONFIG))), value=values, name=st.sampled_from(["_target_", "extra", None]))
def test_configs(path, value, name):
    """One value replaced, or one key added anywhere: prepared, or refused as a ValueError that is one line."""
    config = json.loads(json.dumps(CONFIG))
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    if name and isinstance(inner[path[-1]], dict):
        inner[path[-1]][name] = value
    else:
        inner[path[-1]] = value
    with right_or_refused():
        prepare(config)
        assert "_target_" not in str(list(leaves(config)))


def damaged(data: bytes, draw) -> bytes:
    """Cut short, with bytes changed, or with bytes put in."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["cut", "flip", "insert"]))
        if kind == "cut":
            del data[place:]
        elif kind == "flip" and data:
            data[place] ^= draw(st.integers(1, 255))
        else:
            data[place:place] = draw(st.binary(max_size=8))
    return bytes(data)


@FUZZ
@given(data=st.data())
def test_array_files(tmp_path_factory, data):
    buffer = io.BytesIO()
    images, labels = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 4
    np.savez(buffer, x_train=images, y_train=labels, x_test=images, y_test=labels)
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(damaged(buffer.getvalue(), data.draw))
    with right_or_refused(path):
        assert Arrays(str(path)).load().num_classes >= 2


@FUZZ
@given(data=st.data(), name=st.sampled_from(["config.yaml", "steps.csv", "epochs.jsonl", "summary.json"]))
def test_run_folders(finished_once, tmp_path_factory, data, name):
    folder = Path(shutil.copytree(finished_once(), tmp_path_factory.mktemp("run") / "run"))
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), data.draw))
    with right_or_refused(folder):
        assert comparison_table([read_run(folder)]).startswith("| runs")


@FUZZ
@given(data=st.data())
def test_configs_of_run_folders(finished_once, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_bytes(damaged((finished_once() / "config.yaml").read_bytes(), data.draw))
    with right_or_refused():
        check_changes(read_config(folder), CONFIG)


@settings(FUZZ, max_examples=25)
@given(path=st.sampled_from(sorted(leaves(CONFIG))), value=values, override=st.sampled_from(
    ["recipe.epochs=4", "~recipe.epochs", "hydra/launcher=joblib", "experiment=demo", "model=resnet20", "+data.x.y=1",
     "engine.threads=1", "recipe.optimizer={name: adamw}"]))
def test_going_on_with_a_foreign_config(tmp_path_factory, path, value, override):
    """The folder's config with one value replaced, and an override on top: what to train, or one line."""
    config = json.loads(json.dumps(CONFIG))
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with right_or_refused():
        asked, found, resumed = ask([f"resume={folder}", override])
        assert (found, resumed) == (folder, True)
        check_changes(read_config(folder), asked)


@pytest.mark.parametrize("override", ["~recipe.epochs", "hydra/launcher=joblib", "experiment=demo", "recipe.epochs=4"])
def test_no_override_of_a_foreign_run_is_unexpected(tmp_path, capsys, override):
    (tmp_path / "config.yaml").write_text("recipe: 5\n")
    assert main(["train", f"resume={tmp_path}", override]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "unexpected" not in line


@FUZZ
@given(data=st.data())
def test_checkpoints(tmp_path_factory, data):
    buffer = io.BytesIO()
    torch.save({"weights": torch.arange(50.0), "step": 3}, buffer)
    path = tmp_path_factory.mktemp("checkpoint") / "a.pt"
    path.write_bytes(damaged(buffer.getvalue(), data.draw))
    with right_or_refused(path):
        assert not callable(load_checkpoint(path))


def test_yaml_tags_build_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("!!python/object/apply:os.mkdir ['made']")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
        read_config(tmp_path)
    assert not Path("made").exists()
