# SPDX-License-Identifier: Apache-2.0
"""Truncation by the generator's Jacobian: closed forms, and the weights that ship."""

import json

import numpy as np
import paddle
import pytest

import functions
import wgangp_toy
from data import synthetic
from measures import metrics
from measures.points import make_points_drawer
from measures.truncation import count_drawn
from measures.truncation import keep_flattest
from measures.truncation import measure_steepness
from measures.truncation import sample_flattest
from modes.evaluate import evaluate
from modes.infer import infer
from support import pictures

NOISE = np.random.default_rng(0).standard_normal((500, 2)).astype("float32")


def bridge(noise):
    """Two modes at -1 and 1 in the first coordinate, joined by a bridge."""
    return np.stack([np.tanh(50 * noise[:, 0]), 0.1 * noise[:, 1]], 1)


def test_steepness_of_a_linear_generator_is_its_squared_norm():
    matrix = np.array([[3, 1, 0], [0, 2, 1]], "float32")
    steepness = measure_steepness(lambda z: z @ matrix, NOISE, NOISE @ matrix)
    np.testing.assert_allclose(steepness, np.full(500, (matrix**2).sum()), rtol=0.02)


def test_steepness_is_that_of_paddles_derivatives():
    noise = paddle.to_tensor(NOISE)
    noise.stop_gradient = False
    generate = paddle.nn.Sequential(paddle.nn.Linear(2, 8), paddle.nn.Tanh())
    points = generate(noise)
    expected = sum(
        (paddle.grad(points[:, i].sum(), noise, retain_graph=True)[0] ** 2).sum(1) for i in range(8)
    )
    steepness = measure_steepness(generate, noise.detach(), points).numpy()
    np.testing.assert_allclose(steepness, expected.numpy(), rtol=0.05)


def test_enough_samples_are_drawn():
    assert [count_drawn(*given) for given in ((97, 0.03), (100, 0.03), (7, 0), (1, 0.4))] == [
        *(100, 104, 7, 2)
    ]


def test_the_flattest_samples_keep_their_order():
    samples = np.arange(5)[:, None]
    kept = keep_flattest(samples, np.array([3.0, 9, 1, 7, 1]), 3)
    np.testing.assert_array_equal(kept[:, 0], [0, 2, 4])


def test_truncation_leaves_out_the_samples_between_two_modes():
    samples = bridge(NOISE)
    between = np.abs(samples[:, 0]) < 0.99
    kept = sample_flattest(bridge, NOISE, 500 - between.sum())
    assert 10 < between.sum() < 60
    np.testing.assert_array_equal(kept, samples[~between])


def test_all_samples_need_no_steepness():
    calls = []
    kept = sample_flattest(lambda z: calls.append(z) or bridge(z), NOISE, 500)
    np.testing.assert_array_equal(kept, bridge(NOISE))
    assert len(calls) == 1


def share_within_three_sigma(points):
    return metrics.mixture_metrics(points, *synthetic.toy_centres("25gaussians"))["high_quality"]


def test_evaluation_without_bridges_is_as_near_to_the_modes_as_real_points(configure):
    weights = "EVAL.pretrained_gen_model_path=toy_25gaussians"
    settings = f"DATA.mode=25gaussians mode=eval {weights}"
    plain = evaluate(wgangp_toy.Toy(configure("toy", settings)))
    cfg = configure("toy", settings, "EVAL.truncation=0.03")
    truncated = evaluate(wgangp_toy.Toy(cfg))
    assert plain["high_quality"] < 0.97
    assert truncated["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.005)
    assert truncated["modes"] == 25
    assert truncated["wasserstein_2"] < 0.2
    with open(f"{cfg.output_dir}/metrics.json") as file:
        assert json.load(file)["metrics"]["high_quality"]["num_samples"] == 2500


def test_drawn_points_are_truncated_whatever_their_batches(configure, tmp_path):
    settings = "mode=infer DATA.mode=25gaussians INFER.pretrained_model_path=toy_25gaussians "
    settings += "INFER.num_samples=2000"

    def draw(truncation, size):
        words = f"INFER.truncation={truncation} INFER.batch_size={size}"
        infer(wgangp_toy.Toy(configure("toy", settings, words)))
        return np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1)

    shares = [share_within_three_sigma(draw(truncation, 100)) for truncation in (0, 0.001, 0.03)]
    assert shares[0] < 0.97 and shares[2] > 0.98
    assert 0 <= shares[1] - shares[0] <= 0.002
    np.testing.assert_allclose(draw(0.03, 64), draw(0.03, 2000), atol=1e-4)


def test_the_picture_of_an_evaluation_is_truncated(monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "save_toy_picture", lambda *given: drawn.append(given[1]))
    for truncation in (0, 0.1):
        paddle.seed(0)
        generator = functions.WganGpToyGenerator(4)
        make_points_drawer("8gaussians", generator, None, 42, 90, truncation)("unused.png")
    noise = np.random.default_rng((42, 5))
    synthetic.draw_toy("8gaussians", noise, 90)
    noise = noise.standard_normal((100, 2), "float32")

    def sample(z):
        return generator.generate(paddle.to_tensor(z)).numpy()

    np.testing.assert_allclose(drawn[0], sample(noise[:90]), rtol=1e-5)
    np.testing.assert_allclose(drawn[1], sample_flattest(sample, noise, 90), rtol=1e-5)
