# SPDX-License-Identifier: Apache-2.0
"""Draws where the gradient penalty acts: random pairs next to the pairs of optimal transport.

`python docs/figures/penalty_geometry.py` trains a critic between 8 Gaussians and a fixed cloud of
generated points (some seconds), and writes docs/images/penalty_geometry.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Tuple

import numpy as np
import paddle
from figure_style import GREEN
from figure_style import IMAGES
from figure_style import INK
from figure_style import ORANGE
from figure_style import drawing
from figure_style import fail
from figure_style import plt
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from scipy.optimize import linear_sum_assignment

import functions
from data import synthetic
from networks.base import frozen
from training import objectives

WEIGHT = 10.0  # lambda
OBJECTIVE = functions.Objective(
    objectives.wasserstein_critic,
    objectives.wasserstein_generator,
    functions.gradient_penalty,
    WEIGHT,
)
BATCH, SHOWN = 256, 28
CENTRE, DEVIATION = (0.3, -0.2), 0.5  # of the generated points


def draw_batch(rng: np.random.Generator, count: int) -> Tuple[np.ndarray, np.ndarray]:
    """Real and generated points, float32 [count, 2] each."""
    fake = rng.normal(CENTRE, DEVIATION, (count, 2)).astype("float32")
    return synthetic.draw_toy("8gaussians", rng, count), fake


def train_critic(steps: int, width: int, seed: int = 0) -> functions.WganGpToyDiscriminator:
    """Trains a critic alone, on random pairs, at a rate that falls to 0."""
    paddle.seed(seed)
    rng = np.random.default_rng(seed)
    critic = functions.WganGpToyDiscriminator(width)
    loss = functions.CriticLoss(critic, OBJECTIVE)
    rate = paddle.optimizer.lr.PolynomialDecay(2e-3, steps, 0.0)
    adam = paddle.optimizer.Adam(rate, 0.5, 0.9, parameters=critic.parameters())
    for _ in range(steps):
        arrays = (*draw_batch(rng, BATCH), rng.random(BATCH, "float32"))
        real, fake, alpha = map(paddle.to_tensor, arrays)
        terms = loss({**critic({"real": real}), "real": real, "fake": fake, "alpha": alpha})
        sum(terms.values()).backward()
        adam.step()
        adam.clear_grad()
        rate.step()
    return critic


def gradients(critic: functions.WganGpToyDiscriminator, points: np.ndarray) -> np.ndarray:
    """The critic's gradient at points, [N, 2]."""
    tensor = paddle.to_tensor(points.astype("float32"))
    tensor.stop_gradient = False
    with frozen(critic):
        return paddle.grad(critic.score(tensor)[0].sum(), tensor)[0].numpy()


def pair_optimally(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """The generated points in the order of the real ones that optimal transport takes them to."""
    costs = np.linalg.norm(real[:, None] - fake[None], axis=2)
    return fake[linear_sum_assignment(costs)[1]]


def draw_pairs(axis: plt.Axes, critic, real: np.ndarray, fake: np.ndarray, alpha: np.ndarray):
    """Draws pairs with a point between each, its colour the gradient norm, its arrow the direction.

    Returns:
        What a colour bar needs.
    """
    mixed = real + alpha[:, None] * (fake - real)
    slopes = gradients(critic, mixed)
    norms = np.linalg.norm(slopes, axis=1)
    axis.add_collection(LineCollection(np.stack([real, fake], 1), colors=INK, lw=0.7, alpha=0.6))
    axis.scatter(*real.T, s=30, c=ORANGE, marker="s", label="real x")
    axis.scatter(*fake.T, s=30, c=GREEN, marker="^", label="generated x̃")
    colors = {"cmap": "coolwarm", "norm": Normalize(0.8, 1.2), "ec": INK}
    arrows = {"angles": "xy", "scale": 4, "scale_units": "inches", "width": 0.01}
    axis.quiver(*mixed.T, *slopes.T, norms, **colors, **arrows, lw=0.4, zorder=3)
    dots = axis.scatter(*mixed.T, s=30, c=norms, **colors, zorder=4, lw=0.5)
    axis.set(aspect="equal", xlim=(-1.75, 1.75), ylim=(-1.75, 1.75))
    axis.set_axis_off()
    return dots


def draw(critic: functions.WganGpToyDiscriminator, path: Path) -> None:
    """Draws both ways of pairing the same points."""
    rng = np.random.default_rng(1)
    real, fake = draw_batch(rng, SHOWN)
    alpha = rng.uniform(0.1, 0.9, SHOWN)
    with drawing(path, 3.7) as figure:
        left, right = figure.subplots(1, 2)
        draw_pairs(left, critic, real, fake, alpha)
        dots = draw_pairs(right, critic, real, pair_optimally(real, fake), alpha)
        left.set_title("random pairs: where the penalty acts")
        right.set_title("optimal transport: where the norm is 1 in theory")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2)
        bar = figure.colorbar(dots, ax=[left, right], shrink=0.8)
        bar.set_label("gradient norm ‖∇D(x̂)‖")
        bar.outline.set_edgecolor(INK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=1500, help="critic steps")
    parser.add_argument("--width", type=int, default=128, help="width of the critic")
    parser.add_argument("--output", default=IMAGES / "penalty_geometry.png", type=Path)
    options = parser.parse_args()
    if min(options.steps, options.width) < 1:
        fail("--steps and --width must be at least 1.")
    paddle.set_device("cpu")
    draw(train_critic(options.steps, options.width), options.output)


if __name__ == "__main__":
    main()
