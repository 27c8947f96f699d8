# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on the paper's three toy sets: `python wgangp_toy.py DATA.mode=8gaussians`."""

from support import launch

NAME = "wgangp_toy"
CHOICES = {
    "preset": ("short", "authors"),
    "DATA.mode": ("8gaussians", "25gaussians", "swissroll"),
    "MODEL.gen_net.hidden": (1, 2, 3, 4, 5, 6, 7, 8),
    "MODEL.dis_net.norm": (None, "spectral"),
    # The mixtures' other figures are best where modes are missing.
    "TRAIN.best_metric": ("wasserstein_2", "wasserstein_1", "modes"),
}
if __name__ == "__main__":  # before Paddle is imported: it reads processor settings only once
    launch.begin(NAME, CHOICES)

from os import path as osp

import hydra
import numpy as np

import functions
from data import streams
from data import synthetic
from measures import points
from modes.experiment import Experiment
from modes.runner import run_mode
from networks import published
from support import jobs
from support import pictures


class Toy(Experiment):
    """Fully connected networks on points in the plane (`gan_toy.py`)."""

    script, choices = NAME, CHOICES
    has_pictures = False

    def make_networks(self):
        model = self.cfg.MODEL
        if model.arch == "published":
            generator = published.PublishedToyGenerator(model.gen_net.dim)
            return generator, published.PublishedToyDiscriminator(model.dis_net.dim)
        generator = functions.WganGpToyGenerator(model.gen_net.dim, model.gen_net.hidden)
        critic = functions.WganGpToyDiscriminator(model.dis_net.dim, norm=model.dis_net.norm)
        return generator, critic

    def draw_points(self, rng, count):
        return synthetic.draw_toy(self.cfg.DATA.mode, rng, count)

    def read_data(self):
        """There is nothing to read: points are drawn when they are used."""

    def fingerprint(self, data):
        return self.cfg.DATA.mode

    def make_real_streams(self, data, generator, length, seed):
        def draw(rng, positions):
            return self.draw_points(rng, len(positions))

        return {"real": streams.Stream(length, seed, draw)}

    def make_measures(self, data, generator, critic, count):
        """Compares generated points with as many real ones."""
        cfg = self.cfg
        measure = points.make_points_measure(
            *(cfg.DATA.mode, generator, count, cfg.seed, cfg.EVAL.batch_size, cfg.EVAL.truncation)
        )
        return {"generated": measure}

    def make_drawer(self, generator, critic):
        cfg = self.cfg
        return points.make_points_drawer(
            cfg.DATA.mode, generator, critic, cfg.seed, truncation=cfg.EVAL.truncation
        )

    def save_samples(self, samples, generator, folder):
        path = osp.join(folder, "points.csv")
        np.savetxt(path, samples, "%.6f", ",", header="x,y", comments="")
        rng = np.random.default_rng((self.cfg.seed, streams.GRID))
        real = self.draw_points(rng, len(samples))
        pictures.save_toy_picture(real, samples, None, osp.join(folder, "samples.png"))


@hydra.main(version_base=None, config_path="./conf", config_name=NAME)
def main(cfg):
    jobs.run(cfg, NAME, CHOICES, lambda cfg: run_mode(Toy(cfg)))


if __name__ == "__main__":
    main()
