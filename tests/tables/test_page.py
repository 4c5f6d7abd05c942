"""Pages that show tables: between the comments stands what the command prints, in the committed pages too."""

import contextlib
from pathlib import Path

import pytest

import motivation.cli.compose
from motivation.cli.main import main
from motivation.tables.page import fill

PAGES = [Path(__file__).parents[2] / name for name in ("README.md", "docs/results.md", "docs/allocation.md")]
PAGE = """# Title
<!-- motivation table one --show -->
old
<!-- end of table -->
between <!-- a comment -->
<!-- motivation table two -->
<!-- end of table -->
end
"""


def test_only_the_tables_of_a_page_change():
    filled = fill(PAGE, lambda arguments: f"table of {arguments}")
    assert filled == """# Title
<!-- motivation table one --show -->

table of one --show

<!-- end of table -->
between <!-- a comment -->
<!-- motivation table two -->

table of two

<!-- end of table -->
end
"""
    assert fill(filled, lambda arguments: f"table of {arguments}") == filled
    assert fill("no table", str.upper) == "no table"


def test_a_table_without_an_end_is_named_and_no_page_is_written(tmp_path, capsys):
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text("good")
    bad.write_text(PAGE.replace("old\n<!-- end of table -->\n", ""))
    assert main(["table", "--update", str(good), str(bad)]) == 1
    assert "<!-- motivation table one --show --> has no <!-- end of table -->" in capsys.readouterr().err
    assert good.read_text() == "good"


def test_the_committed_pages_are_what_the_command_makes(composed, tmp_path, monkeypatch):
    """Also where no data set can be read: there are only the results that come with the package."""
    @contextlib.contextmanager
    def composing():
        yield lambda overrides: composed((*["data.root=nowhere"] * ("data=cifar10" in overrides), *overrides))

    monkeypatch.setattr(motivation.cli.compose, "composing", composing)
    copies = [tmp_path / page.name for page in PAGES]
    for page, copy in zip(PAGES, copies, strict=True):
        assert "<!-- motivation table " in page.read_text()
        copy.write_text(page.read_text())
    assert main(["table", "--update", *map(str, copies)]) == 0
    for page, copy in zip(PAGES, copies, strict=True):
        assert copy.read_text() == page.read_text()


def test_a_control_that_nothing_is_compared_with_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["table", "initialization", "--seeds", "1", "--show", "--against", "random"]) == 1
    assert "--against random: initialization compares with base alone, motivated alone" in capsys.readouterr().err


def test_against_needs_show(capsys):
    assert main(["table", "initialization", "--against", "native"]) == 1
    assert "--against native: only with --show" in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_pages_are_shown_and_not_trained(page):
    commands = [line for line in page.read_text().splitlines() if line.startswith("<!-- motivation table ")]
    assert commands
    assert all("--show" in line for line in commands)
