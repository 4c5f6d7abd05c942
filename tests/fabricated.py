"""Run folders of tables' cells that were never trained: as much of a finished run as tables read."""

import json
import os
import signal

import yaml

from motivation.run.signals import StopRequest


def fabricate(archive, cell, accuracy=90.0, share=1 / 6):
    """Make the folder of a finished run of a cell; returns it.

    Args:
        archive: the folder of all cells; a source is fabricated before its controls.
        cell: the cell.
        accuracy: of the base network, in percent.
        share: of motivated steps.
    """
    return write_finished(archive.runnable(cell), archive.path(cell), accuracy=accuracy, share=share)


def interrupted_in(number, trained):
    """A function in place of `motivation.run.run.run`: it leaves finished runs, and in this one SIGINT comes.

    Args:
        number: of the run, from 1.
        trained: gets the folder of every run that begins.
    """
    def run(config, path, resume):
        trained.append(path)
        with StopRequest() as stop:
            if len(trained) == number:
                os.kill(os.getpid(), signal.SIGINT)
            stop.check()
        return write_finished(config, path, resume)

    return run


def write_finished(config, folder, resume=False, accuracy=90.0, share=1 / 6):
    """Leave a finished run of a config in a folder, in place of `motivation.run.run.run`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=resume)
    forward, alone = 80e6, "network" in config["model"]
    steps = [1000, 0] if alone else [round(1000 * (1 - share)), round(1000 * share)]
    mean = forward * (1 + steps[1] / 1000)
    # The two networks differ by another amount in every seed.
    motivated = None if alone else accuracy + 1 + config["seed"] % 4 / 8
    summary = {"base/top1": accuracy, "motivated/top1": motivated, "base/val_top1": accuracy,
               "steps/base": steps[0], "steps/motivated": steps[1], "base/forward_flops": forward,
               "motivated/forward_flops": None if alone else 2 * forward,
               "budget/forward_per_image": mean, "budget/flops": 3 * mean * 1000 * 128,
               "null_rate": None if alone else 0.2, "null_kind": None if alone else "permute",
               "null_rate_independent": None if alone else 1 / 6, "seed": config["seed"],
               "hardware": "AVX2", "torch": "2.14.1"}
    summary |= {f"base/depth_{most}_top1": accuracy for most, _ in config["data"].get("depth_shares") or ()}
    if config["data"]["name"] == "two_source_chains":
        summary["base/unseen_function_top1"] = accuracy
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text(yaml.dump(config, Dumper=yaml.CSafeDumper))
    return folder
