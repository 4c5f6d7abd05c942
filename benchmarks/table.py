"""What a benchmark returns: rows with named columns, as Markdown and for JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from motivation.analysis.markdown import markdown_table, number

UNMEASURED = "not measured here"
# A text, a number (NaN where there is none), or None where it was not measured.
Cell = str | float | None


@dataclass
class Table:
    """What was measured.

    Args:
        title: of the table.
        columns: name -> format of its numbers; "" is a column of text.
        rows: a cell a column; see `unmeasured` for one without figures.
        note: how it was measured, in sentences.
        bounds: what is asked of it, with the figure, and whether it held.
    """

    title: str
    columns: Mapping[str, str]
    rows: list[tuple[Cell, ...]]
    note: str = ""
    bounds: Mapping[str, bool] = field(default_factory=dict)

    def unmeasured(self, *texts: str) -> None:
        """Append a row that says that nothing was measured."""
        self.rows.append((*texts, *[None] * (len(self.columns) - len(texts))))

    @property
    def missed(self) -> list[str]:
        """Bounds that were not held."""
        return [text for text, held in self.bounds.items() if not held]

    def markdown(self) -> str:
        """Title, table, bounds and note."""
        texts = list(takewhile(lambda form: not form, self.columns.values()))
        lines = markdown_table([tuple(self.columns), *map(self._cells, self.rows)], len(texts))
        parts = [f"### {self.title}", "\n".join(lines)]
        if self.bounds:
            parts.append("  \n".join(f"Bound {'held' if held else 'MISSED'}: {text}"
                                     for text, held in self.bounds.items()))
        return "\n\n".join([*parts, *filter(None, [self.note])])

    def as_json(self) -> dict[str, Any]:
        """The same as plain values: rows as mappings, null for what was not measured or is no number."""
        rows = [{name: None if isinstance(cell, float) and not math.isfinite(cell) else cell
                 for name, cell in zip(self.columns, row, strict=True)} for row in self.rows]
        return {"title": self.title, "rows": rows, "bounds": dict(self.bounds), "note": self.note}

    def _cells(self, row: tuple[Cell, ...]) -> list[str]:
        """Cells as text; the first that was not measured says so."""
        cells = [cell if isinstance(cell, str) else number(cell, form)
                 for cell, form in zip(row, self.columns.values(), strict=True)]
        if None in row:
            cells[row.index(None)] = UNMEASURED
        return cells
