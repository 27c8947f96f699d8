# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on 64x64 pictures of your own: `python wgangp_image64.py DATA.data_path=FOLDER`."""

from support import settings
from support.processor import prepare
from support.settings import check_command_line

CHOICES = {
    **settings.CHOICES,
    "DATA.on_error": ("refuse", "skip"),
    "MODEL.arch": ("dcgan", "resnet"),
    "TRAIN.best_metric": ("inception_score", "fid"),
    "EVAL.batch_norm": ("batch", "running"),
}
# Both come before Paddle is imported: it reads the settings then, and takes seconds to load.
prepare()
if __name__ == "__main__":
    check_command_line("wgangp_image64", CHOICES)

import hydra

from data import augmentation
from data import image_folder
from data import streams
from measures import evaluation
from measures import sampling
from measures.report import load_networks
from measures.report import report
from modes import export as exporting
from modes import infer as drawing
from networks import dcgan
from networks import resnet64
from networks.normalisation import use_statistics
from support.errors import require
from support.launch import launch
from training import adversarial
from training import checkpoints


def make_networks(cfg):
    model = cfg.MODEL
    generators = {"dcgan": dcgan.Dcgan64Generator, "resnet": resnet64.Resnet64Generator}
    critics = {"dcgan": dcgan.Dcgan64Discriminator, "resnet": resnet64.Resnet64Discriminator}
    classes = model.num_classes if model.use_label else 0
    generator = generators[model.arch](model.gen_net.dim, model.gen_net.noise_dim, classes)
    use_statistics(generator, cfg.EVAL.batch_norm)
    critic = critics[model.arch](model.dis_net.dim, model.dis_net.norm, classes)
    return generator, critic


def read(cfg):
    data, model = cfg.DATA, cfg.MODEL
    require(
        data.data_path is not None,
        "name your pictures by DATA.data_path=PLACE: a folder, a zip or a tar of them.",
    )
    pictures = image_folder.read_pictures(data.data_path, data.crop, data.on_error == "skip")
    count = len(pictures.class_names)
    require(
        not model.use_label or model.num_classes == count,
        f"{data.data_path} has pictures in {count} folders, which are their classes "
        f"({', '.join(pictures.class_names[:10])}): set MODEL.num_classes={count}, or "
        "MODEL.use_label=false.",
    )
    return pictures


def real_images(cfg, data, length, seed):
    prepare = augmentation.make_prepare(cfg.DATA)
    return streams.shuffled_images(data.train_images, data.train_labels, prepare, length, seed)


def make_validators(cfg, generator, critic, data, count):
    """By the Inception of 2015-12-05, and by the critic, as far as there are both."""
    validators = {}
    if cfg.EVAL.inception:
        validators["generated"] = evaluation.make_inception_validator(
            cfg, generator, augmentation.middle(data.train_images), count
        )
    if critic is not None:
        test_images = augmentation.middle(data.test_images).astype("float32") / 127.5 - 1
        validators["critic"] = evaluation.make_critic_validator(
            cfg, generator, critic, test_images, data.test_labels, count
        )
    return validators


def train(cfg):
    checkpoint = checkpoints.find(cfg)
    generator, critic = make_networks(cfg)
    data = read(cfg)
    critic_solver, generator_solver = adversarial.make_solvers(
        cfg, generator, critic, lambda length, seed: real_images(cfg, data, length, seed)
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


@hydra.main(version_base=None, config_path="./conf", config_name="wgangp_image64")
def main(cfg):
    modes = {"train": train, "eval": evaluate, "export": export, "infer": infer}
    launch(cfg, "wgangp_image64", CHOICES, **modes)


if __name__ == "__main__":
    main()
