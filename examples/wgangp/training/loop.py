# SPDX-License-Identifier: Apache-2.0
"""The adversarial loop: step, agree, roll back or average, log, record, save."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from os import path as osp
from typing import Callable
from typing import Iterator
from typing import List
from typing import NoReturn
from typing import Optional

import paddle
import paddle.distributed as dist
from omegaconf import OmegaConf
from ppsci.utils import logger

from measures.evaluation import Evaluator
from measures.figures import format_figures
from measures.figures import is_better
from support import storage
from support import sweeps
from support.errors import UserError
from support.errors import printable
from support.signals import stop_signals
from training import checkpoints
from training import records
from training.due import Due
from training.due import what_is_due
from training.player import list_not_finite
from training.resume import journal_path
from training.run import Run


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
        logger.info(f"Samples, records and checkpoints go to {printable(settings.output_dir)}.")
        checkpoints.keep_start(run)
        if run.iteration == 0:
            records.draw_samples(run, draw)
        # --8<-- [start:iteration]
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

            # Log, record, save.
            due = what_is_due(run.iteration, settings.train, settings.log_freq)
            record = progress.log(rate, due.record)
            if due.epoch_end or is_stopped:
                run.share_buffers()
            record_iteration(run, due, record, evaluator, draw)
            save_iteration(run, due, is_stopped)
            if is_stopped and not due.end:
                leave(run, signals)
            if due.epoch_end and not due.end:
                run.seek()  # A data stream is as long as an epoch.
        # --8<-- [end:iteration]
        records.save_final_networks(run)
        records.write_page(run)
        if signals and sweeps.is_sweep():  # It came too late to stop this training.
            sweeps.end_after_job(signals[0])


def record_iteration(
    run: Run,
    due: Due,
    record: Optional[records.Record],
    evaluator: Optional[Evaluator],
    draw: Callable[[str], None],
) -> None:
    """Evaluates, records and draws what is due after an iteration."""
    if due.evaluation and evaluator is not None:
        evaluate_average(run, evaluator, record)
    if due.record:
        records.add_record(run, record)
    if due.epoch_end:
        records.draw_samples(run, draw)
        records.draw_curves(run)


def save_iteration(run: Run, due: Due, is_stopped: bool) -> None:
    """Writes the checkpoint that is due after an iteration, and the best generator's files."""
    if due.checkpoint or is_stopped or run.is_best:
        checkpoints.save(run)
    if run.is_best:
        keep_best(run)


def evaluate_average(run: Run, evaluator: Evaluator, record: records.Record) -> None:
    """Evaluates the moving average, and adds the figures to a record.

    Args:
        run: The training; its best figure follows.
        evaluator: Evaluates the moving average, or the generator where there is none.
        record: Gets the figures, what was evaluated, and whether it is the best so far.
    """
    figures = evaluator.evaluate()
    record.update(figures)
    record["evaluated"] = "average" if run.average.is_kept else "generator"
    logger.info(f"[{run.iteration}] evaluated the {record['evaluated']}: {format_figures(figures)}")
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
    if run.best is None or is_better(metric, value, run.best):
        run.best, run.best_iteration, record["best"] = value, run.iteration, True


def keep_best(run: Run) -> None:
    """Writes the best generator's weights and its checkpoint."""
    records.save_best_networks(run)
    checkpoints.save_best(run)


def open_folder(run: Run) -> None:
    """Makes a run's folder what it was at the run's iteration; the first process does."""
    output_dir, is_first = run.settings.output_dir, dist.get_rank() == 0
    if is_first:
        for folder in ("samples", "checkpoints"):
            os.makedirs(osp.join(output_dir, folder), exist_ok=True)
        for folder in (output_dir, checkpoints.checkpoint_folder(output_dir)):
            storage.remove_partial(folder)  # A run that was killed while it wrote leaves them.
        checkpoints.set_aside(run)
    if run.is_best:
        # The run may have been killed before it wrote the best, or it was in another folder.
        # All processes call this, since they wait for each other in it.
        keep_best(run)
    if is_first:
        config = OmegaConf.create(run.settings.whole)
        OmegaConf.save(config, osp.join(output_dir, "config.yaml"))
        records.save_classes(run)
        with storage.replacing(journal_path(output_dir)) as file:
            file.write(run.journal.encode())


def roll_back(run: Run, rate: float) -> None:
    """Goes back to the newest checkpoint or to the start, to continue with other draws; or stops.

    Args:
        run: The training, which has diverged.
        rate: The learning rate of its last iteration.

    Raises:
        UserError: If TRAIN.on_nan says so, or it was rolled back too often, or its checkpoint is
            gone. The message names the iteration, what is not finite, and the checkpoint.
    """
    train, path = run.settings.train, run.checkpoint
    message = describe_divergence(run, rate)
    has_own_rate = train.critic_learning_rate != train.learning_rate
    keys = "TRAIN.learning_rate" + (" or TRAIN.critic_learning_rate" if has_own_rate else "")
    advice = f"{last_checkpoint(run)} Try a smaller {keys}"
    if train.on_nan == "stop":
        give_up(run, f"{message} Nothing of it was saved. {advice}, or TRAIN.on_nan=roll_back.")
    if run.rollbacks >= train.max_rollbacks:
        message += f" The run was rolled back {run.rollbacks} times before"
        give_up(run, f"{message} (TRAIN.max_rollbacks={train.max_rollbacks}). {advice}.")
    rollbacks = run.rollbacks + 1
    try:
        checkpoints.restore(run, run.start if path is None else checkpoints.read(path))
    except UserError as error:
        raise UserError(f"{message} The run can't be rolled back: {error}") from None
    run.rollbacks, run.checkpoint = rollbacks, path
    place = "the start" if path is None else printable(path)
    logger.warning(f"{message} Back to {place}, with other draws (rollback {rollbacks}).")
    open_folder(run)
    run.seek()


def give_up(run: Run, message: str) -> NoReturn:
    """Ends a training that diverged, after a page whose curves show what led to it.

    Raises:
        UserError: With the message.
    """
    if run.journal:  # A page needs records.
        records.write_page(run)
    raise UserError(message)


def describe_divergence(run: Run, rate: float) -> str:
    """A sentence that names the iteration and what is not finite."""
    texts = [text for player in run.players for text in player.describe_divergence()]
    if run.average.is_kept:
        names = list_not_finite(run.average.network.state_dict())
        texts += [f"weights of the moving average are not finite: {names}"] if names else []
    reason = ", ".join(texts) or (
        "numbers too large to be added in float32, or another process diverged"
    )
    train = run.settings.train
    if train.critic_learning_rate == train.learning_rate or rate == 0:
        rates = f"{rate:g}"
    else:
        rates = f"{rate:g} (critic: {rate * train.critic_learning_rate / train.learning_rate:g})"
    return (
        f"the training diverged in iteration {run.iteration}, at a learning rate of {rates}: "
        f"{reason}."
    )


def last_checkpoint(run: Run) -> str:
    """A sentence that names the newest checkpoint."""
    if run.checkpoint is None:
        return "There is no checkpoint yet."
    path = printable(run.checkpoint)
    if not osp.isfile(run.checkpoint):
        return f"The last checkpoint, {path}, was removed while the training ran."
    return f"The last checkpoint is {path}; TRAIN.resume=PATH resumes from it."


@contextlib.contextmanager
def writing(run: Run) -> Iterator[None]:
    """Turns a file that can't be written into a `UserError` that names the last checkpoint."""
    try:
        yield
    except OSError as error:
        # CUDA's errors are OSErrors without a number. Little memory has a message of its own.
        if error.errno in (None, errno.ENOMEM):
            raise
        raise UserError(
            f"{printable(run.settings.output_dir)} can't be written to any more "
            f"({printable(error)}); the training ended at iteration {run.iteration}. "
            f"{last_checkpoint(run)}"
        ) from None


def leave(run: Run, signals: List[int]) -> None:
    """Ends a training that was stopped and is saved, with the status that shells expect."""
    records.write_page(run)
    folder = sweeps.name_folder(run.settings.output_dir)
    logger.info(
        f"Stopped after iteration {run.iteration}; saved {run.checkpoint}. To continue, repeat "
        f"the command with {folder} TRAIN.resume=auto"
    )
    sys.exit(128 + (signals or [signal.SIGTERM])[0])
