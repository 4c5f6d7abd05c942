"""The ``motivation`` command. Everything heavy is imported by the subcommand that needs it."""

import argparse
import contextlib
import functools
import os
import pickle
import re
import sys
from pathlib import Path

from motivation.stderr import say, settle

DESCRIPTION = "Training that switches model capacity on learning progress (arXiv 2602.21064)."
CONFIG_MODULE = "motivation.conf"


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; returns the exit status.

    Args:
        arguments: the command line without the program's name; default the process's own.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if _launched() and arguments[:1] != ["train"]:
        return _fail("torchrun starts `motivation train` only; every other command is one process") if (
            os.environ["RANK"] == "0") else 1
    # Hydra parses what follows `train`, so argparse sees only that the subcommand exists.
    if arguments[:1] == ["train"]:
        return _guarded(train, arguments[1:])
    if arguments[:1] == ["bench"] and len(arguments) > 1 and not arguments[1].startswith("-"):
        return _guarded(bench, *arguments[1:])
    options = _table_options(arguments) if arguments[:1] == ["table"] else _parser().parse_args(arguments)
    return _guarded({"compare": compare, "diagnose": diagnose, "pair": pair, "table": table,
                     "export": export, "bench": lambda _: bench()}[options.command], options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="motivation", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", help="train one run, or a sweep with -m; see `motivation train --help`",
                        add_help=False)
    comparison = commands.add_parser(
        "compare", help="tables and figures from finished runs",
        description="Compare finished runs by what they reach and what they cost. Standard output: accuracies and "
        "their tests; the base's gain against a base given the same training FLOPs; calibration; with --target, FLOPs "
        "and seconds to that accuracy; then the paths of three figures: NAME_pareto (test accuracy against training "
        "and inference FLOPs), NAME_calibration (confidence against accuracy) and NAME (loss with the motivated "
        "intervals shaded; accuracy over training FLOPs).")
    comparison.add_argument("runs", nargs="+", metavar="RUN", type=Path,
                            help="run folder, folder of run folders (a sweep), or a glob of either")
    comparison.add_argument("--target", type=_percentage, metavar="PERCENT",
                            help="test accuracy to give the cost of, such as 90")
    comparison.add_argument("--figure", type=Path, default=Path("compare.png"), metavar="FILE",
                            help="where to write the figures, .png, .svg or .pdf; NAME above is this without its "
                            "ending (default: %(default)s)")
    diagnosis = commands.add_parser("diagnose", help="whether a run's expansions measured progress or noise",
                                    description="Compare the expansions of finished runs with those that noise would "
                                    "give: a table and one plain sentence a run, then the path of a figure.")
    diagnosis.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folder")
    diagnosis.add_argument("--figure", type=Path, default=Path("diagnose.png"), metavar="FILE",
                           help="where to write the figure, .png, .svg or .pdf (default: %(default)s)")
    pairing = commands.add_parser("pair", help="how the weights of one network lie in another's",
                                  description="Print the weights map of two networks: where each tensor of A lies in "
                                  "B, what a switch copies, and whether the first expansion changes logits.")
    pairing.add_argument("base", metavar="A", help="the smaller network: resnet20, ..., or any timm model")
    pairing.add_argument("motivated", metavar="B", help="the larger network of the same family")
    pairing.add_argument("--map", default="structural", help="structural or literal (default: %(default)s)")
    pairing.add_argument("--init", default="identity", help="identity, native or copy (default: %(default)s)")
    pairing.add_argument("--depth-rule", help="last-to-last, first or spread (default: the family's)")
    pairing.add_argument("--classes", type=int, default=1000, help="number of classes (default: %(default)s)")
    pairing.add_argument("--json", type=Path, metavar="FILE", help="also write the map, to edit and hand to a Pair")
    tables = commands.add_parser("table", help="run and show a table of the paper: reported beside measured",
                                 description="Plan the runs of a table, say what they cost, train those that are "
                                 "missing (interrupted ones are gone on with, damaged ones set aside and trained "
                                 "again), and print reported beside measured. "
                                 "Further arguments are overrides of every run, as `motivation train` takes them: "
                                 "tracker=none, data.root=PATH, engine.threads=1.")
    tables.add_argument("name", nargs="?", metavar="N", help="1 to 7, or a name that --list shows")
    tables.add_argument("--list", action="store_true", help="all tables and how much of each is finished")
    tables.add_argument("--scale", default="smoke", help="smoke: the whole pipeline on digits in minutes, no "
                        "reproduction; reduced: real data, fewer epochs; paper: the full recipe (default: %(default)s)")
    tables.add_argument("--seeds", type=int, metavar="N", help="runs a cell (default: the scale's own)")
    tables.add_argument("--runs", type=Path, default=Path("runs/cells"), metavar="DIR",
                        help="folder of all runs, shared by all tables (default: %(default)s)")
    tables.add_argument("--out", type=Path, default=Path("runs/tables"), metavar="DIR",
                        help="where the table goes as .md, .tex and .csv (default: %(default)s)")
    tables.add_argument("--plan", action="store_true", help="say what would run and what it costs, and stop")
    tables.add_argument("--show", action="store_true", help="print the table from the runs there are, and stop")
    tables.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, each in a process of its own "
                        "(default: %(default)s); or name a launcher among the overrides: hydra/launcher=joblib "
                        "hydra.launcher.n_jobs=4, or hydra/launcher=slurm hydra.launcher.partition=NAME, a job a run")
    tables.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of every run")
    exporting = commands.add_parser(
        "export", help="the networks of a finished run as safetensors",
        description="Write the final networks of a finished run, each to a folder of its own with model.safetensors "
        "and config.json (architecture, options, classes, normalisation), and print the folders. "
        "motivation.run.export.load_network reads one, and timm.create_model('local-dir:FOLDER', pretrained=True) one "
        "of "
        "timm's networks.")
    exporting.add_argument("run", metavar="RUN", type=Path, help="run folder")
    exporting.add_argument("--network", choices=("base", "motivated"), help="only this one (default: all it has)")
    exporting.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/export)")
    commands.add_parser("bench", help="speed, memory and false-alarm rates, each against its bound",
                        usage="motivation bench [NAME [OPTION ...]]",
                        description="Run a benchmark; without a name list them. `motivation bench NAME --help` shows "
                        "its options.")
    return parser


def _percentage(text: str) -> float:
    """An accuracy in percent."""
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text}: must be a percentage from 0 to 100")
    return value


def _guarded(command, *arguments) -> int:
    """Run a command; a user's mistake becomes one line on stderr and a status that is not 0."""
    try:
        return command(*arguments)
    except KeyboardInterrupt as error:
        # A shell's convention: 128 and the signal's number.
        return _fail(str(error) or "interrupted", 128 + getattr(error, "number", 2))
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        return _fail(_one_line(error))
    except Exception as error:
        # Ours to mend: still one line, and the whole story for whoever asks.
        if os.environ.get("MOTIVATION_TRACEBACK"):
            raise
        return _fail(f"{type(error).__name__}: {_one_line(error)} (unexpected; MOTIVATION_TRACEBACK=1 shows where)")
    finally:
        settle()


def _fail(message: str, status: int = 1) -> int:
    # Of several processes one tells; alone, torch need not even be loaded.
    distributed = sys.modules.get("motivation.training.distributed")
    if distributed is None or distributed.speaks():
        say(f"motivation: error: {message}")
    return status


def _launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process beside others."""
    return "MASTER_ADDR" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def compare(options: argparse.Namespace) -> int:
    """``motivation compare RUNS...``."""
    from motivation.analysis.budgets import retained_gain, target_table
    from motivation.analysis.calibration import calibration_table, draw_calibration
    from motivation.analysis.compare import comparison_table
    from motivation.analysis.figures import check_figure_path, draw_comparison, save_figure
    from motivation.analysis.pareto import draw_pareto
    from motivation.analysis.runs import read_runs

    check_figure_path(options.figure)
    runs = read_runs(options.runs)
    sections = [comparison_table(runs), retained_gain(runs), calibration_table(runs)]
    if options.target is not None:
        sections.insert(1, target_table(runs, options.target))
    name = options.figure
    figures = [(draw_pareto, name.with_stem(f"{name.stem}_pareto")),
               (draw_calibration, name.with_stem(f"{name.stem}_calibration")), (draw_comparison, name)]
    paths = [save_figure(draw(runs), path) for draw, path in figures]
    print("\n\n".join(filter(None, sections)))
    print()
    print(*paths, sep="\n")
    return 0


def _table_options(arguments: list[str]) -> argparse.Namespace:
    """`table`'s arguments; overrides may stand anywhere, and are what has a ``=`` and no dashes."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    options = _parser().parse_args([argument for argument in arguments if argument not in overrides])
    options.overrides = overrides
    return options


def table(options: argparse.Namespace) -> int:
    """``motivation table N``."""
    from motivation.tables.cells import Archive
    from motivation.tables.train import finish_table, list_states, show_plan, write_table

    archive = Archive(options.runs)
    launcher = [override for override in options.overrides
                if override.startswith(("hydra/launcher=", "hydra.launcher."))]
    overrides = tuple(override for override in options.overrides if override not in launcher)
    if launcher and options.jobs != 1:
        raise ValueError(f"--jobs {options.jobs}: leave it out where hydra/launcher trains the runs")
    with _composing() as compose:
        if options.list or options.name is None:
            print(list_states(compose, options.scale, options.seeds, archive, overrides))
            return 0
        plan = show_plan(compose, options.name, options.scale, options.seeds, archive, overrides,
                         costs=not options.show)
        if options.plan:
            return 0
    if options.show:
        failed = plan.troubles(archive)
    else:
        launch = _cell_launcher(launcher, options.runs, plan.name) if launcher else None
        failed = finish_table(plan, archive, options.jobs, launch)
    text, paths = write_table(plan, archive, options.out)
    print(text)
    for path in paths:
        print(path)
    for name, message in failed:
        say(f"motivation: error: {name}: {message}")
    return 1 if failed else 0


def _cell_launcher(overrides: list[str], runs: Path, table: str):
    """Trains cells through a Hydra launcher: joblib's processes, or SLURM through submitit.

    Args:
        overrides: that choose and set the launcher.
        runs: folder of all cells.
        table: its name.

    Returns:
        See `motivation.tables.train.Launch`.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.core.utils import JobStatus
    from hydra.errors import HydraException
    from hydra.types import HydraContext, RunMode

    # No folder of their own: a cell has one.
    where = [f"hydra.sweep.dir='{runs.absolute()}'", "hydra.sweep.subdir=."]
    _default_hydra()
    GlobalHydra.instance().clear()
    try:
        machinery = Hydra.create_main_hydra2(
            task_name="table", config_search_path=create_config_search_path(f"pkg://{CONFIG_MODULE}"))
        config = machinery.compose_config("config", [*overrides, *where], RunMode.MULTIRUN,
                                          with_log_configuration=False)
        _refuse_code(config, overrides)
    except HydraException as error:
        GlobalHydra.instance().clear()
        raise ValueError(_explained(error, argparse.Namespace(config_dir=None, config_name=None))) from error
    finally:
        GlobalHydra.instance().clear()

    def launch(cells):
        if not cells:
            return []
        context = HydraContext(config_loader=machinery.config_loader, callbacks=Callbacks(config))
        task = functools.partial(_table_job, {cell.name: cell for cell in cells}, runs, table)
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        try:
            jobs = launcher.launch([[f"+cell='{cell.name}'"] for cell in cells], initial_job_idx=0)
        except Exception as error:
            # A worker process died, and what the others returned with it; what they trained is in their folders.
            return [(cell, f"the launcher stopped: {type(error).__name__}: {_one_line(error)[:300]}; the same command "
                     "goes on") for cell in cells]
        return [(cell, job.return_value if job.status == JobStatus.COMPLETED else _one_line(job._return_value))
                for cell, job in zip(cells, jobs, strict=True)]

    return launch


def _table_job(cells: dict, runs: Path, table: str, config) -> str | None:
    """One cell, in whichever process the launcher chose; its error, if any."""
    from motivation.tables.train import train_cell

    return train_cell(cells[config.cell], runs, table)


@contextlib.contextmanager
def _composing():
    """``overrides -> plain config``, with one Hydra for many configs; equal overrides are composed once."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    GlobalHydra.instance().clear()

    @functools.cache
    def composed(overrides: tuple[str, ...]) -> dict:
        if refused := [override for override in overrides if override.lstrip("+~").startswith(("hydra", "resume"))]:
            raise ValueError(f"{refused[0]}: a table names its own run folders")
        try:
            return _plain(compose("config", list(overrides)))
        except HydraException as error:
            raise ValueError(_one_line(error)) from error

    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        yield composed


def diagnose(options: argparse.Namespace) -> int:
    """``motivation diagnose RUNS...``."""
    import motivation.analysis.diagnose as room
    from motivation.analysis.figures import check_figure_path, draw_diagnoses, save_figure
    from motivation.analysis.runs import read_runs

    check_figure_path(options.figure)
    diagnoses = room.diagnose_all(read_runs(options.runs))
    figure = save_figure(draw_diagnoses(diagnoses), options.figure)
    print("\n\n".join(map(room.report, diagnoses)))
    print(figure)
    return 0


def pair(options: argparse.Namespace) -> int:
    """``motivation pair A B``."""
    from motivation.models import create_pair
    from motivation.pairing.describe import map_table

    made = create_pair(options.base, options.motivated, options.classes, weights_map=options.map, init=options.init,
                       depth_rule=options.depth_rule)
    print(map_table(made))
    if options.json:
        options.json.write_text(made.weights_map.to_json())
    return 0


def export(options: argparse.Namespace) -> int:
    """``motivation export RUN``."""
    from motivation.run.export import export_run

    print(*export_run(options.run, options.out, options.network), sep="\n")
    return 0


def bench(name: str | None = None, *arguments: str) -> int:
    """``motivation bench [NAME ...]``: without a name, what there is."""
    import ast
    import runpy
    from importlib import resources

    files = {file.name.removesuffix(".py"): file for file in resources.files("motivation.benchmarks").iterdir()
             if file.name.endswith(".py") and file.name != "__init__.py"}
    if name is None:
        for known in sorted(files):
            print(f"{known:12} {ast.get_docstring(ast.parse(files[known].read_text())).splitlines()[0]}")
        return 0
    if name not in files:
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(sorted(files))}")
    sys.argv = [f"motivation bench {name}", *arguments]
    try:
        runpy.run_module(f"motivation.benchmarks.{name}", run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


def train(arguments: list[str]) -> int:
    """``motivation train [overrides]``: prints the run folder, one line a run."""
    if not _launched():
        return _carry_out(_asked(arguments))
    from motivation.training.distributed import broadcast_from_main, joined

    with joined():
        return _carry_out(broadcast_from_main(_asked, arguments))


def _carry_out(asked: tuple | int) -> int:
    """Train the one run that was asked for; a number is the status of what has been done already."""
    if isinstance(asked, int):
        return asked
    import motivation.run.run
    from motivation.training.distributed import is_main

    folder = motivation.run.run.run(*asked)
    if is_main():
        print(folder)
    return 0


def _asked(arguments: list[str]) -> tuple | int:
    """The arguments of `run` for one run; a sweep or what Hydra shows is done at once: its status."""
    import yaml
    from hydra._internal.utils import get_args_parser
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    # Hydra keeps one instance a process; an earlier call in this one may have left its own.
    GlobalHydra.instance().clear()
    parser = get_args_parser()
    parser.prog = "motivation train"
    options = parser.parse_intermixed_args(arguments)
    if options.config_path:
        raise ValueError("--config-path is not supported; add a folder of your own configs with --config-dir")
    try:
        return _asked_run(options, arguments)
    except HydraException as error:
        GlobalHydra.instance().clear()
        raise ValueError(_explained(error, options)) from error
    except yaml.YAMLError as error:
        raise ValueError(_one_line(error)) from error
    finally:
        GlobalHydra.instance().clear()


def _asked_run(options: argparse.Namespace, arguments: list[str]) -> tuple | int:
    import hydra

    if options.help or options.hydra_help or options.cfg or options.info or options.shell_completion:
        # What Hydra shows is composed first, so that a mistake in it is one line too.
        _refuse_code(_compose(options, options.overrides), options.overrides)
        sys.argv = ["motivation train", *arguments]
        show = hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")
        show(lambda config: None)()
        return 0
    if options.multirun or "hydra.mode=MULTIRUN" in options.overrides:
        if _launched():
            raise ValueError("-m trains many runs, torchrun one in several processes; leave one of them out")
        return _sweep(options)
    return _single(options)


def _single(options: argparse.Namespace) -> tuple:
    """Compose one config; Hydra itself writes nothing."""
    from hydra.core.hydra_config import HydraConfig

    config = _compose(options, options.overrides)
    _refuse_code(config, options.overrides)
    if config.hydra.sweeper.get("params"):
        raise ValueError("this config sweeps "
                         f"{', '.join(config.hydra.sweeper.params)}: run it with motivation train -m")
    HydraConfig.instance().set_config(config)
    if not config.hydra.run.dir:
        raise ValueError(f"hydra.run.dir={config.hydra.run.dir!r}: must name a folder")
    path = Path(config.hydra.run.dir)
    if config.resume not in (None, "auto"):
        if any(override.startswith("hydra.run.dir") for override in options.overrides):
            raise ValueError("resume=RUN names the run folder; leave hydra.run.dir out")
        return _go_on(config, Path(str(config.resume)), options.overrides)
    named = any(override.startswith("hydra.run.dir") for override in options.overrides)
    return _where(config, path, path if named else path.parent.parent)


def _go_on(config, folder: Path, overrides: list[str]) -> tuple:
    """``resume=RUN``: the folder's own config, with what the command line names on top."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from motivation.run_folder.config import read_config

    given, asked = _plain(config), read_config(folder)
    for override in OverridesParser.create().parse_overrides(overrides):
        keys = override.key_or_group.split(".")
        if keys[0] == "resume" or keys[0].partition("/")[0] == "hydra":
            continue
        try:
            if override.is_delete():
                raise KeyError(keys[-1])
            inner, value = asked, given
            for key in keys:
                value = value[key]
            for key in keys[:-1]:
                inner = inner.setdefault(key, {})
            inner[keys[-1]] = value
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{override.input_line}: resume=RUN keeps the config of {folder} and takes values of "
                             "keys that it has, such as recipe.epochs=300") from error
    return asked, folder, True


def _compose(options: argparse.Namespace, overrides: list[str]):
    """The config with Hydra's own part, from conf/ and the folder given with --config-dir."""
    from hydra import compose, initialize_config_module

    if options.config_dir:
        overrides = [f"hydra.searchpath=[{_config_folder(options)}]", *overrides]
    with initialize_config_module(CONFIG_MODULE, version_base="1.3", job_name="train"):
        return compose(options.config_name or "config", overrides, return_hydra_config=True)


def _config_folder(options: argparse.Namespace) -> str:
    """The folder of --config-dir, as Hydra's search path takes it."""
    folder = Path(options.config_dir).resolve()
    if not folder.is_dir():
        raise ValueError(f"--config-dir {options.config_dir}: no such folder")
    return f"file://{folder}"


# What a config may say to Hydra: where runs go, and how a sweep is made and launched.
HYDRA_KEYS = ("run", "sweep", "sweeper", "launcher", "job", "mode", "overrides", "runtime", "verbose", "searchpath",
              "help")


# Settings that a batch script runs, or that decide what its and a job's programs are: the user's own words only.
COMMANDS = ("launcher.setup", "launcher.python", "launcher.srun_args", "launcher.additional_parameters", "job.env_set")


def _refuse_code(config, overrides: list[str]) -> None:
    """Raise ValueError where a config would run code: callbacks, log handlers, any ``_target_``.

    The sweeper and the launcher are classes of installed plugins, which Hydra itself found; what they are built from is
    looked at as they will see it, with every interpolation carried out.

    Args:
        config: with Hydra's own part.
        overrides: of the command line.
    """
    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher
    from hydra.plugins.sweeper import Sweeper
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from motivation.registry import refuse_targets

    ours = OmegaConf.to_container(_default_hydra(), resolve=False)
    whole = OmegaConf.to_container(config, resolve=False)
    theirs = whole.pop("hydra")
    refuse_targets(whole)
    if changed := [key for key in theirs if key not in HYDRA_KEYS and theirs[key] != ours.get(key)]:
        raise ValueError(f"hydra.{changed[0]} is refused: a config may set {', '.join(HYDRA_KEYS)}")
    plugins = [f"{plugin.__module__}.{plugin.__name__}" for kind in (Launcher, Sweeper)
               for plugin in Plugins.instance().discover(kind)]
    for part in ("launcher", "sweeper"):
        if not isinstance(theirs[part], dict):
            raise ValueError(f"hydra.{part}={theirs[part]!r}: must be a mapping; choose one with hydra/{part}=NAME")
        try:
            theirs[part] = OmegaConf.to_container(config.hydra[part], resolve=True)
        except OmegaConfBaseException as error:
            raise ValueError(f"hydra.{part}: {_one_line(error)}") from error
        target = theirs[part].pop("_target_", None)
        if target not in plugins:
            raise ValueError(f"hydra.{part}._target_={target}: no installed {part}; choose one with hydra/{part}=NAME")
    for key in COMMANDS:
        part, _, name = key.partition(".")
        if theirs[part].get(name) and not any(override.lstrip("+~").startswith(f"hydra.{key}")
                                              for override in overrides):
            raise ValueError(f"hydra.{key} is refused in a config, since it decides what is run; give it on the "
                             "command line")
    refuse_targets(theirs, "hydra")
    if hidden := [key for key in theirs["sweeper"].get("params") or {} if key.lstrip("+~").startswith("hydra")]:
        raise ValueError(f"hydra.sweeper.params.{hidden[0]} is refused: a sweep may not change Hydra's own part")


@functools.cache
def _default_hydra():
    """Hydra's part of our own config."""
    return _compose(argparse.Namespace(config_dir=None, config_name=None), []).hydra


def _where(config, path: Path, root: Path) -> tuple:
    """Arguments of `run`; ``resume=auto`` takes the newest run of this config at or below ``root``."""
    from motivation.run.resume import find_run

    plain = _plain(config)
    if config.resume == "auto":
        if root == path and (path / "config.yaml").is_file():
            return plain, path, True
        if found := find_run(root, plain):
            return plain, found, True
    return plain, path, False


def _plain(config) -> dict:
    """The resolved config as plain mappings, without what steers Hydra and the resume."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    with open_dict(config):
        config = OmegaConf.masked_copy(config, [key for key in config if key not in ("hydra", "resume")])
    try:
        with _no_environment():
            return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        if ENVIRONMENT_REFUSED in str(error):
            raise ValueError(f"{error.full_key}: {ENVIRONMENT_REFUSED}") from error
        raise ValueError(_one_line(error)) from error


ENVIRONMENT_REFUSED = ("${oc.env:...} is refused, since a run's config is written down and environment variables hold "
                       "keys; give the value itself")


@contextlib.contextmanager
def _no_environment():
    """Context in which no config reads an environment variable: it goes into run folders, checkpoints and W&B."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    def refuse(*_):
        raise ValueError(ENVIRONMENT_REFUSED)

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _job(config) -> Path:
    """One job of a sweep; runs in whichever process the launcher chose."""
    from hydra.core.hydra_config import HydraConfig

    import motivation.run.run

    hydra = HydraConfig.get()
    path = Path(hydra.runtime.output_dir)
    named = any(override.startswith("hydra.sweep.dir") for override in hydra.overrides.hydra)
    try:
        return motivation.run.run.run(*_where(config, path, path if named else path.parent.parent.parent))
    except Exception as error:
        # Hydra made the folder before the job was refused: an empty one goes again.
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        # The error may travel to another process; one that cannot would end the whole sweep there.
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise ValueError(f"{type(error).__name__}: {_one_line(error)}") from None
        raise


def _sweep(options: argparse.Namespace) -> int:
    """Every job of a multirun; a failed job does not end the others and is named at the end."""
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.plugins import Plugins
    from hydra.core.utils import JobStatus
    from hydra.types import HydraContext, RunMode
    from omegaconf import open_dict

    if any(override.startswith("resume=") and override != "resume=auto" for override in options.overrides):
        raise ValueError("resume=RUN goes on with one run; under -m use resume=auto")
    if any(override.lstrip("+~").startswith("hydra.run.dir") for override in options.overrides):
        raise ValueError("hydra.run.dir names a single run's folder; under -m use hydra.sweep.dir=PATH")
    search_path = create_config_search_path(f"pkg://{CONFIG_MODULE}")
    if options.config_dir:
        search_path.prepend("command-line", _config_folder(options), SearchPathQuery(provider="schema"))
    # Known before Hydra is set up for the sweep: the two cannot be composed inside one another.
    _default_hydra()
    machinery = Hydra.create_main_hydra2(task_name="train", config_search_path=search_path)
    # Hydra checks what is not swept against the default choices; the first of each swept group are meant instead.
    given = _with_first_choices(machinery.config_loader, options.overrides)
    config = machinery.compose_config(options.config_name or "config", list(given), RunMode.MULTIRUN,
                                      with_log_configuration=False)
    with open_dict(config):
        config.hydra.mode = RunMode.MULTIRUN
        config.hydra.overrides.task = [given[override] for override in config.hydra.overrides.task]
    _refuse_code(config, options.overrides)
    folder = Path(config.hydra.sweep.dir)
    made = not folder.exists()
    if not made and config.resume != "auto" and any((folder / name).exists() for name in (
            "multirun.yaml", "config.yaml", "steps.csv")):
        held = "sweep" if (folder / "multirun.yaml").exists() else "run"
        raise ValueError(f"{folder} already holds a {held}; choose another with hydra.sweep.dir=PATH, or go on with "
                         "it: resume=auto")
    context = HydraContext(config_loader=machinery.config_loader, callbacks=Callbacks(config))
    sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=_job)
    _check_jobs(sweeper, lambda job: _refuse_code(machinery.config_loader.load_sweep_config(config, job),
                                                  options.overrides))
    jobs = _remember_jobs(sweeper, folder)
    try:
        sweeper.sweep(arguments=list(config.hydra.overrides.task))
    except Exception:
        if made and not jobs and folder.is_dir():
            # Refused before its first job: the folder holds nothing but the sweeper's note.
            (folder / "multirun.yaml").unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
        raise
    failed = [job for job in jobs if job.status != JobStatus.COMPLETED]
    for job in jobs:
        if job not in failed:
            print(job.return_value)
    for job in failed:
        say(f"motivation: error: {' '.join(job.overrides)}: {_one_line(job._return_value)}")
    return 1 if failed else 0


def _with_first_choices(loader, overrides: list[str]) -> dict[str, str]:
    """Overrides with the first choice of each swept config group in place of its sweep, and what was given for each."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    groups = {override.key_or_group for override in parsed if loader.get_group_options(override.key_or_group)}
    return {f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
            if override.is_discrete_sweep() and override.key_or_group in groups else given: given
            for given, override in zip(overrides, parsed, strict=True)}


def _check_jobs(sweeper, check) -> None:
    """Check every job's overrides before the launcher gets any: what a swept option brings, only a job's config has."""
    launch = sweeper.launcher.launch

    def check_and_launch(job_overrides, initial_job_idx):
        for job in job_overrides:
            check(list(job))
        return launch(job_overrides, initial_job_idx=initial_job_idx)

    sweeper.launcher.launch = check_and_launch


def _remember_jobs(sweeper, sweep: Path) -> list:
    """Collect what every launched job returned; the sweeper itself stops at the first failure."""
    from hydra.core.utils import JobStatus
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    jobs: list = []
    launch = sweeper.launcher.launch

    def launch_and_remember(*arguments, **keywords):
        try:
            results = launch(*arguments, **keywords)
        except (HydraException, OmegaConfBaseException, ValueError, OSError):
            raise
        except Exception as error:
            # A worker process died, and what its jobs returned with it; their run folders are there.
            raise ValueError(f"the launcher stopped: {type(error).__name__}: {_one_line(error)[:300]}; what was "
                             f"trained is in {sweep}: the same command with hydra.sweep.dir={sweep} resume=auto goes "
                             "on with it") from error
        jobs.extend(results)
        # A failed job would make the sweeper raise, and drop the jobs after it; it is named at the end instead.
        return [result for result in results if result.status == JobStatus.COMPLETED]

    sweeper.launcher.launch = launch_and_remember
    return jobs


# The extra of setup.cfg that brings a launcher.
LAUNCHER_EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}


def _explained(error: Exception, options: argparse.Namespace) -> str:
    """Hydra's refusal of an override in one line, with the key that was probably meant."""
    message = _one_line(error)
    if "is not Optional" in str(error.__cause__ or "") and "hydra.run.dir" in message:
        return "hydra.run.dir must name a folder"
    if unknown := re.search(r"Could not (?:override|delete) '([^']+)'", message):
        key = unknown[1]
        inner = re.search(r"full_key: (\S+)", str(error.__cause__ or ""))
        if inner and inner[1].startswith(f"{key}."):
            # A mapping was given; the key that is not known lies in it.
            key = inner[1]
        if "_target_" in key:
            return f"{key}: _target_ is refused in every config; name things with name="
        close = _close_key(options, key)
        return f"{key}: unknown key; " + (f"did you mean {close}?" if close else "`motivation train --cfg job` prints "
                                          f"all keys; a new one is added with +{key}=VALUE")
    if missing := re.search(r"Could not find '([^']+)' Available options in '[^']+': (.*?)(?: Config search path|$)",
                            message):
        group, _, option = missing[1].rpartition("/")
        if group == "hydra/launcher" and option in LAUNCHER_EXTRAS:
            return f"{group}={option} is not installed; pip install motivation[{LAUNCHER_EXTRAS[option]}]"
        return f"{group}={option}: no such option; choose one of {', '.join(missing[2].split())}"
    return message


def _close_key(options: argparse.Namespace, key: str) -> str | None:
    """The known key that was probably meant, never the key itself."""
    import difflib

    from omegaconf import OmegaConf

    known = list(_keys(OmegaConf.to_container(_compose(options, []))))
    parent, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == parent}
    if siblings:
        close = difflib.get_close_matches(name, siblings, n=1)
        return siblings[close[0]] if close else None
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return close[0] if close else None


def _keys(config: dict, where: str = ""):
    """Dotted keys of nested mappings."""
    for key, value in config.items():
        path = f"{where}.{key}" if where else str(key)
        yield path
        if isinstance(value, dict):
            yield from _keys(value, path)
