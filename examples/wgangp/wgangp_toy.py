# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on the paper's three toy sets: `python wgangp_toy.py DATA.mode=8gaussians`."""

from support import settings
from support.processor import prepare
from support.settings import check_command_line

CHOICES = {
    **settings.CHOICES,
    "preset": (None, "paper"),
    "DATA.mode": ("8gaussians", "25gaussians", "swissroll"),
    # the others are best where modes are missing
    "TRAIN.best_metric": ("wasserstein_2", "modes"),
}
# Both come before Paddle is imported: it reads the settings then, and takes seconds to load.
prepare()
if __name__ == "__main__":
    check_command_line("wgangp_toy", CHOICES)

from os import path as osp

import hydra
import numpy as np
import paddle

import functions
from data import streams
from data import synthetic
from measures import evaluation
from measures import metrics
from measures import sampling
from measures.report import load_networks
from measures.report import report
from modes import export as exporting
from modes import infer as drawing
from networks import published
from support import pictures
from support.errors import require
from support.launch import launch
from training import adversarial
from training import checkpoints

MOST = 10_000  # samples of an evaluation: about a minute, and 0.8 GB


def make_networks(cfg):
    model = cfg.MODEL
    if model.arch == "published":
        return published.PublishedToyGenerator(), published.PublishedToyDiscriminator()
    generator = functions.WganGpToyGenerator(model.gen_net.dim)
    critic = functions.WganGpToyDiscriminator(model.dis_net.dim)
    return generator, critic


def real_points(cfg, length, seed):
    """Fresh points at each read, as the authors do: not a fixed set."""

    def draw(rng, positions):
        return synthetic.draw_toy(cfg.DATA.mode, rng, len(positions))

    return {"real": streams.Stream(length, seed, draw)}


def make_validators(cfg, generator, count):
    """Compares generated points with as many real ones by the measures of metrics.py."""
    require(
        count <= MOST,
        f"{count} samples are too many: the exact 2-Wasserstein distance takes memory by their "
        "square and time by their cube. Set EVAL.num_samples (in training, "
        f"TRAIN.eval_num_samples) to {MOST} at most.",
    )
    rng = np.random.default_rng((cfg.seed, streams.EVALUATION))
    real, other_real = (synthetic.draw_toy(cfg.DATA.mode, rng, count) for _ in range(2))

    def measure(points):
        figures = {}
        if cfg.DATA.mode != "swissroll":
            centres, sigma = synthetic.toy_centres(cfg.DATA.mode)
            figures = metrics.mixture_metrics(points, centres, sigma)
        return {**figures, "wasserstein_2": metrics.wasserstein_2(points, real)}

    validator = evaluation.make_validator(
        cfg,
        "generated",
        {"noise": rng.standard_normal((count, 2), "float32")},
        {"fake": lambda data: data["fake"]},
        lambda outputs: measure(outputs["fake"]),
        # what a perfect generator would have: another draw of real points
        real=measure(other_real),
        real_count=count,
    )
    return {"generated": validator}


def make_drawer(cfg, generator, critic, count=1000):
    """A function that writes the paper's picture of a set to a path."""
    rng = np.random.default_rng((cfg.seed, streams.GRID))
    real = synthetic.draw_toy(cfg.DATA.mode, rng, count)
    noise = paddle.to_tensor(rng.standard_normal((count, 2), "float32"))

    def value(points):
        with paddle.no_grad():
            return critic.score(paddle.to_tensor(points))[0].numpy()

    def draw(path):
        fake = sampling.sample(generator, {"noise": noise})
        pictures.draw_toy(real, fake, None if critic is None else value, path)

    return draw


def train(cfg):
    checkpoint = checkpoints.find(cfg)
    generator, critic = make_networks(cfg)
    critic_solver, generator_solver = adversarial.make_solvers(
        cfg, generator, critic, lambda length, seed: real_points(cfg, length, seed)
    )
    average = adversarial.make_average(cfg, generator)
    validators = {}
    if cfg.TRAIN.eval_during_train:
        validators = make_validators(cfg, average.network, cfg.TRAIN.eval_num_samples)
    draw = make_drawer(cfg, average.network, critic)
    run = checkpoints.Run(cfg, critic_solver, generator_solver, average, cfg.DATA.mode)
    adversarial.train(run, validators, draw, checkpoint)


def evaluate(cfg):
    generator, critic = make_networks(cfg)
    critic = load_networks(cfg, generator, critic)
    draw = make_drawer(cfg, generator, critic)
    validators = make_validators(cfg, generator, cfg.EVAL.num_samples)
    report(cfg, generator, validators, draw)


def export(cfg):
    exporting.export(cfg, make_networks(cfg)[0])


def infer(cfg):
    generator, _ = make_networks(cfg)
    require(not cfg.INFER.frames, "INFER.frames is for pictures; points have no strip.")

    def save(points, folder):
        np.savetxt(osp.join(folder, "points.csv"), points, "%.6f", ",", header="x,y", comments="")
        rng = np.random.default_rng((cfg.seed, streams.GRID))
        real = synthetic.draw_toy(cfg.DATA.mode, rng, len(points))
        pictures.draw_toy(real, points, None, osp.join(folder, "samples.png"))

    drawing.infer(cfg, generator, save)


@hydra.main(version_base=None, config_path="./conf", config_name="wgangp_toy")
def main(cfg):
    modes = {"train": train, "eval": evaluate, "export": export, "infer": infer}
    launch(cfg, "wgangp_toy", CHOICES, **modes)


if __name__ == "__main__":
    main()
