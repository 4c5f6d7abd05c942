"""``motivation train -m``: every combination of the swept values, each a separate run, through a Hydra launcher."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from motivation.cli.compose import config_loader, holds_time, search_path
from motivation.cli.interruption import interrupted, shares_machine, stop_on_signals
from motivation.cli.logs import LOGGER, on_stderr, one_line, tracebacks
from motivation.command_line import override, pasteable
from motivation.run.jobs import Stopped, run_for
from motivation.run.machine import data_folder
from motivation.run.signals import Interrupted
from motivation.run_folder.write import new_folder


def sweep(overrides: list[str], name: str = "config", folder: str | None = None) -> int:
    """Train every job of a sweep; a failed job does not end the others and is named at the end.

    Args:
        overrides: of the command line.
        name: of the config.
        folder: with further configs.

    Returns:
        The exit status: 0 when every job finished.

    Raises:
        ValueError: nothing was trained, or the launcher stopped in the middle.
        Interrupted: a signal came; every run that it stopped can be resumed.
    """
    if any(given.startswith("resume=") and given != "resume=auto" for given in overrides):
        raise ValueError("resume=RUN resumes one run; under -m use resume=auto")
    if any(given.lstrip("+~").startswith("hydra.run.dir") for given in overrides):
        raise ValueError("hydra.run.dir names a single run's folder; under -m use hydra.sweep.dir=PATH")
    given = [*search_path(folder), *overrides, "hydra.mode=MULTIRUN"]
    with config_loader(name, folder) as loader:
        # Hydra checks what is not swept against the default choices; here, against the first of each swept group.
        first = _first_choices(loader, given)
        config = loader.load_configuration(name, list(first), RunMode.MULTIRUN)
        config.hydra.overrides.task = [first[task] for task in config.hydra.overrides.task]
        # The folder that a default names holds the time of day: earlier sweeps are beside it.
        where = Path(config.hydra.sweep.dir)
        named = any(given.startswith("hydra.sweep.dir") for given in overrides)
        made = not where.exists()
        if not named and holds_time(config.hydra.sweep, "dir"):
            where, made = new_folder(where), True
            config.hydra.sweep.dir = str(where)
            # Hydra composes each job's config again.
            config.hydra.overrides.hydra.append(override("hydra.sweep.dir", where))
        else:
            _check_free(where, config)
        with _errors_of(where, made, _resuming(overrides, name, folder, where)), data_folder() as data:
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=HydraContext(config_loader=loader, callbacks=Callback()), config=config,
                task_function=functools.partial(
                    _job, None if named else where.absolute().parent.parent, data if shares_machine(config) else None,
                    os.getpid()))
            if launcher := getattr(sweeper, "launcher", None):
                stop_on_signals(launcher)
            batches = sweeper.sweep(arguments=list(config.hydra.overrides.task))
    results = [(job.overrides, job.return_value) for batch in batches for job in batch]
    failed = [(job, result) for job, result in results if isinstance(result, str)]
    for _, result in results:
        if isinstance(result, Path):
            print(result)
    for job, message in failed:
        LOGGER.error(f"{pasteable(*job)}: {message}")
    return 1 if failed else 0


def _resuming(overrides: list[str], name: str, folder: str | None, where: Path) -> str:
    """The command that resumes a sweep in a folder."""
    kept = [given for given in overrides if given.partition("=")[0] not in ("resume", "hydra.sweep.dir")]
    configs = [*(("--config-dir", folder) if folder else ()), *(("--config-name", name) if name != "config" else ())]
    return pasteable("motivation", "train", "-m", *configs, *kept, override("hydra.sweep.dir", where), "resume=auto")


def _job(root: Path | None, data: Path | None, launcher: int, config: DictConfig) -> Path | str | Stopped:
    """One job of a sweep, in whichever process the launcher chose.

    Args:
        root: where ``resume=auto`` looks for earlier runs; None for the job's own folder.
        data: folder in which the jobs share data sets; None shares none.
        launcher: process id of the one that launches.
        config: of the job.

    Returns:
        The run folder, or the error in words: not every exception can travel between processes.
    """
    return run_for(launcher, functools.partial(_train, root, data, config))


def _train(root: Path | None, data: Path | None, config: DictConfig) -> Path | str:
    """Train a job; see `_job`."""
    from motivation.cli.train import where_to_train
    from motivation.data.shared import shared_in
    from motivation.run.run import run

    path = Path(HydraConfig.get().runtime.output_dir)
    with on_stderr(), shared_in(data):
        try:
            return run(*where_to_train(config, path, root or path))
        except Exception as error:
            # Hydra made the folder before the job was refused: an empty one is removed.
            with suppress(OSError):
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
            message = one_line(error) if isinstance(error, ValueError | OSError) else (
                f"{type(error).__name__}: {one_line(error)}")
            if tracebacks():
                LOGGER.error(message, exc_info=error)
            return message


def _first_choices(loader: ConfigLoader, overrides: list[str]) -> dict[str, str]:
    """Overrides with the first choice of each swept config group in place of its sweep, and what was given for each."""
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    groups = {override.key_or_group for override in parsed if loader.get_group_options(override.key_or_group)}
    return {f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
            if override.is_discrete_sweep() and override.key_or_group in groups else given: given
            for given, override in zip(overrides, parsed, strict=True)}


def _check_free(folder: Path, config: DictConfig) -> None:
    """Raise ValueError where the folder of a new sweep holds something already."""
    held = [name for name in ("multirun.yaml", "config.yaml", "steps.csv") if (folder / name).exists()]
    if held and config.resume != "auto":
        raise ValueError(f"{folder} already holds a {'sweep' if 'multirun.yaml' in held else 'run'}; choose another "
                         "with hydra.sweep.dir=PATH, or resume it with resume=auto")


@contextmanager
def _errors_of(folder: Path, made: bool, resuming: str) -> Iterator[None]:
    """Context of a sweep: a refused one leaves no folder that it made, one that is broken off says how to continue."""
    try:
        yield
    except Interrupted as error:
        raise interrupted(error, resuming) from None
    except (HydraException, OmegaConfBaseException, ValueError, OSError):
        # What the sweeper writes before it checks its jobs.
        with suppress(OSError):
            if made and folder.is_dir() and [path.name for path in folder.iterdir()] in ([], ["multirun.yaml"]):
                (folder / "multirun.yaml").unlink(missing_ok=True)
                folder.rmdir()
        raise
    except Exception as error:
        # A worker process died, and what its jobs returned with it; their run folders are there.
        raise ValueError(f"the launcher stopped: {type(error).__name__}: {one_line(error)[:300]}; what was trained is "
                         f"in {folder}: continue with {resuming}") from error
