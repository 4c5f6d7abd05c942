"""What the first process writes while a run trains: rows, checkpoints, the tracker's mirror and progress."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from motivation.run.mirror import MirrorRows
from motivation.run.progress import open_progress
from motivation.run.session import Session
from motivation.run.trackers import Expendable
from motivation.run_folder.checkpoints import Checkpoints
from motivation.run_folder.read import identify_sources, read_sources
from motivation.run_folder.write import RunFolder
from motivation.training.ledger import Ledger
from motivation.training.trainer import StepResult


class Record:
    """Run folder, checkpoints, tracker and progress of one run; a context that closes them. Other processes have none.

    Args:
        session: the run.
        folder: its folder, open.
    """

    def __init__(self, session: Session, folder: RunFolder):
        self.folder = folder
        self.checkpoints = Checkpoints(folder.path / "checkpoints", session.checkpointing.keep, folder.flush)
        self.tracker = Expendable(session.tracker)
        self.progress = open_progress(session.total_steps, len(session.loader))
        self.summary: dict[str, Any] | None = None
        self._rows = MirrorRows(None)
        self._exit = ExitStack()

    def __enter__(self):
        self._exit.callback(lambda: self.tracker.finish(self.summary))
        self._exit.callback(self.checkpoints.close)
        return self

    def __exit__(self, *exception):
        self._exit.close()

    def start(self, session: Session) -> None:
        """Write what is known before the first step, and open tracker and progress."""
        pair = session.trainer.pair
        # A source that has gone since is still known.
        self.folder.data(session.input_spec | {"sources": identify_sources(session.config) |
                                               read_sources(self.folder.path)})
        if pair:
            self.folder.weights_map(pair.weights_map.to_json())
        self.tracker.start(self.folder.path, session.config)
        self.replay()
        self._exit.enter_context(self.progress)

    def replay(self) -> None:
        """Offer the tracker the rows of the folder so far, after a resume or a rollback; it takes none twice."""
        self._rows = MirrorRows(self.tracker.every)
        self._mirror(self._rows.replay(self.folder.path, self.folder.epochs))

    def step(self, step: int, epoch: int, loss: float, result: StepResult, ledger: Ledger) -> None:
        """Write a trained step, and show it in progress and tracker."""
        row = result.phase, loss, result.score, result.lr, result.flops
        self.folder.step(step, epoch, *row, result.rung)
        self.progress.step(step, epoch, result, ledger)
        self._mirror(self._rows.step(*row))

    def mirror(self, row: Mapping[str, Any]) -> None:
        """Show a row of epochs.jsonl in progress and tracker."""
        self._mirror(self._rows.epoch(row))
        self.progress.epoch(row)

    def _mirror(self, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        for number, row in rows:
            self.tracker.log(number, row)


def record_steps(session: Session, record: Record | None, leave: int = 0) -> None:
    """Write the rows of trained steps, oldest first.

    Args:
        session: the run; its pending steps are counted in every process.
        record: of the first process; None in the others.
        leave: how many of the newest stay pending, since their losses are still on the way.

    Raises:
        NonFiniteLoss: a loss or gradient is NaN or infinite.
    """
    reads = getattr(session.trainer.monitor, "reads", ("loss",))
    while len(session.pending) > leave:
        step, result = session.pending.popleft()
        loss = result.loss
        session.position.loss_sum += loss
        if record:
            record.step(step, session.position.epoch, loss, result, session.trainer.ledger)
        if reads != ("loss",) and result.reading is not None:
            session.position.signals += 1
            if record:
                record.folder.signals(step - session.trainer.lag, reads, result.reading)
