"""Rows with a lever: they name their reference's run, and their control spends as much without the lever."""

import json

import pytest
from fabricated import fabricate

from motivation.tables.cells import Archive
from motivation.tables.costs import DataSets, cost_of
from motivation.tables.plan import plan_table
from motivation.tables.results import Results
from motivation.tables.spec import read_table
from motivation.tables.train import finish_table

QUICK = ("tracker=none", "engine.threads=1", "engine.device=cpu", "data.train=192")


def planned(composed, *labels, seeds=1):
    """The rows of these labels of the table of tokens, at its smallest scale."""
    table = read_table("tokens")
    table["rows"] = [row | {"versus": []} for row in table["rows"] if row["row"] in labels]
    return plan_table(table, "smoke", seeds, composed, DataSets().fingerprint, QUICK)


def test_a_reference_is_trained_first_and_its_compute_given_to_the_model(composed, tmp_path):
    """Real runs: the control trains as long as the row's FLOPs last, those of the reference's run included."""
    plan, archive = planned(composed, "reference run", "Rho-1"), Archive(tmp_path / "cells")
    reference, row, control = plan.cells
    assert [len(cell.sources) for cell in plan.cells] == [0, 1, 2]
    assert finish_table(plan, archive) == []
    spent = [archive.state(cell).run.summary["budget/flops"] for cell in plan.cells]
    config = archive.state(row).run.config
    assert config["lever"]["run"] == str(archive.path(reference))
    assert archive.state(control).run.config.get("lever") is None
    forward = archive.state(row).run.summary["base/forward_flops"]
    # 10 steps of 3 + 1 + 1 forwards of 96 sequences.
    assert spent[1] == spent[0] + 10 * 5 * 96 * forward
    assert spent[2] == pytest.approx(spent[1], abs=3 * 96 * forward / 2)
    # Estimated without what is scored.
    datasets = DataSets()
    assert cost_of(reference, datasets) == spent[0]
    assert cost_of(control, datasets) == pytest.approx(spent[0] + 10 * 3 * 96 * forward)
    # The digest of the reference's run is in the folder, for runs to be compared by.
    sources = json.loads((archive.path(row) / "data.json").read_text())["sources"]
    assert list(sources) == ["lever.run"]


def test_sources_of_sources_come_first(composed, tmp_path):
    """Several at once: a control waits for its row, which waits for its reference; what fails takes its own along."""
    plan, archive = planned(composed, "reference run", "Rho-1", "ignoring", seeds=2), Archive(tmp_path / "cells")
    waves = []

    def launch(cells):
        waves.append(sorted({len(cell.sources) for cell in cells}))
        for cell in cells:
            failed = cell.config["seed"] == 1 and (cell.config.get("lever") or {}).get("rule") == "excess_loss"
            if not failed:
                fabricate(archive, cell)
            yield cell, "no" if failed else None

    failed = finish_table(plan, archive, launch=launch)
    assert waves == [[0], [1], [2]]
    (_, first), (_, second) = failed
    assert first == "no"
    assert second.startswith("its source failed")


def test_recorded_sources_are_trained_again_for_what_reads_them(composed, tmp_path):
    """As results alone a reference has no weights: whatever misses a run below it needs it anew."""
    plan, archive = planned(composed, "reference run", "Rho-1"), Archive(tmp_path / "cells")
    for cell in plan.cells:
        fabricate(archive, cell)
    results = Results(tmp_path / "results", "tokens", "smoke")
    results.record(plan, archive, plan.cells[:2])
    elsewhere = Archive(tmp_path / "others", results)
    assert [elsewhere.state(cell).kind for cell in plan.cells] == ["recorded", "recorded", "missing"]
    assert {cell.identity for cell in plan.trainable(elsewhere)} == {cell.identity for cell in plan.cells}
    results.record(plan, archive, plan.cells)
    assert plan.trainable(elsewhere) == []


def test_the_table_of_tokens_has_its_controls(composed):
    plan = plan_table(read_table("tokens"), "minute", 5, composed, lambda spec: "stub")
    rows = {row.label: row.cells[0].config for row in plan.rows}
    lengths = {label: config["recipe"]["steps"] for label, config in rows.items()}
    assert (lengths["reference run"], lengths["all tokens"], lengths["all tokens, scores paid"]) == (400, 140, 233)
    assert {label for label, config in rows.items() if config.get("lever")} == {
        "random half", "high loss", "Rho-1", "ignoring", "forgetting", "oracle", "pair, random half",
        "pair, own reference"}
    assert rows["pair, own reference: base of equal FLOPs"]["model"] == rows["all tokens"]["model"]
    assert {config["lever"]["share"] for config in rows.values() if config.get("lever")} == {0.5}
    assert rows["forgetting"]["lever"] == rows["ignoring"]["lever"] | {"forget": 0.25}
    problems = rows["reference run"]["data"], rows["all tokens"]["data"]
    assert problems[0] == problems[1] | {"skip": problems[1]["train"]}
