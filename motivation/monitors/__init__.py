"""Monitors: training signal -> progress score, a float a step."""

from motivation.monitors.consecutive import Consecutive
from motivation.monitors.signal import Monitor, Signal

BY_NAME = {"consecutive": Consecutive}

__all__ = ["BY_NAME", "Consecutive", "Monitor", "Signal"]
