"""Training that switches model capacity on learning progress (arXiv 2602.21064).

Names load when first used, so that ``import motivation`` and the command line's help stay instant.
"""

import importlib

_HOME = {
    "Pair": "pair",
    "create_pair": "models",
    "create_model": "models",
    "Trainer": "trainer",
    "WeightsMap": "weights_map",
    "Engine": "engine",
    "Ledger": "ledger",
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
