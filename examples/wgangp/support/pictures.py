# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: grids of samples, toy sets with the critic's level sets, loss curves.

Figures are made without pyplot, so that they are written under any backend, a notebook's, too.
"""

from __future__ import annotations

import json
from os import path as osp
from typing import Callable
from typing import Dict
from typing import List
from typing import Optional

import numpy as np
from matplotlib import image as mpl_image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The panels of `draw_losses`: a title, and the names of the curves.
PANELS = {
    "Wasserstein estimate": ["wasserstein", "test_wasserstein"],
    "losses": ["critic_loss", "generator_loss"],
    "gradient norm (1 is the goal of wgan_gp)": ["gradient_norm"],
    "class losses": ["critic_class_loss", "generator_class_loss"],
    "class accuracy": ["accuracy_real", "accuracy_fake", "class_accuracy"],
    "scores (higher is better)": ["inception_score", "classifier_score", "high_quality"],
    "shares (higher is better)": ["precision", "recall", "density", "coverage", "hue_entropy"],
    "distances (lower is better)": ["fid", "frechet_distance", "wasserstein_1", "wasserstein_2"],
}


def to_levels(images, low: float):
    """Scales generator output from [low, 1] to grey levels in [0, 255], without rounding.

    Truncated to whole numbers, they are the authors' `int((x + 1) * 255.99 / 2)`.

    Args:
        images: An array or a tensor of any shape.
        low: The value of black; the value of white is 1.

    Returns:
        Levels of the same type and shape.
    """
    return ((images - low) * (255.99 / (1 - low))).clip(0, 255)


def to_uint8(images: np.ndarray, low: float) -> np.ndarray:
    """Converts generator output in [low, 1] to grey levels, uint8 of the same shape."""
    return to_levels(images, low).astype("uint8")


def make_grid(images: np.ndarray, columns: int = 10, gap: int = 2) -> np.ndarray:
    """Arranges pictures in rows.

    Args:
        images: uint8 [N, C, H, W]; C is 1 or 3.
        columns: Pictures in a row.
        gap: White pixels between pictures.

    Returns:
        One picture, uint8 [rows * (H + gap) + gap, columns * (W + gap) + gap, 3].
    """
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    grid = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, "uint8")
    for number, picture in enumerate(images):
        top = number // columns * (height + gap) + gap
        left = number % columns * (width + gap) + gap
        grid[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
    return grid


def save_grid(images: np.ndarray, path: str, low: float, enlarge: int = 2) -> None:
    """Writes samples to a PNG file, as a grid of ten columns.

    Args:
        images: Generator output, float32 [N, C, H, W]; C is 1 or 3.
        path: The file.
        low: The value of black; the value of white is 1.
        enlarge: The edge of the square that shows a pixel of a sample, in pixels of the file.
    """
    grid = make_grid(to_uint8(images, low))
    mpl_image.imsave(path, grid.repeat(enlarge, 0).repeat(enlarge, 1))


def save_rows(blocks: Dict[str, np.ndarray], rows: int, path: str) -> None:
    """Writes blocks of pictures next to each other to a PNG file, each under its title.

    Args:
        blocks: Pictures by title, uint8 [rows * columns, C, H, W]; C is 1 or 3.
        rows: Rows of each block.
        path: The file.
    """
    edge = max(images.shape[-1] for images in blocks.values())
    enlarge, top, left = -(-64 // edge), 24, 0
    grids = {title: make_grid(images, len(images) // rows) for title, images in blocks.items()}
    grids = {title: grid.repeat(enlarge, 0).repeat(enlarge, 1) for title, grid in grids.items()}
    width = sum(grid.shape[1] for grid in grids.values()) + 24 * (len(grids) - 1)
    height = top + max(len(grid) for grid in grids.values())
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    for title, grid in grids.items():
        figure.figimage(grid, left, height - top - len(grid))
        middle = (left + grid.shape[1] / 2) / width
        figure.text(middle, 1 - top / 2 / height, title, ha="center", va="center")
        left += grid.shape[1] + 24
    figure.savefig(path, dpi=100)


def read_picture(path: str) -> np.ndarray:
    """Reads a PNG file as uint8 [H, W, 3]."""
    return (mpl_image.imread(path)[..., :3] * 255).round().astype("uint8")


def save_toy_picture(
    real: np.ndarray,
    fake: np.ndarray,
    critic: Optional[Callable[[np.ndarray], np.ndarray]],
    path: str,
) -> None:
    """Draws real and generated points and the critic's level sets, as the authors' `gan_toy.py`.

    Args:
        real: Real points, [N, 2]; drawn in orange.
        fake: Generated points, [N, 2]; drawn in green.
        critic: Maps points, float32 [M, 2], to the critic's values, [M]; None draws no level sets.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    if critic is not None:
        axis = np.linspace(-3, 3, 128, dtype="float32")
        points = np.stack(np.meshgrid(axis, axis), -1)
        heights = critic(points.reshape(-1, 2)).reshape(128, 128)
        axes.contour(axis, axis, heights, 20, cmap="viridis", linewidths=0.8, alpha=0.7)
    axes.scatter(*fake.T, s=9, c="tab:green", marker="x", linewidths=0.8, label="generated")
    # Real points are smaller and on top: the points of a good generator would hide them.
    axes.scatter(*real.T, s=5, c="tab:orange", marker="+", linewidths=0.6, label="real")
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    axes.legend(loc="upper right", markerscale=2)
    figure.savefig(path, dpi=100, bbox_inches="tight")


def draw_losses(folder: str) -> Optional[str]:
    """Draws the curves of metrics.jsonl to losses.png in the same folder.

    A panel is drawn if one of its curves has a value.

    Args:
        folder: The output folder of a run.

    Returns:
        The path of the picture; None if there are fewer than two records.
    """
    with open(osp.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    if len(records) < 2:
        return None
    known = set().union(*records)
    panels = {title: names for title, names in PANELS.items() if known & set(names)}
    # two panels in a row: a page shows them large enough to read
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9, 3.2 * rows))
    for number, (title, names) in enumerate(panels.items(), 1):
        _draw_panel(figure.add_subplot(rows, 2, number), records, title, names)
    path = osp.join(folder, "losses.png")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    return path


def _draw_panel(axis: Axes, records: List[Dict], title: str, names: List[str]) -> None:
    for name in names:
        steps = [record["step"] for record in records if name in record]
        if steps:
            axis.plot(steps, [record[name] for record in records if name in record], label=name)
    axis.set(title=title, xlabel="generator iteration")
    axis.locator_params("x", nbins=5)  # more labels would overlap
    axis.grid(alpha=0.3)
    axis.legend()
