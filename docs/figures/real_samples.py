# SPDX-License-Identifier: Apache-2.0
"""Draws real samples of the data sets: `python docs/figures/real_samples.py --mnist mnist.pkl.gz`.

Writes docs/images/real_samples.png: the toy sets, and below them pictures, a column a class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from figure_style import IMAGES
from figure_style import ORANGE
from figure_style import drawing

import functions
from data import synthetic
from data.image_set import ImageSet
from support import pictures

ROWS, CLASSES = 4, 10
TOY_SETS = ("8gaussians", "25gaussians", "swissroll")


def make_class_grid(data: ImageSet) -> np.ndarray:
    """The first training pictures of each class, a column a class, uint8 [H, W, 3]."""
    columns = [np.flatnonzero(data.train_labels == label)[:ROWS] for label in range(CLASSES)]
    return pictures.make_grid(data.train_images[np.stack(columns, 1).ravel()], CLASSES, gap=1)


def draw(digits: ImageSet, path: Path) -> None:
    """Draws the toy sets, MNIST's digits, coloured digits and drawn shapes to a PNG file."""
    sets = {
        "mnist": digits,
        "colored_digits": synthetic.color_digits(digits),
        "synthetic": synthetic.synthetic_set(),
    }
    with drawing(path, 3.5) as figure:
        axes = figure.subplots(2, 3, height_ratios=(2.2, 1))
        for axis, name in zip(axes[0], TOY_SETS):
            points = synthetic.draw_toy(name, np.random.default_rng(0), 1000)
            axis.scatter(*points.T, s=3, c=ORANGE, linewidths=0)
            axis.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", title=name)
        for axis, (name, data) in zip(axes[1], sets.items()):
            axis.imshow(make_class_grid(data), interpolation="nearest")
            axis.set(title=name)
            axis.axis("off")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="mnist.pkl.gz")
    parser.add_argument("--output", default=IMAGES / "real_samples.png", type=Path)
    options = parser.parse_args()
    draw(functions.read_mnist(options.mnist), options.output)
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
