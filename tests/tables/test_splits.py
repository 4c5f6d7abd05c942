"""How many runs of a table at once: the fastest split of the cores that was measured, where it is worth a start."""

import logging

import pytest
import torch
from conftest import compose_config

import motivation.tables.splits
from motivation.tables.cells import Cell
from motivation.tables.costs import DataSets
from motivation.tables.splits import Split, fastest, jobs_by_measurement, measured, thread_counts


@pytest.mark.parametrize(("rates", "runs", "fit", "flops", "chosen"), [
    # Small networks: threads bring little, so one a run.
    ({1: 10.0, 2: 11.0, 4: 12.0}, 8, 8, 1e4, Split(4, 1, 40.0)),
    # Threads that bring all they can, and more cannot be had.
    ({1: 10.0, 2: 20.0, 4: 40.0}, 8, 8, 1e4, Split(1, 4, 40.0)),
    # In between.
    ({1: 10.0, 2: 22.0, 4: 25.0}, 8, 8, 1e4, Split(2, 2, 44.0)),
    # Memory for three, and only two runs.
    ({1: 10.0, 2: 11.0, 4: 12.0}, 8, 3, 1e4, Split(3, 1, 30.0)),
    ({1: 10.0, 2: 11.0, 4: 12.0}, 2, 8, 1e4, Split(2, 2, 22.0)),
    ({1: 10.0, 2: 11.0, 4: 12.0}, 8, 1, 1e4, Split(1, 4, 12.0)),
    # Done before another process has started.
    ({1: 10.0, 2: 11.0, 4: 12.0}, 8, 8, 50.0, Split(1, 4, 12.0)),
    # engine.threads=2.
    ({2: 10.0}, 8, 8, 1e4, Split(2, 2, 20.0)),
])
def test_the_fastest_split_wins(rates, runs, fit, flops, chosen):
    best, alone = fastest(rates, 4, runs, fit, flops)
    assert best == chosen
    assert alone == Split(1, max(rates), rates[max(rates)])


@pytest.mark.parametrize(("of_machine", "asked", "counts"), [(1, None, [1]), (2, None, [1, 2]), (6, None, [1, 2, 4, 6]),
                                                             (8, None, [1, 2, 4, 8]), (8, 3, [3])])
def test_threads_that_are_measured(of_machine, asked, counts):
    assert thread_counts(of_machine, asked) == counts


@pytest.fixture
def cell():
    config = compose_config("tracker=none", "model=classical", "model.network=resnet8", "recipe.batch_size=64")
    return Cell(config, "data")


def test_speed_and_memory_are_measured_and_leave_no_trace(cell):
    before = torch.get_num_threads()
    rates, memory = measured(cell, DataSets(), [1, 2])
    assert list(rates) == [1, 2]
    assert min(rates.values()) > 1e6
    assert 1e8 < memory < 1e11
    assert torch.get_num_threads() == before


def test_one_line_says_what_was_chosen(cell, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "motivation")
    room = motivation.tables.splits
    monkeypatch.setattr(room, "cores", lambda: 4)
    monkeypatch.setattr(room, "measured", lambda *_: ({1: 1e6, 2: 1.1e6, 4: 1.2e6}, 10 ** 9))
    monkeypatch.setattr(room, "available_memory", lambda: 35 * 10 ** 8)
    assert jobs_by_measurement([cell] * 8, DataSets()) == 3
    [line] = caplog.messages
    assert "3 at once, 1 thread each" in line
    assert "1.0 GB of 3.5 GB" in line
    # Nothing to measure.
    monkeypatch.setattr(room, "measured", None)
    assert jobs_by_measurement([cell], DataSets()) == 1
    monkeypatch.setattr(room, "cores", lambda: 1)
    assert jobs_by_measurement([cell] * 8, DataSets()) == 1
