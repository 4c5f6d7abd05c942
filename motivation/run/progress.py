"""What a user sees while a run trains: a live line in a terminal, elsewhere a logged line an epoch."""

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any, TextIO

from motivation.phase import Phase
from motivation.training.ledger import Ledger
from motivation.training.trainer import StepResult

logger = logging.getLogger(__name__)
PHASE_COLOURS: dict[Phase, str] = {"base": "cyan", "motivated": "yellow"}


def open_progress(total_steps: int, steps_per_epoch: int) -> "PlainProgress":
    """The live view where stderr is a terminal, plain lines elsewhere."""
    # None, or closed: there is nobody to show it to.
    terminal = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    view = LiveProgress if terminal else PlainProgress
    return view(total_steps, steps_per_epoch)


class PlainProgress:
    """One line an epoch.

    Args:
        total_steps: steps of the whole run.
        steps_per_epoch: steps of one epoch.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int):
        self.total_steps = total_steps
        self.epochs = -(-total_steps // steps_per_epoch)
        self.start = perf_counter()
        self.taken = 0

    def __enter__(self):
        self.start = perf_counter()
        return self

    def __exit__(self, *exception):
        pass

    def step(self, step: int, epoch: int, result: StepResult, ledger: Ledger) -> None:
        """Count and show a training step."""
        self.taken += 1

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show a finished epoch."""
        logger.info(self.line(row))

    def eta(self, steps: int) -> str:
        """Time left after so many steps of the run, at the rate of this process: a resumed run had another before."""
        if not self.taken:
            return clock(0) if steps >= self.total_steps else "unknown"
        return clock((perf_counter() - self.start) / self.taken * (self.total_steps - steps))

    def line(self, row: Mapping[str, Any]) -> str:
        """A finished epoch in words."""
        steps = row["steps/base"] + row["steps/motivated"]
        accuracy = "".join(f"  {network} {row[f'{network}/top1']:.2f} %" for network in ("base", "motivated")
                           if row[f"{network}/top1"] is not None)
        return (f"epoch {row['epoch'] + 1}/{self.epochs}  step {steps}/{self.total_steps}  "
                f"loss {row['train/loss']:.4f}{accuracy}  motivated steps {row['steps/motivated'] / steps:.1%}  "
                f"{row['budget/flops']:.3g} FLOPs  {row['budget/images'] / row['budget/seconds']:.0f} images/s  "
                f"ETA {self.eta(steps)}")


class LiveProgress(PlainProgress):
    """A progress bar with the running figures, and the line of every finished epoch above it."""

    def __init__(self, total_steps: int, steps_per_epoch: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__(total_steps, steps_per_epoch)
        self.bar = Progress(TextColumn("epoch {task.fields[epoch]}"), BarColumn(bar_width=None),
                            TextColumn("{task.completed}/{task.total}  {task.fields[figures]}"),
                            console=Console(file=LossyStream(sys.stderr)), refresh_per_second=4)
        self.task = self.bar.add_task("train", total=total_steps, epoch=f"1/{self.epochs}", figures="")
        self.shown = 0.0

    def __enter__(self):
        self.bar.start()
        return super().__enter__()

    def __exit__(self, *exception):
        self.bar.stop()

    def step(self, step: int, epoch: int, result: StepResult, ledger: Ledger) -> None:
        """Show a training step, a few times a second."""
        super().step(step, epoch, result, ledger)
        now = perf_counter()
        if now - self.shown < 0.2 and step + 1 < self.total_steps:
            return
        self.shown = now
        share = ledger.steps["motivated"] / sum(ledger.steps.values())
        seconds = sum(ledger.seconds.values())
        colour = PHASE_COLOURS[result.phase]
        figures = (f"loss {result.loss:.3f}  [{colour}]{result.phase:9}[/]  motivated {share:.1%}  "
                   f"{sum(ledger.images.values()) / seconds if seconds else 0:.0f} images/s  "
                   f"{sum(ledger.flops.values()):.3g} FLOPs  "
                   f"ETA {self.eta(step + 1)}")
        self.bar.update(self.task, completed=step + 1, epoch=f"{epoch + 1}/{self.epochs}", figures=figures)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show a finished epoch."""
        self.bar.console.print(self.line(row), highlight=False)


class LossyStream:
    """A stream whose failing writes are passed over: a full disk or a closed pipe costs the bar, not the run.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write what the stream takes."""
        with suppress(OSError, ValueError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what the stream takes."""
        with suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
