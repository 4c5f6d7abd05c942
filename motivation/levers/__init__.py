"""Levers: what a run gives its budget to, beside capacity; one file a lever, chosen by ``lever=NAME``."""

from motivation.levers.context import Context
from motivation.levers.distillation import Distillation
from motivation.levers.inplace_distillation import InplaceDistillation
from motivation.levers.kept_rollouts import KeptRollouts
from motivation.levers.lever import Lever
from motivation.levers.prefix import Prefix
from motivation.levers.samples import Samples
from motivation.levers.skills import Skills
from motivation.levers.tokens import Tokens

# By the name in conf/lever.
BY_NAME: dict[str, type[Lever]] = {"context": Context, "distillation": Distillation,
                                   "inplace_distillation": InplaceDistillation, "prefix": Prefix,
                                   "rollouts": KeptRollouts, "samples": Samples, "skills": Skills, "tokens": Tokens}

__all__ = ["BY_NAME", "Context", "Distillation", "InplaceDistillation", "KeptRollouts", "Lever", "Prefix", "Samples",
           "Skills", "Tokens"]
