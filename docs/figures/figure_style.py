# SPDX-License-Identifier: Apache-2.0
"""What the figures of the pages share: paths, runs' records, and a look for light and dark pages.

Importing it makes the suite's modules importable.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from typing import Iterator
from typing import List
from typing import Tuple

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "examples" / "wgangp"
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(SUITE))

from support.processor import prepare

prepare()  # before Paddle or Matplotlib is imported

import contextlib

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from pages import run_folder
from pages.run_folder import RunFolder
from support.errors import UserError
from support.errors import fail

# Of medium brightness: each has a contrast of at least 3 with white and with a dark page.
INK, BLUE, ORANGE, GREEN = "#7b7f87", "#3b82f6", "#e0730d", "#2f9e57"
WIDTH, DPI = 7.0, 200  # inches of a figure that takes a page's width, and pixels of an inch
STYLE = {
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **{"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False},
    **{"axes.facecolor": "none", "grid.color": INK, "grid.alpha": 0.25, "axes.grid": True},
}


@contextlib.contextmanager
def drawing(path: Path, height: float) -> Iterator[plt.Figure]:
    """Gives a figure of a page's width to draw in, and then writes it with no background.

    Args:
        path: The PNG file.
        height: Inches.
    """
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=DPI, transparent=True)
        plt.close(figure)


def read_run(folder: Path) -> RunFolder:
    """Reads a run's folder; exits with one line if it can't be read."""
    try:
        return run_folder.read(str(folder))
    except UserError as error:
        fail(str(error))


def select(run: RunFolder, name: str) -> Tuple[np.ndarray, np.ndarray]:
    """Iterations and values of a figure of metrics.jsonl; empty where no record has it."""
    points: List[Tuple[Any, Any]] = [(r["step"], r[name]) for r in run.records if name in r]
    return tuple(np.array(points, "float64").reshape(-1, 2).T)
