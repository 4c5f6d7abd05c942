"""The saved view of W&B: its panels show what a run logs; without package, login or server one line says so."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import wandb

from motivation.cli.main import main
from motivation.run.mirror import STEP_KEYS
from motivation.run.panels import workspace

# wandb-workspaces defines its models in pydantic's older way.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SAVED = '{"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}}}'


def keys_of(view) -> set[str]:
    """Keys that the panels show, from what is sent to the server."""
    keys = set()
    for section in view._to_model().spec.model_dump(by_alias=True)["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            config = panel["config"]
            keys |= {config.get("xAxis"), config.get("yAxis"), *(config.get("metrics") or ())} - {None}
    return {key.removeprefix("summary:") for key in keys}


def test_panels_show_keys_that_a_run_logs(finished):
    summary = set(json.loads((finished() / "summary.json").read_text()))
    keys = keys_of(workspace("project", "team"))
    assert len(keys) > 20
    assert keys <= {*summary, *STEP_KEYS}
    assert set(STEP_KEYS) <= keys


def test_the_docs_page_lists_the_views_sections():
    page = (Path(__file__).parents[2] / "docs/wandb.md").read_text()
    assert re.findall(r"^\d\. \*\*(.+?)\*\*", page, re.MULTILINE) == [
        section.name for section in workspace("project", "team").sections]


def test_a_view_is_saved_for_the_runs_of_a_project(monkeypatch, capsys):
    """What goes to the server, and the address that comes back."""
    from wandb_workspaces.workspaces import interface, internal

    sent = []
    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    monkeypatch.setattr(wandb, "Api", lambda: type("Api", (), {"default_entity": "me"}))
    monkeypatch.setattr(interface, "get_app_url", lambda api: "https://wandb.example")
    monkeypatch.setattr(internal, "execute_graphql",
                        lambda api, query, variables: sent.append(variables) or json.loads(SAVED))
    assert main(["wandb-panels", "digits"]) == 0
    assert capsys.readouterr().out == "https://wandb.example/me/digits?nw=abc\n"
    assert (sent[0]["entityName"], sent[0]["projectName"], sent[0]["displayName"]) == ("me", "digits", "motivation")
    [runs] = json.loads(sent[0]["spec"])["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group", "jobType"]
    assert main(["wandb-panels", "digits", "--entity", "team"]) == 0
    assert sent[1]["entityName"] == "team"

    def refuse(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(internal, "execute_graphql", refuse)
    assert main(["wandb-panels", "digits"]) == 1
    assert "project digits: no route to host" in capsys.readouterr().err


def test_without_package_or_login(monkeypatch, capsys):
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    assert main(["wandb-panels", "digits"]) == 1
    assert "wandb login" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["wandb-panels", "digits"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install motivation[wandb-panels]")
