"""The files of experiments/: a table of the paper or of ours, its rows with printed figures, and its scales."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from motivation.tables.rows import PER

# Keys of a row that are mappings and no data set.
MAPPINGS = ("k", "pair", "versus")


def list_tables() -> list[str]:
    """Names of the tables in experiments/."""
    return sorted(path.name.removesuffix(".yaml") for path in resources.files("motivation.experiments").iterdir()
                  if path.name.endswith(".yaml"))


def table_name(name: str) -> str:
    """The full name of a table that is given by its name or number.

    Raises:
        ValueError: there is no such table.
    """
    name = f"table{name}" if name.isdecimal() else name
    if name not in list_tables():
        raise ValueError(f"no table {name!r}; there are {', '.join(list_tables())}")
    return name


def read_table(name: str) -> dict[str, Any]:
    """A table's file by its name or number.

    Raises:
        ValueError: there is no such table, or a figure in it is no number.
    """
    name = table_name(name)
    table = yaml.safe_load((resources.files("motivation.experiments") / f"{name}.yaml").read_text())
    check_figures(name, table["rows"])
    scales = {scale: level if "data" in level else _on_shared_scale(scale, level)
              for scale, level in table["scales"].items()}
    return {"name": name} | table | {"scales": scales}


def _on_shared_scale(scale: str, level: dict[str, Any]) -> dict[str, Any]:
    """A scale that several tables have, with what differs in a table: its recipes are added to the shared ones."""
    shared = yaml.safe_load((resources.files("motivation.experiments") / "scales" / f"{scale}.yaml").read_text())
    return shared | level | {"recipes": shared["recipes"] | level.get("recipes", {})}


def check_figures(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError where a printed figure is no number (YAML reads ``7e+8``, without a dot, as text) or of no unit.
    """
    for row in rows:
        if row.get("unit", "mac") not in PER:
            raise ValueError(f"{name}, row {row['row']}: unit: {row['unit']!r}; choose one of {', '.join(PER)}")
        for dataset in _datasets(row):
            for key, value in row[dataset].items():
                values = value if isinstance(value, list) else [value]
                if wrong := [one for one in values if not isinstance(one, int | float | None)]:
                    raise ValueError(f"{name}, row {row['row']}, {dataset}.{key}: {wrong[0]!r} is no number; write "
                                     "7.0e+8, with a dot, not 7e+8")


def datasets_of(table: Mapping[str, Any]) -> list[str]:
    """The paper's data sets of a table, in its order."""
    return list(dict.fromkeys(dataset for row in table["rows"] for dataset in _datasets(row)))


def _datasets(row: Mapping[str, Any]) -> list[str]:
    """The data sets of a row: its other keys that are mappings say how it is trained and compared."""
    return [key for key, value in row.items() if isinstance(value, Mapping) and key not in MAPPINGS]


def large_row(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], dataset: str) -> str | None:
    """Label of the classical row of a pair's motivated network."""
    if row.get("of", "base") == "motivated" or "motivated" not in row:
        return None
    return next((other["row"] for other in rows if other.get("classical") == row["motivated"] and dataset in other
                 and "control" not in other), None)
