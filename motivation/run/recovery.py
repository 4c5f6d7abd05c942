"""Recovery: saving checkpoints, restoring the newest usable one, and rolling back after a NaN."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from motivation.run.record import Record, record_steps
from motivation.run.session import Session
from motivation.run_folder.checkpoints import load_checkpoint
from motivation.run_folder.identity import in_words
from motivation.training.distributed import broadcast_from_main, is_main
from motivation.training.trainer import NonFiniteLoss

logger = logging.getLogger(__name__)


def save(session: Session, record: Record | None, validation: float | None = None) -> None:
    """Save a checkpoint, unless weights are NaN or infinite; rows of all trained steps are written first.

    Args:
        session: the run.
        record: of the first process; None in the others.
        validation: validation accuracy of the base network in percent, where it was just measured.
    """
    record_steps(session, record)
    state, model = session.state_dict(), session.trainer.model
    weights = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    finite = torch.stack(torch._foreach_norm(weights, 1)).isfinite().all()
    if record and finite:
        record.checkpoints.save(state, session.trainer.steps, validation)
    elif record:
        logger.warning("no checkpoint of step %d: the weights are not finite; older ones stay", session.trainer.steps)


def save_if_due(session: Session, record: Record | None) -> None:
    """Save a checkpoint inside an epoch every ``checkpoint.every_steps`` steps, unless one is still being written."""
    every = session.checkpointing.every_steps
    if every and session.trainer.steps % every == 0 and not broadcast_from_main(lambda: record.checkpoints.busy):
        save(session, record)


def save_first(session: Session, record: Record | None) -> None:
    """Save and await the checkpoint of step 0: a disk that takes none is known before training.

    Raises:
        ValueError: the disk takes no checkpoint; nothing is left in the run folder.
    """
    state = session.state_dict()

    def write() -> None:
        record.checkpoints.save(state, 0)
        record.checkpoints.wait()
        if not record.checkpoints.found():
            record.folder.abandon()
            raise ValueError(f"{record.checkpoints.folder} takes no checkpoint; free some space or choose another "
                             "disk with hydra.run.dir=PATH")

    broadcast_from_main(write)


def restore(session: Session, record: Record | None) -> None:
    """Load the newest checkpoint that can be read and whose rows are all on disk; without any, start at step 0."""
    source, state = broadcast_from_main(lambda: _newest_usable(session, record))
    if state is not None:
        session.load_state_dict(state, source)
    reopened = session.reopen_epoch()
    if record:
        if state is not None:
            record.checkpoints.discard_after(session.trainer.steps)
        record.folder.rewind(session.trainer.steps, session.position.epoch, session.position.signals)
        record.folder.config(session.config)
        record.folder.write_history(session.history)
        if session.history and session.history[-1]["step"] == session.trainer.steps \
                and "changed" in session.history[-1]:
            logger.warning("trained %s: compare takes it as another run than one with this config from the start",
                           in_words(session.history[-1]))
    if reopened:
        first = session.position.epoch * len(session.loader)
        session.position.loss_sum = broadcast_from_main(lambda: sum(record.folder.history.loss[first:]))


def roll_back(session: Session, record: Record | None, error: NonFiniteLoss) -> None:
    """Return to a checkpoint with a smaller learning rate, or raise where the recipe allows no more rollbacks.

    The newest one, or the one before where the run fails at the same step again: its weights may be spoiled already.
    """
    if record:
        record.checkpoints.wait()
    before = session.position
    found = broadcast_from_main(lambda: record.checkpoints.found())
    place = "epoch {}, batch {}".format(*divmod(error.step, len(session.loader)))
    if before.rollbacks >= session.recipe.rollbacks or not found:
        kept = f"the last good checkpoint is {found[0].path}" if found else "there is no checkpoint"
        raise ValueError(f"{error} ({place}); {kept}") from error
    target = found[min(error.step <= before.failed, len(found) - 1)]
    session.load_state_dict(broadcast_from_main(load_checkpoint, target.path), target.path)
    session.position.rollbacks, session.position.failed = before.rollbacks + 1, error.step
    session.position.lr_scale = before.lr_scale * session.recipe.rollback_lr
    session.pending.clear()
    session.history.append({"step": target.step, "rollback": session.position.lr_scale})
    if record:
        record.folder.rewind(session.trainer.steps, session.position.epoch, session.position.signals)
        record.checkpoints.discard_after(target.step)
        record.folder.write_history(session.history)
        record.replay()
    # A run that is killed now has to know of the rollback too.
    save(session, record, target.validation)
    if record:
        record.checkpoints.wait()
    if is_main():
        logger.warning("%s (%s); back to step %d, learning rate x %g from here on", error, place, target.step,
                       session.position.lr_scale)


def _newest_usable(session: Session, record: Record) -> tuple[Path | None, dict | None]:
    """Path and state of the newest checkpoint that can be resumed from; None where there has been none."""
    folder, checkpoints = record.folder, record.checkpoints
    rows, missing = folder.valid_rows(), ""
    for saved, state in checkpoints.readable():
        missing = _missing_rows(session, saved.step, state, rows)
        if not missing:
            return saved.path, state
        logger.warning("%s is of step %d, but %s; an older one is tried", saved.path, saved.step, missing)
    if checkpoints.found():
        reason = f", since {missing}" if missing else ""
        raise ValueError(f"no checkpoint in {checkpoints.folder} can be used{reason}; train the run again in another "
                         "folder")
    logger.warning("%s has no checkpoint; training starts at step 0", folder.path)
    return None, None


def _missing_rows(session: Session, step: int, state: Mapping[str, Any], rows: Mapping[str, tuple[int, str]]) -> str:
    """Which files have fewer rows than a checkpoint's run had written; empty where none has."""
    try:
        epochs = state["position"]["epoch"]
        if step < session.total_steps:
            # An epoch in which training once ended has a row that its continuation replaces.
            epochs = min(epochs, step // len(session.loader))
        needed = {"steps.csv": step, "epochs.jsonl": epochs,
                  "signals.csv": state["position"]["signals"]}
        return " and ".join(rows[name][1] for name, count in needed.items() if rows[name][0] < count)
    except (KeyError, TypeError):
        # No checkpoint of a run: loading it says so.
        return ""
