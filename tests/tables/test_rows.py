"""What a table prints: the paper's figures as they stand, recomputed metrics, misprints, tests, and three formats."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from fabricated import fabricate
from latex_text import check_latex
from scipy import stats

from motivation.analysis.statistics import holm
from motivation.tables.cells import Archive
from motivation.tables.plan import plan_table
from motivation.tables.render import COLUMNS, cells_of, to_csv, to_latex, to_markdown, write_table
from motivation.tables.rows import (
    PER_MULTIPLY_ADD,
    Measured,
    TableRow,
    efficiencies,
    labelled,
    misprint,
    unit_of,
    with_tests,
)
from motivation.tables.spec import check_figures, list_tables, read_table

PRINTED = yaml.safe_load(Path(__file__).with_name("printed_figures.yaml").read_text())


def stubbed(composed, name, scale, seeds=1):
    return plan_table(read_table(name), scale, seeds, composed, lambda spec: "stub")


# Our own tables have no printed figures; tests/tables/test_studies.py renders them.
PAPERS = [name for name in list_tables() if not read_table(name).get("study")]


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in PAPERS for scale in read_table(name)["scales"]])
def test_every_table_renders_at_every_scale(composed, tmp_path, name, scale):
    """From finished runs: every row has its cells, and every reported figure is the one that the paper prints."""
    plan = stubbed(composed, name, scale, seeds=2)
    archive = Archive(tmp_path / "cells")
    for number, cell in enumerate(plan.cells):
        fabricate(archive, cell, accuracy=90 + number % 7 / 10)
    markdown, paths = write_table(plan, archive, tmp_path / "out")
    assert "cannot be shown" not in markdown
    assert "unfinished" not in markdown
    check_latex(paths[1].read_text())
    lines = list(csv.DictReader(io.StringIO(paths[2].read_text())))
    assert len(lines) == len(plan.rows)
    printed = {(row["row"], dataset): row[dataset] | {"unit": row.get("unit")}
               for row in PRINTED.get(name, {"rows": []})["rows"]
               for dataset in row if isinstance(row[dataset], dict)}
    shown = {(line["row"], line["dataset"]): line for line in lines if not line["row"].startswith("  vs")}
    if name != "k":
        assert shown
        assert shown.keys() <= printed.keys()
        if scale == "paper":
            assert shown.keys() == printed.keys()
    for key, line in shown.items():
        figures = printed.get(key, {"acc": (None, None)})
        mean, std = figures["acc"]
        assert line["reported acc %"] == ("-" if mean is None else f"{mean:.2f}" + (f" ± {std:.2f}" if std else ""))
        if "flops" in figures:
            assert float(line["reported F"]) == pytest.approx(figures["flops"] * PER_MULTIPLY_ADD[figures["unit"]],
                                                              rel=1e-3)
        for column, figure in (("reported acc/F", "acc_per_flops"), ("reported ratio", "ratio")):
            if figure in figures:
                assert float(line[column].split(" ")[0]) == figures[figure]


def test_the_null_column_is_the_null_that_judges(composed, tmp_path):
    """The closed form is a footnote; where an earlier version wrote the summaries, it is in the column, marked."""
    plan = stubbed(composed, "table1", "smoke", seeds=1)
    for number, (shown, marked) in enumerate([("20.0%", False), ("16.7%*", True)]):
        archive = Archive(tmp_path / f"cells{number}")
        for cell in plan.cells:
            path = fabricate(archive, cell) / "summary.json"
            summary = json.loads(path.read_text())
            if marked and not summary["null_kind"]:
                continue
            if marked:
                for key in ("null_kind", "null_rate_independent"):
                    del summary[key]
                path.write_text(json.dumps(summary | {"null_rate": 1 / 6}))
        markdown, paths = write_table(plan, archive, tmp_path / f"out{number}")
        lines = list(csv.DictReader(io.StringIO(paths[2].read_text())))
        nulls = {line["row"]: line["null"] for line in lines if not line["row"].startswith("  vs")}
        assert {null for null in nulls.values() if null != "-"} == {shown}
        legend = markdown.splitlines()[-1]
        assert "16.7% for " in legend
        assert ("* this closed form" in legend) == marked


# paper.md, point 6: what the printed accuracies and F give in place of what is printed.
MISPRINTS = {("table1", "Res-20-32B", "cifar100"): ("6.9 (misprint: 6.09)", "2.23 (misprint: 1.97)"),
             ("table4", "EfficientNet-B1-C", "cifar100"): ("2.22 (misprint: 2.68)", "-"),
             ("table4", "Eff-0-1B", "cifar100"): ("2.8", "1.26 (misprint: 1.05)"),
             ("table4", "EfficientNet-B2-C", "cifar100"): ("3.33 (misprint: 0.87)", "-"),
             ("table4", "Eff-1-2B", "cifar100"): ("22.5", "6.76 (misprint: 25.96)")}


def test_printed_metrics_recompute_but_for_the_misprints(composed, tmp_path):
    """Every ACC/FLOPs and ratio that the paper prints follows from its accuracies and F, five rows apart."""
    flagged, checked = {}, 0
    for name in PAPERS:
        rows = stubbed(composed, name, "paper").measured(Archive(tmp_path))
        by_label = labelled(rows)
        for row, cells in zip(rows, cells_of(rows), strict=True):
            shown = dict(zip(COLUMNS, cells, strict=True))
            reported, _ = efficiencies(row, by_label)
            checked += sum(key in row.reported for key in ("acc_per_flops", "ratio"))
            if "misprint" in shown["reported acc/F"] + shown["reported ratio"]:
                flagged[name, row.label, row.dataset] = shown["reported acc/F"], shown["reported ratio"]
            elif "acc_per_flops" in row.reported:
                assert reported.gain == pytest.approx(row.reported["acc_per_flops"], abs=0.0101)
    assert flagged == MISPRINTS
    assert checked == sum(key in row[dataset] for table in PRINTED.values() for row in table["rows"]
                          for dataset in row if isinstance(row[dataset], dict) for key in ("acc_per_flops", "ratio"))
    assert checked > 40


def test_rounded_quotients_are_no_misprints():
    assert not misprint(-100, -96.0, -100.0)
    assert not misprint(1.39, 1.3959)
    assert misprint(2.22, 2.677)
    assert not misprint(None, 1.0)
    assert not misprint(3.0, None)


def row(label, accuracy, against=None, method=None, forward=1e9, share=None, **facts):
    measured = Measured(dict(enumerate(accuracy)), forward, share)
    return TableRow(label=label, dataset="cifar10", against=against, method=method, measured=measured, planned=3,
                    **facts)


def test_measured_metrics_are_in_the_papers_unit():
    """The same gain and extra multiply-adds, counted once or twice, as the paper counts that family."""
    for unit, per in (("2mac", 1e8), ("mac", 5e7)):
        facts = {"reported": {"unit": unit, "per": per}}
        rows = [row("C", [90.0], forward=80e6, **facts), row("B", [90.5], "C", forward=90e6, large="L", **facts),
                row("L", [92.0], "C", forward=140e6, baseline=True, **facts)]
        measured = [efficiencies(one, labelled(rows))[1] for one in rows]
        assert measured[0] == (None, None, None)
        assert measured[1][:2] == pytest.approx((5.0, 1.5))
        assert measured[2].gain == pytest.approx(2 / 60 * 100)
    assert unit_of(row("C", [1.0], reported={"unit": "2mac"})) == ("2mac", 1e8)


def test_differences_have_their_test():
    base, dual = row("C", [90, 91, 92.5]), row("B", [91, 91.5, 94], against="C")
    control = row("B: matched", [91, 92, 93], against="C", method="B")
    large = row("L", [95, 94, 96.5], against="C", baseline=True)
    tested = with_tests([base, dual, control, large])
    p = [stats.ttest_rel([91, 91.5, 94], other).pvalue for other in ([90, 91, 92.5], [91, 92, 93])]
    assert tested[0].tested is None
    assert [tested[1].tested.p, tested[2].tested.p] == pytest.approx(p)
    assert [tested[1].adjusted, tested[2].adjusted] == pytest.approx(holm(p))
    assert tested[2].tested.mean == pytest.approx(np.mean([91, 91.5, 94]) - 92)
    # A larger classical network is better or not: no claim about the method, and not of its family of tests.
    assert tested[3].tested.p is not None
    assert tested[3].adjusted is None
    low, high = stats.ttest_rel([91, 91.5, 94], [90, 91, 92.5]).confidence_interval(0.95)
    assert cells_of(tested)[1][4] == f"+1.00 [{low:+.2f}, {high:+.2f}]"


def test_a_source_without_a_motivated_step_is_said():
    rows = with_tests([row("C", [90, 91]), row("B", [90, 91], against="C", share=0.0),
                       row("B: matched", [90, 91], against="C", method="B")])
    assert cells_of(rows)[2][5] == "its source had no motivated step"
    assert cells_of(rows)[1][5] == "no test: all differences are equal"


def test_three_renderings_say_the_same():
    rows = with_tests([row("C_1", [90, 91], reported={"acc": [92.6, 0.2], "flops": 80e6, "unit": "2mac"}),
                       row("B", [], against="C_1", troubled=("broken", "foreign", "broken"))])
    markdown, latex = to_markdown("T", "n.", rows), to_latex("T", "50 % & more_", rows)
    [header, first, second] = list(csv.reader(io.StringIO(to_csv(rows))))
    assert first[:4] == ["cifar10", "C_1", "92.60 ± 0.20", "90.50 ± 0.71"]
    assert second[3:5] == ["broken", "0/3 (2 broken, 1 foreign)"]
    assert "| C_1 " in markdown
    assert r"C\_1 & 92.60 $\pm$ 0.20 & 90.50" in latex
    assert r"50 \% \& more\_" in latex
    assert header == ["dataset", *COLUMNS]
    check_latex(latex)


def test_a_row_that_cannot_be_shown_leaves_the_others():
    """Hours of training are not lost to one figure."""
    rows = [row("C", [90.0]), row("B", [91.0], reported={"acc": [1, 2], "flops": "7e+8"})]
    text = to_markdown("T", "n.", with_tests(rows))
    assert "90.00" in text
    assert "| B   | cannot be shown: " in text
    check_latex(to_latex("T", "n.", rows))


@pytest.mark.parametrize(("figures", "said"), [
    ({"cifar10": {"flops": "7e+8"}}, r"t, row A, cifar10.flops: '7e\+8' is no number; write 7\.0e\+8"),
    ({"cifar10": {"acc": [1.0, "x"]}}, "cifar10.acc: 'x' is no number"),
    ({"unit": "flop"}, "t, row A: unit: 'flop'; choose one of 2mac, mac")])
def test_a_figure_that_is_no_number_is_refused(figures, said):
    with pytest.raises(ValueError, match=said):
        check_figures("t", [{"row": "A", **figures}])
