# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The adversarial loop: two ppsci Solvers, each of which owns the network that it optimises."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import sys
import time
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import Mapping
from typing import Optional
from typing import Sequence

import paddle
import ppsci
from omegaconf import OmegaConf
from paddle import nn
from ppsci.utils import logger
from ppsci.utils import save_load
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import evaluation
import files
import functions
import pictures
import streams
from evaluation import NEVER
from runtime import SILENCE
from runtime import require


# --8<-- [start:optimizer]
def make_optimizer(cfg, network: nn.Layer, iterations: int, steps: int):
    """Adam, with a rate that stays or falls linearly to 0 over the run's own length.

    Args:
        cfg: The script's configuration.
        network: The network to optimise.
        iterations: Generator iterations of the run.
        steps: This network's steps in each of them.
    """
    end = {"constant": cfg.TRAIN.learning_rate, "linear": 0.0}[cfg.TRAIN.lr_schedule]
    rate = ppsci.optimizer.lr_scheduler.Linear(
        iterations, steps, cfg.TRAIN.learning_rate, end_lr=end
    )()
    return ppsci.optimizer.Adam(rate, cfg.TRAIN.beta1, cfg.TRAIN.beta2)(network)


# --8<-- [end:optimizer]


# --8<-- [start:constraint]
def make_constraint(
    name: str, inputs: Mapping, batch_size: int, loss, output_expr: Dict[str, Callable]
):
    """A SupervisedConstraint that reads whole batches of `inputs` in their order.

    Args:
        name: The constraint's name.
        inputs: Array-likes of equal length, by input key.
        batch_size: Rows of a batch.
        loss: A FunctionalLoss; it gets the model's outputs and those of `output_expr`.
        output_expr: What else the loss needs, as functions of inputs and model's outputs.
    """
    return ppsci.constraint.SupervisedConstraint(
        {
            # Rows are drawn when they are read (streams.py), so their order is random already.
            "dataset": {"name": "NamedArrayDataset", "input": inputs, "label": {}},
            "batch_size": batch_size,
            "sampler": {"name": "BatchSampler", "shuffle": False, "drop_last": True},
        },
        loss,
        output_expr,
        name=name,
    )


# --8<-- [end:constraint]


# --8<-- [start:solvers]
def make_solvers(
    cfg,
    generator,
    critic,
    real: Callable[[int, Sequence[int]], Dict[str, streams.Stream]],
):
    """The critic's Solver and the generator's.

    The critic's sees real batches, and noise from which its constraint draws fakes of the
    frozen generator; the generator's sees noise (and labels), and its loss asks the frozen
    critic.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        critic: The critic D.
        real: Makes the streams of real samples (and labels), of a number of rows and a seed.

    Returns:
        (critic's Solver, generator's Solver).
    """
    settings, use_label = cfg.TRAIN, "labels" in generator.input_keys
    iterations = settings.epochs * settings.iters_per_epoch
    noise_dim = generator.noise_dim

    rows = iterations * settings.n_critic * settings.batch_size
    real_inputs = real(rows, (cfg.seed, streams.REAL))
    critic_inputs = {
        **{key: stream for key, stream in real_inputs.items() if use_label or key != "labels"},
        "noise": streams.normal_stream(rows, (cfg.seed, streams.CRITIC_NOISE), noise_dim),
        "alpha": streams.uniform_stream(rows, (cfg.seed, streams.ALPHA)),
    }

    def draw_fakes(inputs):
        # No graph through the generator: a critic step has no use for its gradient. As in
        # the authors' code, these fakes carry the labels of the real batch.
        with paddle.no_grad():
            return generator(inputs)["fake"]

    passed_on = [key for key in critic_inputs if key != "noise"]
    critic_constraint = make_constraint(
        "critic",
        critic_inputs,
        settings.batch_size,
        functions.WganGpCriticLoss(
            critic,
            settings.penalty_weight,
            settings.get("critic_class_weight", 0.0),
            settings.penalty_gradient,
        ),
        {
            **{key: lambda data, key=key: data[key] for key in passed_on},
            "fake": draw_fakes,
        },
    )

    batch_size = settings.generator_batch_factor * settings.batch_size
    rows = iterations * batch_size
    generator_inputs = {
        "noise": streams.normal_stream(rows, (cfg.seed, streams.GENERATOR_NOISE), noise_dim)
    }
    if use_label:
        generator_inputs["labels"] = streams.label_stream(
            rows, (cfg.seed, streams.LABELS), functions.NUM_CLASSES
        )
    generator_constraint = make_constraint(
        "generator",
        generator_inputs,
        batch_size,
        functions.WganGpGeneratorLoss(critic, settings.get("generator_class_weight", 0.0)),
        {"labels": lambda data: data["labels"]} if use_label else {},
    )

    def make_solver(network, constraint, steps):
        solver = ppsci.solver.Solver(
            network,
            {constraint.name: constraint},
            cfg.output_dir,
            make_optimizer(cfg, network, iterations, steps),
            epochs=iterations,
            iters_per_epoch=steps,
            log_freq=NEVER,  # one line for both networks is written by the loop
            seed=cfg.seed,
            device=cfg.device,
        )
        # train_epoch_func is called without Solver.train(), which would set max_steps; from
        # step 1 on, it does not write lines of its own
        solver.max_steps, solver.global_step = NEVER, 1
        return solver

    return (
        make_solver(critic, critic_constraint, settings.n_critic),
        make_solver(generator, generator_constraint, 1),
    )


# --8<-- [end:solvers]


def set_trainable(network: nn.Layer, trainable: bool) -> None:
    """Thaws or freezes a network's weights: frozen ones get no gradient."""
    for weight in network.parameters():
        weight.stop_gradient = not trainable


# --8<-- [start:average]
class MovingAverage:
    """A generator whose weights are the exponential moving average of another's.

    Per step `average += (1 - decay) * (weights - average)`, where the decay starts lower,
    at most (1 + step) / (10 + step), so that the first weights are soon forgotten. Buffers
    (running statistics) are copied: averages of averages lag twice.

    Args:
        generator: The generator that is trained.
        decay: In [0, 1); None for no average: then `network` is that generator itself.
    """

    def __init__(self, generator: nn.Layer, decay: Optional[float]):
        self.source, self.decay = generator, decay
        self.network = generator if decay is None else copy.deepcopy(generator)

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Steps the average, after `step` steps of the generator."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, current in zip(self.network.parameters(), self.source.parameters()):
            paddle.assign(average + (1 - decay) * (current - average), average)
        for average, current in zip(self.network.buffers(), self.source.buffers()):
            paddle.assign(current, average)


def make_average(cfg, generator: nn.Layer) -> MovingAverage:
    """The moving average that TRAIN.ema asks for."""
    return MovingAverage(generator, cfg.TRAIN.ema.decay if cfg.TRAIN.ema.use_ema else None)


# --8<-- [end:average]


# --8<-- [start:step]
def train_iteration(critic_solver, generator_solver, iteration: int) -> None:
    """`n_critic` critic steps, then one generator step.

    Args:
        critic_solver: Owns the critic.
        generator_solver: Owns the generator.
        iteration: The generator iteration, from 1.
    """
    train = ppsci.solver.train.train_epoch_func
    train(critic_solver, iteration, NEVER)
    # Else the critic would keep the generator's gradients, and add them to its next step's.
    set_trainable(critic_solver.model, False)
    train(generator_solver, iteration, NEVER)
    set_trainable(critic_solver.model, True)


# --8<-- [end:step]


# --8<-- [start:loop]
def train(
    cfg,
    critic_solver,
    generator_solver,
    average: MovingAverage,
    validators: Dict[str, Any],
    draw: Callable[[str], None],
) -> None:
    """Trains both networks, and leaves a run's files in `cfg.output_dir`.

    Args:
        cfg: The script's configuration.
        critic_solver: Owns the critic.
        generator_solver: Owns the generator.
        average: Of the generator: what is evaluated and drawn.
        validators: Evaluate it at intervals; none if TRAIN.eval_during_train is false.
        draw: Writes a picture of samples to a path.

    Raises:
        UserError: If the folder holds another training, or a figure is no longer finite.
    """
    settings = cfg.TRAIN
    iterations = settings.epochs * settings.iters_per_epoch
    losses = [
        critic_solver.constraint["critic"].loss,
        generator_solver.constraint["generator"].loss,
    ]
    journal_path = require_new_folder(cfg)
    samples = osp.join(cfg.output_dir, "samples")
    os.makedirs(samples, exist_ok=True)
    OmegaConf.save(cfg, osp.join(cfg.output_dir, "config.yaml"), resolve=True)
    width = len(str(iterations))
    draw(osp.join(samples, f"iteration_{0:0{width}d}.png"))

    evaluator = evaluation.make_solver(cfg, average.network, validators) if validators else None
    best = None
    start = told = time.perf_counter()
    with progress_bar(iterations) as bar, open(journal_path, "w", encoding="utf-8") as journal:
        for iteration in range(1, iterations + 1):
            rate = generator_solver.optimizer.get_lr()
            train_iteration(critic_solver, generator_solver, iteration)
            average.update(iteration)
            bar.update()

            epoch, rest = divmod(iteration, settings.iters_per_epoch)
            ends_epoch = rest == 0
            is_due = ends_epoch or iteration == 1 or iteration % cfg.log_freq == 0
            now = time.perf_counter()
            if not is_due and now - told < SILENCE:
                continue
            told = now
            record = {"step": iteration, "seconds": round(now - start, 3)}
            for loss in losses:
                record.update(loss.mean_figures())
            record["learning_rate"] = rate
            check_finite(record)
            bar.set_postfix(wasserstein=f"{record['wasserstein']:.3f}", refresh=False)
            logger.info(describe(record, iterations))
            if not is_due:
                continue  # a sign of life only: what is recorded does not depend on the clock
            for loss in losses:
                loss.figures.clear()
            if ends_epoch:
                draw(osp.join(samples, f"iteration_{iteration:0{width}d}.png"))
                is_last = iteration == iterations
                if evaluator is not None and (epoch % settings.eval_freq == 0 or is_last):
                    figures = evaluation.evaluate(evaluator)
                    record.update(figures)
                    record["evaluated"] = "average" if settings.ema.use_ema else "generator"
                    logger.info(
                        f"[{iteration}] evaluated the {record['evaluated']}: "
                        f"{evaluation.describe(figures)}"
                    )
                    value = figures.get(settings.best_metric)
                    if value is None:
                        logger.warning(
                            f"TRAIN.best_metric={settings.best_metric} is not among what is "
                            "measured here: no best generator is kept."
                        )
                    elif best is None or evaluation.is_better(settings.best_metric, value, best):
                        best, record["best"] = value, True
                        name = "best_average" if settings.ema.use_ema else "best"
                        save_networks(
                            cfg, f"checkpoints/{name}", average.network, critic_solver.model
                        )
                if settings.save_freq and epoch % settings.save_freq == 0:
                    save_checkpoint(cfg, critic_solver, generator_solver, iteration)
            journal.write(json.dumps(record, allow_nan=False) + "\n")
            journal.flush()
            if ends_epoch:
                pictures.draw_losses(cfg.output_dir)

    save_networks(cfg, "model", generator_solver.model, critic_solver.model)
    if settings.ema.use_ema:
        save_networks(cfg, "model_average", average.network)


# --8<-- [end:loop]


def require_new_folder(cfg) -> str:
    """The path of the run's metrics.jsonl, which must not be there yet.

    Scripts ask this before they read or measure anything.

    Raises:
        UserError: If the folder holds another training.
    """
    path = osp.join(cfg.output_dir, "metrics.jsonl")
    require(
        not osp.exists(path),
        f"{cfg.output_dir} holds another training already. Name a new folder by hydra.run.dir=, "
        "or remove that one.",
    )
    return path


@contextlib.contextmanager
def progress_bar(iterations: int):
    """A bar on a terminal; elsewhere nothing, since the log's lines tell the same."""
    terminal = sys.stderr.isatty()
    with logging_redirect_tqdm([logger._logger]) if terminal else contextlib.nullcontext():
        with tqdm(total=iterations, unit="it", disable=not terminal) as bar:
            yield bar


def check_finite(record: Dict[str, float]) -> None:
    """Stops a training that has diverged, before its weights are saved.

    Raises:
        UserError: Names the step and the figures that are not finite.
    """
    lost = [name for name, value in record.items() if not math.isfinite(value)]
    require(
        not lost,
        f"the training diverged: at iteration {record['step']} {', '.join(lost)} is not finite. "
        f"The learning rate was {record['learning_rate']:g}; try a smaller TRAIN.learning_rate. "
        "Earlier weights are in checkpoints/ of the output folder, if an interval had passed.",
    )


def describe(record: Dict[str, float], iterations: int) -> str:
    """A record of metrics.jsonl as a line for people."""
    speed = record["step"] / max(record["seconds"], 1e-9)
    left = (iterations - record["step"]) / speed
    text = (
        f"[{record['step']}/{iterations}] "
        f"wasserstein {record['wasserstein']:.4f}, "
        f"critic {record['critic_loss']:.4f}, generator {record['generator_loss']:.4f}, "
        f"gradient norm {record['gradient_norm']:.3f}"
    )
    if "accuracy_real" in record:
        text += (
            f", class accuracy real {record['accuracy_real']:.2f} "
            f"fake {record['accuracy_fake']:.2f}"
        )
    clock = time.strftime("%H:%M:%S", time.gmtime(left % 86400))
    days = f"{int(left // 86400)} d " if left >= 86400 else ""
    return f"{text}, {speed:.2f} it/s, {days}{clock} left"


def save_networks(cfg, name: str, generator: nn.Layer, critic: Optional[nn.Layer] = None) -> None:
    """Writes weights as NAME_generator.pdparams and NAME_discriminator.pdparams."""
    for network, role in ((generator, "generator"), (critic, "discriminator")):
        if network is not None:
            path = osp.join(cfg.output_dir, f"{name}_{role}.pdparams")
            files.save_weights(network, path)
            logger.info(f"Saved {path}")


def save_checkpoint(cfg, critic_solver, generator_solver, iteration: int) -> None:
    """Weights and optimiser states of both networks, by ppsci, in checkpoints/."""
    for solver, name in ((generator_solver, "generator"), (critic_solver, "discriminator")):
        save_load.save_checkpoint(
            solver.model,
            solver.optimizer,
            {"iteration": iteration},
            output_dir=cfg.output_dir,
            prefix=f"iteration_{iteration}_{name}",
            print_log=False,
        )
