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

"""WGAN-GP on the paper's three toy sets: `python wgangp_toy.py DATA.mode=8gaussians`."""

import runtime

CHOICES = {**runtime.CHOICES, "DATA.mode": ("8gaussians", "25gaussians", "swissroll")}
# Both come before Paddle is imported: it reads the settings then, and takes seconds to load.
runtime.prepare()
if __name__ == "__main__":
    runtime.check_command_line("wgangp_toy", CHOICES)

import hydra
import numpy as np
import paddle

import adversarial
import evaluation
import functions
import metrics
import pictures
import streams


# --8<-- [start:model]
def make_networks(cfg):
    generator = functions.WganGpToyGenerator(cfg.MODEL.gen_net.dim)
    critic = functions.WganGpToyDiscriminator(cfg.MODEL.dis_net.dim)
    return generator, critic


# --8<-- [end:model]


# --8<-- [start:data]
def real_points(cfg, length, seed):
    """Fresh points at each read, as the authors do: not a fixed set."""

    def draw(rng, positions):
        return functions.draw_toy(cfg.DATA.mode, rng, len(positions))

    return {"real": streams.Stream(length, seed, draw)}


# --8<-- [end:data]


# --8<-- [start:validator]
def make_validator(cfg):
    """Compares as many generated points with real ones by the measures of metrics.py."""
    rng = np.random.default_rng((cfg.seed, streams.EVALUATION))
    count = cfg.EVAL.num_samples
    real, other_real = (functions.draw_toy(cfg.DATA.mode, rng, count) for _ in range(2))

    def measure(outputs, labels):
        points, real = outputs["fake"].numpy(), labels["real"].numpy()
        figures = {}
        if cfg.DATA.mode != "swissroll":
            centres, sigma = functions.toy_centres(cfg.DATA.mode)
            figures = metrics.mixture_metrics(points, centres, sigma)
        figures["wasserstein_2"] = metrics.wasserstein_2(points, real)
        figures["wasserstein_2_floor"] = metrics.wasserstein_2(other_real, real)
        return {name: paddle.to_tensor(value) for name, value in figures.items()}

    inputs = {"noise": rng.standard_normal((count, 2), "float32")}
    output_expr = {"fake": lambda data: data["fake"]}
    return evaluation.make_validator(cfg, inputs, {"real": real}, output_expr, measure)


# --8<-- [end:validator]


# --8<-- [start:drawer]
def make_drawer(cfg, generator, critic, count=1000):
    """A function that writes the paper's picture of a set to a path."""
    rng = np.random.default_rng((cfg.seed, streams.GRID))
    real = functions.draw_toy(cfg.DATA.mode, rng, count)
    noise = paddle.to_tensor(rng.standard_normal((count, 2), "float32"))

    def value(points):
        with paddle.no_grad():
            return critic.score(paddle.to_tensor(points))[0].numpy()

    def draw(path):
        fake = evaluation.sample(generator, {"noise": noise})
        pictures.draw_toy(real, fake, None if critic is None else value, path)

    return draw


# --8<-- [end:drawer]


# --8<-- [start:train]
def train(cfg):
    generator, critic = make_networks(cfg)
    critic_solver, generator_solver = adversarial.make_solvers(
        cfg,
        generator,
        critic,
        lambda length, seed: real_points(cfg, length, seed),
        make_validator(cfg),
    )
    draw = make_drawer(cfg, generator, critic)
    adversarial.train(cfg, critic_solver, generator_solver, draw)


# --8<-- [end:train]


# --8<-- [start:evaluate]
def evaluate(cfg):
    generator, critic = make_networks(cfg)
    critic = evaluation.load_networks(cfg, generator, critic)
    draw = make_drawer(cfg, generator, critic)
    evaluation.report(cfg, generator, make_validator(cfg), draw)


# --8<-- [end:evaluate]


@hydra.main(version_base=None, config_path="./conf", config_name="wgangp_toy")
def main(cfg):
    runtime.launch(cfg, "wgangp_toy", CHOICES, train=train, eval=evaluate)


if __name__ == "__main__":
    main()
