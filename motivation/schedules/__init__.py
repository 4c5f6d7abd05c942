"""Schedules: progress score -> phase of the next step."""

from motivation.schedules.constant import Always, Never
from motivation.schedules.schedule import Schedule
from motivation.schedules.threshold import Threshold

BY_NAME = {"threshold": Threshold, "never": Never, "always": Always}

__all__ = ["BY_NAME", "Always", "Never", "Schedule", "Threshold"]
