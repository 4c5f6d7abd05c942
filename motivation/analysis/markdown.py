"""Tables in Markdown, and how a figure is written in one."""

from collections.abc import Sequence

import numpy as np

NONE = "-"


def markdown_table(rows: Sequence[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Lines of a Markdown table.

    Args:
        rows: cells, the header's first; a ``|`` in one is escaped, and a line break becomes a space.
        text_columns: how many of the first columns are flush left; the others are flush right.
    """
    rows = [[" ".join(cell.splitlines()).replace("|", r"\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) if index < text_columns else cell.rjust(width)
                               for index, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"
             for row in rows]
    rule = "|" + "|".join("-" * (width + 2) if index < text_columns else "-" * (width + 1) + ":"
                          for index, width in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


def number(value: float | None, form: str) -> str:
    """A number in this format; a dash for None or NaN."""
    return NONE if value is None or np.isnan(value) else format(value, form)


def mean_std(values: Sequence[float], form: str = ".2f") -> str:
    """Mean, and from two values on their standard deviation; a dash where there are none, or some are NaN."""
    if not len(values) or np.isnan(values).any():
        return NONE
    spread = f" ± {np.std(values, ddof=1):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{np.mean(values):{form}}{spread}"
