# SPDX-License-Identifier: Apache-2.0
"""Draws the gallery of runs on the page "Reading a run".

`python docs/figures/gallery.py FOLDER` reads the runs that benchmarks/gallery_runs.py left in the
folder, and writes docs/images/gallery_NAME.png for each: its curves, and its last samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple
from typing import Optional
from typing import Tuple

import numpy as np
from figure_style import BLUE
from figure_style import GREEN
from figure_style import IMAGES
from figure_style import INK
from figure_style import ORANGE
from figure_style import RunFolder
from figure_style import drawing
from figure_style import plt
from figure_style import read_run
from figure_style import select

from support.pictures import read_picture

SHOWN = 0.6  # of the rows and columns of a picture of samples


class Panel(NamedTuple):
    """A panel of curves.

    Attributes:
        names: Figures of metrics.jsonl, one curve each.
        scale: The vertical axis.
        with_healthy: Whether the first curve of the healthy run is drawn, too.
        goal: Where a dotted line is drawn.
        limits: Of the vertical axis.
        legend: Where the legend is.
    """

    names: Tuple[str, ...]
    scale: str = "linear"
    with_healthy: bool = True
    goal: Optional[float] = None
    limits: Optional[Tuple[float, float]] = None
    legend: str = "upper right"


ESTIMATE = Panel(("wasserstein", "test_wasserstein"))
BALANCE = Panel(("critic_balance",), goal=1, limits=(0, 2))
HEALTHY = "healthy"
PANELS = {
    HEALTHY: (ESTIMATE, BALANCE),
    "weak_critic": (ESTIMATE, BALANCE),
    "leading_critic": (ESTIMATE, BALANCE),
    # Pictures of 784 values in [0, 1] are at most 28 apart.
    "one_axis": (ESTIMATE._replace(scale="log", goal=28), BALANCE),
    "gan_collapse": (
        Panel(("wasserstein",), with_healthy=False),
        Panel(("critic_loss", "generator_loss"), with_healthy=False, legend="lower right"),
    ),
    "memorising_critic": (ESTIMATE, BALANCE),
}


def draw(
    run: RunFolder, healthy: Optional[RunFolder], panels: Tuple[Panel, ...], path: Path
) -> None:
    """Draws a run: panels of curves, and samples on the right.

    Args:
        run: The run.
        healthy: A run to compare it with; None for none.
        panels: The panels.
        path: The PNG file.
    """
    with drawing(path, 2.3) as figure:
        *axes, right = figure.subplots(1, len(panels) + 1)
        for axis, panel in zip(axes, panels):
            _draw_curves(axis, run, healthy if panel.with_healthy else None, panel)
        step, picture = read_last_samples(Path(run.folder))
        right.imshow(picture)
        right.set_axis_off()
        right.set_title(f"samples, iteration {step:,}")


def read_last_samples(folder: Path) -> Tuple[int, np.ndarray]:
    """The newest picture of samples in a run's folder: its iteration and its upper left part."""
    files = {int(path.stem.split("_")[1]): path for path in folder.glob("samples/iteration_*.png")}
    step = max(files)
    picture = read_picture(str(files[step]))
    height, width = (round(SHOWN * edge) for edge in picture.shape[:2])
    return step, picture[:height, :width]


def _draw_curves(
    axis: plt.Axes, run: RunFolder, healthy: Optional[RunFolder], panel: Panel
) -> None:
    if panel.goal is not None:
        axis.axhline(panel.goal, color=INK, lw=1, ls=":")
    if healthy is not None:
        axis.plot(*select(healthy, panel.names[0]), color=GREEN, lw=1, label="healthy run")
    for name, color in zip(panel.names, (BLUE, ORANGE)):
        line = ".--" if name.startswith("test_") else "-"  # Evaluations are few.
        axis.plot(*select(run, name), line, color=color, lw=1.6, label=name)
    axis.set(yscale=panel.scale, ylim=panel.limits)
    axis.set(title=" and ".join(panel.names), xlabel="generator iteration")
    axis.locator_params("x", nbins=4)
    if len(panel.names) > 1:
        axis.legend(loc=panel.legend, borderaxespad=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="the folder of all runs")
    parser.add_argument("--output", default=IMAGES, type=Path, help="folder of the pictures")
    options = parser.parse_args()
    runs = {name: read_run(options.folder / name) for name in PANELS}
    for name, run in runs.items():
        healthy = None if name == HEALTHY else runs[HEALTHY]
        draw(run, healthy, PANELS[name], options.output / f"gallery_{name}.png")


if __name__ == "__main__":
    main()
