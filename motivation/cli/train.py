"""``motivation train``: one run from the command line, or a sweep of runs."""

import argparse
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from motivation.cli.compose import CONFIG_MODULE, compose, holds_time, name_paths, plain
from motivation.cli.logs import launched
from motivation.cli.parser import train_parser
from motivation.cli.sweep import sweep

# Config, run folder, whether to resume the run in it, and whether the folder's name may get a suffix: the arguments
# of `motivation.run.run.run`.
Run = tuple[dict[str, Any], Path, bool, bool]


def train(arguments: list[str]) -> int:
    """``motivation train [overrides]``: prints the run folder, one line a run; returns the exit status."""
    if not launched():
        return _train_one(ask(arguments))
    from motivation.training.distributed import broadcast_from_main, joined

    with joined():
        return _train_one(broadcast_from_main(ask, arguments))


def _train_one(asked: Run | int) -> int:
    if isinstance(asked, int):
        return asked
    from motivation.run.run import run
    from motivation.training.distributed import is_main

    folder = run(*asked)
    if is_main():
        print(folder)
    return 0


def ask(arguments: list[str]) -> Run | int:
    """What to train for one run; a sweep, or what Hydra shows, is done at once: its exit status."""
    arguments = name_paths(arguments)
    options = train_parser().parse_intermixed_args(arguments)
    if options.config_path:
        raise ValueError("--config-path is not supported; add a folder of your own configs with --config-dir")
    if options.show:
        return _show(options, arguments)
    if options.multirun or "hydra.mode=MULTIRUN" in options.overrides:
        if launched():
            raise ValueError("-m trains many runs, torchrun one in several processes; leave one of them out")
        return sweep(options.overrides, options.config_name, options.config_dir)
    return _single(options)


def _show(options: argparse.Namespace, arguments: list[str]) -> int:
    """What Hydra shows in place of a run: help, the config, ..."""
    # Composed here first, so that a mistake is one line too.
    compose(options.overrides, options.config_name, options.config_dir)
    before, sys.argv = sys.argv, ["motivation train", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(lambda _: None)()
    finally:
        sys.argv = before
    return 0


def _single(options: argparse.Namespace) -> Run:
    """What to train and where; Hydra itself writes nothing."""
    config = compose(_of_resumed(options.overrides), options.config_name, options.config_dir)
    if swept := OmegaConf.select(config, "hydra.sweeper.params"):
        raise ValueError(f"this config sweeps {', '.join(swept)}: run it with motivation train -m")
    # Interpolations such as ${hydra:runtime.choices.model} read it.
    HydraConfig.instance().set_config(config)
    if not config.hydra.run.dir:
        raise ValueError(f"hydra.run.dir={config.hydra.run.dir!r}: must name a folder")
    path = Path(config.hydra.run.dir)
    named = any(override.startswith("hydra.run.dir") for override in options.overrides)
    if config.resume in (None, "auto"):
        values, folder, resume, _ = where_to_train(config, path, path if named else path.parent.parent)
        return values, folder, resume, not named and holds_time(config.hydra.run, "dir")
    if named:
        raise ValueError("resume=RUN names the run folder; leave hydra.run.dir out")
    return _resume(config, Path(str(config.resume)), options.overrides)


def where_to_train(config: DictConfig, path: Path, root: Path) -> Run:
    """What to train and where; ``resume=auto`` takes the newest run of this config at or below ``root``.

    Args:
        config: the composed config.
        path: the folder of a new run.
        root: where earlier runs are.
    """
    from motivation.run.resume import find_run

    values = plain(config)
    if config.resume == "auto":
        if root == path and (path / "config.yaml").is_file():
            return values, path, True, False
        if found := find_run(root, values):
            return values, found, True, False
    return values, path, False, False


def _of_resumed(overrides: list[str]) -> list[str]:
    """Overrides of ``resume=RUN`` in which a value that the run's config has is no unknown key, such as ``data.path``
    where the default data set has none.
    """
    from motivation.run_folder.config import read_config

    parsed = OverridesParser.create().parse_overrides(overrides)
    resumed = [str(override.value()) for override in parsed if override.key_or_group == "resume"]
    if not resumed or not (Path(resumed[-1]) / "config.yaml").is_file():
        return overrides
    config, forced = read_config(Path(resumed[-1])), []
    for override in parsed:
        group, _, key = override.key_or_group.partition(".")
        values = config.get(group)
        known = isinstance(values, dict) and key in values and not override.input_line.startswith(("+", "~"))
        forced.append(f"++{override.input_line}" if known else override.input_line)
    return forced


def _resume(config: DictConfig, folder: Path, overrides: list[str]) -> Run:
    """``resume=RUN``: the folder's own config, with what the command line names on top."""
    from motivation.run_folder.config import read_config

    given, asked = plain(config), read_config(folder)
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
    return asked, folder, True, False
