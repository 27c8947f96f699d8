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

CHOICES = {**runtime.CHOICES, "DATA.source": ("mnist", "digits")}
# Both come before Paddle is imported: it reads the settings then, and takes seconds to load.
runtime.prepare()
if __name__ == "__main__":
    runtime.check_command_line("wgangp_mnist", CHOICES)

import hydra

import adversarial
import evaluation
import files
import functions
import streams

ADDRESSES = (
    "https://www.iro.umontreal.ca/~lisa/deep/data/mnist/mnist.pkl.gz",
    "https://figshare.com/ndownloader/files/25635053",
)
MD5 = "a02cd19f81d51c426d7ca14024243ce9"


# --8<-- [start:model]
def make_networks(cfg):
    model = cfg.MODEL
    generator = functions.WganGpMnistGenerator(model.gen_net.dim, model.gen_net.noise_dim)
    critic = functions.WganGpMnistDiscriminator(model.dis_net.dim, model.dis_net.norm)
    return generator, critic


# --8<-- [end:model]


# --8<-- [start:data]
def read(cfg):
    if cfg.DATA.source == "digits":
        return functions.digits_set()
    path = files.fetch(
        cfg.DATA.data_path,
        ADDRESSES,
        MD5,
        "DATA.source=digits trains on scikit-learn's own digits.",
    )
    return functions.read_mnist(path)


def real_images(data, length, seed):
    return streams.shuffled_images(
        data.train_images, data.train_labels, functions.prepare_mnist, length, seed
    )


# --8<-- [end:data]


# --8<-- [start:validator]
def make_validator(cfg, generator, critic, data):
    test_images = functions.prepare_mnist(data.test_images)
    return evaluation.make_image_validator(cfg, generator, critic, test_images, data.test_labels)


# --8<-- [end:validator]


# --8<-- [start:train]
def train(cfg):
    generator, critic = make_networks(cfg)
    data = read(cfg)
    critic_solver, generator_solver = adversarial.make_solvers(
        cfg,
        generator,
        critic,
        lambda length, seed: real_images(data, length, seed),
        make_validator(cfg, generator, critic, data),
    )
    draw = evaluation.make_grid_drawer(cfg, generator, low=0.0)
    adversarial.train(cfg, critic_solver, generator_solver, draw)


# --8<-- [end:train]


# --8<-- [start:evaluate]
def evaluate(cfg):
    generator, critic = make_networks(cfg)
    critic = evaluation.load_networks(cfg, generator, critic)
    validator = None  # without a critic there is nothing to measure
    if critic is not None:
        validator = make_validator(cfg, generator, critic, read(cfg))
    draw = evaluation.make_grid_drawer(cfg, generator, low=0.0)
    evaluation.report(cfg, generator, validator, draw)


# --8<-- [end:evaluate]


@hydra.main(version_base=None, config_path="./conf", config_name="wgangp_mnist")
def main(cfg):
    runtime.launch(cfg, "wgangp_mnist", CHOICES, train=train, eval=evaluate)


if __name__ == "__main__":
    main()
