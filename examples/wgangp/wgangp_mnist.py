# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""WGAN-GP on MNIST: `python wgangp_mnist.py`; `DATA.source=digits` needs no file."""

import runtime

CHOICES = {
    **runtime.CHOICES,
    "preset": (None, "wgan_lab"),
    "DATA.source": ("mnist", "digits"),
    "MODEL.arch": ("paper", "wgan_lab", "published"),
    "TRAIN.best_metric": ("frechet_distance", "classifier_score"),
    "EVAL.batch_norm": ("batch", "running"),
}
# Both come before Paddle is imported: it reads the settings then, and takes seconds to load.
runtime.prepare()
if __name__ == "__main__":
    runtime.check_command_line("wgangp_mnist", CHOICES)

import hydra

import adversarial
import checkpoints
import dcgan
import deploy
import evaluation
import files
import functions
import metrics
import mnist_classifier
import published
import streams
import synthetic

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
        generator = dcgan.WganLabGenerator(model.gen_net.dim, model.gen_net.noise_dim)
        functions.sample_by(generator, cfg.EVAL.batch_norm)
        return generator, dcgan.WganLabDiscriminator(model.dis_net.dim, model.dis_net.norm)
    generator = functions.WganGpMnistGenerator(model.gen_net.dim, model.gen_net.noise_dim)
    critic = functions.WganGpMnistDiscriminator(model.dis_net.dim, model.dis_net.norm)
    return generator, critic


def read(cfg):
    if cfg.DATA.source == "digits":
        return synthetic.digits_set()
    path = files.fetch(
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
            mnist_classifier.load(cfg.EVAL.classifier_weights),
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
    shares, kl = metrics.class_shares(predicted, functions.NUM_CLASSES)
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
    draw = evaluation.make_grid_drawer(cfg, average.network)
    run = checkpoints.Run(cfg, critic_solver, generator_solver, average, data.describe())
    adversarial.train(run, validators, draw, checkpoint)


def evaluate(cfg):
    generator, critic = make_networks(cfg)
    critic = evaluation.load_networks(cfg, generator, critic)
    validators = make_validators(cfg, generator, critic, read(cfg), cfg.EVAL.num_samples)
    draw = evaluation.make_grid_drawer(cfg, generator)
    evaluation.report(cfg, generator, validators, draw)


def export(cfg):
    deploy.export(cfg, make_networks(cfg)[0])


def infer(cfg):
    generator, _ = make_networks(cfg)
    deploy.infer(cfg, generator, lambda x, folder: deploy.save_pictures(x, folder, generator.low))


@hydra.main(version_base=None, config_path="./conf", config_name="wgangp_mnist")
def main(cfg):
    modes = {"train": train, "eval": evaluate, "export": export, "infer": infer}
    runtime.launch(cfg, "wgangp_mnist", CHOICES, **modes)


if __name__ == "__main__":
    main()
