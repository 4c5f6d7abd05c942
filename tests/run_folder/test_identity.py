"""What a run is: what sets its result tells runs apart, and nothing else does."""

import pytest
from conftest import compose_config

from motivation.run_folder.identity import identity, in_words, sets_result, with_changes

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
