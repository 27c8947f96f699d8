# SPDX-License-Identifier: Apache-2.0
"""Data that is made here rather than read: the toy sets, drawn shapes, scikit-learn's digits."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from data.image_set import NUM_CLASSES
from data.image_set import ImageSet


# --8<-- [start:toy_data]
def toy_centres(name: str) -> Tuple[np.ndarray, float]:
    """Centres [K, 2] and standard deviation of a mixture, in the networks' coordinates.

    The authors draw in other units and divide by 1.414 and 2.828: so do these figures.

    Args:
        name: "8gaussians" or "25gaussians".

    Raises:
        ValueError: For another name.
    """
    if name == "8gaussians":
        angles = np.arange(8) * np.pi / 4
        return 2 * np.stack([np.cos(angles), np.sin(angles)], 1) / 1.414, 0.02 / 1.414
    if name != "25gaussians":
        raise ValueError(f"{name} is no mixture: 8gaussians or 25gaussians")
    grid = np.arange(-4.0, 5.0, 2.0)
    return np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2) / 2.828, 0.05 / 2.828


def draw_toy(name: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Fresh points of a toy set, float32 [count, 2] (`gan_toy.py`).

    The swiss roll is scikit-learn's of noise 0.25, seen along its second axis (axes 0 and 2
    of three), divided by 7.5.

    Args:
        name: "8gaussians", "25gaussians" or "swissroll".
        rng: Where randomness comes from.
        count: Number of points.

    Raises:
        ValueError: For another name.
    """
    if name == "swissroll":
        t = 1.5 * np.pi * (1 + 2 * rng.random(count))
        points = np.stack([t * np.cos(t), t * np.sin(t)], 1)
        points = (points + 0.25 * rng.standard_normal((count, 2))) / 7.5
    else:
        centres, sigma = toy_centres(name)
        points = centres[rng.integers(len(centres), size=count)]
        points = points + sigma * rng.standard_normal((count, 2))
    return points.astype("float32")


# --8<-- [end:toy_data]


def digits_set() -> ImageSet:
    """scikit-learn's bundled 8x8 handwritten digits, enlarged to 28x28: 1,500 and 297 of them."""
    from scipy import ndimage
    from sklearn import datasets

    bunch = datasets.load_digits()
    # 20x20 in a frame of 4, as MNIST's digits are
    enlarged = ndimage.zoom(bunch.images / 16, (1, 2.5, 2.5), order=1)
    images = np.pad(np.rint(enlarged * 255).astype("uint8"), ((0, 0), (4, 4), (4, 4)))
    images, labels = images[:, None], bunch.target.astype("int64")
    return ImageSet(images[:1500], labels[:1500], images[1500:], labels[1500:])


def synthetic_set(seed: int = 0, train: int = 5000, test: int = 1000) -> ImageSet:
    """Ten classes of drawn coloured shapes, 32x32, on a darker ground.

    Disc, square, triangle, ring, cross, bar, slash, frame, diamond, checks; place, size and
    colours vary.

    Args:
        seed: Where randomness starts.
        train: Number of training pictures.
        test: Number of test pictures.
    """
    rng = np.random.default_rng((seed, 10))
    count = train + test
    labels = rng.integers(NUM_CLASSES, size=count)
    centre = rng.uniform(-0.25, 0.25, (2, count, 1, 1)).astype("float32")
    scale = rng.uniform(0.45, 0.7, (count, 1, 1)).astype("float32")
    axis = (np.arange(32, dtype="float32") - 15.5) / 16
    y = (axis[None, :, None] - centre[0]) / scale
    x = (axis[None, None, :] - centre[1]) / scale
    ay, ax = np.abs(y), np.abs(x)
    radius, box = np.hypot(x, y), np.maximum(ax, ay)
    # Each shape is where its function is negative; a pixel's cover falls off over its edge.
    shapes = (
        radius - 1,
        box - 0.85,
        np.maximum(2 * ax + y - 0.9, -y - 0.9) / 2,
        np.abs(radius - 0.75) - 0.25,
        np.maximum(np.minimum(ax, ay) - 0.28, box - 1),
        np.maximum(ay - 0.3, ax - 1),
        np.maximum(np.abs(x - y) / 1.4 - 0.28, box - 0.95),
        np.abs(box - 0.75) - 0.22,
        ax + ay - 1.1,
        np.maximum(-np.sin(np.pi * x) * np.sin(np.pi * y) / 3, box - 1),
    )
    inside = np.choose(labels[:, None, None], shapes)
    cover = np.clip(0.5 - inside * scale * 16, 0, 1)[:, None]
    ink = rng.uniform(0.35, 1.0, (count, 3, 1, 1))
    ink[np.arange(count), rng.integers(3, size=count)] = 1.0
    ground = rng.uniform(0.0, 0.3, (count, 3, 1, 1))
    images = np.rint(255 * (ground + cover * (ink - ground))).astype("uint8")
    return ImageSet(images[:train], labels[:train], images[train:], labels[train:])
