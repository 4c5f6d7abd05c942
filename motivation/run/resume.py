"""Resume: what a resumed run's config may change, and which run folder is of a config."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from motivation.run_folder.config import read_config

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
    refused = [f"{key}: {before!r} -> {after!r}" for key, before, after in differences(saved, config)
               if not _within(key, (*MAY_CHANGE, *MAY_MOVE)) and not (key in MAY_GROW and _grows(before, after))]
    if refused:
        raise ValueError(f"a resumed run keeps its config, but {'; '.join(refused)}; only "
                         f"{', '.join((*MAY_CHANGE, *MAY_MOVE))} may change and {' or '.join(MAY_GROW)} grow; anything "
                         "else is a new run")


def same_run(saved: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether two configs are of one run: equal, but for what may change."""
    return all(_within(key, MAY_CHANGE) for key, *_ in differences(saved, config))


def differences(saved: Any, config: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys at which two configs differ, with both values."""
    if isinstance(saved, Mapping) and isinstance(config, Mapping):
        for key in dict.fromkeys([*saved, *config]):
            yield from differences(saved.get(key), config.get(key), f"{where}.{key}" if where else str(key))
    elif saved != config or type(saved) is not type(config):
        yield where, saved, config


def find_run(root: Path, config: Mapping[str, Any]) -> Path | None:
    """The newest run folder under ``root`` that was made with this config; None without one.

    Args:
        root: searched with everything below it.
        config: the resolved config.
    """
    found = []
    for path in root.rglob("config.yaml") if root.is_dir() else ():
        try:
            if same_run(read_config(path.parent), config):
                found.append(path)
        except ValueError:
            continue
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return newest.parent if newest else None


def _within(key: str, groups: tuple[str, ...]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _grows(before: Any, after: Any) -> bool:
    return isinstance(before, int) and isinstance(after, int) and after > before
