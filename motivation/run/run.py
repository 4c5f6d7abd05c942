"""One run: a config, as plain mappings, becomes a run folder."""

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from motivation.command_line import resume_command
from motivation.run.evaluation import evaluate, evaluate_epoch
from motivation.run.hardware import decided
from motivation.run.narration import narrate, narrate_compilation
from motivation.run.preflight import (
    check_disk,
    fitting_evaluation_batch,
    folder_advice,
    memory_advice,
    needed_micro_batches,
)
from motivation.run.prepare import prepare
from motivation.run.record import Record, record_steps
from motivation.run.recovery import restore, roll_back, save, save_first, save_if_due
from motivation.run.resume import check_changes
from motivation.run.session import Session
from motivation.run.signals import Interrupted, StopRequest
from motivation.run.summary import finish
from motivation.run_folder.checkpoints import Checkpoints
from motivation.run_folder.config import read_config
from motivation.run_folder.write import RunFolder, check_run_folder, new_folder
from motivation.training.distributed import all_reduce_max, broadcast_from_main, is_main, processes, together
from motivation.training.trainer import NonFiniteLoss

logger = logging.getLogger(__name__)


def run(config: Mapping[str, Any], path: Path | str, resume: bool = False, suffix: bool = False) -> Path:
    """Train one run and leave its run folder.

    Args:
        config: the resolved config, plain mappings; see `motivation.run.prepare.prepare`. What it leaves to the
            hardware (``engine.precision: auto``) is decided here, and the run folder says how.
        path: the run folder; it must not hold a run, or with ``resume`` one of this very config (more epochs or
            steps, and another engine, tracker or checkpointing, may be asked for).
        resume: resume the run in this folder from its newest usable checkpoint. The result is, but for seconds,
            bit-identical to that of a run that was never stopped.
        suffix: where a new run's folder exists already, train into one with a suffix.

    In several processes all of them call this with the same arguments; the first one writes.

    Returns:
        The run folder.

    Raises:
        ValueError: a config, data set or run folder that cannot be right (nothing is written), or a NaN loss (the run
            folder then holds every step before it).
        Interrupted: a signal stopped the run; its state is saved.
        PeerLost: another process failed.
    """
    path, config = Path(path), decided(config)
    with StopRequest() as stop, ExitStack() as opened, memory_advice(), folder_advice(path):
        folder = None
        if not resume:
            broadcast_from_main(check_run_folder, path.parent if suffix else path)
        elif is_main():
            folder = opened.enter_context(closing(RunFolder(path, None)))
        if resume and broadcast_from_main(lambda: _is_finished(folder, config)):
            if is_main():
                logger.info("%s is finished; nothing is left to train", path)
            return path

        restored = resume and bool(Checkpoints(path / "checkpoints").found())
        session = opened.enter_context(_started(config, stop, restored))
        if not resume:
            broadcast_from_main(check_disk, path, session.checkpoint_bytes, session.checkpointing.keep + 2)
            if suffix:
                path = broadcast_from_main(new_folder, path)
            folder = opened.enter_context(closing(RunFolder(path, config))) if is_main() else None
        record = opened.enter_context(Record(session, folder)) if is_main() else None
        if resume:
            restore(session, record)
        else:
            save_first(session, record)
        if record:
            narrate(session)
            record.start(session)

        try:
            predictions = {}
            for _ in session.remaining_epochs():
                try:
                    train_epoch(session, record, stop)
                    due = session.checkpoint_due
                    if due and session.evaluation_due:
                        # What fails in an evaluation (memory, an unreadable image) must not cost the epoch's training.
                        save(session, record)
                    row, predictions = evaluate_epoch(session, stop)
                    if record:
                        record.folder.epoch(row)
                    session.next_epoch()
                    if due:
                        save(session, record, row["base/val_top1"])
                    if record:
                        record.mirror(row)
                except NonFiniteLoss as error:
                    roll_back(session, record, error)
            if not predictions:
                # Resumed after the last epoch: its row is on disk, its predictions are not.
                [predictions] = evaluate(session, stop, session.dataset.test)
        except Interrupted as error:
            save(session, record)
            if record:
                record.checkpoints.wait()
            raise Interrupted(error.number, f"stopped by {signal.Signals(error.number).name} at step "
                              f"{session.trainer.steps} of {session.total_steps}; resume it with: "
                              f"{resume_command(path, processes())}") from None
        broadcast_from_main(lambda: finish(session, record, predictions))
    return path


def train_epoch(session: Session, record: Record | None, stop: StopRequest) -> None:
    """The remaining steps of the current epoch, and its edge, where the paper contracts."""
    if session.position.closed:
        return
    for batch in session.batches():
        session.step(*batch)
        record_steps(session, record, leave=session.trainer.unread)
        stop.check()
        save_if_due(session, record)
    record_steps(session, record)
    session.trainer.end_epoch()
    session.position.closed = True


@contextmanager
def _started(config: Mapping[str, Any], stop: StopRequest, restored: bool) -> Iterator[Session]:
    """A session whose networks fit in memory, in every process; a signal that came meanwhile ends it.

    Its loader is closed at the end.
    """
    with ExitStack() as opened:
        with together():
            session = prepare(config, restored)
            opened.enter_context(closing(session.loader))
            start = perf_counter()
            count = needed_micro_batches(session.trainer, *next(session.loader.epoch(0)))
            images = fitting_evaluation_batch(session.trainer, session.test_batch)
            seconds = perf_counter() - start
        try:
            stop.check()
        except Interrupted as error:
            raise Interrupted(error.number, f"stopped by {signal.Signals(error.number).name} before training; nothing "
                              "was written") from None
        session.set_micro_batches(all_reduce_max(count))
        session.set_evaluation_batch(-all_reduce_max(-images))
        if is_main():
            narrate_compilation(session.trainer, seconds)
        yield session


def _is_finished(folder: RunFolder, config: Mapping[str, Any]) -> bool:
    """Whether nothing of this config is left to train in a folder; ValueError where it is another run's."""
    saved = read_config(folder.path)
    check_changes(saved, config)
    return folder.finished and saved.get("recipe") == config.get("recipe")
