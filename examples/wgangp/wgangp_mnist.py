# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on MNIST: `python wgangp_mnist.py`; `DATA.source=digits` needs no file."""

from support import launch

NAME = "wgangp_mnist"
CHOICES = {
    "preset": ("authors", "laptop", "wgan_lab"),
    "DATA.source": ("mnist", "digits"),
    "MODEL.arch": ("paper", "wgan_lab", "published"),
    "TRAIN.best_metric": (
        "frechet_distance",
        "classifier_score",
        "kernel_distance",
        "precision",
        "recall",
        "density",
        "coverage",
    ),
}
if __name__ == "__main__":  # before Paddle is imported: it reads processor settings only once
    launch.begin(NAME, CHOICES)

import hydra

import functions
from data import streams
from data import synthetic
from data.image_set import NUM_CLASSES
from measures import digit_classifier
from measures import validators
from measures.classes import make_class_measure
from measures.features import read_features
from modes.experiment import Experiment
from modes.runner import run_mode
from networks import published
from networks import wgan_lab
from networks.normalisation import use_groups
from networks.normalisation import use_statistics
from support import downloads
from support import jobs


class Mnist(Experiment):
    """Convolutional networks on 28x28 digits (`gan_mnist.py`), or the lab's, which take labels."""

    script, choices = NAME, CHOICES

    def make_networks(self):
        model = self.cfg.MODEL
        dim, noise_dim = model.gen_net.dim, model.gen_net.noise_dim
        if model.arch == "published":
            generator = published.PublishedMnistGenerator(dim, noise_dim)
            return generator, published.PublishedMnistDiscriminator(model.dis_net.dim)
        if model.arch == "wgan_lab":
            classes = NUM_CLASSES if model.use_label else 0
            generator = wgan_lab.WganLabGenerator(dim, noise_dim, classes)
            use_statistics(generator, model.gen_net.batch_norm_statistics)
            use_groups(generator, model.gen_net.batch_norm_groups)
            critic = wgan_lab.WganLabDiscriminator(
                model.dis_net.dim, model.dis_net.norm, classes, model.dis_net.projection
            )
            return generator, critic
        generator = functions.WganGpMnistGenerator(dim, noise_dim)
        critic = functions.WganGpMnistDiscriminator(model.dis_net.dim, model.dis_net.norm)
        return generator, critic

    def read_data(self):
        if self.cfg.DATA.source == "digits":
            return synthetic.digits_set()
        without = "DATA.source=digits trains on scikit-learn's own digits."
        path = downloads.fetch(
            self.cfg.DATA.data_path,
            functions.MNIST_ADDRESSES,
            functions.MNIST_MD5,
            without,
            folder=True,
        )
        return functions.read_mnist(path, self.cfg.DATA.max_unpacked)

    def make_real_streams(self, data, generator, length, seed):
        def prepare(images, rng):
            return functions.prepare_mnist(images, rng, generator.low)

        return streams.shuffled_images(data.train_images, data.train_labels, prepare, length, seed)

    def make_measures(self, data, generator, critic, count):
        """Figures by a classifier of digits, next to real test digits', and the critic's."""
        seed, batch_size = self.cfg.seed, self.cfg.EVAL.batch_size
        network = digit_classifier.load(self.cfg.EVAL.classifier_weights)
        if self.cfg.DATA.source == "digits":
            features = read_features(data.train_images, network, "training digits")
            digit_classifier.fit_last_layer(network, features, data.train_labels)
        measures = {
            "generated": validators.make_feature_measure(
                generator,
                network,
                data.train_images,
                count,
                ("classifier_score", "frechet_distance", "kernel_distance"),
                seed,
                batch_size,
                digit_classifier.digit_shares,
                data.test_images,
                label_shares=self.label_shares(data, generator),
                chosen=self.cfg.EVAL.measures,
            )
        }
        if generator.num_classes:
            measures["classes"] = make_class_measure(
                *(generator, network, data.test_images, data.test_labels, count, seed, batch_size),
                self.label_shares(data, generator),
            )
        if critic is not None:
            images = functions.prepare_mnist(data.test_images, low=generator.low)
            measures["critic"] = validators.make_critic_measure(
                generator, critic, images, data.test_labels, count, seed, batch_size
            )
        return measures


@hydra.main(version_base=None, config_path="./conf", config_name=NAME)
def main(cfg):
    jobs.run(cfg, NAME, CHOICES, lambda cfg: run_mode(Mnist(cfg)))


if __name__ == "__main__":
    main()
