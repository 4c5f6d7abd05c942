"""A run stopped at a step, and all that a finished run leaves, for comparison."""

import json
import os
import signal

import numpy as np
import pytest

import motivation.training.trainer
from motivation.run.run import run
from motivation.run.signals import Interrupted
from motivation.run_folder.checkpoints import load_checkpoint


def left(folder) -> dict:
    """Everything a run folder says, but for seconds."""
    rows = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    for row in (*rows, summary):
        del row["budget/seconds"]
    with np.load(folder / "predictions.npz") as file:
        predictions = {name: file[name].tobytes() for name in file.files}
    weights = load_checkpoint(folder / "checkpoints" / "final.pt")
    files = {name: (folder / name).read_bytes() for name in ("steps.csv", "signals.csv", "config.yaml")
             if (folder / name).exists()}
    return {"rows": rows, "summary": summary, "predictions": predictions, **files,
            "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()}}


def stop_after(monkeypatch, step: int, number=signal.SIGTERM):
    """The process sends itself a signal in this step of this run."""
    train = motivation.training.trainer.Trainer.step
    count = iter(range(10_000))

    def stepped(self, *batch, **options):
        if next(count) == step:
            os.kill(os.getpid(), number)
        return train(self, *batch, **options)

    monkeypatch.setattr(motivation.training.trainer.Trainer, "step", stepped)


def stopped(config, folder, monkeypatch, step, number=signal.SIGTERM):
    with monkeypatch.context() as patch:
        stop_after(patch, step, number)
        with pytest.raises(Interrupted, match=f"stopped by {number.name} at step {step + 1} of .*resume={folder}"):
            run(config, folder)
    assert len((folder / "steps.csv").read_text().splitlines()) == step + 2
    return folder
