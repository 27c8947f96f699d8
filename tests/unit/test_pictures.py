# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: grids of samples, the toy sets, and loss curves."""

import json

import matplotlib.image
import numpy as np

from data import synthetic
from support import pictures


def test_to_uint8_gives_the_authors_bytes():
    values = np.linspace(-1, 1, 1001)
    expected = ((values + 1) * (255.99 / 2)).astype("int32")
    np.testing.assert_array_equal(pictures.to_uint8(values, -1.0), expected)
    assert pictures.to_uint8(np.array([0.0, 0.5, 1.0]), 0.0).tolist() == [0, 127, 255]


def test_grid_puts_pictures_in_rows(tmp_path):
    images = np.arange(12, dtype="uint8")[:, None, None, None] * np.ones((1, 3, 4, 5), "uint8")
    grid = pictures.make_grid(images, columns=10, gap=1)
    assert grid.shape == (2 * 5 + 1, 10 * 6 + 1, 3)
    assert (grid[1:5, 7:12] == 1).all() and (grid[6:10, 7:12] == 11).all()
    assert (grid[0] == 255).all() and (grid[6:, 13:] == 255).all()
    path = tmp_path / "grid.png"
    pictures.save_grid(images / 6 - 1, str(path), -1.0, enlarge=3)
    assert matplotlib.image.imread(path).shape[:2] == (3 * (2 * 6 + 2), 3 * (10 * 7 + 2))


def test_toy_picture_holds_all_three_colours(tmp_path):
    rng = np.random.default_rng(0)
    real, fake = (synthetic.draw_toy("8gaussians", rng, 200) for _ in range(2))
    paths = [tmp_path / name for name in ("with.png", "without.png")]
    pictures.save_toy_picture(real, fake - 0.5, lambda points: points[:, 0], str(paths[0]))
    pictures.save_toy_picture(real, fake - 0.5, None, str(paths[1]))
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

    def measure():
        height, width = matplotlib.image.imread(pictures.draw_losses(str(tmp_path))).shape[:2]
        return round(height / 320), width

    # two panels in a row, so that a page shows them large enough
    assert measure() == (2, 900)
    with path.open("a") as file:
        file.write(json.dumps({"step": 10, **record, "accuracy_real": 0.5}) + "\n")
    assert measure() == (2, 900)
    # an evaluation some time ago has its panels, too
    with path.open("a") as file:
        file.write(json.dumps({"step": 11, **record, "fid": 9.0}) + "\n")
        file.write(json.dumps({"step": 12, **record}) + "\n")
    assert measure() == (3, 900)
