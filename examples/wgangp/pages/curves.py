# SPDX-License-Identifier: Apache-2.0
"""Curves of one or several runs as SVG, readable on a light and on a dark page."""

from __future__ import annotations

import io
import re
from typing import Any
from typing import Dict
from typing import List
from typing import Mapping
from typing import Sequence
from typing import Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from support.pictures import PANELS

COLORS = (  # each has a contrast of at least 3 with white and with the dark page
    *("#3b82f6", "#e0730d", "#2f9e57", "#d9488b", "#8b6ce8", "#0e98a8", "#e5484d", "#8a8f29"),
)
STYLES = ("-", "--", ":")
INK = "#010203"  # Text and axes are drawn in it; then it becomes the page's own colour.
POINTS = 200  # of a curve; a longer one shows means, in a band from the least to the most
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "page",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}
Records = Sequence[Mapping[str, Any]]


def draw_panels(runs: Sequence[Records], real: Mapping[str, float]) -> Dict[str, str]:
    """Draws the curves of runs, one SVG a panel, by the panel's title.

    A panel is drawn if a curve of it has at least two points. One run has a colour for each
    curve, several runs have a colour each.

    Args:
        runs: The records of each run.
        real: Figures of real data, which become horizontal lines.
    """
    panels = {}
    for title, names in PANELS.items():
        curves = [
            (number, name, *_select(records, name))
            for number, records in enumerate(runs)
            for name in names
        ]
        curves = [curve for curve in curves if len(curve[2]) > 1]
        if curves:
            with matplotlib.rc_context(STYLE):
                panels[title] = _draw_panel(title, curves, len(runs), real)
    return panels


def _select(records: Records, name: str) -> Tuple[np.ndarray, np.ndarray]:
    """Iterations and values of a curve."""
    points = [(record["step"], record[name]) for record in records if name in record]
    return tuple(np.array(points, "float64").reshape(-1, 2).T)


def _draw_panel(title: str, curves: List[Tuple], count: int, real: Mapping[str, float]) -> str:
    figure = Figure(figsize=(4.6, 2.8))
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0.13, 0.15, 0.85, 0.82), facecolor="none")
    names = list(dict.fromkeys(name for _, name, *_ in curves))
    labelled = set()
    for number, name, steps, values in curves:
        place = names.index(name)
        color = COLORS[(place if count == 1 else number) % len(COLORS)]
        style = STYLES[0 if count == 1 else place % len(STYLES)]
        label = None if name in labelled else name
        look = {"color": color, "ls": style, "label": label}
        _draw_curve(axes, steps, values, max(POINTS // count, 50), look)
        if name in real and label:
            axes.axhline(real[name], color=color if count == 1 else INK, lw=1, ls=(0, (1, 2)))
        labelled.add(name)
    axes.locator_params("x", nbins=5)
    axes.ticklabel_format(useOffset=False)
    axes.grid(alpha=0.15, color=INK)
    if len(names) > 1 or count == 1:
        axes.legend(frameon=False, fontsize=9)
    return _to_svg(figure, title)


def _to_svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element of a page: short, without names, in the page's own colour."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    svg = re.sub(r' id="[\w.]+_\d+"', "", file.getvalue()[file.getvalue().index("<svg") :])
    svg = re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace(INK, "currentColor")
    return re.sub(r'width="\S+" height="\S+"', f'role="img" aria-label="{title}"', svg, count=1)


def _draw_curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, points: int, look: Dict[str, Any]
) -> None:
    if len(steps) > points:
        parts = np.array_split(np.arange(len(steps)), points)
        low, high, mean = ([f(values[part]) for part in parts] for f in (np.min, np.max, np.mean))
        steps, values = [steps[part].mean() for part in parts], mean
        axes.fill_between(steps, low, high, color=look["color"], alpha=0.15, lw=0)
    axes.plot(steps, values, lw=1.4, **look)
