"""The history that a tracker mirrors: rows of steps and of epochs, in one order, which the run folder gives again."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motivation.phase import Phase
from motivation.run_folder.read import read_step_rows

# Keys of a row of steps: steps trained so far; then over the steps since the last row, mean loss, share of motivated
# steps (0 to 1), expansions and highest score; then phase (0 base, 1 motivated), score and learning rate of its last
# step; and cumulative training FLOPs.
STEP_KEYS = ("trainer/step", "trainer/loss", "trainer/motivated_share", "trainer/expansions", "trainer/score_max",
             "trainer/phase", "trainer/score", "trainer/lr", "budget/flops")


@dataclass
class Window:
    """Steps since the last row."""

    steps: int = 0
    loss: float = 0.0
    motivated: int = 0
    expansions: int = 0
    score_max: float = -math.inf


class MirrorRows:
    """Makes the rows, each with its number from 0.

    A row of steps closes after ``every`` steps and at the end of an epoch, before that epoch's row: numbers and rows
    follow from steps.csv and epochs.jsonl alone, however often the run was stopped.

    Args:
        every: steps of a row; None for rows of epochs only.
    """

    def __init__(self, every: int | None):
        self.every = every
        self._number = self._steps = self._flops = 0
        self._phase: Phase = "base"
        self._score = self._lr = math.nan
        self._window = Window()

    def step(self, phase: Phase, loss: float, score: float, lr: float, flops: int) -> Iterator[tuple[int, dict]]:
        """Count a step, of a row of steps.csv; yields the row that it closes."""
        if self.every is None:
            return
        window, motivated = self._window, phase == "motivated"
        window.steps += 1
        window.loss += loss
        window.motivated += motivated
        window.expansions += motivated and self._phase == "base"
        if score > window.score_max:
            window.score_max = score
        self._phase, self._score, self._lr = phase, score, lr
        self._steps += 1
        self._flops += flops
        if window.steps == self.every:
            yield self._close()

    def epoch(self, row: Mapping[str, Any]) -> Iterator[tuple[int, dict]]:
        """The rows that the end of an epoch gives: its last steps, and its own of epochs.jsonl."""
        if self._window.steps:
            yield self._close()
        yield self._numbered(dict(row))

    def replay(self, folder: Path, epochs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, dict]]:
        """The rows of a run folder so far.

        Args:
            folder: its steps.csv is read.
            epochs: rows of its epochs.jsonl.
        """
        due = deque(epochs)
        for row in read_step_rows(folder) if self.every is not None else ():
            while due and due[0]["epoch"] < row.epoch:
                yield from self.epoch(due.popleft())
            yield from self.step(row.phase, row.loss, row.score, row.lr, row.flops)
        for epoch in due:
            yield from self.epoch(epoch)

    def _close(self) -> tuple[int, dict]:
        window, self._window = self._window, Window()
        values = (self._steps, window.loss / window.steps, window.motivated / window.steps, window.expansions,
                  window.score_max, int(self._phase == "motivated"), self._score, self._lr, self._flops)
        # A monitor without a score yet has no point in the panel.
        return self._numbered({key: value for key, value in zip(STEP_KEYS, values, strict=True)
                               if math.isfinite(value)})

    def _numbered(self, row: dict) -> tuple[int, dict]:
        self._number += 1
        return self._number - 1, row
