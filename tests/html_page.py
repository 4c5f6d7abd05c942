"""What must hold of every page of HTML that the package writes, by the standard library's parser."""

import itertools
import re
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Element:
    """An element with its attributes, children (elements and texts) and parent."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.children = tag, attributes, parent, []

    def all(self, *tags):
        """Elements inside, of these tags or of any, in order."""
        for child in self.children:
            if isinstance(child, Element):
                if not tags or child.tag in tags:
                    yield child
                yield from child.all(*tags)

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def __getitem__(self, name):
        return self.attributes[name]


class Tree(HTMLParser):
    """The elements of a page, each of which must be closed."""

    def __init__(self, text):
        super().__init__()
        self.root = self.at = Element("page", {}, None)
        self.feed(text)
        self.close()
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> stands twice"
        element = Element(tag, dict(attrs), self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.at = self.at.parent

    def handle_endtag(self, tag):
        assert tag == self.at.tag, f"</{tag}> ends <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


def check_page(text):
    """Check a page, and return its root element."""
    root = Tree(text).root
    [html], [heading] = root.all("html"), root.all("h1")
    [title] = [one for one in root.all("title") if one.parent.tag == "head"]
    assert html["lang"] == "en"
    assert title.text == heading.text != ""
    assert any(meta.attributes.get("name") == "viewport" for meta in root.all("meta"))
    check_nothing_is_loaded(root, text)
    check_alternatives(root)
    for table in root.all("table"):
        check_table(table)
    levels = [int(one.tag[1]) for one in root.all("h1", "h2", "h3", "h4")]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    return root


def check_nothing_is_loaded(root, text):
    """No script, and no address but of what is in the page itself."""
    forbidden = ("script", "link", "iframe", "object", "embed", "base", "img", "form")
    assert not [one.tag for one in root.all(*forbidden)]
    for element in root.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"{name} of <{element.tag}>"
            if name in ("href", "xlink:href", "src"):
                inside = value.startswith("data:image/png;base64,") if element.tag == "image" else value[0] == "#"
                assert inside, f"{name} of <{element.tag}> is {value[:60]}"
    [policy] = [meta["content"] for meta in root.all("meta") if meta.attributes.get("http-equiv")]
    assert policy.startswith("default-src 'none';")
    [style] = root.all("style")
    assert not re.search(r"@import|url\(", style.text)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", text))


def check_alternatives(root):
    """Every figure says what it shows, and every id is one element's."""
    ids = [element["id"] for element in root.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    by_id = {element["id"]: element for element in root.all() if "id" in element.attributes}
    figures = list(root.all("figure"))
    for figure in figures:
        [svg] = figure.all("svg")
        assert svg["role"] == "img"
        title, alternative = (by_id[name] for name in svg["aria-labelledby"].split())
        assert (title.tag, alternative.tag) == ("title", "desc")
        assert title.text
        # In numbers, and not the title again.
        assert re.search(r"\d", alternative.text)
        assert len(alternative.text) > len(title.text)
    assert len(list(root.all("svg"))) == len(figures)
    for link in root.all("a"):
        assert link["href"].removeprefix("#") in by_id
    for element in root.all("use"):
        assert element["xlink:href"].removeprefix("#") in by_id
    for element in root.all():
        if "clip-path" in element.attributes:
            assert re.fullmatch(r"url\(#(.*)\)", element["clip-path"])[1] in by_id


def check_table(table):
    """A caption, header cells, rows of one length, and a box of its own in which it scrolls."""
    [caption] = table.all("caption")
    assert caption.text
    assert table.parent["class"] == "scroll"
    assert (table.parent["role"], table.parent["aria-label"], table.parent["tabindex"]) == ("region", caption.text, "0")
    [head], [body] = list(table.all("thead")), list(table.all("tbody"))
    columns = list(head.all("th"))
    assert columns
    assert {cell["scope"] for cell in columns} == {"col"}
    for row in body.all("tr"):
        cells = list(row.all("th", "td"))
        assert [cell.tag for cell in cells] == ["th", *["td"] * (len(columns) - 1)]
        assert cells[0]["scope"] == "row"
