"""Levers: what a run gives its budget to, beside capacity; one file a lever, chosen by ``lever=NAME``."""

from motivation.levers.context import Context
from motivation.levers.lever import Lever

# By the name in conf/lever.
BY_NAME: dict[str, type[Lever]] = {"context": Context}

__all__ = ["BY_NAME", "Context", "Lever"]
