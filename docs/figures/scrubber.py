# SPDX-License-Identifier: Apache-2.0
"""Makes what docs/assets/scrubber.js lets readers step through: frames and curves of a training.

`python docs/figures/scrubber.py RUN` reads samples/ and metrics.jsonl of a run with LOSS=wgan_gp,
and writes into docs/images

- toy_training.png: a still picture, for browsers without scripts;
- toy_training.webp: a sheet of all frames, in rows;
- toy_training.json: the frames' iterations, the sheet's columns, and the curves.

The run on the page was trained, in examples/wgangp, by

    python wgangp_toy.py DATA.mode=25gaussians TRAIN.epochs=75 TRAIN.iters_per_epoch=40 \
        TRAIN.batch_size=256 TRAIN.learning_rate=3e-3 TRAIN.ema.use_ema=false TRAIN.eval_freq=75 \
        TRAIN.save_freq=0 log_freq=20 hydra.run.dir=RUN
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import List
from typing import Tuple

import numpy as np
from figure_style import BLUE
from figure_style import IMAGES
from figure_style import INK
from figure_style import RunFolder
from figure_style import drawing
from figure_style import fail
from figure_style import read_run
from figure_style import select
from PIL import Image

from pages import frames as run_frames
from support import storage
from support.pictures import read_picture

NAME = "toy_training"
CURVES = {"wasserstein": "Wasserstein estimate", "gradient_norm": "gradient norm"}
MAX_FRAMES, COLUMNS, SHOWN = (
    25,
    6,
    5,
)  # frames at most, those in a row of the sheet, and in the still
EARLY = 1.8  # frames are denser at the beginning, where samples change most; 1 is even
COLOURS = 24  # of the sheet


def choose(steps: List[int], count: int) -> List[int]:
    """Chooses iterations, denser at the beginning, the first and the last among them.

    Args:
        steps: Iterations in order.
        count: How many to choose at most, two or more.
    """
    if len(steps) <= count:
        return steps
    goals = steps[-1] * np.linspace(0, 1, count) ** EARLY
    return sorted({min(steps, key=lambda step: abs(step - goal)) for goal in goals})


def write(run: RunFolder, output: Path) -> None:
    """Writes the still picture, the sheet of frames and the curves.

    Args:
        run: A run with pictures of samples, `wasserstein` and `gradient_norm`.
        output: The folder.
    """
    paths = run_frames.find_pictures(run.folder)
    steps = choose(list(paths), MAX_FRAMES)
    with storage.replacing(str(output / f"{NAME}.webp")) as file:
        sheet = make_sheet([paths[step] for step in steps])
        few = sheet.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.convert("RGB").save(file, "WEBP", lossless=True, method=6)
    curves = {}
    for name in CURVES:
        places, values = select_curve(run, name)
        curves[name] = [places.astype(int).tolist(), [float(f"{value:.4g}") for value in values]]
    content = {"frames": steps, "columns": COLUMNS, "curves": curves}
    with storage.replacing(str(output / f"{NAME}.json")) as file:
        file.write((json.dumps(content, separators=(",", ":")) + "\n").encode())
    draw_still(run, output / f"{NAME}.png")


def select_curve(run: RunFolder, name: str) -> Tuple[np.ndarray, np.ndarray]:
    """Iterations and values of a figure without the first record's.

    It is of iteration 1 alone: untrained networks, and a value far above all others.
    """
    places, values = select(run, name)
    return places[1:], values[1:]


def make_sheet(paths: List[str]) -> Image.Image:
    """Puts pictures of the same size next to each other, COLUMNS in a row."""
    pictures = [read_picture(path) for path in paths]
    height, width = pictures[0].shape[:2]
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(pictures) // COLUMNS) * height), "white")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, COLUMNS)
        sheet.paste(Image.fromarray(picture), (column * width, row * height))
    return sheet


def draw_still(run: RunFolder, path: Path) -> None:
    """Draws a few frames, and below them the curves with a dotted line at each frame.

    Args:
        run: The run.
        path: The PNG file.
    """
    paths = run_frames.find_pictures(run.folder)
    steps = choose(list(paths), SHOWN)
    with drawing(path, 3.4) as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=(1.55, 2))
        for step, axis in zip(steps, np.ravel(upper.subplots(1, len(steps)))):
            axis.imshow(read_picture(paths[step]))
            axis.set_axis_off()
            axis.set_title(f"iteration {step:,}")
        for (name, title), axis in zip(CURVES.items(), lower.subplots(1, len(CURVES))):
            for step in steps:
                axis.axvline(step, color=INK, lw=0.8, ls=":")
            axis.plot(*select_curve(run, name), color=BLUE, lw=1.3)
            axis.set(title=title, xlabel="generator iteration")
    few = Image.open(path).quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="the output folder of a training")
    parser.add_argument("--output", default=IMAGES, type=Path, help="folder of the three files")
    options = parser.parse_args()
    run = read_run(options.run)
    if len(run_frames.find_pictures(run.folder)) < 2:
        fail(f"{options.run} has fewer than two pictures in samples/: name another folder.")
    for name in CURVES:
        if len(select(run, name)[0]) < 2:
            fail(f"{options.run} has fewer than two values of {name}: train with LOSS=wgan_gp.")
    write(run, options.output)


if __name__ == "__main__":
    main()
