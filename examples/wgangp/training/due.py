# SPDX-License-Identifier: Apache-2.0
"""What is due after an iteration of a training."""

from __future__ import annotations

from typing import NamedTuple

from omegaconf import DictConfig


class Due(NamedTuple):
    """What is due after an iteration.

    Args:
        record: A line in metrics.jsonl.
        epoch_end: What an epoch ends with: a picture, curves, and new rows of the data streams.
        evaluation: The validators.
        checkpoint: The checkpoint of an interval.
        end: The weights; the training is over.
    """

    record: bool
    epoch_end: bool
    evaluation: bool
    checkpoint: bool
    end: bool


def what_is_due(iteration: int, train: DictConfig, log_freq: int) -> Due:
    """Returns what is due after an iteration.

    The result depends on nothing but the arguments, so a resumed training does what an
    uninterrupted one does.

    Args:
        iteration: The generator iteration, from 1.
        train: The section TRAIN (epochs, iters_per_epoch, eval_freq, save_freq, on_nan).
        log_freq: Iterations between two records.
    """
    epoch, rest = divmod(iteration, train.iters_per_epoch)
    ends_epoch, ends = rest == 0, iteration == train.epochs * train.iters_per_epoch

    def each(epochs: int) -> bool:
        return ends_epoch and epochs > 0 and (epoch % epochs == 0 or ends)

    # A training that may roll back wants a checkpoint to roll back to from the start.
    is_first_kept = iteration == 1 and train.on_nan == "roll_back"
    return Due(
        record=ends_epoch or iteration == 1 or iteration % log_freq == 0,
        epoch_end=ends_epoch,
        evaluation=each(train.eval_freq),
        checkpoint=each(train.save_freq) or is_first_kept,
        end=ends,
    )
