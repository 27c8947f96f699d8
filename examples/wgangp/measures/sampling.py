# SPDX-License-Identifier: Apache-2.0
"""Samples of fixed noise."""

from __future__ import annotations

from typing import Callable
from typing import Dict

import numpy as np
import paddle

from data import streams
from support import pictures


def grid_inputs(cfg, generator, rows: int, columns: int) -> Dict[str, paddle.Tensor]:
    """Fixed noise for a grid; with labels, a column holds one class, a row one noise."""
    rng = np.random.default_rng((cfg.seed, streams.GRID))
    if "labels" in generator.input_keys:
        noise = rng.standard_normal((rows, 1, generator.noise_dim), "float32")
        noise = noise.repeat(columns, 1).reshape(rows * columns, -1)
        labels = np.tile(np.arange(columns) % generator.num_classes, rows)
        return {"noise": paddle.to_tensor(noise), "labels": paddle.to_tensor(labels)}
    noise = rng.standard_normal((rows * columns, generator.noise_dim), "float32")
    return {"noise": paddle.to_tensor(noise)}


def sample(generator, inputs: Dict[str, paddle.Tensor]) -> np.ndarray:
    """Samples of given noise (and labels), without a graph."""
    was_training = generator.training
    generator.eval()  # running averages are of training's batches only
    with paddle.no_grad():
        fake = generator(inputs)["fake"].numpy()
    if was_training:
        generator.train()
    return fake


def make_grid_drawer(cfg, generator) -> Callable[[str], None]:
    """A function that writes a 10x10 grid of samples from fixed noise to a path."""
    inputs = grid_inputs(cfg, generator, 10, 10)
    return lambda path: pictures.save_grid(sample(generator, inputs), path, generator.low)
