# SPDX-License-Identifier: Apache-2.0
"""Data that need no file: the toy sets, drawn shapes, scikit-learn's digits, colours of digits."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from data.image_set import NUM_CLASSES
from data.image_set import ImageSet


def toy_centres(name: str) -> Tuple[np.ndarray, float]:
    """Centres and standard deviation of a mixture, in the networks' coordinates (`gan_toy.py`).

    The authors draw in other units, and divide by 1.414 and 2.828.

    Args:
        name: "8gaussians" or "25gaussians".

    Returns:
        Centres, [K, 2], and the standard deviation of the points around each.

    Raises:
        ValueError: For another name.
    """
    if name == "8gaussians":
        angles = np.arange(8) * np.pi / 4
        return 2 * np.stack([np.cos(angles), np.sin(angles)], 1) / 1.414, 0.02 / 1.414
    if name != "25gaussians":
        raise ValueError(f"{name} is not a mixture: choose 8gaussians or 25gaussians")
    grid = np.arange(-4.0, 5.0, 2.0)
    return np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2) / 2.828, 0.05 / 2.828


def draw_toy(name: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Draws fresh points of a toy set, distributed as in `gan_toy.py`.

    The authors draw fresh points of 8 Gaussians and the swiss roll, too. Of 25 Gaussians they
    draw 100,000 points once, and read these in one fixed order. The swiss roll is
    scikit-learn's with noise 0.25, without the second of its three axes, divided by 7.5.

    Args:
        name: "8gaussians", "25gaussians" or "swissroll".
        rng: The random generator.
        count: Number of points.

    Returns:
        Points, float32 [count, 2].

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


def digits_set() -> ImageSet:
    """scikit-learn's 8x8 handwritten digits, enlarged to 28x28.

    The first 1,500 are for training, the other 297 for tests.
    """
    from scipy import ndimage
    from sklearn import datasets

    bunch = datasets.load_digits()
    # 20x20 pixels in a frame of 4, like MNIST's digits.
    enlarged = ndimage.zoom(bunch.images / 16, (1, 2.5, 2.5), order=1)
    images = np.pad(np.rint(enlarged * 255).astype("uint8"), ((0, 0), (4, 4), (4, 4)))
    images, labels = images[:, None], bunch.target.astype("int64")
    return ImageSet(images[:1500], labels[:1500], images[1500:], labels[1500:])


def color_digits(digits: ImageSet, seed: int = 0) -> ImageSet:
    """Gives each digit a random colour on black, in CIFAR-10's layout.

    A digit's brightness is its largest channel: value in HSV is 1, hue is uniform, and saturation
    is uniform in [0.5, 1].

    Args:
        digits: uint8 [N, 1, 28, 28].
        seed: The seed of the colours.

    Returns:
        uint8 [N, 3, 32, 32], with the digits' labels.
    """
    rng = np.random.default_rng((seed, 11))

    def color(images: np.ndarray) -> np.ndarray:
        hue, saturation = rng.random((2, len(images), 1), "float32")
        # A channel falls from 1 to 1 - saturation as the hue goes from its own to the opposite.
        distance = np.abs((6 * hue - (0, 2, 4) + 3) % 6 - 3)
        ink = 1 - (0.5 + saturation / 2) * np.clip(distance - 1, 0, 1)
        framed = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
        return np.rint(framed * ink[:, :, None, None]).astype("uint8")

    train, test = color(digits.train_images), color(digits.test_images)
    return ImageSet(train, digits.train_labels, test, digits.test_labels)


def synthetic_set(seed: int = 0, train: int = 5000, test: int = 1000) -> ImageSet:
    """Drawn coloured shapes of ten classes on a darker ground, 32x32.

    The classes are disc, square, triangle, ring, cross, bar, slash, frame, diamond and checks.
    Place, size and colours vary.

    Args:
        seed: The seed of the random generator.
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
    # A shape is where its function is negative. A pixel on its edge is partly covered.
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
