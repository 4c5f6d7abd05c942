"""The missing runs of a table: what is planned, and the training of it, one after another or several at once."""

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from motivation.data.shared import shared_in
from motivation.run.jobs import Jobs
from motivation.run.pool import Pool
from motivation.run.prepare import parts_of
from motivation.run.progress import clock
from motivation.run.run import run
from motivation.tables.cells import Archive, Cell, set_aside
from motivation.tables.costs import DataSets, cost_of, flops_per_second
from motivation.tables.plan import SCALES, Compose, Plan, plan_table
from motivation.tables.results import Results
from motivation.tables.spec import list_tables, read_table
from motivation.tables.splits import jobs_by_measurement

logger = logging.getLogger(__name__)
# Trains cells, at once or one after another; yields each with its error, if any.
Launch = Callable[[Sequence[Cell]], Iterable[tuple[Cell, str | None]]]
# What ends one run and not the others: a mistake in its config or data, a disk error, or too little memory.
RUN_ERRORS = (ValueError, OSError, MemoryError, torch.OutOfMemoryError)


def show_plan(compose: Compose, name: str, scale: str, seeds: int | None, archive: Archive,
              overrides: tuple[str, ...], costs: bool, datasets: DataSets | None = None, first_seed: int = 0) -> Plan:
    """Plan a table, and log what is finished and what the rest costs.

    Args:
        compose: overrides -> resolved config.
        name: of the table.
        scale: smoke, minute, cpu, reduced or paper.
        seeds: runs a cell; None for the scale's own.
        archive: the folder of all cells.
        overrides: of every cell.
        costs: estimate FLOPs, and the time from a few steps of the first missing run.
        datasets: that have been read; it keeps those that are read here.
        first_seed: see `plan_table`.

    Raises:
        ValueError: no run that is missing could train, such as with an override that is wrong for all.
    """
    datasets = datasets or DataSets()
    plan = plan_table(read_table(name), scale, seeds, compose, datasets.fingerprint, overrides, first_seed)
    unfinished = plan.unfinished(archive)
    logger.info("%s at scale %s: %d runs, %d finished", plan.name, scale, len(plan.cells),
                len(plan.cells) - len(unfinished))
    for dataset, reason in plan.missing.items():
        if costs:
            logger.warning("%s cannot be read: %s", dataset, reason)
        else:
            logger.info("%s is not read here; recorded runs are shown", dataset)
    trainable = plan.trainable(archive)
    _refuse_if_none_can_train(trainable)
    if costs and trainable:
        # An estimate alone: an error here is that run's error when it is trained.
        try:
            flops = sum(cost_of(cell, datasets) for cell in trainable)
            rate = flops_per_second(trainable[0], datasets)
            logger.info("%d runs to train: about %.3g FLOPs, %s (h:mm:ss) one after another at %.3g FLOPs/s",
                        len(trainable), flops, clock(flops / rate), rate)
        except RUN_ERRORS as error:
            logger.warning("%d runs to train; what they cost cannot be estimated: %s", len(trainable), _one_line(error))
    return plan


def _refuse_if_none_can_train(cells: Sequence[Cell]) -> None:
    """Raise the first error where the config of every cell is refused; one that is not ends the search.

    The device may be another one where they train. A control's config lacks what its source will say.
    """
    errors = []
    for cell in cells:
        if cell.source is None:
            try:
                parts_of(cell.config | {"engine": cell.config["engine"] | {"device": "auto"}})
                return
            except ValueError as error:
                errors.append(error)
    if errors:
        raise errors[0]


def list_states(compose: Compose, scale: str, seeds: int | None, runs: Path, results: Path,
                overrides: tuple[str, ...]) -> str:
    """All tables: title, and how many of their runs are finished at a scale, in run folders or as rows of results."""
    datasets, lines = DataSets(), []
    for name in list_tables():
        table = read_table(name)
        if scale in SCALES and scale not in table["scales"]:
            lines.append(f"{name:14} {table['title']}: no scale {scale}")
            continue
        plan = plan_table(table, scale, seeds, compose, datasets.fingerprint, overrides)
        archive = Archive(runs, Results(results, name, scale))
        finished = len(plan.cells) - len(plan.unfinished(archive))
        missing = f"; {', '.join(plan.missing)} cannot be read" if plan.missing else ""
        lines.append(f"{name:14} {plan.title}: {finished} of {len(plan.cells)} runs finished at scale {scale}{missing}")
    return "\n".join(lines)


def finish_table(plan: Plan, archive: Archive, pool: Pool | None = None, launch: Launch | None = None,
                 data: Path | None = None,
                 record: Callable[[Sequence[Cell]], None] | None = None) -> list[tuple[str, str]]:
    """Train every cell that is missing, sources first; a failed one does not end the others.

    Args:
        plan: the table.
        archive: the folder of all cells.
        pool: processes that train several at once; None trains one after another in this process, and so does a
            single missing run.
        launch: trains cells somewhere else, in place of a pool.
        data: folder in which the processes of this machine share data sets.
        record: called with what finished, after every run, such as to keep its figures.

    Returns:
        Name and error of every cell that failed or whose folder holds another run, and of every data set that cannot be
        read.

    Raises:
        ValueError: no data set that is still needed can be read.
        Interrupted: a signal came; the run it stopped can be resumed.
    """
    trainable = plan.trainable(archive)
    failed = [(dataset, f"cannot be read: {reason}") for dataset, reason in plan.missing.items()]
    foreign = [cell for cell in plan.cells if archive.state(cell).kind == "foreign"]
    if failed and not trainable and not foreign:
        raise ValueError(" ".join(failed[0]))
    errors = {cell.identity: str(archive.state(cell).trouble) for cell in foreign}
    failed += [(cell.name, errors[cell.identity]) for cell in foreign]
    done = 0
    train = functools.partial(train_cell, runs=archive.folder, table=plan.name, data=data)
    with _launching(launch, train, pool if len(trainable) > 1 else None) as train_all:
        for depth in sorted({len(cell.sources) for cell in trainable}):
            wave = [cell for cell in trainable if len(cell.sources) == depth]
            orphans = [(cell, f"its source failed: {cell.source.name}") for cell in wave
                       if cell.source and cell.source.identity in errors]
            ready = [cell for cell in wave if cell.source is None or cell.source.identity not in errors]
            for cell, error in itertools.chain(orphans, train_all(ready)):
                done += 1
                logger.info("run %d of %d: %s: %s", done, len(trainable), cell.name, error or "finished")
                if error:
                    errors[cell.identity] = error
                    failed.append((cell.name, error))
                elif record:
                    record([cell])
    return failed


@contextmanager
def _launching(launch: Launch | None, train: Callable[[Cell], str | None], pool: Pool | None) -> Iterator[Launch]:
    """Context of what trains cells: a launcher, this process, or processes of its own."""
    if launch is not None:
        yield launch
        return
    with Jobs() as stop:
        if pool is not None:
            yield lambda cells: pool.do_all(train, cells, stop)
        else:
            yield lambda cells: ((cell, train(cell)) for cell in cells)


def train_cell(cell: Cell, runs: Path, table: str, data: Path | None = None) -> str | None:
    """Train a cell, or resume it; a broken run is moved out of the way first.

    Args:
        cell: what to train.
        runs: folder of all cells.
        table: name of the table, the run's group in its tracker where the config names none.
        data: folder in which this machine's processes share data sets; None shares none.

    Returns:
        Its error, if any.
    """
    archive = Archive(runs)
    path = archive.path(cell)
    try:
        state = archive.state(cell)
        config = archive.runnable(cell)
        if state.kind == "broken":
            logger.warning("%s is broken (%s): set aside as %s, and trained again", path, state.trouble,
                           set_aside(path).name)
        if config["tracker"].get("group", table) is None:
            config["tracker"]["group"] = table
        with shared_in(data):
            run(config, path, resume=state.kind == "unfinished")
    except RUN_ERRORS as error:
        return _one_line(error)
    return None


def choose_jobs(plan: Plan, archive: Archive, datasets: DataSets) -> int:
    """Runs at once with which the missing runs of a table are finished first; 1 where that cannot be measured."""
    trainable = plan.trainable(archive)
    try:
        return jobs_by_measurement(trainable, datasets) if trainable else 1
    except RUN_ERRORS as error:
        logger.warning("--jobs auto: one run at a time, since speed cannot be measured: %s", _one_line(error))
        return 1


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
