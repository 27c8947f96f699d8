# SPDX-License-Identifier: Apache-2.0
"""The measure and the picture of the toy sets."""

import numpy as np
import paddle
import pytest

import functions
from data import synthetic
from measures import metrics
from measures.evaluation import Evaluator
from measures.points import make_points_drawer
from measures.points import make_points_measure
from support import pictures
from support.errors import UserError


def evaluate(generator, measure):
    return Evaluator(generator, {"generated": measure}, "unused", 0, "cpu").evaluate()


def test_points_measure_has_the_floor_of_real_points():
    generator = functions.WganGpToyGenerator(4)
    measure = make_points_measure("25gaussians", generator, 1000, 42, 500)
    figures, real = evaluate(generator, measure), measure.real
    distances = {"wasserstein_1", "wasserstein_2"}
    assert set(figures) == set(real) == {"modes", "high_quality", "reverse_kl", *distances}
    assert real["modes"] == 25 and measure.real_count == 1000
    assert real["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.01)
    assert 0 < real["reverse_kl"] < 0.04
    assert real["wasserstein_1"] < real["wasserstein_2"] < 0.4
    assert 0.4 < figures["wasserstein_1"] < figures["wasserstein_2"]


def test_points_measure_draws_the_same_points_in_every_release():
    generator = functions.WganGpToyGenerator(4)
    measure = make_points_measure("8gaussians", generator, 50, 42, 50)
    rng = np.random.default_rng((42, 6))
    real, other = (synthetic.draw_toy("8gaussians", rng, 50) for _ in range(2))
    noise = measure.validator.data_loader.dataset.input["noise"]
    np.testing.assert_array_equal(noise, rng.standard_normal((50, 2), "float32"))
    assert measure.real["wasserstein_2"] == metrics.wasserstein_2(other, real)
    fake = generator({"noise": paddle.to_tensor(noise)})["fake"].numpy()
    expected = metrics.mixture_metrics(fake, *synthetic.toy_centres("8gaussians"))
    expected["wasserstein_1"] = metrics.wasserstein_1(fake, real)
    expected["wasserstein_2"] = metrics.wasserstein_2(fake, real)
    assert evaluate(generator, measure) == pytest.approx(expected)


def test_points_measure_of_the_swiss_roll_has_no_modes():
    generator = functions.WganGpToyGenerator(4)
    measure = make_points_measure("swissroll", generator, 20, 42, 20)
    names = ["wasserstein_1", "wasserstein_2"]
    assert list(measure.real) == list(evaluate(generator, measure)) == names


def test_points_measure_of_more_than_can_be_compared_is_refused():
    with pytest.raises(UserError, match="10001 samples are too many.*10000 at most"):
        make_points_measure("8gaussians", None, 10_001, 42, 1000)


def test_points_drawer_draws_the_same_points_each_time(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(pictures, "save_toy_picture", lambda *given: calls.append(given))
    generator, critic = functions.WganGpToyGenerator(4), functions.WganGpToyDiscriminator(4)
    for each in (critic, None):
        draw = make_points_drawer("8gaussians", generator, each, 42, count=30)
        draw("a.png")
        draw("b.png")
    real = synthetic.draw_toy("8gaussians", np.random.default_rng((42, 5)), 30)
    for call in calls:
        np.testing.assert_array_equal(call[0], real)
        np.testing.assert_array_equal(call[1], calls[0][1])
    assert [call[3] for call in calls] == ["a.png", "b.png"] * 2
    values = calls[0][2](real)
    assert values.shape == (30,) and calls[-1][2] is None
