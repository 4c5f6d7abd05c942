"""`motivation bench`: what it prints and writes, its exit status, and refusals of one line before anything runs."""

import json

import pytest
from commands import refused
from motivation.benchmarks import ELSEWHERE, SPEED, memory, peak
from motivation.benchmarks.report import BEGIN, END
from motivation.benchmarks.table import Table

from motivation.cli.main import main
from motivation.validation import Count


@pytest.fixture
def two_tables(monkeypatch):
    """Two tables in place of the matrix products: the second misses its bound where there are two rows."""
    def measure(rows: Count = 1) -> list[Table]:
        table = Table("Two", {"name": "", "number": ".1f"}, [("a", 1.0)] * rows, bounds={"one row": rows == 1})
        return [Table("One", {"name": ""}, [("b",)]), table]

    measure.__module__ = peak.__name__
    monkeypatch.setattr(peak, "measure", measure)


def test_tables_are_printed_and_written(two_tables, tmp_path, capsys):
    """Standard output, the page and the JSON have the same tables; other text of the page stays; a second run replaces
    the report of the first.
    """
    page, data = tmp_path / "page.md", tmp_path / "new" / "bench.json"
    page.write_text(f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nlast\n")
    for _ in range(2):
        assert main(["bench", "peak", "--json", str(data), "--update", str(page)]) == 0
        printed = capsys.readouterr().out
    assert page.read_text() == f"# Title\n\n{BEGIN}\n\n{printed}\n{END}\n\nlast\n"
    first = printed.splitlines()[0]
    assert first.startswith("`motivation bench peak --json")
    assert "torch" in first
    assert "cores" in first
    assert printed.index("### One") < printed.index("### Two") < printed.index("Bound held: one row")
    assert "Square matrix products" in printed
    found = json.loads(data.read_text())
    assert set(found) == {"command", "date", "machine", "seconds", "load before", "load after", "missed", "benchmarks"}
    assert {"cpu", "cores", "threads", "gpu", "versions"} <= set(found["machine"])
    assert set(found["benchmarks"]["peak"]) == {"seconds", "about", "tables"}
    assert [table["title"] for table in found["benchmarks"]["peak"]["tables"]] == ["One", "Two"]
    assert found["benchmarks"]["peak"]["tables"][1]["rows"] == [{"name": "a", "number": 1.0}]
    assert found["missed"] == []


def test_a_missed_bound_is_status_1_and_all_is_written(two_tables, tmp_path, capsys):
    assert main(["bench", "peak", "rows=2", "--json", str(tmp_path / "bench.json")]) == 1
    assert "Bound MISSED: one row" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["missed"] == ["one row"]


def test_what_is_measured_stays_if_a_later_benchmark_fails(two_tables, monkeypatch, tmp_path, capsys):
    def measure() -> list[Table]:
        raise ValueError("no room")

    measure.__module__ = memory.__name__
    monkeypatch.setattr(memory, "measure", measure)
    assert main(["bench", "peak", "memory", "--json", str(tmp_path / "bench.json")]) == 1
    assert "memory: no room" in capsys.readouterr().err
    assert set(json.loads((tmp_path / "bench.json").read_text())["benchmarks"]) == {"peak"}


@pytest.mark.parametrize(("arguments", "message"), [
    (("peak", "--json", "."), "--json .: is a folder"),
    (("nothing",), "no benchmark 'nothing'; there are peak, training, "),
    (("peak", "nothing"), "no benchmark 'nothing'; there are peak, training, "),
    (("peak", "second=1"), "peak.second: unknown key of peak; did you mean 'seconds'?"),
    (("peak", "seconds=-1"), "peak.seconds=-1: must be at least 0"),
    (("training", "engines=[fastest]"), "training.engines[0]=fastest: must be one of reference, compile, reduce-"),
    (("peak", "--update", "page.md"), "page.md: has no lines <!-- motivation bench --> and <!-- end of bench -->"),
    (("peak", "--update", "missing.md"), "missing.md"),
])
def test_what_cannot_be_right_is_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "page.md").write_text(BEGIN)
    assert message in refused(capsys, "bench", *arguments).replace("'fastest'", "fastest")


def test_all_benchmarks_are_listed(capsys):
    assert main(["bench", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == [*SPEED, *ELSEWHERE]
    assert "seconds=6" in lines[1]
