"""Resume: what a resumed run's config may change, and which run folder is of a config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import motivation.data
from motivation.registry import build
from motivation.run_folder.config import read_config
from motivation.run_folder.identity import PLACES, differences, identity
from motivation.run_folder.read import read_fingerprint, read_history

# What changes how or how long a run is executed, not what is trained.
MAY_CHANGE = ("engine", "tracker", "checkpoint", "data.workers", "data.download")
# The same data set in another place: whether it is the same, its fingerprint says.
MAY_MOVE = ("data.root", "data.path")
MAY_GROW = ("recipe.epochs", "recipe.steps")


def check_changes(saved: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValueError where a resumed run would be another run; the message is the difference.

    Args:
        saved: the config of the run folder.
        config: the config to resume with.
    """
    if refused := _refused(saved, config):
        raise ValueError(f"a resumed run keeps its config, but {'; '.join(refused)}; only "
                         f"{', '.join((*MAY_CHANGE, *MAY_MOVE))} may change and {' or '.join(MAY_GROW)} grow; anything "
                         "else is a new run")


def find_run(root: Path, config: Mapping[str, Any]) -> Path | None:
    """The newest run folder under ``root`` that is of this config and its data, wherever that is; None without one.

    Args:
        root: searched with everything below it.
        config: the resolved config.

    Raises:
        ValueError: a run may be this one with its data elsewhere, and the config's data cannot be read.
    """
    setting, place = identity(config, ""), _place(config)
    fingerprint, found = None, []
    for path in root.rglob("config.yaml") if root.is_dir() else ():
        try:
            saved = read_config(path.parent)
            if identity(saved, "", read_history(path.parent)) != setting or _refused(saved, config):
                continue
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        # The data is read only where its place does not say that it is the same.
        if _place(saved) != place:
            fingerprint = fingerprint or build(motivation.data.BY_NAME, config["data"], "data").load().fingerprint
            if read_fingerprint(path.parent) != fingerprint:
                continue
        found.append(path)
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return newest.parent if newest else None


def _refused(saved: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Differences that a resumed run may not have, in words."""
    return [f"{key}: {before!r} -> {after!r}" for key, before, after in differences(saved, config)
            if not _within(key, (*MAY_CHANGE, *MAY_MOVE)) and not (key in MAY_GROW and _grows(before, after))]


def _place(config: Mapping[str, Any]) -> list[Any]:
    return [config["data"].get(key) for key in PLACES]


def _within(key: str, groups: tuple[str, ...]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _grows(before: Any, after: Any) -> bool:
    return isinstance(before, int) and isinstance(after, int) and after > before
