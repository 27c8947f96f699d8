# SPDX-License-Identifier: Apache-2.0
"""Draws both sides of the identity of an optimal critic over a training.

`python docs/figures/critic_balance.py RUN` reads metrics.jsonl of a run with LOSS=wgan_gp and
writes docs/images/critic_balance.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from figure_style import BLUE
from figure_style import IMAGES
from figure_style import INK
from figure_style import ORANGE
from figure_style import RunFolder
from figure_style import drawing
from figure_style import fail
from figure_style import read_run
from figure_style import select
from matplotlib.ticker import LogLocator

import functions

NAMES = ("gradient_penalty", "gradient_norm")


def optimal_estimates(run: RunFolder) -> np.ndarray:
    """The right side of the identity, 2 lambda (penalty + norm - 1), of each record."""
    weight = run.settings["LOSS.penalty_weight"]
    slopes = zip(*(select(run, name)[1] for name in NAMES))
    return np.array([functions.optimal_estimate(*pair, weight) for pair in slopes])


def draw(run: RunFolder, path: Path) -> None:
    """Draws the estimate next to that of an optimal critic of the same slopes, and the quotient.

    Args:
        run: A run whose objective is wgan_gp.
        path: The PNG file.
    """
    steps, estimate = select(run, "wasserstein")
    with drawing(path, 2.6) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(steps, estimate, color=BLUE, lw=2, label="wasserstein")
        label = "2λ (gradient_penalty + gradient_norm − 1)"
        left.plot(steps, optimal_estimates(run), color=ORANGE, lw=1.3, ls="--", label=label)
        left.set_yscale("log", nonpositive="mask")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter("")
        left.set(title="both sides of the identity", xlabel="generator iteration")
        left.legend(loc="upper right")
        right.axhline(1, color=INK, lw=1, ls=":")
        right.plot(*select(run, "critic_balance"), color=BLUE, lw=1.5)
        right.set(title="critic_balance = left side / right side", xlabel="generator iteration")
        right.set_ylim(0.5, 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="the output folder of a training")
    parser.add_argument("--output", default=IMAGES / "critic_balance.png", type=Path)
    options = parser.parse_args()
    run = read_run(options.run)
    if run.settings.get("LOSS.name") != "wgan_gp" or not len(select(run, NAMES[0])[0]):
        fail(f"{options.run} is not a training with LOSS=wgan_gp: name another folder.")
    draw(run, options.output)


if __name__ == "__main__":
    main()
