"""Text of tables as LaTeX."""

import re
from collections.abc import Sequence

TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "->": r"$\to$",
       "<": "$<$", ">": "$>$", "|": r"\textbar{}", **{plain: f"\\{plain}" for plain in "&%$#_{}"}}


def tex(text: str) -> str:
    """Plain text with LaTeX's signs escaped."""
    return re.sub("|".join(map(re.escape, TEX)), lambda match: TEX[match[0]], text)


def tex_line(cells: Sequence[str]) -> str:
    """A line of a tabular."""
    # LaTeX would read a bracket at the start of a line as the argument of the line break before it.
    return " & ".join("{}" * cell.startswith("[") + tex(cell) for cell in cells) + r" \\"


def latex_table(caption: str, header: Sequence[str], sections: Sequence[tuple[str, Sequence[Sequence[str]]]]
                ) -> list[str]:
    """Lines of a table that fits a page's width.

    Args:
        caption: plain text.
        header: of the columns, the first flush left.
        sections: name of a data set, and its rows.
    """
    lines = [r"\begin{table}", rf"\caption{{{tex(caption)}}}", r"\resizebox{\textwidth}{!}{%",
             rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", tex_line(header)]
    for name, rows in sections:
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{{tex(name)}}} \\", *map(tex_line, rows)]
    return [*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
