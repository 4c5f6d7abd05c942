"""Problems in tokens, each with a generator, splits and an exact verifier: nothing to download, every step checkable.

A task knows no network and no trainer. To add one: a frozen dataclass of `Task`, its name here, and a data source in
`motivation.data.sources.problems`.
"""

from motivation.tasks.chains import Chains
from motivation.tasks.pointer_chase import PointerChase
from motivation.tasks.problem import Problem, Task
from motivation.tasks.two_source_chains import TwoSourceChains

__all__ = ["Chains", "PointerChase", "Problem", "Task", "TwoSourceChains"]
