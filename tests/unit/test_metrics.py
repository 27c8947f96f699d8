# SPDX-License-Identifier: Apache-2.0
"""Measures of points and pictures of a run, on cases with known answers."""

import json

import matplotlib.image
import numpy as np
import pytest

from data import synthetic
from measures import metrics
from support import pictures


def test_a_perfect_model_has_all_modes_and_989_permille_of_quality():
    centres, sigma = synthetic.toy_centres("25gaussians")
    points = synthetic.draw_toy("25gaussians", np.random.default_rng(0), 100000)
    figures = metrics.mixture_metrics(points, centres, sigma)
    assert figures["modes"] == 25
    assert figures["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=2e-3)
    assert 0 <= figures["reverse_kl"] < 1e-3


def test_captured_modes_quality_and_divergence_by_hand():
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = np.array([[0.0, 0.0], [0, 2.9], [3.1, 0], [10, 0], [5, 5], [0.1, 0]])
    figures = metrics.mixture_metrics(points, centres, 1.0)
    # good: three at the first centre, one at the second
    assert figures["modes"] == 2 and figures["high_quality"] == pytest.approx(4 / 6)
    expected = 0.75 * np.log(0.75 / 0.25) + 0.25 * np.log(0.25 / 0.25)
    assert figures["reverse_kl"] == pytest.approx(expected)


def test_a_collapsed_and_a_lost_model():
    centres, sigma = synthetic.toy_centres("8gaussians")
    collapsed = metrics.mixture_metrics(np.repeat(centres[:1], 50, 0), centres, sigma)
    assert collapsed == pytest.approx({"modes": 1, "high_quality": 1, "reverse_kl": np.log(8)})
    lost = metrics.mixture_metrics(np.full((50, 2), 9.0), centres, sigma)
    assert lost == pytest.approx({"modes": 0, "high_quality": 0, "reverse_kl": np.log(8)})


def test_wasserstein_distance_of_a_shift_and_of_a_line():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200, 2))
    shifted = rng.permutation(points + np.array([3.0, 4.0]))
    assert metrics.wasserstein_2(points, shifted) == pytest.approx(5)
    assert metrics.wasserstein_2(points, rng.permutation(points)) == 0
    # in one dimension the optimal assignment is by rank
    left, right = rng.standard_normal((100, 1)), rng.random((100, 1))
    by_rank = np.sqrt(((np.sort(left, 0) - np.sort(right, 0)) ** 2).mean())
    assert metrics.wasserstein_2(left, right) == pytest.approx(by_rank)


def test_bytes_of_pictures_are_the_authors():
    values = np.linspace(-1, 1, 1001)
    expected = ((values + 1) * (255.99 / 2)).astype("int32")
    np.testing.assert_array_equal(pictures.to_uint8(values, -1.0), expected)
    assert pictures.to_uint8(np.array([0.0, 0.5, 1.0]), 0.0).tolist() == [0, 127, 255]


def test_a_grid_puts_pictures_in_rows(tmp_path):
    images = np.arange(12, dtype="uint8")[:, None, None, None] * np.ones((1, 3, 4, 5), "uint8")
    grid = pictures.make_grid(images, columns=10, gap=1)
    assert grid.shape == (2 * 5 + 1, 10 * 6 + 1, 3)
    assert (grid[1:5, 7:12] == 1).all() and (grid[6:10, 7:12] == 11).all()
    assert (grid[0] == 255).all() and (grid[6:, 13:] == 255).all()
    path = tmp_path / "grid.png"
    pictures.save_grid(images / 6 - 1, str(path), -1.0, enlarge=3)
    assert matplotlib.image.imread(path).shape[:2] == (3 * (2 * 6 + 2), 3 * (10 * 7 + 2))


def test_the_toy_picture_holds_all_three_colours(tmp_path):
    rng = np.random.default_rng(0)
    real, fake = (synthetic.draw_toy("8gaussians", rng, 200) for _ in range(2))
    paths = [tmp_path / name for name in ("with.png", "without.png")]
    pictures.draw_toy(real, fake - 0.5, lambda points: points[:, 0], str(paths[0]))
    pictures.draw_toy(real, fake - 0.5, None, str(paths[1]))
    images = [(matplotlib.image.imread(path)[..., :3] * 255).round() for path in paths]
    for image in images:
        for colour in ((255, 127, 14), (44, 160, 44)):  # tab:orange, tab:green
            assert (np.abs(image - colour).max(2) < 12).sum() > 50
    # level sets add ink
    assert (images[0] < 250).any(2).sum() > (images[1] < 250).any(2).sum() + 500


def test_loss_curves_show_what_was_recorded(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record = {"wasserstein": 1.0, "critic_loss": 2.0, "generator_loss": 0.5, "gradient_norm": 1.0}
    path.write_text(json.dumps({"step": 1, **record}) + "\n")
    assert pictures.draw_losses(str(tmp_path)) is None
    with path.open("a") as file:
        file.write(json.dumps({"step": 9, **record}) + "\n")
    picture = matplotlib.image.imread(pictures.draw_losses(str(tmp_path)))
    narrow = picture.shape[1]
    with path.open("a") as file:
        file.write(json.dumps({"step": 10, **record, "accuracy_real": 0.5}) + "\n")
    wide = matplotlib.image.imread(pictures.draw_losses(str(tmp_path))).shape[1]
    assert wide > narrow
    # an evaluation some time ago has its panels, too
    with path.open("a") as file:
        file.write(json.dumps({"step": 11, **record, "fid": 9.0}) + "\n")
        file.write(json.dumps({"step": 12, **record}) + "\n")
    assert matplotlib.image.imread(pictures.draw_losses(str(tmp_path))).shape[1] > wide
