"""A page of HTML that needs nothing beside it: text and tables from Markdown, figures as inline SVG, no script.

Text of a page may be anybody's, such as names of runs: it is escaped, and no Markdown in it counts but the tables,
headings and lists that this package writes. The page's own policy lets a browser load nothing.
"""

import io
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

# Matplotlib's black, in which text and axes are drawn, takes the page's colour of text: it is light on a dark page.
BLACK = "#000000"
# A figure of this width, in inches, is readable on a phone; a wide page shows several side by side.
WIDTH = 4.5
# Cells of more characters than this are wrapped.
LONG = 60
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "motivation", "font.size": 11, "legend.frameon": False,
         "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True)
class Key:
    """An entry of a figure's legend, which is text below it.

    Args:
        text: what is drawn like this.
        colour: as CSS has it.
        mark: a character such as ``●``, or ``line``, ``dashes`` or ``area``.
    """

    text: str
    colour: str = "currentColor"
    mark: str = "line"


@dataclass(frozen=True)
class Picture:
    """A figure with its caption and text alternative.

    Args:
        figure: a matplotlib Figure, made inside `drawing`; its text is the package's own.
        title: what it shows, in some words.
        alternative: what can be seen in it, in numbers.
        keys: its legend.
    """

    figure: Any
    title: str
    alternative: str
    keys: Sequence[Key] = ()


@dataclass(frozen=True)
class Text:
    """Markdown: paragraphs, lists, headings and tables; anything else in it stays as it is.

    Args:
        markdown: the text.
        captions: one for every table in it.
    """

    markdown: str
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A section of a page: a title, and what is below it."""

    title: str
    parts: Sequence[Text | Picture]


@contextmanager
def drawing() -> Iterator[None]:
    """Context in which a page's figures are made and written: their fonts and lines."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def check_page_path(path: Path) -> None:
    """Raise ValueError where no page can be written: a folder or a device."""
    if path.is_dir():
        raise ValueError(f"-o {path} is a folder; name a file in it, such as {path / 'report.html'}")
    if path.exists() and not path.is_file():
        raise ValueError(f"-o {path} is no file; name one, such as report.html")


def write_page(path: Path, title: str, introduction: Sequence[str], sections: Sequence[Section]) -> Path:
    """Write a page, whole or not at all; a file that is there is replaced.

    Args:
        path: the file.
        title: of the page.
        introduction: paragraphs of plain text below the title.
        sections: of the page.

    Raises:
        ValueError: the file cannot be written.
    """
    text = page(title, introduction, sections)
    target = path.resolve()
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Names of files need not be valid text.
            part.write_bytes(text.encode("utf-8", "replace"))
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"report {path} cannot be written: {error}") from error
    return path


def page(title: str, introduction: Sequence[str], sections: Sequence[Section]) -> str:
    """The HTML of a page; see `write_page`."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((resources.files("motivation.analysis") / "page.html").read_text("utf-8"))
    numbers = itertools.count(1)
    shown = []
    for place, section in enumerate(sections, 1):
        parts: list[dict[str, Any]] = []
        for part in section.parts:
            if isinstance(part, Text):
                parts.append({"html": Markup(html(part.markdown, part.captions))})
            else:
                parts.append({"svg": Markup(svg(part, f"figure{next(numbers)}")), "picture": part})
        shown.append({"name": f"section{place}", "title": section.title, "parts": parts})
    text = template.render(title=title, introduction=introduction, sections=shown,
                           version=metadata.version("motivation"))
    # A browser breaks a line inside an arrow of two characters.
    return text.replace("-&gt;", "→")


def html(markdown: str, captions: Sequence[str] = ()) -> str:
    """Markdown of this package as HTML, its tables with captions and header cells, each in a box that scrolls.

    Args:
        markdown: paragraphs, lists, headings, tables.
        captions: one for every table.
    """
    from markdown_it import MarkdownIt
    from markupsafe import escape

    parser = MarkdownIt("zero").enable(["table", "heading", "list"])
    tokens, left = parser.parse(markdown), list(captions)
    in_body = False
    for place, token in enumerate(tokens):
        if token.type in ("tbody_open", "tbody_close"):
            in_body = token.type == "tbody_open"
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        if token.type == "td_open" and len(tokens[place + 1].content) > LONG:
            token.attrSet("class", "long")
        if token.type == "td_open" and in_body and tokens[place - 1].type == "tr_open":
            # The first cell of a row names it; its text and its end follow.
            token.type, token.tag = "th_open", "th"
            token.attrSet("scope", "row")
            tokens[place + 2].type, tokens[place + 2].tag = "th_close", "th"

    def table_open(*_: Any) -> str:
        caption = escape(left.pop(0))
        return (f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">\n<table>\n'
                f"<caption>{caption}</caption>\n")

    parser.add_render_rule("table_open", table_open)
    parser.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    made = parser.renderer.render(tokens, parser.options, {})
    assert not left, f"captions without a table: {left}"
    return made


def svg(picture: Picture, name: str) -> str:
    """A figure as an ``<svg>`` element with its title and text alternative, as wide as the page allows.

    Args:
        picture: the figure.
        name: starts every id in it, which are then unique in the page.
    """
    from markupsafe import escape

    file = io.StringIO()
    with drawing():
        picture.figure.savefig(file, format="svg", transparent=True,
                               metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box
    inside = text[text.index(">", text.index("<svg")) + 1:text.rindex("</svg>")]
    # Comments, and a style that would be the whole page's.
    inside = re.sub(r"<!--.*?-->\s*|<style.*?</style>\s*", "", inside, flags=re.DOTALL)
    inside = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", inside).replace(BLACK, "currentColor")
    return (f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{name}-title {name}-text">\n'
            f'<title id="{name}-title">{escape(picture.title)}</title>\n'
            f'<desc id="{name}-text">{escape(picture.alternative)}</desc>{inside}</svg>')
