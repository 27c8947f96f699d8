# SPDX-License-Identifier: Apache-2.0
"""Samples from fixed noise."""

from __future__ import annotations

from typing import Callable
from typing import Dict

import numpy as np
import paddle

from data import streams
from networks.base import Generator
from networks.base import evaluating
from support import pictures


def grid_inputs(
    generator: Generator, rows: int, columns: int, seed: int
) -> Dict[str, paddle.Tensor]:
    """Fixed inputs of a grid of samples.

    With labels, a column has one class and a row one noise vector.

    Args:
        generator: The generator G.
        rows: Rows of the grid.
        columns: Columns of the grid.
        seed: The run's seed.

    Returns:
        "noise", float32 [rows * columns, noise_dim], and for a conditional generator
        "labels", int64 [rows * columns].
    """
    rng = np.random.default_rng((seed, streams.GRID))
    if "labels" in generator.input_keys:
        noise = rng.standard_normal((rows, 1, generator.noise_dim), "float32")
        noise = noise.repeat(columns, 1).reshape(rows * columns, -1)
        labels = np.tile(np.arange(columns) % generator.num_classes, rows)
        return {"noise": paddle.to_tensor(noise), "labels": paddle.to_tensor(labels)}
    noise = rng.standard_normal((rows * columns, generator.noise_dim), "float32")
    return {"noise": paddle.to_tensor(noise)}


def sample(generator: Generator, inputs: Dict[str, paddle.Tensor]) -> np.ndarray:
    """Samples [N, ...] of given inputs, without a graph.

    The generator is in evaluation mode meanwhile, so that its running averages stay as they
    are.
    """
    with evaluating(generator), paddle.no_grad():
        return generator(inputs)["fake"].numpy()


def shown_inputs(generator: Generator, seed: int) -> Dict[str, paddle.Tensor]:
    """Inputs of the grid that pictures show, see `grid_inputs`.

    The grid has ten columns and up to ten rows. With more than ten classes, each noise vector
    takes several rows, so that 100 classes can be seen.
    """
    columns = 10 * min(max(-(-generator.num_classes // 10), 1), 10)
    return grid_inputs(generator, 100 // columns, columns, seed)


def make_grid_drawer(generator: Generator, seed: int) -> Callable[[str], None]:
    """Makes a function that writes a grid of samples from fixed noise to a path."""
    inputs = shown_inputs(generator, seed)
    return lambda path: pictures.save_grid(sample(generator, inputs), path, generator.low)
