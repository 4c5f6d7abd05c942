"""Configs composed by Hydra from conf/ and the command line's overrides, and its refusals in one line."""

import difflib
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from motivation.cli.logs import one_line
from motivation.command_line import literal, override, pasteable

CONFIG_MODULE = "motivation.conf"
# The extra of setup.cfg that brings a launcher.
LAUNCHER_EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}
# Their values are names of files and folders: text, also where Hydra would read a number.
PATHS = ("hydra.run.dir", "hydra.sweep.dir", "data.root", "data.path", "resume")


@contextmanager
def config_loader(name: str = "config", folder: str | None = None) -> Iterator[ConfigLoader]:
    """Context in which Hydra composes our configs.

    Args:
        name: of the config, and ...
        folder: with further configs; both only for the keys that an error suggests.

    Raises:
        ValueError: what was composed in the context cannot be right.
    """
    # Hydra keeps one instance a process; an earlier call may have left its own.
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module(CONFIG_MODULE, version_base="1.3", job_name="train"):
            yield GlobalHydra.instance().config_loader()
    except HydraException as error:
        raise ValueError(_explain(error, name, folder)) from error
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from error
    finally:
        GlobalHydra.instance().clear()


def search_path(folder: str | None) -> list[str]:
    """The override that adds the folder of --config-dir to our configs; none without one.

    Raises:
        ValueError: there is no such folder.
    """
    if folder is None:
        return []
    path = Path(folder).resolve()
    if not path.is_dir():
        raise ValueError(f"--config-dir {folder}: no such folder")
    return [f"hydra.searchpath=[{literal(f'file://{path}')}]"]


def name_paths(overrides: list[str]) -> list[str]:
    """Overrides in which Hydra reads the name of a file or folder as text: 2024_01_01 is no integer, and letters,
    spaces and signs that its grammar does not know are part of the name. Interpolations stay.
    """
    parser = OverridesParser.create()
    return [_name_path(given, parser) for given in overrides]


def _name_path(given: str, parser: OverridesParser) -> str:
    key, equals, value = given.partition("=")
    if not equals or not value or key.lstrip("+") not in PATHS:
        return given
    try:
        parsed = parser.parse_override(given)
    except HydraException:
        return override(key, value)
    if parsed.is_discrete_sweep() and re.fullmatch(r"[\w.,+-]+", value):
        return f"{key}={','.join(_name_path(f'{key}={part}', parser).partition('=')[2] for part in value.split(','))}"
    return override(key, value) if isinstance(parsed.value(), int | float) else given


def holds_time(part: DictConfig, key: str) -> bool:
    """Whether the name of a folder holds the time of day, which two jobs may share: it was not chosen for one run."""
    container = OmegaConf.to_container(part, resolve=False)
    assert isinstance(container, dict)
    return "${now:" in str(container[key])


def compose(overrides: list[str], name: str = "config", folder: str | None = None) -> DictConfig:
    """The config of one run, with Hydra's own part."""
    overrides = [*search_path(folder), *overrides]
    with config_loader(name, folder):
        return hydra.compose(name, overrides, return_hydra_config=True)


@contextmanager
def composing() -> Iterator[Callable[[tuple[str, ...]], dict[str, Any]]]:
    """``overrides -> plain config``, with one Hydra for many configs; equal overrides are composed once."""
    @functools.cache
    def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
        if refused := [given for given in overrides if given.lstrip("+~").startswith(("hydra", "resume"))]:
            raise ValueError(f"{refused[0]}: a table names its own run folders")
        try:
            return plain(hydra.compose("config", name_paths(overrides)))
        except HydraException as error:
            raise ValueError(one_line(error)) from error

    with config_loader():
        yield composed


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as plain mappings, without Hydra's part and ``resume``; what it leaves to the hardware is
    decided, so that equal configs are equal runs.

    Raises:
        ValueError: an interpolation leads nowhere, or a value is missing.
    """
    with open_dict(config):
        config = OmegaConf.masked_copy(config, [key for key in config if key not in ("hydra", "resume")])
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        # OmegaConf's own message has the key in a line below.
        raise ValueError(f"{error.full_key}: {error.msg}" if error.full_key and error.msg else one_line(error)
                         ) from error
    engine = values.get("engine")
    if isinstance(engine, dict) and engine.get("precision") == "auto":
        # It imports torch, which other configs need not wait for.
        from motivation.run.hardware import decided

        return decided(values)
    return values


def _explain(error: HydraException, name: str, folder: str | None) -> str:
    """Hydra's refusal of an override in one line, with the key that was probably meant."""
    message, cause = one_line(error), str(error.__cause__ or "")
    if "is not Optional" in cause and "hydra.run.dir" in message:
        return "hydra.run.dir must name a folder"
    if unknown := re.search(r"Could not (?:override|delete) '([^']+)'", message):
        key = unknown[1]
        inner = re.search(r"full_key: (\S+)", cause)
        if inner and inner[1].startswith(f"{key}."):
            # A mapping was given; the unknown key is inside it.
            key = inner[1]
        if "_target_" in key:
            return f"{key}: _target_ is refused in every config; name things with name="
        close = _close_key(key, name, folder)
        if close:
            return f"{key}: unknown key; did you mean {close}?"
        # Only inside a group are there arguments that the config does not list.
        added = f"; one that it does not list is given as +{key}=VALUE" if "." in key else ""
        return f"{key}: unknown key; `motivation train --cfg job` prints all keys{added}"
    if missing := re.search(r"Could not find '([^']+)' Available options in '[^']+': (.*?)(?: Config search path|$)",
                            message):
        group, _, option = missing[1].rpartition("/")
        if group == "hydra/launcher" and option in LAUNCHER_EXTRAS:
            install = pasteable("pip", "install", f"motivation[{LAUNCHER_EXTRAS[option]}]")
            return f"{group}={option} is not installed; {install}"
        return f"{group}={option}: no such option; choose one of {', '.join(missing[2].split())}"
    return message


def _close_key(key: str, name: str, folder: str | None) -> str | None:
    """The known key that was probably meant, never the key itself."""
    known = list(_keys(OmegaConf.to_container(compose([], name, folder))))
    parent, _, last = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == parent}
    if siblings:
        close = difflib.get_close_matches(last, siblings, n=1)
        return siblings[close[0]] if close else None
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return close[0] if close else None


def _keys(config: dict[str, Any], where: str = "") -> Iterator[str]:
    """Dotted keys of nested mappings."""
    for key, value in config.items():
        path = f"{where}.{key}" if where else str(key)
        yield path
        if isinstance(value, dict):
            yield from _keys(value, path)
