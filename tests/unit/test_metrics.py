# SPDX-License-Identifier: Apache-2.0
"""Metrics of points, features and classes, on cases with known answers."""

import numpy as np
import pytest
from scipy import linalg
from scipy import stats

from data import synthetic
from measures import metrics


def test_mixture_metrics_of_a_perfect_model():
    centres, sigma = synthetic.toy_centres("25gaussians")
    points = synthetic.draw_toy("25gaussians", np.random.default_rng(0), 100000)
    figures = metrics.mixture_metrics(points, centres, sigma)
    assert figures["modes"] == 25
    assert figures["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=2e-3)
    assert 0 <= figures["reverse_kl"] < 1e-3


def test_mixture_metrics_by_hand():
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = np.array([[0.0, 0.0], [0, 2.9], [3.1, 0], [10, 0], [5, 5], [0.1, 0]])
    figures = metrics.mixture_metrics(points, centres, 1.0)
    # high quality: three at the first centre, one at the second
    assert figures["modes"] == 2 and figures["high_quality"] == pytest.approx(4 / 6)
    expected = 0.75 * np.log(0.75 / 0.25) + 0.25 * np.log(0.25 / 0.25)
    assert figures["reverse_kl"] == pytest.approx(expected)


def test_mixture_metrics_count_points_within_three_sigma():
    centres, sigma = np.zeros((1, 2)), 0.5
    for distance, share in ((1.5, 1), (1.5001, 0)):
        figures = metrics.mixture_metrics(np.array([[0.0, distance]]), centres, sigma)
        assert figures["high_quality"] == share


def test_mixture_metrics_of_a_collapsed_and_a_lost_model():
    centres, sigma = synthetic.toy_centres("8gaussians")
    collapsed = metrics.mixture_metrics(np.repeat(centres[:1], 50, 0), centres, sigma)
    assert collapsed == pytest.approx({"modes": 1, "high_quality": 1, "reverse_kl": np.log(8)})
    lost = metrics.mixture_metrics(np.full((50, 2), 9.0), centres, sigma)
    assert lost == pytest.approx({"modes": 0, "high_quality": 0, "reverse_kl": np.log(8)})


@pytest.mark.parametrize("power", [1, 2])
def test_wasserstein_distances_of_a_shift_and_of_a_line(power):
    distance = getattr(metrics, f"wasserstein_{power}")
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200, 2))
    # A shift moves all points by its length.
    shifted = rng.permutation(points + np.array([3.0, 4.0]))
    assert distance(points, shifted) == pytest.approx(5)
    assert distance(points, rng.permutation(points)) == 0
    # In one dimension, the optimal assignment is by rank.
    left, right = rng.standard_normal((100, 1)), rng.random((100, 1))
    by_rank = (np.abs(np.sort(left, 0) - np.sort(right, 0)) ** power).mean() ** (1 / power)
    assert distance(left, right) == pytest.approx(by_rank)
    # SciPy's distance between two distributions on a line
    if power == 1:
        expected = stats.wasserstein_distance(left[:, 0], right[:, 0])
        assert distance(left, right) == pytest.approx(expected)
    # Without the root, two points that move by 1 and by 7 tell the powers apart.
    apart = distance(np.array([[0.0, 0], [0, 50]]), np.array([[1.0, 0], [0, 57]]))
    assert apart == pytest.approx({1: 4, 2: 5}[power])


def test_frechet_distance_of_known_distributions():
    rng = np.random.default_rng(0)
    # diagonal covariances: the distance is that of each axis
    means, spreads = rng.standard_normal((2, 6)), rng.random((2, 6)) + 0.1
    left, right = ((m, np.diag(s**2)) for m, s in zip(means, spreads))
    expected = ((means[0] - means[1]) ** 2).sum() + ((spreads[0] - spreads[1]) ** 2).sum()
    assert metrics.frechet_distance(left, right) == pytest.approx(expected)
    assert metrics.frechet_distance(left, left) == pytest.approx(0, abs=1e-9)
    # any covariances, by SciPy's root of the product
    a, b = rng.standard_normal((2, 6, 6))
    left, right = (means[0], a @ a.T), (means[1], b @ b.T)
    root = linalg.sqrtm(left[1] @ right[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(left[1] + right[1] - 2 * root)
    assert metrics.frechet_distance(left, right) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_fewer_samples_than_features():
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((2, 5, 40))
    distance = metrics.frechet_distance(*map(metrics.mean_and_covariance, parts))
    # the overlap of two low-rank covariances is that of their factors
    factors = [(part - part.mean(0)) / 2 for part in parts]
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    means = ((parts[0].mean(0) - parts[1].mean(0)) ** 2).sum()
    expected = means + (factors[0] ** 2).sum() + (factors[1] ** 2).sum() - 2 * overlap
    assert distance == pytest.approx(expected, rel=1e-6)


def test_mean_and_covariance_are_computed_in_pieces():
    features = np.random.default_rng(0).random((50, 7), "float32") + 100
    mean, covariance = metrics.mean_and_covariance(features, rows=8)
    assert covariance.dtype == mean.dtype == np.float64
    np.testing.assert_allclose(mean, features.astype("float64").mean(0))
    np.testing.assert_allclose(covariance, np.cov(features.astype("float64"), rowvar=False))


def test_class_shares_and_their_divergence():
    shares, kl = metrics.class_shares(np.array([0, 0, 0, 2]), 3)
    assert shares.tolist() == [0.75, 0, 0.25]
    assert kl == pytest.approx(0.75 * np.log(0.75 * 3) + 0.25 * np.log(0.25 * 3))
    assert metrics.class_shares(np.arange(30) % 10, 10)[1] == pytest.approx(0)
