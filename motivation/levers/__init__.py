"""Levers: what a run gives its budget to, beside capacity; one file a lever, chosen by ``lever=NAME``."""

from motivation.levers.kept_rollouts import KeptRollouts
from motivation.levers.lever import Lever
from motivation.levers.prefix import Prefix

# By the name in conf/lever.
BY_NAME: dict[str, type[Lever]] = {"prefix": Prefix, "rollouts": KeptRollouts}

__all__ = ["BY_NAME", "KeptRollouts", "Lever", "Prefix"]
