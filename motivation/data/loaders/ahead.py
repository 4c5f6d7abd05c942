"""The next batch is prepared while a GPU computes a step, so that no launch waits for its draws."""

from collections.abc import Iterator

from torch import Tensor

Batch = tuple[Tensor, Tensor]


class Ahead:
    """Batches, the next of which can be made before it is asked for.

    Batches depend on (seed, epoch, step) alone, so when they are made changes nothing.

    Args:
        batches: of one epoch.
    """

    def __init__(self, batches: Iterator[Batch]):
        self._batches = batches
        self._made: Batch | None = None
        self._error: Exception | None = None

    def __iter__(self) -> "Ahead":
        return self

    def __next__(self) -> Batch:
        if self._made is None:
            self.prepare()
        if self._error is not None:
            raise self._error
        batch, self._made = self._made, None
        if batch is None:
            raise StopIteration
        return batch

    def prepare(self) -> None:
        """Make the next batch; an error is raised when that batch is asked for, not in the step before it."""
        if self._made is None and self._error is None:
            try:
                self._made = next(self._batches, None)
            except Exception as error:
                self._error = error
