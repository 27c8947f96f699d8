# SPDX-License-Identifier: Apache-2.0
"""What a run records: metrics.jsonl, lines of the log, pictures, weights, and a progress bar."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import Optional

import paddle.distributed as dist
from paddle import nn
from ppsci.utils import logger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from measures.figures import BETTER
from pages import page
from support import pictures
from support import storage
from support import weight_files
from support.progress import SILENCE
from support.progress import has_bar
from support.progress import off_terminals
from support.weight_notes import Notes
from training.resume import journal_path
from training.run import Run

Record = Dict[str, Any]


def make_record(run: Run, rate: float) -> Record:
    """Makes a record of the means since the last one.

    Args:
        run: The training.
        rate: The generator's learning rate in this iteration.
    """
    record = {"step": run.iteration, "seconds": round(run.seconds, 3)}
    for player in run.players:
        record.update(player.loss.mean_figures())
    record["learning_rate"] = rate
    return record


def add_record(run: Run, record: Record) -> None:
    """Adds a record to metrics.jsonl, which the first process writes.

    Raises:
        FileNotFoundError: If the file was removed while the training ran.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    run.journal += line
    for player in run.players:
        player.loss.figures.clear()
    if dist.get_rank() > 0:
        return
    path = journal_path(run.settings.output_dir)
    if not osp.exists(path):  # Opening it for appending would make a new one.
        raise FileNotFoundError(errno.ENOENT, "was removed while the training ran", path)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)
    figures = {k: v for k, v in record.items() if isinstance(v, float) and k != "seconds"}
    run.generator.write_figures(figures, run.iteration)


def final_figures(journal: str) -> Record:
    """The newest values of a journal's figures that compare trainings.

    Args:
        journal: The text of a metrics.jsonl.
    """
    newest: Record = {}
    for line in journal.splitlines():
        newest.update(json.loads(line))
    return {name: newest[name] for name in ("step", "wasserstein", *BETTER) if name in newest}


def draw_samples(run: Run, draw: Callable[[str], None]) -> None:
    """Writes the picture of an iteration; the first process does."""
    if dist.get_rank() == 0:
        width = len(str(run.settings.iterations))
        name = f"iteration_{run.iteration:0{width}d}.png"
        path = osp.join(run.settings.output_dir, "samples", name)
        # The folder may have been removed to save space.
        os.makedirs(osp.dirname(path), exist_ok=True)
        draw(path)
        run.generator.write_picture(path, run.iteration)


def draw_curves(run: Run) -> None:
    """Draws the curves of metrics.jsonl; the first process does."""
    if dist.get_rank() == 0:
        pictures.draw_losses(run.settings.output_dir)


def save_classes(run: Run) -> None:
    """Writes the names of the classes by number to classes.json, if they have names."""
    classes = run.settings.classes
    if any(classes):
        path = osp.join(osp.abspath(run.settings.output_dir), "classes.json")
        with storage.replacing(path) as file:
            file.write((json.dumps(dict(enumerate(classes)), indent=2) + "\n").encode())


def save_networks(
    run: Run, name: str, generator: nn.Layer, critic: Optional[nn.Layer] = None
) -> None:
    """Writes weights as NAME_generator.pdparams and NAME_discriminator.pdparams."""
    notes = Notes.of(run.settings.whole, run.data, run.settings.classes)
    for network, role in ((generator, "generator"), (critic, "discriminator")):
        if network is not None and dist.get_rank() == 0:
            path = osp.join(run.settings.output_dir, f"{name}_{role}.pdparams")
            weight_files.save_weights(network, path, notes)
            logger.info(f"Saved {path}")


def save_best_networks(run: Run) -> None:
    """Writes the weights of the best generator so far and of the critic at that iteration."""
    name = "best_average" if run.average.is_kept else "best"
    with off_terminals():
        save_networks(run, f"checkpoints/{name}", run.average.network, run.critic.network)


def save_final_networks(run: Run) -> None:
    """Writes the weights that a finished training leaves."""
    if run.average.is_kept:
        save_networks(run, "model_average", run.average.network)
    save_networks(run, "model", run.generator.network, run.critic.network)


def write_page(run: Run) -> None:
    """Writes report.html, a page about the run so far; the first process does."""
    if dist.get_rank() == 0:
        page.write_or_warn(run.settings.output_dir)


def format_record(record: Record, iterations: int) -> str:
    """Formats a record as a line for people, with the speed and the time left."""
    speed = record["step"] / max(record["seconds"], 1e-9)
    left = (iterations - record["step"]) / speed
    text = (
        f"[{record['step']}/{iterations}] "
        f"wasserstein {record['wasserstein']:.4f}, "
        f"critic {record['critic_loss']:.4f}, generator {record['generator_loss']:.4f}"
    )
    if "gradient_norm" in record:
        text += f", gradient norm {record['gradient_norm']:.3f}"
    if "accuracy_real" in record:
        text += (
            f", class accuracy real {record['accuracy_real']:.2f} "
            f"fake {record['accuracy_fake']:.2f}"
        )
    clock = time.strftime("%H:%M:%S", time.gmtime(left % 86400))
    days = f"{int(left // 86400)} d " if left >= 86400 else ""
    return f"{text}, {speed:.2f} it/s, {days}{clock} left"


class ProgressLog:
    """Logs how far a run is: lines of the log, or a bar in their place on a terminal.

    Args:
        run: The training; its `seconds` follow the clock.
    """

    def __init__(self, run: Run):
        self.run, self.stack = run, contextlib.ExitStack()

    def __enter__(self) -> ProgressLog:
        run, terminal = self.run, has_bar() and dist.get_rank() == 0
        self.start = self.logged_at = time.perf_counter() - run.seconds
        if terminal:
            self.stack.enter_context(logging_redirect_tqdm([logging.getLogger("ppsci")]))
        self.bar = self.stack.enter_context(
            tqdm(
                initial=run.iteration,
                total=run.settings.iterations,
                unit="it",
                dynamic_ncols=True,
                smoothing=0,  # Evaluations take time, too.
                disable=not terminal,
            )
        )
        return self

    def __exit__(self, *error) -> None:
        self.stack.close()

    def log(self, rate: float, is_due: bool) -> Optional[Record]:
        """Logs an iteration if its record is due, or if nothing was logged for a while.

        What is recorded does not depend on the clock: a line that only shows that the run is
        alive leaves the figures for the next record.

        Args:
            rate: The generator's learning rate in this iteration.
            is_due: Whether a record is due.

        Returns:
            The record that was logged, if any.
        """
        run, now = self.run, time.perf_counter()
        run.seconds = now - self.start
        self.bar.update(run.iteration - self.bar.n)
        if not is_due and now - self.logged_at < SILENCE:
            return None
        self.logged_at = now
        record = make_record(run, rate)
        self.bar.set_postfix(wasserstein=f"{record['wasserstein']:.3f}", refresh=False)
        with off_terminals():  # The bar shows it.
            logger.info(format_record(record, run.settings.iterations))
        return record
