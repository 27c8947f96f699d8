# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on CIFAR-10, conditional or not: `python wgangp_cifar10.py MODEL.use_label=false`.

`DATA.source=synthetic` needs no file.
"""

from support import settings
from support.processor import prepare
from support.settings import check_command_line

CHOICES = {
    **settings.CHOICES,
    "DATA.source": ("cifar10", "synthetic"),
    "TRAIN.best_metric": ("inception_score", "fid"),
    "EVAL.batch_norm": ("batch", "running"),
}
# Both come before Paddle is imported: it reads the settings then, and takes seconds to load.
prepare()
if __name__ == "__main__":
    check_command_line("wgangp_cifar10", CHOICES)

import hydra
import numpy as np

import functions
from data import streams
from data import synthetic
from measures import evaluation
from measures import sampling
from measures.report import load_networks
from measures.report import report
from modes import export as exporting
from modes import infer as drawing
from networks import published
from networks.normalisation import use_statistics
from support import downloads
from support.launch import launch
from training import adversarial
from training import checkpoints

ADDRESSES = ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",)
MD5 = "c58f30108f718f92721af3b95e74349a"


def make_networks(cfg):
    model = cfg.MODEL
    if model.arch == "published":
        return (
            published.PublishedCifar10Generator(
                model.gen_net.dim, model.gen_net.noise_dim, model.use_label
            ),
            published.PublishedCifar10Discriminator(model.dis_net.dim, model.use_label),
        )
    generator = functions.WganGpCifar10Generator(
        model.gen_net.dim, model.gen_net.noise_dim, model.use_label
    )
    use_statistics(generator, cfg.EVAL.batch_norm)
    critic = functions.WganGpCifar10Discriminator(
        model.dis_net.dim, model.use_label, model.dis_net.norm
    )
    return generator, critic


def read(cfg):
    if cfg.DATA.source == "synthetic":
        return synthetic.synthetic_set()
    path = downloads.fetch(
        cfg.DATA.data_path,
        ADDRESSES,
        MD5,
        "DATA.source=synthetic EVAL.inception=false trains on drawn shapes of ten classes.",
    )
    return functions.read_cifar10(path)


def real_images(data, length, seed):
    # dequantisation noise is drawn anew at each read, by prepare_cifar10
    return streams.shuffled_images(
        data.train_images, data.train_labels, functions.prepare_cifar10, length, seed
    )


def make_validators(cfg, generator, critic, data, count):
    """By the Inception of 2015-12-05, and by the critic, as far as there are both."""
    validators = {}
    if cfg.EVAL.inception:
        validators["generated"] = evaluation.make_inception_validator(
            cfg, generator, data.train_images, count
        )
    if critic is not None:
        # with dequantisation noise, as the critic knows pictures
        rng = np.random.default_rng((cfg.seed, streams.EVALUATION, 2))
        test_images = functions.prepare_cifar10(data.test_images, rng)
        validators["critic"] = evaluation.make_critic_validator(
            cfg, generator, critic, test_images, data.test_labels, count
        )
    return validators


def train(cfg):
    checkpoint = checkpoints.find(cfg)
    generator, critic = make_networks(cfg)
    data = read(cfg)
    critic_solver, generator_solver = adversarial.make_solvers(
        cfg, generator, critic, lambda length, seed: real_images(data, length, seed)
    )
    average = adversarial.make_average(cfg, generator)
    validators = {}
    if cfg.TRAIN.eval_during_train:
        count = cfg.TRAIN.eval_num_samples
        validators = make_validators(cfg, average.network, critic, data, count)
    draw = sampling.make_grid_drawer(cfg, average.network)
    run = checkpoints.Run(cfg, critic_solver, generator_solver, average, data.describe())
    adversarial.train(run, validators, draw, checkpoint)


def evaluate(cfg):
    generator, critic = make_networks(cfg)
    critic = load_networks(cfg, generator, critic)
    validators = {}
    if cfg.EVAL.inception or critic is not None:  # else no data is wanted
        validators = make_validators(cfg, generator, critic, read(cfg), cfg.EVAL.num_samples)
    draw = sampling.make_grid_drawer(cfg, generator)
    report(cfg, generator, validators, draw)


def export(cfg):
    exporting.export(cfg, make_networks(cfg)[0])


def infer(cfg):
    generator, _ = make_networks(cfg)
    drawing.infer(cfg, generator, lambda x, folder: drawing.save_pictures(x, folder, generator.low))


@hydra.main(version_base=None, config_path="./conf", config_name="wgangp_cifar10")
def main(cfg):
    modes = {"train": train, "eval": evaluate, "export": export, "infer": infer}
    launch(cfg, "wgangp_cifar10", CHOICES, **modes)


if __name__ == "__main__":
    main()
