# SPDX-License-Identifier: Apache-2.0
"""The adversarial loop: step, agree, roll back or average, log, record, save."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from os import path as osp
from typing import Callable
from typing import Iterator
from typing import List
from typing import Optional

import paddle
import paddle.distributed as dist
from omegaconf import OmegaConf
from ppsci.utils import logger

from measures import evaluation
from measures.evaluation import Evaluator
from support import storage
from support.errors import UserError
from support.errors import require
from support.signals import stop_signals
from training import checkpoints
from training import records
from training.due import what_is_due
from training.resume import journal_path
from training.run import Run


# --8<-- [start:loop]
def train(run: Run, evaluator: Optional[Evaluator], draw: Callable[[str], None]) -> None:
    """Trains both networks, and leaves a run's files in the output folder.

    With several processes, all train and evaluate, and the first one writes.

    Args:
        run: The training, at its start or restored from a checkpoint.
        evaluator: Evaluates the moving average at intervals; None for no evaluation.
        draw: Writes a picture of samples to a path.

    Raises:
        UserError: If the training diverges, or its folder can't be written to any more.
        SystemExit: After SIGINT or SIGTERM, once a checkpoint is saved.
    """
    settings = run.settings
    run.seek()
    with writing(run), stop_signals() as signals, records.ProgressLog(run) as progress:
        open_folder(run)
        if run.iteration == 0:
            records.draw_samples(run, draw)
        while run.iteration < settings.iterations:
            # Step, and ask all processes how it went.
            rate = run.generator.rate
            run.step()
            has_diverged, is_stopped = run.agree(len(signals))

            # Roll back or average.
            if has_diverged:
                roll_back(run, rate)
                continue
            run.average.update(run.iteration)

            # Log and record.
            due = what_is_due(run.iteration, settings.train, settings.log_freq)
            record = progress.log(rate, due.record)
            if due.epoch_end or is_stopped:
                run.share_buffers()
            if due.evaluation and evaluator is not None:
                evaluate(run, evaluator, record)
            if due.record:
                records.add_record(run, record)
            if due.epoch_end:
                records.draw_samples(run, draw)
                records.draw_curves(run)

            # Save.
            if due.checkpoint or is_stopped or run.is_best:
                checkpoints.save(run)
            if run.is_best:
                keep_best(run)
            if is_stopped and not due.end:
                leave(run, signals)
            if due.epoch_end and not due.end:
                run.seek()  # A data stream is as long as an epoch.
        records.save_final_networks(run)


# --8<-- [end:loop]


def evaluate(run: Run, evaluator: Evaluator, record: records.Record) -> None:
    """Evaluates the moving average, and adds the figures to a record.

    Args:
        run: The training; its best figure follows.
        evaluator: Evaluates the moving average, or the generator where there is none.
        record: Gets the figures, what was evaluated, and whether it is the best so far.
    """
    figures = evaluator.evaluate()
    record.update(figures)
    record["evaluated"] = "average" if run.average.is_kept else "generator"
    logger.info(
        f"[{run.iteration}] evaluated the {record['evaluated']}: "
        f"{evaluation.format_figures(figures)}"
    )
    metric = run.settings.train.best_metric
    value = figures.get(metric)
    if value is None:
        logger.warning(
            f"TRAIN.best_metric={metric} is not measured here: no best generator is kept."
        )
        return
    if dist.get_world_size() > 1:
        shared = paddle.to_tensor([value], "float64")
        dist.broadcast(shared, 0)  # All processes decide by the first one's figure.
        value = float(shared)
    if run.best is None or evaluation.is_better(metric, value, run.best):
        run.best, run.best_iteration, record["best"] = value, run.iteration, True


def keep_best(run: Run) -> None:
    """Writes the best generator's weights and its checkpoint."""
    records.save_best_networks(run)
    checkpoints.save_best(run)


def open_folder(run: Run) -> None:
    """Makes a run's folder what it was at the run's iteration; the first process does."""
    output_dir, is_first = run.settings.output_dir, dist.get_rank() == 0
    if is_first:
        os.makedirs(osp.join(output_dir, "samples"), exist_ok=True)
        for folder in (output_dir, checkpoints.checkpoint_folder(output_dir)):
            storage.remove_partial(folder)  # A run that was killed while it wrote leaves them.
        checkpoints.set_later_aside(run)
    if run.is_best:
        # The run may have been killed before it wrote the best, or it was in another folder.
        # All processes call this, since they wait for each other in it.
        keep_best(run)
    if is_first:
        config = OmegaConf.create(run.settings.whole)
        OmegaConf.save(config, osp.join(output_dir, "config.yaml"))
        with storage.replacing(journal_path(output_dir)) as file:
            file.write(run.journal.encode())


def roll_back(run: Run, rate: float) -> None:
    """Goes back to the newest checkpoint, to continue with other draws; or stops.

    Args:
        run: The training, which has diverged.
        rate: The learning rate of its last iteration.

    Raises:
        UserError: If TRAIN.on_nan says so, or it was rolled back too often. The message names
            the iteration, the values and the checkpoint.
    """
    train = run.settings.train
    message = describe_divergence(run, rate)
    if train.on_nan == "stop":
        raise UserError(
            f"{message} Nothing of it was saved. {last_checkpoint(run)} Try a smaller "
            "TRAIN.learning_rate, or TRAIN.on_nan=roll_back."
        )
    require(
        run.checkpoint is not None and run.rollbacks < train.max_rollbacks,
        f"{message} The run was rolled back {run.rollbacks} times before "
        f"(TRAIN.max_rollbacks={train.max_rollbacks}). {last_checkpoint(run)} Try a smaller "
        "TRAIN.learning_rate.",
    )
    rollbacks = run.rollbacks + 1
    checkpoints.restore(run, checkpoints.read(run.checkpoint))
    run.rollbacks = rollbacks
    logger.warning(f"{message} Back to {run.checkpoint}, with other draws (rollback {rollbacks}).")
    open_folder(run)
    run.seek()


def describe_divergence(run: Run, rate: float) -> str:
    """A sentence that names the iteration and what is not finite."""
    texts = []
    for player in run.players:
        figures = player.last_figures().items()
        texts += [f"{name} is {value}" for name, value in figures if not math.isfinite(value)]
        if not player.has_finite_weights():
            texts.append(f"weights of the {player.name} are not finite")
    reason = ", ".join(texts) or (
        "gradients too large for the optimiser, or another process diverged"
    )
    return (
        f"the training diverged in iteration {run.iteration}, at a learning rate of {rate:g}: "
        f"{reason}."
    )


def last_checkpoint(run: Run) -> str:
    """A sentence that names the newest checkpoint."""
    if run.checkpoint is None or not osp.exists(run.checkpoint):
        return "There is no checkpoint yet."
    return f"The last checkpoint is {run.checkpoint}; TRAIN.resume=PATH resumes from it."


@contextlib.contextmanager
def writing(run: Run) -> Iterator[None]:
    """Turns a file that can't be written into a `UserError` that names the last checkpoint."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{run.settings.output_dir} can't be written to any more ({error}); the training "
            f"ended at iteration {run.iteration}. {last_checkpoint(run)}"
        ) from None


def leave(run: Run, signals: List[int]) -> None:
    """Ends a training that was stopped and is saved, with the status that shells expect."""
    output_dir = osp.abspath(run.settings.output_dir)
    logger.info(
        f"Stopped after iteration {run.iteration}; saved {run.checkpoint}. To continue, repeat "
        f"the command with hydra.run.dir={output_dir} TRAIN.resume=auto"
    )
    sys.exit(128 + (signals or [signal.SIGTERM])[0])
