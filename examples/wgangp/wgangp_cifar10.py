# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on CIFAR-10, conditional or not: `python wgangp_cifar10.py MODEL.use_label=false`.

`DATA.source=synthetic` needs no file.
"""

from support import launch

NAME = "wgangp_cifar10"
CHOICES = {
    "DATA.source": ("cifar10", "synthetic"),
    "TRAIN.best_metric": ("inception_score", "fid"),
}
if __name__ == "__main__":  # before Paddle is imported: it reads processor settings only once
    launch.begin(NAME, CHOICES)

import hydra
import numpy as np

import functions
from data import streams
from data import synthetic
from measures import evaluation
from modes.experiment import Experiment
from modes.runner import run_mode
from networks import published
from networks.normalisation import use_statistics
from support import downloads
from support import jobs

ADDRESSES = ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",)
MD5 = "c58f30108f718f92721af3b95e74349a"


class Cifar10(Experiment):
    """Residual networks on 32x32 pictures of ten classes (`gan_cifar_resnet.py`)."""

    script, choices = NAME, CHOICES

    def make_networks(self):
        model = self.cfg.MODEL
        dim, noise_dim = model.gen_net.dim, model.gen_net.noise_dim
        if model.arch == "published":
            generator = published.PublishedCifar10Generator(dim, noise_dim, model.use_label)
            critic = published.PublishedCifar10Discriminator(model.dis_net.dim, model.use_label)
            return generator, critic
        generator = functions.WganGpCifar10Generator(dim, noise_dim, model.use_label)
        use_statistics(generator, model.gen_net.batch_norm_statistics)
        critic = functions.WganGpCifar10Discriminator(
            model.dis_net.dim, model.use_label, model.dis_net.norm
        )
        return generator, critic

    def read_data(self):
        if self.cfg.DATA.source == "synthetic":
            return synthetic.synthetic_set()
        path = downloads.fetch(
            self.cfg.DATA.data_path,
            ADDRESSES,
            MD5,
            "DATA.source=synthetic EVAL.inception=false trains on drawn shapes of ten classes.",
            folder=True,
        )
        return functions.read_cifar10(path, self.cfg.DATA.max_unpacked)

    def make_real_streams(self, data, generator, length, seed):
        # prepare_cifar10 draws dequantisation noise again each time a picture is read.
        return streams.shuffled_images(
            data.train_images, data.train_labels, functions.prepare_cifar10, length, seed
        )

    def make_measures(self, data, generator, critic, count):
        """Inception Score and FID by the Inception of 2015-12-05, and the critic's figures."""
        settings, seed, measures = self.cfg.EVAL, self.cfg.seed, {}
        if settings.inception:
            measures["generated"] = evaluation.make_inception_measure(
                *(generator, data.train_images, count, seed, settings),
                self.label_shares(data, generator),
            )
        if critic is not None:
            # The critic knows pictures with dequantisation noise only.
            rng = np.random.default_rng((seed, streams.EVALUATION, 2))
            images = functions.prepare_cifar10(data.test_images, rng)
            measures["critic"] = evaluation.make_critic_measure(
                generator, critic, images, data.test_labels, count, seed, settings.batch_size
            )
        return measures


@hydra.main(version_base=None, config_path="./conf", config_name=NAME)
def main(cfg):
    jobs.run(cfg, NAME, CHOICES, lambda cfg: run_mode(Cifar10(cfg)))


if __name__ == "__main__":
    main()
