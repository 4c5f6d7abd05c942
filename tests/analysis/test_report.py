"""The page of finished runs: its structure, its text alternatives, foreign text in it, its limits, and a browser."""

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from html import escape

import numpy as np
import pytest
from commands import refused
from html_page import Tree, check_page

import motivation.analysis.report
from motivation.analysis.compare import comparison_table
from motivation.analysis.diagnose import diagnose
from motivation.analysis.figures import intervals
from motivation.analysis.page import Section, Text, html, page, svg, write_page
from motivation.analysis.pareto import Point
from motivation.analysis.report import cost_pictures, report_runs
from motivation.analysis.runs import group_runs
from motivation.analysis.timeline import BINS, timeline
from motivation.cli.main import main
from motivation.run_folder.read import read_run

FOREIGN = "<script>x</script>|`*a*` ![b](http://c/d.png) \"'&amp; $e_$"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def runs(finished_once):
    """Two seeds of a pair and of its base alone."""
    return [read_run(finished_once(*overrides)) for overrides in ((), ("seed=1",), ("model=resnet8",),
                                                                  ("model=resnet8", "seed=1"))]


@pytest.fixture(scope="module")
def root(runs):
    """Their page, checked."""
    return check_page(page_of(runs))


def page_of(runs):
    return page("Some runs", ["From here."], report_runs(runs))


def sentences(root):
    """Text alternatives by title."""
    return {svg.children[1].text: svg.children[3].text for svg in root.all("svg")}


def test_the_page_is_sound_and_has_the_tables_of_compare(root, runs):
    assert [one.text for one in root.all("h2")] == [
        "Comparison", "Accuracy over training FLOPs", "Accuracy against cost", "Progress or noise?",
        "Motivated intervals"]
    table, calibration = root.all("table")
    shown = [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]
    lines = comparison_table(runs).splitlines()
    printed = [[cell.strip().replace("->", "→") for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert shown == [printed[0], *printed[2:]]
    assert calibration.text.count("resnet8 alone") == 1
    # The notes below it too.
    assert lines[-1].removeprefix("- ").replace("->", "→") in [one.text for one in root.all("li")]


def test_alternatives_hold_the_figures_numbers(root, runs):
    said = sentences(root)
    pair, alone = (group for group in group_runs(runs).values())
    accuracy = said["Test accuracy over cumulative training FLOPs"]
    for group, phase in ((pair, "motivated"), (alone, "base")):
        first, last = ([run.epochs[end] for run in group] for end in (0, -1))
        assert (f"from {np.mean([row[f'{phase}/top1'] for row in first]):.2f} % at "
                f"{np.mean([row['budget/flops'] for row in first]):.3g} FLOPs to "
                f"{np.mean([row[f'{phase}/top1'] for row in last]):.2f} % at "
                f"{np.mean([row['budget/flops'] for row in last]):.3g} FLOPs (n = 2)") in accuracy
    [shares] = [text for title, text in said.items() if "threshold" in title]
    for run in pair:
        found = intervals(run.steps["motivated"])
        assert (f"Seed {run.summary['seed']}: {run.motivated_share:.1%} of {len(run.steps['loss'])} steps are "
                f"motivated, in {len(found)} intervals, the longest of {max(length for _, length in found)}") in shares
    assert "1. " in said["Test accuracy against inference FLOPs an image"]


def test_verdicts_are_those_of_diagnose(root, runs):
    items = [one.text for one in root.all("li")]
    for run in runs[:2]:
        assert f"Seed {run.summary['seed']}. {diagnose(run).verdict}" in items


def test_runs_of_one_network_have_no_verdicts(runs):
    root = check_page(page_of(runs[2:]))
    assert [one.text for one in root.all("h2")][-1] == "Accuracy against cost"


def test_foreign_text_stays_text(invented):
    """In names of networks, which labels show, and of folders; it is neither HTML nor Markdown."""
    model = read_run(invented("x", 0, 0.0).path).config["model"] | {"base": FOREIGN}
    runs = [invented("a", 0, 90.0, config={"model": model}),
            invented("b", 0, 91.0, "classical", config={"model": {"name": "classical", "network": FOREIGN}})]
    (runs[1].path / "predictions.npz").unlink()
    text = page(FOREIGN, [FOREIGN, "\udcff"], report_runs(runs))
    root = check_page(text)
    assert "http:" not in re.sub(re.escape("![b](http://c/d.png)"), "", text)
    for tag in ("h1", "h3", "p", "th", "td", "li", "desc", "title"):
        assert any(FOREIGN in one.text for one in root.all(tag)), tag
    [row] = [one for one in root.all("tr") if f"{FOREIGN} alone" in one.text and "91.00" in one.text]
    assert next(row.all("th")).text == f"{FOREIGN} alone"


def test_markdown_of_other_kinds_is_text():
    assert html("a *b* [c](d) <e> &amp; http://f ![g](h)\n\n> i\n\n---") == (
        "<p>a *b* [c](d) &lt;e&gt; &amp;amp; http://f ![g](h)</p>\n<p>&gt; i</p>\n<p>---</p>\n")
    assert html("### a\n\n- `b`") == "<h3>a</h3>\n<ul>\n<li>`b`</li>\n</ul>\n"


def test_limits_are_said(invented, monkeypatch):
    monkeypatch.setattr(motivation.analysis.report, "GROUPS", 2)
    monkeypatch.setattr(motivation.analysis.report, "RUNS_A_GROUP", 1)
    runs = [invented(f"{k}-{seed}", seed, 90.0, schedule={"name": "threshold", "k": k, "epoch_edge": "contract"})
            for k in (2, 3, 4) for seed in (0, 1)]
    root = check_page(page_of(runs))
    paragraphs = [one.text for one in root.all("p")]
    assert "Shown are figures of the first 2 of 3 groups of runs; the tables above have all." in paragraphs
    assert paragraphs.count("Shown are figures and verdicts of the first 2 of 3 groups of runs and of the first 1 runs "
                            "of a group, where it has more (up to 2); the tables above have all.") == 2
    assert len(list(next(root.all("tbody")).all("tr"))) == 3
    assert sum(one.text.startswith("Seed ") for one in root.all("li")) == 2
    assert sum("Loss of seed" in said for said in sentences(root).values()) == 2


def test_accuracy_of_many_groups_is_in_figures_of_one_scale(invented, monkeypatch):
    monkeypatch.setattr(motivation.analysis.report, "GROUPS_A_FIGURE", 2)
    runs = [invented(f"{k}", 0, 80.0 + k, schedule={"name": "threshold", "k": k, "epoch_edge": "contract"})
            for k in (2, 3, 4)]
    pictures = [part for part in report_runs(runs)[1].parts if not isinstance(part, Text)]
    assert [picture.title.rpartition(", ")[2] for picture in pictures] == ["groups 1 to 2", "groups 3 to 3"]
    assert len({(picture.figure.axes[0].get_xlim(), picture.figure.axes[0].get_ylim()) for picture in pictures}) == 1


def test_of_a_thousand_networks_the_figure_names_the_front():
    rng = np.random.default_rng(0)
    points = [Point(f"group {place}", "net", "base", *rng.uniform(1e12, 2e12, 2), 60 + rng.normal())
              for place in range(1000)]
    training, _ = cost_pictures(points)
    front = [one for one in points if not any(other.training < one.training and other.accuracy >= one.accuracy
                                              for other in points)]
    assert len(training.keys) == len(front) + 2
    assert f"Below it: {1000 - len(front)} other networks" in training.alternative
    assert len(svg(training, "a")) < 1_000_000


def test_a_cost_that_was_not_recorded_has_no_figure():
    points = [Point("a", "net", "alone", 1e12, np.nan, 60.0), Point("b", "net", "alone", 2e12, np.nan, 61.0)]
    [training] = cost_pictures(points)
    assert "1. a: 60.00 % (n = 1) at 1e+12 FLOPs; 2. b: 61.00 % (n = 1) at 2e+12 FLOPs" in training.alternative


def test_a_long_run_makes_no_long_figure(runs):
    steps = 200_003
    rng = np.random.default_rng(0)
    run = read_run(runs[0].path)
    vars(run)["steps"] = {"loss": rng.uniform(1, 2, steps), "motivated": rng.random(steps) < 0.2}
    picture = timeline("long", [run] * 3)
    assert f"lowest to highest of every {-(-steps // BINS)} steps" in picture.keys[0].text
    assert len(svg(picture, "a")) < 100_000


def test_a_single_step_and_a_loss_of_nan_can_be_drawn(runs):
    for loss in ([2.5], [1.0, np.nan, -1.0]):
        run = read_run(runs[0].path)
        vars(run)["steps"] = {"loss": np.array(loss), "motivated": np.ones(len(loss), bool)}
        assert f"100.0% of {len(loss)} steps are motivated, in 1 intervals" in timeline("short", [run]).alternative
        assert svg(timeline("short", [run]), "a")


def test_command_writes_one_page_and_replaces_it(runs, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    for chosen in (runs[1:], runs[2:]):
        assert main(["report", *(str(run.path) for run in chosen), "-o", str(out)]) == 0
        assert capsys.readouterr().out == f"{out}\n"
        root = check_page(out.read_text())
        assert next(root.all("h1")).text == f"{len(chosen)} finished runs"
    assert list(out.parent.iterdir()) == [out]


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    write_page(out, "First", [], [])
    before = out.read_text()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ValueError, match=r"report .*report.html cannot be written: .*No space left"):
        write_page(out, "Second", [], [Section("a", [Text("b")])])
    assert [out.read_text(), list(tmp_path.iterdir())] == [before, [out]]


def test_refusals_are_one_line(finished, tmp_path, capsys):
    run = str(finished())
    assert "no such run folder, and no table; there are attempts, budget, " in refused(capsys, "report", "nowhere")
    assert "is a folder; name a file" in refused(capsys, "report", run, "-o", str(tmp_path))
    assert "is no file" in refused(capsys, "report", run, "-o", "/dev/null")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capsys, "report", run, "-o", str(tmp_path / "file" / "page.html"))
    assert "page is of one table, here signals" in refused(capsys, "report", "signals", "budget")
    assert "is no run folder" in refused(capsys, "report", str(tmp_path))


# Frames are as narrow as a phone, which a window need not be.
FRAMES = """<!DOCTYPE html><body><iframe srcdoc="{0}" style="width:360px;height:800px;border:0"></iframe>
<iframe srcdoc="{0}" style="width:1200px;height:800px;border:0"></iframe>
<script>
onload = () => document.body.dataset.measured = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
  const page = frame.contentDocument, width = frame.contentWindow.innerWidth;
  const wide = [...page.querySelectorAll("main *")].filter(
    one => !one.parentElement.closest(".scroll, svg") && one.getBoundingClientRect().right > width);
  const letters = [...page.querySelectorAll("figure svg text")].map(one => parseFloat(getComputedStyle(one).fontSize)
    * one.ownerSVGElement.getBoundingClientRect().width / one.ownerSVGElement.viewBox.baseVal.width);
  return {{width, scroll: page.documentElement.scrollWidth, wide: wide.map(one => one.outerHTML.slice(0, 99)),
           letters: Math.min(...letters), figures: page.querySelectorAll("figure svg").length}};
}}));
</script></body>"""


def browse(folder, file, *options):
    done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                           "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *options,
                           file.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def pixel(png):
    """Red, green and blue of the first pixel of a PNG of 8 bits a channel."""
    at, data = 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        data += png[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return tuple(zlib.decompressobj().decompress(data, 16)[1:4])


@pytest.mark.soak
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_in_chromium_nothing_is_wider_than_a_phone(runs, tmp_path):
    """Nothing but a table in its own box; letters of figures have 9 pixels or more; both colour schemes."""
    file, frames = tmp_path / "page.html", tmp_path / "frames.html"
    write_page(file, "Some runs", ["From here."], report_runs(runs))
    frames.write_text(FRAMES.format(escape(file.read_text())))
    [body] = Tree(browse(tmp_path, frames, "--dump-dom", "--window-size=1400,800").stdout).root.all("body")
    for width, found in zip((360, 1200), json.loads(body["data-measured"]), strict=True):
        assert (found["width"], found["scroll"], found["wide"], found["figures"]) == (width, width, [], 4)
        assert found["letters"] >= 9
    for scheme, paper in (("0", (21, 24, 28)), ("1", (255, 255, 255))):
        picture = tmp_path / "picture.png"
        # 0 is dark.
        done = browse(tmp_path, file, f"--screenshot={picture}", "--window-size=360,800",
                      f"--blink-settings=preferredColorScheme={scheme}")
        assert "Refused to" not in done.stderr
        assert pixel(picture.read_bytes()) == paper
