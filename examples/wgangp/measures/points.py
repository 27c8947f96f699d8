# SPDX-License-Identifier: Apache-2.0
"""Measures and pictures of points in the plane: the paper's toy sets."""

from __future__ import annotations

from typing import Callable
from typing import Dict
from typing import Optional

import numpy as np
import paddle

from data import streams
from data import synthetic
from measures import metrics
from measures import sampling
from measures.truncation import count_drawn
from measures.truncation import keep_flattest
from measures.truncation import measure_steepness
from measures.truncation import sample_flattest
from measures.validators import Measure
from measures.validators import make_measure
from networks.base import Critic
from networks.base import Generator
from support import pictures
from support.errors import require

MAX_SAMPLES = 10_000  # their evaluation takes about two minutes and 0.8 GB


def make_points_measure(
    toy_set: str,
    generator: Generator,
    count: int,
    seed: int,
    batch_size: int,
    truncation: float = 0.0,
) -> Measure:
    """Makes the measure that compares generated points with as many real ones.

    The figures are those of `mixture_metrics` (not for the swiss roll), `wasserstein_1` and
    `wasserstein_2`.

    Args:
        toy_set: "8gaussians", "25gaussians" or "swissroll".
        generator: The generator G.
        count: Number of points to compare.
        seed: The run's seed; it sets noise and real points.
        batch_size: Points in a batch.
        truncation: Share of the generated points to leave out, those where the generator is
            steepest. More points are generated, so that `count` are left.

    Raises:
        UserError: If there are more than `MAX_SAMPLES` points.
    """
    require(
        count <= MAX_SAMPLES,
        f"{count} samples are too many: the exact Wasserstein distances need memory that grows "
        "with their square, and time that grows with their cube. Set EVAL.num_samples (in "
        f"training, TRAIN.eval_num_samples) to {MAX_SAMPLES} at most.",
    )
    rng = np.random.default_rng((seed, streams.EVALUATION))
    real, other_real = (synthetic.draw_toy(toy_set, rng, count) for _ in range(2))

    outputs = {"fake": lambda batch: batch["fake"]}
    if truncation:
        outputs["steepness"] = lambda batch: measure_steepness(
            generator.generate, batch["noise"], batch["fake"]
        )

    def compare(arrays):
        points = arrays["fake"]
        if truncation:
            points = keep_flattest(points, arrays["steepness"], count)
        return compare_points(toy_set, points, real)

    drawn = count_drawn(count, truncation)
    measure = make_measure(
        "generated",
        {"noise": rng.standard_normal((drawn, generator.noise_dim), "float32")},
        outputs,
        compare,
        batch_size,
        # A perfect generator has the figures of another draw of real points.
        real=compare_points(toy_set, other_real, real),
        real_count=count,
    )
    measure.num_samples = count
    return measure


def compare_points(toy_set: str, points: np.ndarray, real: np.ndarray) -> Dict[str, float]:
    """The figures of points, [N, 2], compared with as many real points of a toy set."""
    figures = {}
    if toy_set != "swissroll":
        figures = metrics.mixture_metrics(points, *synthetic.toy_centres(toy_set))
    figures["wasserstein_1"] = metrics.wasserstein_1(points, real)
    figures["wasserstein_2"] = metrics.wasserstein_2(points, real)
    return figures


def make_points_drawer(
    toy_set: str,
    generator: Generator,
    critic: Optional[Critic],
    seed: int,
    count: int = 1000,
    truncation: float = 0.0,
) -> Callable[[str], None]:
    """Makes a function that writes the paper's picture of a toy set to a path.

    Args:
        toy_set: "8gaussians", "25gaussians" or "swissroll".
        generator: The generator G.
        critic: The critic D, for its level sets; None draws no level sets.
        seed: The run's seed; it sets noise and real points.
        count: Number of points of each kind.
        truncation: As in `make_points_measure`.
    """
    rng = np.random.default_rng((seed, streams.GRID))
    real = synthetic.draw_toy(toy_set, rng, count)
    drawn = count_drawn(count, truncation)
    noise = paddle.to_tensor(rng.standard_normal((drawn, generator.noise_dim), "float32"))

    def draw_points(noise):
        return sampling.sample(generator, {"noise": noise})

    def critic_values(points):
        with paddle.no_grad():
            return critic.score(paddle.to_tensor(points))[0].numpy()

    def draw(path):
        fake = sample_flattest(draw_points, noise, count)
        pictures.save_toy_picture(real, fake, None if critic is None else critic_values, path)

    return draw
