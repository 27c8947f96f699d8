# SPDX-License-Identifier: Apache-2.0
"""Compares a toy critic with the exact distance: `python benchmarks/known_distance.py`.

The program trains the networks of wgangp_toy.py on 8 Gaussians, at a constant rate of 1e-3. At
some iterations, before the generator's step, it measures the same samples in three ways: by the
exact 1-Wasserstein distance, by the critic, and by a copy of the critic that was trained on while
the generator stood still. It draws docs/images/toy_known_distance.png.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
from pathlib import Path
from typing import Callable
from typing import Dict
from typing import List
from typing import Sequence

import common

from support.processor import prepare

prepare()  # before Paddle is imported

import numpy as np
import paddle
from matplotlib import pyplot as plt
from ppsci.utils import logger
from ppsci.utils import misc

import functions
import wgangp_toy
from measures import metrics
from networks.base import Critic
from networks.base import Generator
from networks.base import frozen
from support.errors import fail
from support.progress import Progress
from training import build
from training.run_settings import RunSettings

Row = Dict[str, float]
Batch = Dict[str, paddle.Tensor]
SETTINGS = (
    *("DATA.mode=8gaussians", "seed=0"),
    *("TRAIN.learning_rate=1e-3", "TRAIN.lr_schedule=constant"),
)
# Of medium brightness: visible on white and on dark pages
GREEN, BLUE, ORANGE, GREY = "#3f9f5f", "#3b8fd6", "#d9722e", "#858585"


def critic_distance(critic: Critic, batch: Batch) -> Row:
    """The Wasserstein distance in a critic's view: its estimate, divided by its mean slope.

    A critic whose slope is nowhere above L estimates at most L times the exact distance between
    the samples (Kantorovich-Rubinstein duality). The largest slope is not known, so the mean
    gradient norm at the interpolated points stands for it. Hence the quotient is not a bound: it
    can exceed the exact distance where slopes are uneven. It falls short of it where the critic
    is not at its optimum.

    Args:
        critic: The critic D.
        batch: Points "real" and "fake", [N, D], and "alpha", [N].

    Returns:
        "estimate" (E[D(real)] - E[D(fake)]), "norm" and "distance", their quotient.
    """
    real, fake = batch["real"], batch["fake"]
    with paddle.no_grad():
        values = critic.score(real)[0], critic.score(fake)[0]
        mixed = functions.interpolate(real, fake, batch["alpha"])
    estimate = float(functions.wasserstein_estimate(*values))
    norm = float(functions.gradient_norm(critic, mixed).mean())
    return {"estimate": estimate, "norm": norm, "distance": estimate / norm}


def train_critic(
    critic: Critic, objective: functions.Objective, draw: Callable[[], Batch], steps: int
) -> Row:
    """Trains a critic alone, at a rate that falls to 0, and returns the last half's mean figures.

    Args:
        critic: The critic D.
        objective: The objective.
        draw: Draws a batch.
        steps: Number of steps.
    """
    loss = functions.CriticLoss(critic, objective)
    rate = paddle.optimizer.lr.PolynomialDecay(2e-3, steps, 0.0)
    adam = paddle.optimizer.Adam(rate, 0.5, 0.9, parameters=critic.parameters())
    for number in range(steps):
        if number == steps // 2:
            loss.figures.clear()
        batch = draw()
        sum(loss({**critic(batch), **batch}).values()).backward()
        adam.step()
        adam.clear_grad()
        rate.step()
    return loss.mean_figures()


def make_experiment(settings: Sequence[str]) -> wgangp_toy.Toy:
    """The toy experiment with settings, as one epoch that leaves no files."""
    cfg = common.compose("wgangp_toy", ["TRAIN.epochs=1", "output_dir=unused", *settings])
    return wgangp_toy.Toy(cfg)


def draw_batch(
    experiment: wgangp_toy.Toy, generator: Generator, rng: np.random.Generator, count: int
) -> Batch:
    """Draws real points, generated points and alphas."""
    real = paddle.to_tensor(experiment.draw_points(rng, count))
    noise = paddle.to_tensor(rng.standard_normal((count, 2), "float32"))
    with paddle.no_grad():
        fake = generator.generate(noise)
    return {"real": real, "fake": fake, "alpha": paddle.to_tensor(rng.random(count, "float32"))}


def train(settings: Sequence[str], iterations: int, most: int, count: int, more: int) -> List[Row]:
    """Trains both networks, and measures at iterations that are even on a logarithmic axis.

    Args:
        settings: Settings of wgangp_toy.py.
        iterations: Number of generator iterations.
        most: Number of measurements.
        count: Number of real and of generated samples of a measurement.
        more: Steps in which a copy of the critic is trained on.
    """
    experiment = make_experiment([*settings, f"TRAIN.iters_per_epoch={iterations}"])
    misc.set_random_seed(experiment.cfg.seed)  # as a script's start does
    generator, critic = experiment.make_networks()
    run = build.make_run(
        RunSettings.of(experiment.cfg),
        generator,
        critic,
        lambda rows, seed: experiment.make_real_streams(None, generator, rows, seed),
        "known distance",
    )
    run.seek()
    loss, batch_size = run.critic.loss, experiment.cfg.TRAIN.batch_size
    rng, rows = np.random.default_rng(experiment.cfg.seed), []
    progress = Progress("iterations", iterations)
    due = set(np.geomspace(1, iterations, most).round().astype(int))
    for number in range(1, iterations + 1):
        run.critic.step(number)
        if number in due:
            batch = draw_batch(experiment, generator, rng, count)
            exact = metrics.wasserstein_1(batch["real"].numpy(), batch["fake"].numpy())
            trained = copy.deepcopy(critic)
            draw = functools.partial(draw_batch, experiment, generator, rng, batch_size)
            train_critic(trained, loss.objective, draw, more)
            rows.append(
                {
                    **{"step": number, "exact": exact, **critic_distance(critic, batch)},
                    **{f"trained_{k}": v for k, v in critic_distance(trained, batch).items()},
                    **loss.mean_figures(),  # Means since the last measurement, as in a record
                }
            )
            loss.figures.clear()
        with frozen(critic):
            run.generator.step(number)
        run.iteration = number
        progress.add(1)
    return rows


def measure_floor(settings: Sequence[str], count: int, pairs: int = 10) -> float:
    """The mean exact distance between two sets of real points."""
    experiment, rng = make_experiment(settings), np.random.default_rng(1)
    draws = [[experiment.draw_points(rng, count) for _ in range(2)] for _ in range(pairs)]
    return float(np.mean([metrics.wasserstein_1(*pair) for pair in draws]))


def draw_panels(rows: List[Row], floor: float, weight: float, path: Path) -> None:
    """Draws the distances, and the estimate next to that of an optimal critic.

    Args:
        rows: The measurements.
        floor: The exact distance between two sets of real points.
        weight: The penalty's factor lambda.
        path: The PNG file.
    """
    steps = [row["step"] for row in rows]
    slopes = [(row["gradient_penalty"], row["gradient_norm"]) for row in rows]
    optimal = [functions.optimal_estimate(*pair, weight) for pair in slopes]
    panels = {
        "distance between the same samples": (
            ("exact", GREEN, "-", [row["exact"] for row in rows]),
            ("exact, real to real", GREEN, ":", [floor] * len(rows)),
            ("critic (estimate / norm)", BLUE, ".-", [row["distance"] for row in rows]),
            ("critic trained further", ORANGE, ".--", [row["trained_distance"] for row in rows]),
        ),
        "both sides of the identity": (
            ("wasserstein", BLUE, ".-", [row["wasserstein"] for row in rows]),
            ("2λ (gradient_penalty + gradient_norm − 1)", ORANGE, ".--", optimal),
        ),
    }
    style = {f"{key}.color": GREY for key in ("text", "xtick", "ytick")}
    style.update({"axes.edgecolor": GREY, "axes.labelcolor": GREY, "axes.titlecolor": GREY})
    with plt.rc_context({**style, "font.size": 11}):
        figure, panel = plt.subplots(1, 2, figsize=(10, 4.2))
        for (title, curves), axes in zip(panels.items(), panel):
            for label, colour, line, values in curves:
                axes.plot(steps, values, line, color=colour, label=label)
            axes.set(title=title, xscale="log", xlabel="generator iteration")
            axes.set_yscale("log", nonpositive="mask")  # leaves a gap at a negative estimate
            ticks = 0.05, 0.1, 0.2, 0.5, 1, 2
            axes.set_yticks(ticks, map(str, ticks))
            axes.yaxis.set_minor_formatter("")
            axes.set_ylim(bottom=axes.get_ylim()[0] / 3)  # leaves room for the legend
            axes.grid(color=GREY, alpha=0.3)
            axes.legend(framealpha=0, fontsize=10, loc="lower left")
        figure.tight_layout()
        figure.savefig(path, dpi=100, transparent=True)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    picture = common.ROOT / "docs" / "images" / "toy_known_distance.png"
    parser.add_argument("settings", nargs="*", default=SETTINGS, help="settings of wgangp_toy.py")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--points", type=int, default=20, help="number of measurements")
    parser.add_argument("--samples", type=int, default=1000, help="samples of a measurement")
    parser.add_argument("--more", type=int, default=200, help="steps of the copied critic")
    parser.add_argument("--output", default=picture, type=Path, help="the picture")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args()
    if min(options.iterations, options.points, options.samples, options.more) < 2:
        fail("--iterations, --points, --samples and --more must be at least 2.")
    logger.init_logger("ppsci")
    paddle.set_device("cpu")
    settings, count = options.settings, options.samples
    rows = train(settings, options.iterations, options.points, count, options.more)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    weight = make_experiment(settings).cfg.LOSS.penalty_weight
    draw_panels(rows, measure_floor(settings, count), weight, options.output)
    logger.info(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
