# SPDX-License-Identifier: Apache-2.0
"""WGAN-GP on 64x64 pictures of your own: `python wgangp_image64.py DATA.data_path=FOLDER`."""

from support import launch

NAME = "wgangp_image64"
CHOICES = {
    "DATA.on_error": ("refuse", "skip"),
    "MODEL.arch": ("dcgan", "resnet"),
    "TRAIN.best_metric": (
        "inception_score",
        "fid",
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
    ),
}
if __name__ == "__main__":  # before Paddle is imported: it reads processor settings only once
    launch.begin(NAME, CHOICES)

import hydra

from data import augmentation
from data import image_folder
from data import streams
from measures import validators
from modes.experiment import Experiment
from modes.runner import run_mode
from networks import dcgan
from networks import resnet64
from networks.normalisation import use_groups
from networks.normalisation import use_statistics
from support import jobs
from support.errors import printable
from support.errors import require


class Image64(Experiment):
    """DCGAN's or residual networks on a user's own pictures."""

    script, choices = NAME, CHOICES

    def make_networks(self):
        model = self.cfg.MODEL
        generators = {"dcgan": dcgan.Dcgan64Generator, "resnet": resnet64.Resnet64Generator}
        critics = {"dcgan": dcgan.Dcgan64Discriminator, "resnet": resnet64.Resnet64Discriminator}
        classes = model.num_classes if model.use_label else 0
        more = {"attention": model.attention} if model.arch == "resnet" else {}
        generator = generators[model.arch](
            model.gen_net.dim, model.gen_net.noise_dim, classes, **more
        )
        use_statistics(generator, model.gen_net.batch_norm_statistics)
        use_groups(generator, model.gen_net.batch_norm_groups)
        critic = critics[model.arch](
            model.dis_net.dim, model.dis_net.norm, classes, model.dis_net.projection, **more
        )
        return generator, critic

    def read_data(self):
        settings, model = self.cfg.DATA, self.cfg.MODEL
        require(
            settings.data_path is not None,
            "name your pictures with DATA.data_path=PATH: a folder, a zip or a tar of them.",
        )
        data = image_folder.read_pictures(
            settings.data_path,
            settings.crop,
            settings.on_error == "skip",
            settings.max_pixels,
            settings.max_unpacked,
            settings.class_level,
        )
        count = len(data.class_names)
        require(  # mode=eval compares the classes with those of the weights
            not model.use_label or model.num_classes == count or self.weights is not None,
            f"{printable(settings.data_path)} has pictures in {count} folders, and each folder is "
            f"a class ({printable(', '.join(data.class_names[:10]))}): set "
            f"MODEL.num_classes={count}, or MODEL.use_label=false.",
        )
        return data

    def make_real_streams(self, data, generator, length, seed):
        prepare = augmentation.make_prepare(self.cfg.DATA)
        return streams.shuffled_images(data.train_images, data.train_labels, prepare, length, seed)

    def make_measures(self, data, generator, critic, count):
        """Inception Score and FID by the Inception of 2015-12-05, and the critic's figures."""
        settings, seed, measures = self.cfg.EVAL, self.cfg.seed, {}
        if settings.inception:
            measures["generated"] = validators.make_inception_measure(
                generator,
                *(augmentation.middle(part) for part in (data.train_images, data.test_images)),
                *(count, seed, settings, self.label_shares(data, generator)),
            )
        if critic is not None:
            images = augmentation.middle(data.test_images).astype("float32") / 127.5 - 1
            measures["critic"] = validators.make_critic_measure(
                generator, critic, images, data.test_labels, count, seed, settings.batch_size
            )
        return measures


@hydra.main(version_base=None, config_path="./conf", config_name=NAME)
def main(cfg):
    jobs.run(cfg, NAME, CHOICES, lambda cfg: run_mode(Image64(cfg)))


if __name__ == "__main__":
    main()
