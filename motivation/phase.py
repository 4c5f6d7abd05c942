"""A phase: which network of a pair the current step trains."""

from typing import Literal, get_args

Phase = Literal["base", "motivated"]
PHASES: tuple[Phase, ...] = get_args(Phase)
