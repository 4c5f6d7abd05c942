"""The page of a table: its text, its tables as `motivation table --show` has them, its figures and their numbers."""

import pytest
from commands import refused
from html_page import check_page

from motivation.analysis.page import page
from motivation.cli.main import main
from motivation.tables.render import table_texts
from motivation.tables.report import report_table
from motivation.tables.studies import measure


@pytest.fixture
def made(finished):
    """`made(name)`: the plan of a table, its finished runs and its checked page."""
    def make(name):
        plan, archive = finished(name)
        return plan, archive, check_page(page(plan.title, [], report_table(plan, archive)))

    return make


def tables_of(markdown):
    """Rows of every table in Markdown, as cells."""
    tables, at = [], []
    for line in markdown.splitlines():
        if line.startswith("| "):
            at.append([cell.strip().replace("->", "→") for cell in line.strip("|").split("|")])
        elif at and not line.startswith("|"):
            tables.append(at)
            at = []
    return tables


@pytest.mark.parametrize(("name", "captions"), [
    ("initialization", ["cifar10: rows", "cifar10: comparisons"]), ("table7", ["cifar10: reported beside measured"])])
def test_tables_are_those_of_show(made, name, captions):
    plan, archive, root = made(name)
    assert next(root.all("h1")).text == plan.title
    assert [one.text for one in root.all("caption")] == captions
    shown = [[[cell.text for cell in row.all("th", "td")] for row in table.all("tr")] for table in root.all("table")]
    assert shown == tables_of(table_texts(plan, archive)[".md"])


def test_curves_and_differences_say_their_numbers(made):
    plan, archive, root = made("budget")
    said = {svg.children[1].text: svg.children[3].text for svg in root.all("svg")}
    curve = said["Budget: accuracy over training FLOPs, 5 to 40 epochs: cifar10"]
    rows = {one.row.label: one for one in measure(plan, archive)}
    few, many = (f"base alone, {epochs} epochs" for epochs in (5, 40))
    first, last = (sum(rows[label].accuracies["base"].values()) / 3 for label in (few, many))
    flops = [sum(rows[label].flops.values()) / 3 for label in (few, many)]
    # Fabricated runs cost the same whatever their length, and are in the order of the rows.
    assert f"base alone: from {first:.2f} % at {flops[0]:.3g} FLOPs to {last:.2f} % at {flops[1]:.3g} FLOPs" in curve
    assert "pair/motivated: from" in curve


def test_differences_to_one_control_are_a_figure(made):
    plan, archive, root = made("initialization")
    said = {svg.children[1].text: svg.children[3].text for svg in root.all("svg")}
    _, comparisons = tables_of(table_texts(plan, archive)[".md"])
    shown = [(title, text) for title, text in said.items() if title.startswith("cifar10: accuracy of the")]
    assert shown
    for title, text in shown:
        phase, control = title.removeprefix("cifar10: accuracy of the ").split(" network minus that of ")
        mine = [row for row in comparisons if row[1] == phase and control.endswith(row[2]) and "[" in row[3]]
        assert len(mine) > 1
        for row in mine:
            mean, low, high = row[3].replace("[", "").replace("]", "").replace(",", "").split()
            assert f"{row[0]} {mean} ({low} to {high}, n = {row[4]}, Holm p = {row[6]})" in text


def test_command_shows_an_unfinished_table(tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["report", "k", "recipe.epochs=1", "--seeds", "1", "-o", str(out), "--runs", str(tmp_path / "cells"),
                 "tracker=none"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    text = out.read_text()
    check_page(text)
    assert "unfinished" in text
    assert "Changed: recipe.epochs=1." in text
    assert "--bogus" in refused_usage(capsys, "report", "k", "--bogus")
    assert "--seeds 0: must be at least 1" in refused(capsys, "report", "k", "--seeds", "0")


def refused_usage(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 2
    return capsys.readouterr().err
