# SPDX-License-Identifier: Apache-2.0
"""A critic near its optimum measures the exact distance, up to its slope."""

import known_distance
import numpy as np
import paddle
import pytest

import functions
from measures import metrics
from networks.base import Critic
from training import objectives

WASSERSTEIN = objectives.wasserstein_critic, objectives.wasserstein_generator
OBJECTIVE = functions.Objective(
    *WASSERSTEIN, functions.gradient_penalty, 0.1, optimal_estimate=functions.optimal_estimate
)
TINY = "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 TRAIN.batch_size=8".split()


class LinearCritic(Critic):
    """D(x) = <w, x> with w = (3, 4): its slope is 5 everywhere."""

    def score(self, x):
        return x @ paddle.to_tensor([3.0, 4.0]), None


def test_the_distance_is_the_estimate_over_the_slope():
    real = paddle.to_tensor([[1.0, 0.0], [3.0, 0.0]])
    batch = {"real": real, "fake": paddle.zeros([2, 2]), "alpha": paddle.to_tensor([0.25, 0.5])}
    row = known_distance.critic_distance(LinearCritic(), batch)
    assert row == pytest.approx({"estimate": 6, "norm": 5, "distance": 1.2})


def ring_and_centre(rng, count):
    """Real points on a circle of radius 2, and generated points near its centre."""
    angle = 2 * np.pi * rng.random(count)
    real = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return real.astype("float32"), 0.1 * rng.standard_normal((count, 2), "float32")


def test_a_critic_near_its_optimum_measures_the_exact_distance():
    paddle.seed(0)
    rng = np.random.default_rng(0)
    real, fake = ring_and_centre(rng, 64)
    critic = functions.WganGpToyDiscriminator(32)

    def draw():
        # Interpolation takes random pairs of the same points.
        arrays = {"real": real, "fake": rng.permutation(fake), "alpha": rng.random(64, "float32")}
        return {key: paddle.to_tensor(array) for key, array in arrays.items()}

    exact = metrics.wasserstein_1(real, fake)
    start = known_distance.critic_distance(critic, draw())
    assert start["distance"] < 0.9 * exact
    figures = known_distance.train_critic(critic, OBJECTIVE, draw, 150)
    found = known_distance.critic_distance(critic, draw())
    assert found["distance"] == pytest.approx(exact, rel=0.03)
    # The estimate alone is the distance times a slope that lambda = 0.1 lets grow to about 10:
    # the n = 1 + W / (2 lambda) of a critic whose slope is the same everywhere.
    assert found["norm"] == pytest.approx(1 + exact / 0.2, rel=0.05)
    assert found["estimate"] > 5 * exact
    assert figures["critic_balance"] == pytest.approx(1, abs=0.03)


def test_the_picture_is_drawn_from_a_tiny_run(tmp_path):
    settings = [*known_distance.SETTINGS, *TINY]
    rows = known_distance.train(settings, iterations=3, most=2, count=20, more=2)
    assert [row["step"] for row in rows] == [1, 3]
    for row in rows:
        assert row["exact"] > 0 and row["trained_distance"] != row["distance"]
    assert known_distance.train(settings, iterations=3, most=2, count=20, more=2) == rows
    for row in rows:
        row["gradient_norm"] = 2.0  # The logarithmic axis shows positive numbers only.
    known_distance.draw_panels(rows, 0.1, 0.1, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
