"""The null rate of a row: the one that diagnose judges by, or the closed form, which is marked and explained."""

import json

import pytest

from motivation.analysis.compare import comparison_table
from motivation.analysis.nulls import footnotes, row_null
from motivation.run_folder.read import read_figures

CLOSED = 1 / 6
OWN = {"null_rate": 0.251, "null_kind": "permute", "null_rate_independent": CLOSED}
SHORT = {"null_rate": CLOSED, "null_kind": "analytic", "null_rate_independent": CLOSED}
NONE = {"null_rate": None, "null_kind": "none", "null_rate_independent": None}


def without_kind(run):
    """A summary of an earlier version."""
    path = run.path / "summary.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items()
                                if not key.startswith("null_") or key == "null_rate"}))
    return read_figures(run.path)


@pytest.mark.parametrize(("figures", "shown", "independent"), [(OWN, "25.1%", CLOSED), (SHORT, "16.7%*", CLOSED),
                                                               (NONE, "-", None)])
def test_the_closed_form_is_marked(invented, figures, shown, independent):
    null = row_null([invented("a", 0, 90.0, figures=figures), invented("b", 1, 90.0, figures=figures)])
    assert (str(null), null.independent) == (shown, independent and pytest.approx(independent))


def test_one_run_of_few_readings_marks_its_row(invented):
    null = row_null([invented("a", 0, 90.0, figures=OWN), invented("b", 1, 90.0, figures=SHORT)])
    assert str(null) == f"{(0.251 + CLOSED) / 2:.1%}*"


PAPER = {"name": "threshold", "k": 2, "epoch_edge": "contract"}


@pytest.mark.parametrize(("monitor", "schedule", "shown"), [
    ({"name": "gradient_norm", "lag": 0}, PAPER, "15.7%*"),
    ({"name": "invert", "monitor": {"name": "consecutive"}}, PAPER, "15.7%*"),
    ({"name": "all_of", "pairs": [[{"name": "consecutive"}, 1], [{"name": "trend"}, 1.645]]}, PAPER, "15.7%"),
    ({"name": "trend", "lag": 0}, PAPER, "15.7%"),
    ({"name": "consecutive"}, {"name": "cool_down", "steps": 3, "schedule": {"name": "quota", "share": 0.1}}, "15.7%"),
    ({"name": "of another version"}, PAPER, "15.7%")])
def test_a_summary_without_a_kind_is_what_its_monitor_declares(invented, monitor, schedule, shown):
    run = without_kind(invented("a", 0, 90.0, config={"monitor": monitor, "schedule": schedule},
                                figures={"null_rate": 0.157}))
    null = row_null([run])
    assert str(null) == shown
    assert null.independent == (0.157 if "*" in shown else None)


def test_compare_prints_the_null_that_judges_and_the_closed_form_below(invented):
    """27.0 % against the closed form's 15.7 % would read as progress, where noise like the run's own gives 25.1 %."""
    table = comparison_table([invented("a", 0, 90.0, figures=OWN)])
    row, notes = table.splitlines()[2], table.splitlines()[3:]
    assert row.split("|")[-2].strip() == "25.1%"
    assert [line for line in notes if "16.7%" in line]
    assert not [line for line in notes if line.startswith("*")]
    table = comparison_table([without_kind(invented("b", 0, 90.0, figures={"null_rate": 0.157}))])
    assert table.splitlines()[2].split("|")[-2].strip() == "15.7%*"
    assert [line for line in table.splitlines() if line.startswith("*") and "diagnose" in line]


def test_rows_without_a_closed_form_have_no_footnote(invented):
    alone = invented("a", 0, 90.0, "classical")
    assert footnotes({"alone": row_null([alone]), "trend": row_null([invented("b", 0, 90.0, figures=NONE)])}) == []
