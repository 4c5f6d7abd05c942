"""Pages that show tables: a table stands between a comment with its command and a comment that ends it.

``<!-- motivation table signals --scale minute --show -->`` begins one, ``<!-- end of table -->`` ends it.
"""

import re
from collections.abc import Callable

BEGIN, END = re.compile(r"<!-- motivation table (.*?) -->\n"), "<!-- end of table -->"


def fill(page: str, table: Callable[[str], str]) -> str:
    """A page with its tables as they are now; all other text stays.

    Args:
        page: Markdown.
        table: the arguments of ``motivation table`` in a comment -> the table as Markdown.

    Raises:
        ValueError: a table has no end.
    """
    parts, place = [], 0
    while begin := BEGIN.search(page, place):
        end = page.find(END, begin.end())
        if end < 0 or BEGIN.search(page, begin.end(), end):
            raise ValueError(f"{begin[0].strip()} has no {END}")
        parts += [page[place:begin.end()], "\n", table(begin[1]), "\n\n"]
        place = end
    return "".join([*parts, page[place:]])
