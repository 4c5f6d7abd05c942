"""A table's cells trained through a Hydra launcher: joblib's processes, or SLURM through submitit."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from motivation.cli.compose import config_loader
from motivation.cli.interruption import shares_machine, stop_on_signals
from motivation.cli.logs import on_stderr, one_line
from motivation.command_line import override
from motivation.run.jobs import Stopped, run_for
from motivation.tables.cells import Cell
from motivation.tables.plan import Plan
from motivation.tables.train import Launch, train_cell


def cell_launcher(overrides: list[str], runs: Path, plan: Plan, data: Path) -> Launch:
    """Trains cells, each a job.

    Args:
        overrides: that choose and set the launcher.
        runs: folder of all cells.
        plan: the table.
        data: folder in which this machine's processes share data sets.

    Raises:
        ValueError: there is no such launcher, or it refuses a setting.
    """
    # Jobs have no folder of Hydra's: a cell has one.
    where = [override("hydra.sweep.dir", runs.absolute()), "hydra.sweep.subdir=."]
    with config_loader() as loader:
        config = loader.load_configuration("config", [*overrides, *where], RunMode.MULTIRUN)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=loader, callbacks=Callback()), config=config,
            task_function=functools.partial(_job, {cell.name: cell for cell in plan.cells}, runs, plan.name,
                                            data if shares_machine(config) else None, os.getpid()))
    stop_on_signals(launcher)

    def launch(cells: Sequence[Cell]) -> list[tuple[Cell, str | None]]:
        if not cells:
            return []
        try:
            jobs = launcher.launch([[override("+cell", cell.name)] for cell in cells], initial_job_idx=0)
        except Exception as error:
            # A worker process died, and what the others returned with it; what they trained is in their folders.
            return [(cell, f"the launcher stopped: {type(error).__name__}: {one_line(error)[:300]}; the same command "
                     "resumes the run") for cell in cells]
        # The launcher gives a failed job's exception as its value.
        return [(cell, one_line(job._return_value) if isinstance(job._return_value, Exception) else job.return_value)
                for cell, job in zip(cells, jobs, strict=True)]

    return launch


def _job(cells: dict[str, Cell], runs: Path, table: str, data: Path | None, launcher: int,
         config: DictConfig) -> str | Stopped | None:
    """One cell, in whichever process the launcher chose; its error, if any."""
    with on_stderr():
        return run_for(launcher, functools.partial(train_cell, cells[config.cell], runs, table, data))
