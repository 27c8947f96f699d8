# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on MNIST: `python wgangp_mnist.py`; `DATA.source=digits` needs no file."""

from support import settings
from support.processor import prepare
from support.settings import check_command_line

CHOICES = {
    **settings.CHOICES,
    "preset": (None, "wgan_lab"),
    "DATA.source": ("mnist", "digits"),
    "MODEL.arch": ("paper", "wgan_lab", "published"),
    "TRAIN.best_metric": ("frechet_distance", "classifier_score"),
    "EVAL.batch_norm": ("batch", "running"),
}
# Both come before Paddle is imported: it reads the settings then, and takes seconds to load.
prepare()
if __name__ == "__main__":
    check_command_line("wgangp_mnist", CHOICES)

import hydra

import functions
from data import streams
from data import synthetic
from data.image_set import NUM_CLASSES
from measures import digit_classifier
from measures import evaluation
from measures import metrics
from measures import sampling
from measures.report import load_networks
from measures.report import report
from modes import export as exporting
from modes import infer as drawing
from networks import published
from networks import wgan_lab
from networks.normalisation import use_statistics
from support import downloads
from support.launch import launch
from training import adversarial
from training import checkpoints

ADDRESSES = (
    "https://www.iro.umontreal.ca/~lisa/deep/data/mnist/mnist.pkl.gz",
    "https://figshare.com/ndownloader/files/25635053",
)
MD5 = "a02cd19f81d51c426d7ca14024243ce9"


def make_networks(cfg):
    model = cfg.MODEL
    if model.arch == "published":
        return (
            published.PublishedMnistGenerator(model.gen_net.dim, model.gen_net.noise_dim),
            published.PublishedMnistDiscriminator(model.dis_net.dim),
        )
    if model.arch == "wgan_lab":
        generator = wgan_lab.WganLabGenerator(model.gen_net.dim, model.gen_net.noise_dim)
        use_statistics(generator, cfg.EVAL.batch_norm)
        return generator, wgan_lab.WganLabDiscriminator(model.dis_net.dim, model.dis_net.norm)
    generator = functions.WganGpMnistGenerator(model.gen_net.dim, model.gen_net.noise_dim)
    critic = functions.WganGpMnistDiscriminator(model.dis_net.dim, model.dis_net.norm)
    return generator, critic


def read(cfg):
    if cfg.DATA.source == "digits":
        return synthetic.digits_set()
    path = downloads.fetch(
        cfg.DATA.data_path,
        ADDRESSES,
        MD5,
        "DATA.source=digits trains on scikit-learn's own digits.",
    )
    return functions.read_mnist(path)


def real_images(data, length, seed, low=0.0):
    def prepare(images, rng):
        return functions.prepare_mnist(images, rng, low)

    return streams.shuffled_images(data.train_images, data.train_labels, prepare, length, seed)


def make_validators(cfg, generator, critic, data, count):
    """By a classifier of digits, beside real test digits; and by the critic if there is one."""
    validators = {
        "generated": evaluation.make_feature_validator(
            cfg,
            generator,
            digit_classifier.load(cfg.EVAL.classifier_weights),
            data.train_images,
            count,
            ("classifier_score", "frechet_distance"),
            digit_shares,
            data.test_images,
        )
    }
    if critic is not None:
        test_images = functions.prepare_mnist(data.test_images, low=generator.low)
        validators["critic"] = evaluation.make_critic_validator(
            cfg, generator, critic, test_images, data.test_labels, count
        )
    return validators


def digit_shares(predicted):
    """How often each digit is drawn, and the shares' divergence from equal ones."""
    shares, kl = metrics.class_shares(predicted, NUM_CLASSES)
    return {"digit_kl": kl, **{f"digit_{digit}": share for digit, share in enumerate(shares)}}


def train(cfg):
    checkpoint = checkpoints.find(cfg)
    generator, critic = make_networks(cfg)
    data = read(cfg)
    critic_solver, generator_solver = adversarial.make_solvers(
        cfg, generator, critic, lambda length, seed: real_images(data, length, seed, generator.low)
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
    validators = make_validators(cfg, generator, critic, read(cfg), cfg.EVAL.num_samples)
    draw = sampling.make_grid_drawer(cfg, generator)
    report(cfg, generator, validators, draw)


def export(cfg):
    exporting.export(cfg, make_networks(cfg)[0])


def infer(cfg):
    generator, _ = make_networks(cfg)
    drawing.infer(cfg, generator, lambda x, folder: drawing.save_pictures(x, folder, generator.low))


@hydra.main(version_base=None, config_path="./conf", config_name="wgangp_mnist")
def main(cfg):
    modes = {"train": train, "eval": evaluate, "export": export, "infer": infer}
    launch(cfg, "wgangp_mnist", CHOICES, **modes)


if __name__ == "__main__":
    main()
