"""Tables of measurements as Markdown and as JSON."""

import json
import math

from motivation.benchmarks.table import Table


def table() -> Table:
    made = Table("Speed", {"device": "", "steps/s": ".1f", "blocks": "d", "why": ""}, [("cpu", 12.34, 3, "x")],
                 "A note.", {"at least 10": True, "at least 20": False})
    made.rows.append(("none", math.nan, 1, "y"))
    made.unmeasured("cuda")
    return made


def test_markdown_has_title_rows_bounds_and_note():
    assert table().markdown().splitlines() == [
        "### Speed",
        "",
        "| device |           steps/s | blocks | why |",
        "|--------|------------------:|-------:|----:|",
        "| cpu    |              12.3 |      3 |   x |",
        "| none   |                 - |      1 |   y |",
        "| cuda   | not measured here |      - |   - |",
        "",
        "Bound held: at least 10  ",
        "Bound MISSED: at least 20",
        "",
        "A note."]
    assert table().missed == ["at least 20"]


def test_json_is_strict_and_null_where_there_is_no_number():
    assert json.loads(json.dumps(table().as_json(), allow_nan=False)) == {
        "title": "Speed", "note": "A note.", "bounds": {"at least 10": True, "at least 20": False},
        "rows": [{"device": "cpu", "steps/s": 12.34, "blocks": 3, "why": "x"},
                 {"device": "none", "steps/s": None, "blocks": 1, "why": "y"},
                 {"device": "cuda", "steps/s": None, "blocks": None, "why": None}]}
