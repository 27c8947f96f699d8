# SPDX-License-Identifier: Apache-2.0
"""Draws real samples above generated ones, a column a data set.

`python docs/figures/real_and_generated.py --column wgangp_toy toy_8gaussians --column wgangp_mnist
RUN` writes docs/images/real_and_generated.png. Each column names a script, weights (the name of
weights that ship, a path, or the folder of a run), and settings where they differ from those that
the weights bring along, such as DATA.data_path=FILE.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import List
from typing import Sequence
from typing import Tuple

import hydra
import numpy as np
import paddle
from figure_style import GREEN
from figure_style import IMAGES
from figure_style import ORANGE
from figure_style import SUITE
from figure_style import UserError
from figure_style import drawing
from figure_style import fail
from figure_style import plt
from hydra.errors import HydraException
from ppsci.utils import logger

from modes import samplers
from modes.experiment import Experiment
from support import pictures

POINTS, EDGE = 500, 6  # points of a toy set; rows and columns of pictures
Samples = Tuple[np.ndarray, np.ndarray]  # real and generated


def make_experiment(script: str, settings: List[str]) -> Experiment:
    """Makes the experiment of a script, as its command line does.

    Raises:
        ImportError: If there is no such script.
        HydraException: If the settings can't be read.
    """
    module = importlib.import_module(script)
    with hydra.initialize_config_dir(str(SUITE / "conf"), version_base=None):
        cfg = hydra.compose(script, ["output_dir=unused", "mode=infer", *settings])
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
    return next(k for k in kinds if issubclass(k, Experiment) and k is not Experiment)(cfg)


def draw_samples(experiment: Experiment) -> Tuple[str, Samples]:
    """The title of a data set, and as many real samples as generated ones.

    Pictures are uint8 [EDGE², C, H, W]; of a conditional generator, all classes take turns, and
    the real ones have the same classes. Points are float32 [POINTS, 2].

    Raises:
        UserError: If the weights or the data can't be read.
    """
    generator = samplers.load_generator(experiment)
    data = experiment.read_data()
    count = EDGE**2 if experiment.has_pictures else POINTS
    inputs = samplers.draw_inputs(generator, count, experiment.cfg.seed)
    fake = samplers.live_sampler(generator)(inputs)
    if not experiment.has_pictures:
        real = experiment.draw_points(np.random.default_rng(0), count)
        return experiment.cfg.DATA.mode, (real, fake)
    chosen = np.arange(count)
    if "labels" in inputs:
        order = {label: iter(np.flatnonzero(data.test_labels == label)) for label in range(count)}
        chosen = np.array([next(order[label]) for label in inputs["labels"]])
    title = experiment.cfg.DATA.get("source") or Path(experiment.cfg.DATA.data_path).stem
    return title, (data.test_images[chosen], pictures.to_uint8(fake, generator.low))


def draw(columns: Sequence[Tuple[str, Samples]], path: Path) -> None:
    """Draws the columns, real samples above generated ones.

    Args:
        columns: Titles and samples.
        path: The PNG file.
    """
    with drawing(path, 14.6 / len(columns)) as figure:
        axes = figure.subplots(2, len(columns), squeeze=False)
        for column, (title, pair) in zip(axes.T, columns):
            for axis, kind, samples, color in zip(
                column, ("real", "generated"), pair, (ORANGE, GREEN)
            ):
                _draw_samples(axis, samples, color)
                axis.set_title(f"{title}, {kind}")


def _draw_samples(axis: plt.Axes, samples: np.ndarray, color: str) -> None:
    if samples.ndim == 4:
        grid = pictures.make_grid(samples, EDGE, gap=1)
        axis.imshow(grid[1:-1, 1:-1], interpolation="nearest")
    else:
        axis.scatter(*samples.T, s=16, c=color, linewidths=0, alpha=0.5)
        axis.set(xlim=(-1.9, 1.9), ylim=(-1.9, 1.9), aspect="equal")
    axis.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--column",
        nargs="+",
        action="append",
        required=True,
        metavar=("SCRIPT WEIGHTS", "KEY=VALUE"),
        help="a data set: script, weights, settings",
    )
    parser.add_argument("--output", default=IMAGES / "real_and_generated.png", type=Path)
    options = parser.parse_args()
    logger.init_logger("ppsci")
    paddle.set_device("cpu")
    columns = []
    for script, *words in options.column:
        if not words:
            fail(f"--column {script} lacks the weights.")
        weights, *settings = words
        try:
            experiment = make_experiment(script, settings)
            experiment.cfg.INFER.pretrained_model_path = weights
            columns.append(draw_samples(experiment))
        except (UserError, HydraException, ImportError) as error:
            fail(f"--column {script}: {error}")
    draw(columns, options.output)


if __name__ == "__main__":
    main()
