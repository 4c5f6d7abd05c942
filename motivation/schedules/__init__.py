"""Schedules: progress score -> phase of the next step."""

from motivation.schedules.constant import Always, Never
from motivation.schedules.controls import MatchedRandom, Onset, Periodic, Progressive, Random, Replay
from motivation.schedules.gates import Budget, CoolDown, MaxInterval, MinInterval, WarmUp, Window
from motivation.schedules.ladder import Ladder
from motivation.schedules.quota import Quota
from motivation.schedules.schedule import Schedule
from motivation.schedules.threshold import Threshold

BY_NAME = {
    "threshold": Threshold, "quota": Quota, "never": Never, "always": Always,
    "budget": Budget, "window": Window, "min_interval": MinInterval, "max_interval": MaxInterval,
    "cool_down": CoolDown, "warm_up": WarmUp,
    "random": Random, "matched_random": MatchedRandom, "replay": Replay, "periodic": Periodic,
    "progressive": Progressive, "onset": Onset,
}

__all__ = ["BY_NAME", "Always", "Budget", "CoolDown", "Ladder", "MatchedRandom", "MaxInterval", "MinInterval",
           "Never", "Onset", "Periodic", "Progressive", "Quota", "Random", "Replay", "Schedule", "Threshold", "WarmUp",
           "Window"]
