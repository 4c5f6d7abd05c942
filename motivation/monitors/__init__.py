"""Monitors: training signal -> progress score, a float a step."""

from motivation.monitors.bandit import Bandit
from motivation.monitors.change import Change
from motivation.monitors.composition import AllOf, AnyOf, Invert, Smooth
from motivation.monitors.consecutive import Consecutive, Ema, GradientNorm, Heldout
from motivation.monitors.gradient import GradientAgreement, NoiseScale
from motivation.monitors.learning_progress import LearningProgress, PredictionGain
from motivation.monitors.mastery import Mastery
from motivation.monitors.paired_heldout import PairedHeldout
from motivation.monitors.signal import Monitor, Signal
from motivation.monitors.trend import Trend

BY_NAME = {
    "consecutive": Consecutive, "ema": Ema, "heldout": Heldout, "gradient_norm": GradientNorm,
    "trend": Trend, "change": Change, "learning_progress": LearningProgress, "prediction_gain": PredictionGain,
    "gradient_agreement": GradientAgreement, "noise_scale": NoiseScale, "paired_heldout": PairedHeldout,
    "mastery": Mastery, "bandit": Bandit, "smooth": Smooth, "invert": Invert, "all_of": AllOf, "any_of": AnyOf,
}

__all__ = ["BY_NAME", "AllOf", "AnyOf", "Bandit", "Change", "Consecutive", "Ema", "GradientAgreement", "GradientNorm",
           "Heldout", "Invert", "LearningProgress", "Mastery", "Monitor", "NoiseScale", "PairedHeldout",
           "PredictionGain", "Signal", "Smooth", "Trend"]
