"""Levers: what a run gives its budget to, beside capacity; one file a lever, chosen by ``lever=NAME``."""

from motivation.levers.context import Context
from motivation.levers.lever import Lever
from motivation.levers.samples import Samples
from motivation.levers.tokens import Tokens

# By the name in conf/lever.
BY_NAME: dict[str, type[Lever]] = {"context": Context, "samples": Samples, "tokens": Tokens}

__all__ = ["BY_NAME", "Context", "Lever", "Samples", "Tokens"]
