"""Results as data: written, read and shown as from the run folders; joined by the same runs alone; restartable."""

import contextlib
import csv
import json
import re
import shlex
import shutil
import signal

import pytest
from fabricated import fabricate, interrupted_in, write_finished

import motivation.tables.results
import motivation.tables.train
from motivation.cli.main import main
from motivation.tables.cells import UNREAD, Archive, Cell
from motivation.tables.plan import plan_table
from motivation.tables.render import write_table
from motivation.tables.results import BITS, COLUMNS, Results
from motivation.tables.spec import read_table
from motivation.tables.train import list_states

QUICK = ("tracker=none", "engine.threads=1", "recipe.epochs=1", "recipe.batch_size=256")


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def plan(composed):
    return plan_table(read_table("initialization"), "cpu", 3, composed, lambda spec: "stub")


@pytest.fixture
def archive(tmp_path, plan):
    """Of finished runs, every one with its own accuracy."""
    archive = Archive(tmp_path / "cells")
    for number, cell in enumerate(plan.cells):
        fabricate(archive, cell, accuracy=64 + number / 7, share=1 / (5 + number % 3))
    return archive


def test_further_columns_are_in_the_file_of_a_table_that_has_some(composed, tmp_path):
    """Means of what its runs counted, shown from the file as from the runs; a file of another table has no column."""
    plan = plan_table(read_table("prefix"), "minute", 3, composed, lambda spec: "stub")
    runs, results = Archive(tmp_path / "cells"), Results(tmp_path / "results", "prefix", "minute")
    for number, cell in enumerate(plan.cells):
        folder = fabricate(runs, cell, accuracy=60 + number / 7)
        if cell.config.get("lever"):
            summary = json.loads((folder / "summary.json").read_text())
            (folder / "summary.json").write_text(json.dumps(summary | {"lever/teacher_tokens": 100 + number}))
    results.record(plan, runs, plan.cells)
    kept = Archive(tmp_path / "nowhere", Results(tmp_path / "results", "prefix", "minute"))
    from_runs, from_file = (write_table(plan, one, tmp_path / "out") for one in (runs, kept))
    assert from_file == from_runs
    [row] = [row for row in plan.rows if row.label == "DAgger"]
    first = plan.cells.index(row.cells[0])
    shown = rows_of(tmp_path / "out" / "prefix-minute.csv")
    assert {one["row"]: one["teacher tokens"] for one in shown}["DAgger"] == f"{101 + first}"
    assert {one["row"]: one["teacher tokens"] for one in shown}["teacher"] == "-"
    assert [*rows_of(results.path)[0]] == [*COLUMNS, *BITS, "lever/teacher_tokens"]
    other = plan_table(read_table("initialization"), "cpu", 1, composed, lambda spec: "stub")
    for cell in other.cells:
        fabricate(runs, cell)
    Results(tmp_path / "results", "initialization", "cpu").record(other, runs, other.cells)
    assert [*rows_of(tmp_path / "results" / "initialization_cpu.csv")[0]] == [*COLUMNS, *BITS]


@pytest.mark.parametrize(("name", "scale"), [("initialization", "cpu"), ("budget", "cpu"), ("table7", "cpu"),
                                             ("context", "minute"), ("tiers", "smoke"),
                                             ("k", "smoke")])
def test_a_table_from_the_file_is_the_table_from_the_runs(composed, tmp_path, name, scale):
    plan = plan_table(read_table(name), scale, 3, composed, lambda spec: "stub")
    runs = Archive(tmp_path / "cells")
    for number, cell in enumerate(plan.cells):
        fabricate(runs, cell, accuracy=64 + number / 7, share=1 / (5 + number % 3))
    Results(tmp_path / "results", name, scale).record(plan, runs, plan.cells)
    kept = Archive(tmp_path / "nowhere", Results(tmp_path / "results", name, scale))
    assert {kept.state(cell).kind for cell in plan.cells} == {"recorded"}
    assert not plan.unfinished(kept)
    assert not plan.troubles(kept)
    from_runs, from_file = (write_table(plan, one, tmp_path / "out") for one in (runs, kept))
    assert from_file == from_runs
    assert "unfinished" not in from_file[0]


def test_a_row_is_a_run(plan, archive, tmp_path):
    results = Results(tmp_path / "results", "initialization", "cpu")
    results.record(plan, archive, plan.cells)
    assert results.path.name == "initialization_cpu.csv"
    rows = rows_of(results.path)
    assert tuple(rows[0]) == COLUMNS + BITS
    assert len(rows) == len(plan.cells)
    for cell, row in zip(plan.cells, rows, strict=True):
        summary = archive.state(cell).run.summary
        assert (row["identity"], row["run"], int(row["seed"])) == (cell.identity, cell.name, cell.config["seed"])
        assert float(row["base/top1"]) == summary["base/top1"]
        assert float(row["budget/flops"]) == summary["budget/flops"]
        assert row["motivated_share"] == ("" if "network" in cell.config["model"] else
                                          str(archive.state(cell).run.motivated_share))
        assert re.fullmatch(r"\d+\.\d+.*", row["version"])
        assert (row["hardware"], row["torch"]) == ("AVX2", "2.14.1")
    assert {row["row"] for row in rows} == {row.label for row in plan.rows}
    # Once more changes no byte.
    before = results.path.read_bytes(), results.path.stat().st_mtime_ns
    Results(tmp_path / "results", "initialization", "cpu").record(plan, archive, plan.cells)
    assert (results.path.read_bytes(), results.path.stat().st_mtime_ns) == before


def test_a_file_of_an_earlier_version_does_not_say_the_hardware(plan, archive, tmp_path):
    results = Results(tmp_path / "results", "initialization", "cpu")
    results.record(plan, archive, plan.cells[:-1])
    earlier = [{key: row[key] for key in COLUMNS} for row in rows_of(results.path)]
    with open(results.path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(earlier)
    results = Results(tmp_path / "results", "initialization", "cpu")
    assert results(plan.cells[0])
    results.record(plan, archive, plan.cells)
    assert [row["hardware"] for row in rows_of(results.path)] == [""] * len(earlier) + ["AVX2"]


def test_rows_count_as_finished_in_the_list(composed, plan, archive, tmp_path, monkeypatch):
    Results(tmp_path / "results", "initialization", "cpu").record(plan, archive, plan.cells[:4])
    monkeypatch.setattr(motivation.tables.train, "list_tables", lambda: ["initialization"])
    listed = list_states(composed, "cpu", 3, tmp_path / "nowhere", tmp_path / "results", ("data.root=nowhere",))
    assert f"4 of {len(plan.cells)} runs finished at scale cpu; cifar10 cannot be read" in listed


def test_runs_join_the_rows_if_their_identity_is_the_same(composed, plan, archive, tmp_path):
    results = Results(tmp_path / "results", "initialization", "cpu")
    results.record(plan, archive, plan.cells[:-1])
    shutil.rmtree(archive.path(plan.cells[0]))
    both = Archive(archive.folder, Results(tmp_path / "results", "initialization", "cpu"))
    assert both.state(plan.cells[0]).kind == "recorded"
    assert both.state(plan.cells[-1]).kind == "finished"
    assert not plan.unfinished(both)
    # Another length is another run: its rows are left out, and counted.
    other = plan_table(read_table("initialization"), "cpu", 3, composed, lambda spec: "stub", ("recipe.epochs=3",))
    assert len(other.unfinished(both)) == len(other.cells)
    assert results.left_out(other) == len(plan.cells) - 1
    assert results.left_out(plan) == 0
    # So is other data; where the data set cannot be read, the setting decides.
    assert results(Cell(plan.cells[0].config, "other")) is None
    assert results(Cell(plan.cells[0].config, UNREAD)) == results(plan.cells[0])


def test_a_run_that_differs_from_its_row_is_said(plan, archive, tmp_path, caplog):
    results = Results(tmp_path / "results", "initialization", "cpu")
    results.record(plan, archive, plan.cells)
    path = archive.path(plan.cells[0]) / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base/top1": 12.5}))
    results.record(plan, Archive(archive.folder), plan.cells)
    assert f"{plan.cells[0].name} differs from its row" in caplog.text
    assert "base/top1 is 12.5, was 64.0" in caplog.text
    assert Results(tmp_path / "results", "initialization", "cpu")(plan.cells[0])["base/top1"] == 12.5


@pytest.mark.parametrize("damage", [
    lambda text: text.replace("base/top1", "top1"), lambda text: text.replace(",64.0,", ",sixty,"),
    lambda text: text[:len(text) // 2], lambda text: text.replace(",64.0,", ",nan,"),
    lambda text: text.replace(",64.0,", ",640.0,"), lambda text: text.replace(",64.0,", ",,")])
def test_a_damaged_file_is_named(plan, archive, tmp_path, damage):
    results = Results(tmp_path, "initialization", "cpu")
    results.record(plan, archive, plan.cells)
    results.path.write_text(damage(results.path.read_text()))
    with pytest.raises(ValueError, match=r"initialization_cpu\.csv is damaged: ") as caught:
        Results(tmp_path, "initialization", "cpu")
    assert "\n" not in str(caught.value)


def table(tmp_path, *arguments):
    return main(["table", "initialization", "--seeds", "1", *QUICK, *arguments, "--runs", str(tmp_path / "cells"),
                 "--out", str(tmp_path / "tables")])


def test_the_command_keeps_results_and_goes_on_from_them(tmp_path, capsys, caplog, monkeypatch):
    """Every finished run has its row at once; without the run folders only what is missing is trained."""
    caplog.set_level("INFO", "motivation")
    file, trained = tmp_path / "results" / "initialization_smoke.csv", []

    def write(config, path, resume):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(path.name)
        return write_finished(config, path, resume)

    monkeypatch.setattr(motivation.tables.train, "run", write)
    monkeypatch.setattr(motivation.tables.train, "flops_per_second", lambda cell, datasets: 1e9)
    keep = ("--results", str(tmp_path / "results"))
    with contextlib.suppress(KeyboardInterrupt):
        table(tmp_path, *keep)
    assert [row["run"] for row in rows_of(file)] == trained
    shutil.rmtree(tmp_path / "cells")
    first = list(trained)
    trained.clear()
    monkeypatch.setattr(motivation.tables.train, "run", lambda config, path, resume: trained.append(path.name)
                        or write_finished(config, path, resume))
    capsys.readouterr()
    assert table(tmp_path, *keep) == 0
    shown = capsys.readouterr().out
    assert "11 runs, 4 finished" in caplog.text
    # Sources of missing controls are trained again; their rows stay.
    pairs = [name for name in first if "threshold" in name]
    assert set(trained) & set(first) == set(pairs)
    assert len(trained) == 11 - 4 + len(pairs)
    assert len(rows_of(file)) == 11
    shutil.rmtree(tmp_path / "cells")
    assert table(tmp_path, *keep, "--show") == 0
    assert capsys.readouterr().out == shown
    assert "unfinished" not in shown
    # Without it, nothing is kept and nothing counts but the run folders.
    trained.clear()
    assert table(tmp_path) == 0
    assert len(trained) == 11


def test_a_signal_leaves_the_rows_and_its_line_goes_on_from_them(tmp_path, capsys, monkeypatch):
    file, trained = tmp_path / "results" / "initialization_smoke.csv", []

    monkeypatch.setattr(motivation.tables.train, "run", interrupted_in(3, trained))
    monkeypatch.setattr(motivation.tables.train, "flops_per_second", lambda cell, datasets: 1e9)
    assert table(tmp_path, "--results", str(file.parent)) == 128 + signal.SIGINT
    assert [row["run"] for row in rows_of(file)] == [path.name for path in trained[:2]]
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("motivation: error")]
    assert main(shlex.split(line.partition("; resume it with: ")[2])[1:]) == 0
    assert len(rows_of(file)) == 11
    assert len(trained) == 11 + 1


def test_committed_results_show_without_runs_and_without_data(composed, tmp_path, capsys, monkeypatch):
    """As in a fresh clone, which has no CIFAR-10."""
    plan = plan_table(read_table("initialization"), "cpu", 1, composed, lambda spec: "stub", QUICK)
    runs = Archive(tmp_path / "elsewhere")
    for cell in plan.cells:
        fabricate(runs, cell, accuracy=64.25)
    Results(tmp_path / "committed", "initialization", "cpu").record(plan, runs, plan.cells)
    monkeypatch.setattr(motivation.tables.results, "committed", lambda: tmp_path / "committed")
    expected, _ = write_table(plan, runs, tmp_path / "out")
    assert table(tmp_path, "--scale", "cpu", "--show", "data.root=nowhere") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(expected)
    assert "64.25" in expected
    assert "cifar10 is not read here; recorded runs are shown" in shown.err
    # Of another length nothing is shown, and the rows are counted.
    assert table(tmp_path, "--scale", "cpu", "--show", "data.root=nowhere", "recipe.epochs=7") == 0
    shown = capsys.readouterr()
    assert "64.25" not in shown.out
    assert f"{len(plan.cells)} rows of these labels and seeds" in shown.err
