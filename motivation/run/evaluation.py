"""Evaluation: predictions of both networks, and the row of epochs.jsonl that they give."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from motivation.accuracy import exact_match
from motivation.data.dataset import Part
from motivation.phase import PHASES, Phase
from motivation.run.session import Session
from motivation.run.signals import StopRequest
from motivation.training.distributed import all_gather, all_reduce_max, all_reduce_mean, running_statistics, share

# Class probabilities (N, classes), of tokens (N, classes, T), by network; None without images or network.
Predictions = Mapping[Phase, np.ndarray | None]


def evaluate(session: Session, stop: StopRequest, *splits: Part | None) -> list[Predictions]:
    """Class probabilities ``(N, classes)`` of both networks on each split; None without images or network.

    Of several processes each predicts some of the batches, and all return the same.

    Raises:
        Interrupted: a signal came.
    """
    trainer, loader = session.trainer, session.loader
    engine, pair = trainer.engine, trainer.pair
    trainer.synchronize()
    session.synchronized = pair and pair.is_synchronized()
    if pair is not None and pair.batch_norm == "recalibrate":
        # The first epoch's batches, drawn again: the loader keeps no state, so training sees nothing of it.
        images = (images for images, _ in itertools.islice(loader.epoch(0), session.recalibration_batches))
        phase = "base" if trainer.phase == "motivated" else "motivated"
        with engine.autocast():
            pair.recalibrate(phase, images)
        all_reduce_mean(running_statistics(pair.network(phase)))

    def predict(phase: Phase, split: Part | None) -> np.ndarray | None:
        if split is None or (phase == "motivated" and pair is None):
            return None
        # Whole batches, so that any number of processes computes the same bits.
        starts = range(0, len(split), engine.evaluation_batch)
        mine = starts[share(len(starts))]
        batches = loader.evaluation_batches(split.take(slice(mine.start, mine.stop)), engine.evaluation_batch)
        predicted = engine.predict(trainer.network(phase), stop.interruptible(batches, all_reduce_max(len(mine))))
        return np.concatenate([part for part in all_gather(predicted) if part is not None])

    return [{phase: predict(phase, split) for phase in PHASES} for split in splits]


def evaluate_epoch(session: Session, stop: StopRequest) -> tuple[dict[str, Any], Predictions]:
    """The row of epochs.jsonl of an epoch whose steps are done, and its test predictions.

    An epoch that is not evaluated (``evaluate_every``) has null accuracies and no predictions.
    """
    position, trainer, dataset = session.position, session.trainer, session.dataset
    test: Predictions = {}
    validation: Predictions = {}
    others: list[Predictions] = [{} for _ in dataset.further_tests]
    if session.evaluation_due:
        test, validation, *others = evaluate(session, stop, dataset.test, dataset.validation,
                                             *dataset.further_tests.values())
    further = {key: value for (name, part), predicted in zip(dataset.further_tests.items(), others, strict=True)
               for key, value in _accuracies(part, f"{name}_top1", predicted).items()}
    steps = trainer.steps - position.epoch * len(session.loader)
    row = {"epoch": position.epoch, **_accuracies(dataset.test, "top1", test),
           **_accuracies(dataset.validation, "val_top1", validation), **further,
           "train/loss": position.loss_sum / steps, **trainer.ledger.totals(),
           **(session.lever.totals() if session.lever else {}),
           "base/forward_flops": session.forward_flops["base"],
           "motivated/forward_flops": session.forward_flops.get("motivated")}
    return row, test


def _accuracies(split: Part | None, key: str, predicted: Predictions) -> dict[str, float | None]:
    """Accuracy of both networks in percent, of sequences by exact match; null where there is nothing to measure."""
    return {f"{phase}/{key}": None if predicted.get(phase) is None else
            float(np.mean(exact_match(predicted[phase], split.labels)) * 100) for phase in PHASES}
