"""What a run is: what sets its result tells runs apart, and nothing else does."""

import shutil

import pytest
import yaml
from conftest import compose_config

from motivation.run_folder.identity import identity, in_words, sets_result, with_changes
from motivation.run_folder.read import identify_sources

FOLDER = ("data=image_folder", "data.root=A")


@pytest.mark.parametrize("override", ["engine.threads=7", "engine.device=cpu", "tracker=none", "checkpoint.keep=9",
                                      "evaluate_every=2", "data.root=B", "data.workers=3"])
def test_execution_and_place_set_no_result(override):
    assert identity(compose_config(*FOLDER, override), "f") == identity(compose_config(*FOLDER), "f")
    assert not sets_result(override.partition("=")[0])


@pytest.mark.parametrize("override", ["engine.precision=bfloat16", "engine.compile=default",
                                      "engine.matmul_precision=high", "engine.accumulation=2", "seed=1",
                                      "recipe.epochs=9", "recipe.state=reset", "schedule.k=3", "monitor=trend",
                                      "model.init=copy", "data.validation=0.1", "+model.base_options={width: 2}"])
def test_what_sets_the_result_tells_runs_apart(override):
    assert identity(compose_config(*FOLDER, override), "f") != identity(compose_config(*FOLDER), "f")


@pytest.mark.parametrize("override", ["recipe.state=reset", "recipe.differential_lr=0.5", "schedule.k=3",
                                      "recipe.differential_weight_decay=0.1", "monitor=trend"])
def test_one_network_has_nothing_that_only_a_pair_reads(override):
    alone = ("model=resnet8",)
    assert identity(compose_config(*alone, override), "f") == identity(compose_config(*alone), "f")


def test_data_is_its_fingerprint_or_else_its_place():
    here, there = compose_config(*FOLDER), compose_config(*FOLDER, "data.root=B")
    assert identity(here, "f") != identity(here, "g")
    assert identity(here, None) != identity(there, None)


def test_an_engine_of_earlier_versions_is_what_it_was():
    """Names of a table's folders are made of it."""
    assert identity(compose_config(), "f")["engine"] == {"precision": "float32", "accumulation": 1}


def test_a_history_holds_what_a_resume_changes():
    config = compose_config()
    half = compose_config("engine.precision=bfloat16", "engine.threads=3")
    rows = with_changes([], 8, config, half)
    assert rows == [{"step": 8, "changed": {"engine.precision": ["float32", "bfloat16"]}}]
    assert in_words(rows[0]) == "from step 8 on with engine.precision float32 -> bfloat16"
    assert with_changes(rows, 8, half, half) == rows
    assert with_changes(rows, 8, half, config) == []
    assert len(with_changes(rows, 9, half, config)) == 2
    assert identity(half, "f", rows) != identity(half, "f")


def write_source(folder, seed, k=2):
    folder.mkdir()
    config = compose_config("model=resnet8_14", f"seed={seed}", f"schedule.k={k}")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "data.json").write_text('{"fingerprint": "f"}')
    return folder


@pytest.mark.parametrize("schedule", ["{{name: matched_random, run: {}}}",
                                      "{{name: cooldown, steps: 3, schedule: {{name: matched_random, run: {}}}}}"])
def test_another_run_is_known_by_what_it_is_and_not_by_its_folder(tmp_path, schedule):
    """Also inside a gate; repetitions of a source are one, another source is another."""
    sources = [write_source(tmp_path / "a", 0), write_source(tmp_path / "b", 1), write_source(tmp_path / "c", 0, k=3)]
    configs = [{**compose_config("model=resnet8_14"), "schedule": yaml.safe_load(schedule.format(path))}
               for path in sources]
    first, second, other = (identity(config, "f", (), identify_sources(config)) for config in configs)
    assert first == second != other
    assert configs[0]["schedule"] != configs[1]["schedule"]
    # A source that is gone is known by its place.
    shutil.rmtree(tmp_path / "a")
    assert identify_sources(configs[0]) == {}
    assert str(tmp_path / "a") in str(identity(configs[0], "f")["schedule"])


def test_a_lever_that_is_none_is_that_of_versions_without():
    config = {key: value for key, value in compose_config().items() if key != "lever"}
    assert identity(config | {"lever": None}, "f") == identity(config, "f")
    assert identity(config | {"lever": {"name": "tokens"}}, "f") != identity(config, "f")


def test_a_reference_is_known_by_what_it_is(tmp_path):
    sources = [write_source(tmp_path / "a", 0), write_source(tmp_path / "b", 1), write_source(tmp_path / "c", 0, k=3)]
    configs = [compose_config("lever=samples", f"lever.run={path}") for path in sources]
    first, second, other = (identity(config, "f", (), identify_sources(config)) for config in configs)
    assert first == second != other
    assert list(identify_sources(configs[0])) == ["lever.run"]


def test_a_pointer_chase_is_that_of_versions_without_shown_answers():
    config = compose_config("data=pointer_chase")
    data = {key: value for key, value in config["data"].items() if key != "shown"}
    assert identity(config | {"data": data}, "f") == identity(config, "f")
    assert identity(compose_config("data=pointer_chase", "data.shown=[1,3]"), "f") != identity(config, "f")
