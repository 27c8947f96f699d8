# SPDX-License-Identifier: Apache-2.0
"""Samples without those on bridges between modes: truncation by the generator's Jacobian.

A continuous generator of connected noise joins separate modes by bridges. There, it is steep: a
small change of the noise moves a sample far. Leaving out the samples where it is steepest is the
remedy of arXiv 2006.04596.
"""

from __future__ import annotations

import math
from typing import Callable

import numpy as np

# Of a noise vector. Shorter steps lose digits of float32; longer ones miss narrow bridges.
STEP = 1e-3


def count_drawn(count: int, truncation: float) -> int:
    """How many samples to draw, so that `count` remain without the share `truncation`."""
    return math.ceil(count / (1 - truncation))


def measure_steepness(sample: Callable, noise, samples):
    """Squared Frobenius norms of the generator's Jacobian, by finite differences.

    Args:
        sample: The generator: noise [N, noise_dim] to samples [N, D], arrays or tensors.
        noise: Noise, float32 [N, noise_dim].
        samples: Its samples.

    Returns:
        Norms [N].
    """
    steps = STEP * np.eye(noise.shape[1], dtype="float32")
    return sum(((sample(noise + step) - samples) ** 2).sum(1) for step in steps) / STEP**2


def keep_flattest(samples: np.ndarray, steepness: np.ndarray, count: int) -> np.ndarray:
    """The `count` samples where the generator is least steep, in their former order."""
    return samples[np.sort(np.argsort(steepness, kind="stable")[:count])]


def sample_flattest(sample: Callable, noise, count: int) -> np.ndarray:
    """Samples of the noise where the generator is least steep.

    Args:
        sample: The generator: noise [N, noise_dim] to samples [N, D], an array.
        noise: Noise, float32 [N, noise_dim], an array or a tensor.
        count: Number of samples to keep, at most N.

    Returns:
        Samples [count, D], in the order of their noise.
    """
    samples = sample(noise)
    if count == len(samples):
        return samples
    return keep_flattest(samples, measure_steepness(sample, noise, samples), count)
