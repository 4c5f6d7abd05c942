"""The end of a run: its predictions, its final networks, and summary.json with the null rate of its trigger."""

import functools
import logging

import torch

from motivation.null.rate import NullRate, build_trigger, null_rate
from motivation.run.evaluation import Predictions
from motivation.run.prepare import FACTS, split_lag
from motivation.run.record import Record
from motivation.run.session import Session
from motivation.run_folder.checkpoints import save_checkpoint
from motivation.run_folder.write import History
from motivation.schedules import Ladder

logger = logging.getLogger(__name__)


def finish(session: Session, record: Record, predictions: Predictions) -> None:
    """Write a trained run's predictions, networks and summary."""
    folder, pair = record.folder, session.trainer.pair
    folder.predictions(labels=session.dataset.test.labels,
                       **{phase: array for phase, array in predictions.items() if array is not None})
    save_checkpoint(folder.path / "checkpoints" / "final.pt", session.trainer.model.state_dict())
    ladder = _ladder(session)
    null = null_of(session, folder.history) if pair or ladder else None
    summary = {**folder.epochs[-1], "seed": session.config["seed"],
               "null_rate": null and null.rate, "null_kind": null and null.kind,
               "null_rate_independent": null and null.independent,
               "pair/batch_norm": pair and pair.batch_norm, "pair/synchronized": session.synchronized,
               "hardware": ", then ".join(session.hardware), "torch": torch.__version__}
    if ladder and ladder.rung < ladder.rungs - 1:
        logger.warning("the last rung was never reached: training ended on rung %d of 0 to %d", ladder.rung,
                       ladder.rungs - 1)
    record.checkpoints.wait()
    folder.summary(summary)
    record.summary = summary


def null_of(session: Session, history: History) -> NullRate:
    """The null that a run is judged by, see `motivation.null.rate.null_rate`."""
    steps_per_epoch = min(len(session.loader), session.total_steps)
    facts = dict(zip(FACTS, (session.config["seed"], session.total_steps, steps_per_epoch,
                             *session.forward_flops.values()), strict=False))
    monitor, lag = split_lag(session.config["monitor"])
    ladder = _ladder(session)
    trigger = functools.partial(build_trigger, monitor, session.config["schedule"], ladder and ladder.rungs, **facts)
    return null_rate(trigger, *history.readings, history.motivated, steps_per_epoch, lag)


def _ladder(session: Session) -> Ladder | None:
    """The schedule, where it climbs a lever's rungs."""
    schedule = session.trainer.schedule
    return schedule if isinstance(schedule, Ladder) else None
