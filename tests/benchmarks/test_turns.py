"""Taking turns: who is measured when, what is timed, and how figures are compared."""

import pytest
from motivation.benchmarks import apart, turns


def test_all_measure_in_turn_until_the_time_is_up(monkeypatch):
    """At least one block, whole blocks only, at most BLOCKS."""
    monkeypatch.setattr(turns, "BLOCKS", 3)
    calls = []
    measures = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    assert turns.alternate(measures, 0) == {"a": [1.0], "b": [2.0]}
    assert turns.alternate(measures, 100) == {"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]}
    assert calls == ["a", "b"] * 4


@pytest.mark.parametrize(("step", "counts"), [(0.1, [1, 1, 1, 5, 1, 5]), (2.0, [1, 1, 1, 1])])
def test_a_loop_is_as_long_as_its_turn(monkeypatch, step, counts):
    """The first two steps and the first one of a block are not in the rates; a step of seconds is not repeated."""
    monkeypatch.setattr(turns, "BLOCKS", 2)
    asked = []

    def loop(count: int) -> float:
        asked.append(count)
        return 9.0 if len(asked) == 1 else step * count

    monkeypatch.setattr(turns, "alternate", lambda measures, seconds: {name: [measure(), measure()] for name, measure
                                                                       in measures.items()})
    rates, first = turns.take_turns({"a": loop}, 1.0)
    assert asked == counts
    assert rates["a"] == pytest.approx([1 / step] * 2)
    assert first == {"a": 9.0}


def test_ratios_are_taken_block_by_block():
    assert turns.ratios([2.0, 6.0, 3.0], [1.0, 2.0, 3.0]) == (2.0, 1.0, 3.0, 3)


def test_a_timed_loop_takes_as_many_steps():
    taken = []
    assert turns.timed(lambda: taken.append(1))(5) >= 0
    assert len(taken) == 5


def test_a_loop_apart_runs_in_another_process_until_it_is_cleared(tmp_path):
    """Loops are numbered anew after `clear`."""
    import os

    with apart.Apart() as other:
        for name in ("first", "second"):
            loop = other.loop("cpu", writer_of_processes, tmp_path / name)
            loop(2)
            other.clear()
            lines = (tmp_path / name).read_text().split()
            assert len(lines) == 2
            assert str(os.getpid()) not in lines


def writer_of_processes(path):
    """Each step writes which process took it."""
    import os

    def step():
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")

    return step
