# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on CIFAR-10, conditional or not: `python wgangp_cifar10.py MODEL.use_label=false`.

`DATA.source=colored_digits` trains on MNIST's digits in random colours. `DATA.source=synthetic` and
`DATA.source=colored_small_digits` need no file.
"""

from support import launch

NAME = "wgangp_cifar10"
CHOICES = {
    "preset": ("authors", "laptop", "demo"),
    "DATA.source": ("cifar10", "synthetic", "colored_digits", "colored_small_digits"),
    "TRAIN.best_metric": (
        "inception_score",
        "fid",
        "kid",
        "classifier_score",
        "frechet_distance",
        "kernel_distance",
        "precision",
        "recall",
        "density",
        "coverage",
        "class_frechet_distance",
    ),
}
if __name__ == "__main__":  # before Paddle is imported: it reads processor settings only once
    launch.begin(NAME, CHOICES)

import hydra
import numpy as np

import functions
from data import streams
from data import synthetic
from measures import colored_digits
from measures import validators
from modes.experiment import Experiment
from modes.runner import run_mode
from networks import published
from networks.normalisation import use_groups
from networks.normalisation import use_statistics
from support import downloads
from support import jobs
from support import settings

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
        use_groups(generator, model.gen_net.batch_norm_groups)
        critic = functions.WganGpCifar10Discriminator(
            model.dis_net.dim, model.use_label, model.dis_net.norm, model.dis_net.projection
        )
        return generator, critic

    @property
    def is_colored(self):
        """Whether the data are coloured digits."""
        return self.cfg.DATA.source in ("colored_digits", "colored_small_digits")

    def read_data(self):
        source = self.cfg.DATA.source
        if source == "synthetic":
            return synthetic.synthetic_set()
        if source == "colored_small_digits":
            return synthetic.color_digits(synthetic.digits_set())
        if source == "colored_digits":
            return synthetic.color_digits(self.read_digits())
        path = downloads.fetch(
            self.cfg.DATA.data_path,
            ADDRESSES,
            MD5,
            "DATA.source=synthetic EVAL.inception=false trains on drawn shapes of ten classes.",
            folder=True,
        )
        return functions.read_cifar10(path, self.cfg.DATA.max_unpacked)

    def read_digits(self):
        """Reads MNIST; DATA.data_path names it if the user has set that."""
        given = "DATA.data_path" in settings.list_given(self.cfg, NAME)
        path = (self.cfg if given else settings.load_defaults("wgangp_mnist"))["DATA"]["data_path"]
        without = "DATA.source=colored_small_digits trains on scikit-learn's own digits."
        path = downloads.fetch(
            path, functions.MNIST_ADDRESSES, functions.MNIST_MD5, without, folder=True
        )
        return functions.read_mnist(path, self.cfg.DATA.max_unpacked)

    def make_real_streams(self, data, generator, length, seed):
        # prepare_cifar10 draws dequantisation noise again each time a picture is read.
        return streams.shuffled_images(
            data.train_images, data.train_labels, functions.prepare_cifar10, length, seed
        )

    def make_measures(self, data, generator, critic, count):
        """Figures by the Inception of 2015-12-05 or the digits' classifier, and the critic's."""
        shares, seed = self.label_shares(data, generator), self.cfg.seed
        batch_size, measures = self.cfg.EVAL.batch_size, {}
        if self.is_colored:
            measures = colored_digits.make_measures(
                *(generator, data, count, seed, batch_size, shares, self.cfg.EVAL.measures),
                is_fitted=self.cfg.DATA.source == "colored_small_digits",
            )
        elif self.cfg.EVAL.inception:
            measures["generated"] = validators.make_inception_measure(
                *(generator, data.train_images, data.test_images, count, seed),
                *(self.cfg.EVAL, shares),
            )
        if critic is not None:
            # The critic knows pictures with dequantisation noise only.
            rng = np.random.default_rng((seed, streams.EVALUATION, 2))
            images = functions.prepare_cifar10(data.test_images, rng)
            measures["critic"] = validators.make_critic_measure(
                generator, critic, images, data.test_labels, count, seed, batch_size
            )
        return measures

    def has_measures(self, critic):
        return self.is_colored or super().has_measures(critic)


@hydra.main(version_base=None, config_path="./conf", config_name=NAME)
def main(cfg):
    jobs.run(cfg, NAME, CHOICES, lambda cfg: run_mode(Cifar10(cfg)))


if __name__ == "__main__":
    main()
