"""Results as data: a row a finished run, in a file that shows a table without the runs.

The rows are experiments/results/TABLE_SCALE.csv. Floats are written by repr, so that a table shown from the file equals
one shown from the run folders. A row is a cell's if it has its identity: a table whose configs have changed since does
not show it.
"""

import csv
import io
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from motivation.run_folder.read import Run
from motivation.tables.cells import UNREAD, Archive, Cell
from motivation.tables.plan import Plan

logger = logging.getLogger(__name__)
# Figures of a run's summary; the last two are not of every version.
INTEGERS = ("seed", "steps/base", "steps/motivated")
FLOATS = ("base/top1", "motivated/top1", "base/val_top1", "budget/flops", "budget/forward_per_image",
          "base/forward_flops", "motivated/forward_flops", "null_rate", "null_rate_independent")
TEXTS = ("null_kind",)
# Accuracies of further test splits, such as base/longer_top1, and what a lever counted: columns where runs have them.
FURTHER = re.compile(r"(base|motivated)/(?!val_)\w+_top1|lever/\w+")
NOT_ALWAYS = ("null_rate_independent", "null_kind")
ALWAYS = (*INTEGERS, "base/top1", "budget/flops")
COLUMNS = ("run", "identity", "dataset", "row", "seed", "fold", "base/top1", "motivated/top1", "base/val_top1",
           "motivated_share", "null_rate", "budget/flops", "budget/forward_per_image", "base/forward_flops",
           "motivated/forward_flops", "steps/base", "steps/motivated", "null_kind", "null_rate_independent", "version")
# On what a run has its bits; not in files of earlier versions.
BITS = ("hardware", "torch")


def committed() -> Path:
    """The folder of the results that come with the package."""
    return Path(str(resources.files("motivation.experiments"))) / "results"


class Results:
    """The file of a table's results at one scale.

    Args:
        folder: of the files of all tables; need not exist.
        name: of the table.
        scale: of the table.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, folder: Path, name: str, scale: str):
        self.path = folder / f"{name}_{scale}.csv"
        self._know(self._read())

    def __call__(self, cell: Cell) -> dict[str, Any] | None:
        """Figures of a cell's run as its summary has them; None where there is no row of its identity."""
        row = self._by_setting.get(cell.stem) if UNREAD in cell.fingerprints else self._rows.get(cell.identity)
        return _figures(row) if row else None

    def record(self, plan: Plan, archive: Archive, cells: Sequence[Cell]) -> None:
        """Add the finished runs of these cells to the file; a run that has a row takes it over.

        Raises:
            OSError: the file cannot be written.
        """
        rows = self._read()
        for cell in cells:
            state = archive.state(cell)
            if state.kind != "finished" or UNREAD in cell.fingerprints:
                continue
            assert state.run
            row, known = _row(plan, cell, state.run), rows.get(cell.identity)
            figures = (*FLOATS, *INTEGERS, *filter(FURTHER.fullmatch, row))
            changed = [key for key in figures if known and known.get(key, "") != row.get(key, "")]
            if known and changed:
                here, there = (", ".join(filter(None, (one.get(key) for key in BITS))) for one in (row, known))
                logger.warning("%s differs from its row in %s: %s is %s, was %s%s", cell.name, self.path, changed[0],
                               row[changed[0]], known.get(changed[0]),
                               f"; trained on {here}, not on {there}" if here and there and here != there else "")
            # A row that is right stays as it was written, also by another version.
            if changed or not known:
                rows[cell.identity] = row
        if rows == self._read():
            return
        text = io.StringIO()
        further = dict.fromkeys(key for row in rows.values() for key in row if FURTHER.fullmatch(key))
        writer = csv.DictWriter(text, (*COLUMNS, *BITS, *further), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(text.getvalue())
        os.replace(part, self.path)
        self._know(rows)

    def left_out(self, plan: Plan) -> int:
        """Rows of this plan's labels and seeds that are of other runs: what sets their result has changed."""
        known = {cell.identity for cell in plan.cells} | {cell.stem for cell in plan.cells}
        asked = {(row.label, cell.config["seed"]) for row in plan.rows for cell in row.cells}
        return sum(row["identity"] not in known and row["run"].rpartition("-")[0] not in known
                   and (row["row"], int(row["seed"])) in asked for row in self._rows.values())

    def _know(self, rows: dict[str, dict[str, str]]) -> None:
        self._rows = rows
        # By the run's name without its data: a table shows where its data set is not.
        self._by_setting = {row["run"].rpartition("-")[0]: row for row in rows.values()}

    def _read(self) -> dict[str, dict[str, str]]:
        if not self.path.is_file():
            return {}
        try:
            with open(self.path, newline="") as file:
                reader = csv.DictReader(file)
                rows = {row["identity"]: dict(row) for row in reader}
            columns = tuple(reader.fieldnames or ())
            others = [key for key in columns[len(COLUMNS):] if key not in BITS]
            if columns[:len(COLUMNS)] != COLUMNS or not all(map(FURTHER.fullmatch, others)):
                raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
            for number, row in enumerate(rows.values(), start=2):
                _check(row, number)
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"{self.path} is damaged: {' '.join(str(error).split())}") from error
        return rows


def _check(row: Mapping[str, str], line: int) -> None:
    """Raise ValueError for a figure that no run can have."""
    for key in (*INTEGERS, *FLOATS, *filter(FURTHER.fullmatch, row)):
        text, most = row[key] or "", 100 if key.endswith("top1") else math.inf
        if (not text and key not in ALWAYS) or key.startswith("lever/"):
            continue
        try:
            value = _number(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most or math.isinf(value) or (key in INTEGERS and not isinstance(value, int)):
            raise ValueError(f"line {line}: {key} is {text!r}: must be a number from 0{' to 100' * (most == 100)}")


def _figures(row: dict[str, str]) -> dict[str, Any]:
    figures: dict[str, Any] = {key: int(row[key]) for key in INTEGERS}
    figures |= {key: _number(row[key]) if row[key] else None for key in FLOATS}
    figures |= {key: row[key] or None for key in TEXTS}
    figures |= {key: _number(value) for key, value in row.items() if FURTHER.fullmatch(key) and value}
    return {key: value for key, value in figures.items() if value is not None or key not in NOT_ALWAYS}


def _number(text: str) -> int | float:
    """As json reads it: FLOPs are whole numbers, sums of them too."""
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _row(plan: Plan, cell: Cell, run: Run) -> dict[str, str]:
    """A run as a row; its label is that of the first row that shows it, none for the source of a control alone."""
    planned = next((row for row in plan.rows if any(one.identity == cell.identity for one in row.cells)), None)
    share, fold = run.motivated_share, run.config["data"].get("fold")
    values = {key: run.summary.get(key) for key in (*INTEGERS, *FLOATS, *TEXTS, *BITS)}
    values |= {"run": cell.name, "identity": cell.identity, "dataset": planned and planned.dataset,
               "row": planned and planned.label, "fold": fold, "motivated_share": share, "version": version()}
    further = {key: value for key, value in run.summary.items() if FURTHER.fullmatch(key) and value is not None}
    return {key: "" if value is None else str(value)
            for key, value in ({key: values[key] for key in (*COLUMNS, *BITS)} | further).items()}


def version() -> str:
    """Version of the package that is installed."""
    return metadata.version("motivation")
