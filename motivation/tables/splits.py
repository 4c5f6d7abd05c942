"""How many runs of a table at once are fastest, by measurement: a few steps of the first missing one."""

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from motivation.registry import build
from motivation.run.machine import available_memory, cores, most_resident_memory, resident_memory
from motivation.run.preflight import fitting_evaluation_batch
from motivation.run.prepare import prepare
from motivation.tables.cells import Cell
from motivation.tables.costs import DataSets, cost_of, cut_to_seconds, flops_per_second_of
from motivation.training.engine import Engine

logger = logging.getLogger(__name__)
# What another process must bring: importing takes it these CPU seconds, and a measured speed is that exact.
START_SECONDS, WORTH = 5.0, 1.1


@dataclass(frozen=True)
class Split:
    """A way to share the cores among runs.

    Args:
        jobs: runs at once.
        threads: of each.
        rate: training FLOPs per second of all of them.
    """

    jobs: int
    threads: int
    rate: float


def jobs_by_measurement(cells: Sequence[Cell], datasets: DataSets) -> int:
    """How many runs at once finish these cells first; says so in one logged line.

    Args:
        cells: what is trained, at least one.
        datasets: of their plan.

    Raises:
        ValueError: the first of them cannot be built.
    """
    config = (cells[0].source or cells[0]).config
    engine = build({"engine": Engine}, {"name": "engine", **config["engine"]}, "engine")
    if engine.torch_device.type != "cpu":
        logger.info("--jobs auto: one run at a time on a device of type %s; --jobs N shares it",
                    engine.torch_device.type)
        return 1
    if len(cells) == 1 or cores() == 1:
        logger.info("--jobs auto: one run at a time, %s", "the only one" if len(cells) == 1 else "on one core")
        return 1
    rates, memory = measured(cells[0], datasets, thread_counts(cores(), engine.threads))
    free = available_memory()
    fit = max(1, free // memory) if memory and free is not None else len(cells)
    chosen, alone = fastest(rates, cores(), len(cells), fit, sum(cost_of(cell, datasets) for cell in cells))
    bound = "" if free is None or not memory else (
        f"; a run takes up to {memory / 1e9:.1f} GB of {free / 1e9:.1f} GB that are free")
    logger.info("--jobs auto: %d at once, %d thread%s each, %.3g FLOPs/s against %.3g of one run with %d threads%s",
                chosen.jobs, chosen.threads, "s" * (chosen.threads > 1), chosen.rate, alone.rate, alone.threads, bound)
    return chosen.jobs


def thread_counts(of_machine: int, asked: int | None) -> list[int]:
    """Numbers of threads to measure: powers of two up to all cores, or the one that was asked for."""
    if asked is not None:
        return [asked]
    return sorted({of_machine, *(1 << power for power in range(of_machine.bit_length()) if 1 << power < of_machine)})


def fastest(rates: dict[int, float], of_machine: int, runs: int, fit: int, flops: float) -> tuple[Split, Split]:
    """The best way to share the cores, and one run with most threads for comparison.

    Args:
        rates: number of threads -> FLOPs per second of one run.
        of_machine: cores.
        runs: that are to be trained.
        fit: that fit in memory.
        flops: of all runs.
    """
    alone = Split(1, max(rates), rates[max(rates)])
    # Where memory or the number of runs leaves cores over, the processes share them all the same.
    splits = [Split(jobs, threads, jobs * rate) for threads, rate in rates.items()
              if (jobs := min(max(1, of_machine // threads), runs, fit)) > 1]
    best = max(splits, key=lambda split: split.rate, default=alone)
    saved = flops / alone.rate - flops / best.rate
    return (best if best.rate > WORTH * alone.rate and saved > START_SECONDS else alone), alone


def measured(cell: Cell, datasets: DataSets, threads: Sequence[int]) -> tuple[dict[int, float], int | None]:
    """FLOPs per second of a cell, or of its source, by number of threads; and the bytes that its process takes at most,
    where the system says.
    """
    config, share = cut_to_seconds(cell.source or cell, datasets)
    before, kept = resident_memory(), torch.get_num_threads()
    session = prepare(config)
    try:
        with closing(session.loader):
            fitting_evaluation_batch(session.trainer, session.test_batch)
            rates = {}
            for count in threads:
                torch.set_num_threads(count)
                rates[count] = flops_per_second_of(session)
    finally:
        torch.set_num_threads(kept)
    peak = most_resident_memory()
    if before is None or peak is None:
        return rates, None
    # What training adds grows with the batch at most.
    return rates, before + int((peak - before) / share)
