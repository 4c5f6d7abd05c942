"""A W&B server in memory: what online runs send to it, in order."""

from typing import Any

import wandb


class Server:
    """Rows of the one run that it has, and the options with which that was opened last."""

    def __init__(self):
        self.rows: list[dict[str, Any]] = []
        self.options: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}

    # What is used of a wandb run.
    id = "served"

    @property
    def step(self) -> int:
        return len(self.rows)

    def define_metric(self, name, step_metric=None, summary=None):
        pass

    def log(self, row):
        self.rows.append(row)

    def finish(self, exit_code):
        pass


def serve(monkeypatch) -> Server:
    """From now on W&B is online, and this is its server."""
    server = Server()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", lambda **options: server.options.update(options) or server)
    return server
