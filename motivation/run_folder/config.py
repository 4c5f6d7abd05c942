"""The config in a run folder: plain YAML, read as data and never as code."""

from pathlib import Path
from typing import Any

import yaml

# libyaml's, where PyYAML has it: ten times as fast, and a table has hundreds of configs.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(folder: Path) -> dict[str, Any]:
    """The config a run folder was made with.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{folder} holds no run: it has no config.yaml")
    try:
        config = yaml.load(path.read_text(), LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged: it holds no config")
    return config
