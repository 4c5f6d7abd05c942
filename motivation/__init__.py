"""Training that switches model capacity on learning progress (arXiv 2602.21064).

Names load when first used, so that ``import motivation`` and the command line's help stay instant.
"""

import importlib
import logging
from pathlib import Path

# In a checkout conf/, experiments/ and benchmarks/ are next to the package; a wheel has them inside it.
_CHECKOUT = Path(__file__).parents[1]
if (_CHECKOUT / "conf" / "config.yaml").is_file() and (_CHECKOUT / "setup.cfg").is_file():
    __path__.append(str(_CHECKOUT))

# Silent in a library user's program, unless that configures logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOME = {
    "Pair": "pairing.pair",
    "create_pair": "models",
    "create_model": "models",
    "Trainer": "training.trainer",
    "WeightsMap": "pairing.weights_map",
    "Engine": "training.engine",
    "Ledger": "training.ledger",
    "Signal": "monitors",
    "monitors": None,
    "schedules": None,
}
__all__ = list(_HOME)


def __getattr__(name):
    """Import the module that holds a public name, on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'motivation' has no attribute {name!r}")
    home = _HOME[name]
    value = importlib.import_module(f"motivation.{home or name}")
    if home:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
