# SPDX-License-Identifier: Apache-2.0
"""Builds a run: objective, data streams, losses, optimisers and players."""

from __future__ import annotations

import dataclasses
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Sequence

import numpy as np
import paddle
import paddle.distributed as dist
from ppsci.utils import logger

from data import streams
from data.streams import Stream
from functions import CriticLoss
from functions import GeneratorLoss
from networks.base import Critic
from networks.base import Generator
from training.average import MovingAverage
from training.objectives import Objective
from training.objectives import make_objective
from training.optimizers import make_optimizer
from training.player import Player
from training.run import Run
from training.run_settings import RunSettings

# Makes the streams of real samples (and labels) of a number of rows and a seed.
RealStreams = Callable[[int, Sequence[int]], Dict[str, Stream]]


def make_run(
    settings: RunSettings,
    generator: Generator,
    critic: Critic,
    make_real_streams: RealStreams,
    data: str,
    label_shares: Optional[np.ndarray] = None,
) -> Run:
    """Makes a run at its start.

    Args:
        settings: Its settings.
        generator: The generator G.
        critic: The critic D.
        make_real_streams: Makes streams of real samples, of a number of rows and a seed.
        data: Text that sets the data set apart from others.
        label_shares: How likely each class is in the generator's steps; None for equal shares.

    Raises:
        UserError: If the penalty's gradient can't be computed as requested.
    """
    objective = make_objective(settings.loss)
    if objective.penalty is not None and settings.critic_norm == "batch":
        logger.warning(
            "MODEL.dis_net.norm=batch ties samples together, while the gradient penalty of "
            f"LOSS={settings.loss.name} holds for each sample on its own: the critic is "
            "penalised for what its neighbours do. Choose layer or null (section 4 of the paper)."
        )
    if objective.clip is not None and settings.critic_norm == "spectral":
        logger.warning(
            "MODEL.dis_net.norm=spectral divides weights by their largest singular value, so "
            f"clipping them (LOSS={settings.loss.name}) does not bound the critic's slope. Choose "
            "LOSS=hinge, or another norm."
        )
    if settings.critic_norm == "spectral":  # fixes the critic's scale: it can't be in balance
        objective = dataclasses.replace(objective, optimal_estimate=None)
    ema = settings.train.ema
    return Run(
        settings,
        make_critic_player(settings, generator, critic, objective, make_real_streams),
        make_generator_player(settings, generator, critic, objective, label_shares),
        MovingAverage(generator, ema.decay if ema.use_ema else None),
        data,
    )


def _batches(settings: RunSettings) -> int:
    """Batches of an epoch with one step per iteration; each process gets its own of them."""
    train = settings.train
    return train.iters_per_epoch * train.update_freq * dist.get_world_size()


def make_critic_player(
    settings: RunSettings,
    generator: Generator,
    critic: Critic,
    objective: Objective,
    make_real_streams: RealStreams,
) -> Player:
    """Makes the critic's player: real batches, and fakes of the frozen generator."""
    train, seed = settings.train, settings.seed
    # --8<-- [start:critic_inputs]
    rows = _batches(settings) * train.n_critic * train.batch_size
    use_label = "labels" in generator.input_keys
    real_inputs = make_real_streams(rows, (seed, streams.REAL))
    inputs = {
        **{key: stream for key, stream in real_inputs.items() if use_label or key != "labels"},
        "noise": streams.normal_stream(rows, (seed, streams.CRITIC_NOISE), generator.noise_dim),
        "alpha": streams.uniform_stream(rows, (seed, streams.ALPHA)),
    }

    def draw_fakes(inputs):
        # A critic step has no use for a graph through the generator. As in the authors' code,
        # these fakes carry the labels of the real batch.
        with paddle.no_grad():
            return generator(inputs)["fake"]

    # --8<-- [end:critic_inputs]

    passed_on = [key for key in inputs if key != "noise"]
    loss = CriticLoss(
        critic,
        objective,
        settings.loss.get("critic_class_weight", 0.0),
        settings.loss.penalty_gradient,
    )
    rate = train.critic_learning_rate
    return Player(
        "critic",
        "discriminator",
        critic,
        loss,
        inputs,
        train.batch_size,
        {**{key: lambda data, key=key: data[key] for key in passed_on}, "fake": draw_fakes},
        make_optimizer(critic, train.critic_optimizer, rate, train),
        train.n_critic,
        settings,
    )


def make_generator_player(
    settings: RunSettings,
    generator: Generator,
    critic: Critic,
    objective: Objective,
    label_shares: Optional[np.ndarray] = None,
) -> Player:
    """Makes the generator's player: noise (and labels), and a loss that asks the critic."""
    train, seed = settings.train, settings.seed
    batch_size = train.generator_batch_factor * train.batch_size
    rows = _batches(settings) * batch_size
    noise = streams.normal_stream(rows, (seed, streams.GENERATOR_NOISE), generator.noise_dim)
    inputs, output_expr = {"noise": noise}, {}
    if "labels" in generator.input_keys:
        inputs["labels"] = streams.label_stream(
            rows, (seed, streams.LABELS), generator.num_classes, label_shares
        )
        output_expr["labels"] = lambda data: data["labels"]
    return Player(
        "generator",
        "generator",
        generator,
        GeneratorLoss(critic, objective, settings.loss.get("generator_class_weight", 0.0)),
        inputs,
        batch_size,
        output_expr,
        make_optimizer(generator, train.optimizer, train.learning_rate, train),
        1,
        settings,
        has_writers=dist.get_rank() == 0,  # ppsci opens them in the first process only.
    )
