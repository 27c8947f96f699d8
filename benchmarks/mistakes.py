# SPDX-License-Identifier: Apache-2.0
"""Measures four classic mistakes: `python benchmarks/mistakes.py --mnist mnist.pkl.gz`.

The program trains the critic of MNIST alone, between digits and a generator that always draws the
same picture, c. The distance is then known: W1 = E||x - c||. The critic D(x) = ||x - c|| attains
it, with a gradient of length 1 everywhere. Digits that the critic has not seen give the estimate
and the length. The program writes docs/results/mistakes.json, and tables.py makes a table of it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import common

from support.processor import prepare

prepare()  # before Paddle is imported

import numpy as np
import paddle

import functions
from kernels import maps
from support.errors import UserError
from support.errors import fail

BATCH, WIDTH, TEST_COUNT = 50, 16, 1000


def norm_over_one_axis(critic, samples):
    """The absolute gradient per pixel: `paddle.norm(gradient, axis=1)` of one channel."""
    samples.stop_gradient = False
    with maps.twice_differentiable():
        (gradient,) = paddle.grad(critic.score(samples)[0].sum(), samples, create_graph=True)
    return (gradient.square().sum(1) + 1e-12).sqrt()


def one_per_sample(shape):
    """The paper's shape of alpha: one number for each picture."""
    return [shape[0], 1, 1, 1]


CASES = {  # norm in the penalty, shape of alpha, normalisation of the critic
    "right": (functions.gradient_norm, one_per_sample, None),
    "one_axis": (norm_over_one_axis, one_per_sample, None),
    "alpha_per_pixel": (functions.gradient_norm, lambda shape: shape, None),
    "batch_norm": (functions.gradient_norm, one_per_sample, "batch"),
}


def train(digits, test, norm_of, alpha_shape, normalisation, steps):
    """Trains a critic with Adam and a rate that falls to 0; returns its figures."""
    paddle.seed(0)
    rng = np.random.default_rng(0)
    critic = functions.WganGpMnistDiscriminator(WIDTH, norm=normalisation)
    rate = paddle.optimizer.lr.PolynomialDecay(1e-3, steps, 0.0)
    adam = paddle.optimizer.Adam(rate, 0.5, 0.9, parameters=critic.parameters())
    centre = paddle.to_tensor(digits.mean(0, keepdims=True))
    for _ in range(steps):
        real = paddle.to_tensor(digits[rng.integers(len(digits), size=BATCH)])
        fake = centre.expand_as(real)
        alpha = paddle.to_tensor(rng.random(alpha_shape(real.shape), "float32"))
        norm = norm_of(critic, real + alpha * (fake - real))
        estimate = functions.wasserstein_estimate(critic.score(real)[0], critic.score(fake)[0])
        loss = 10.0 * functions.gradient_penalty(norm) - estimate
        loss.backward()
        adam.step()
        adam.clear_grad()
        rate.step()
    real = paddle.to_tensor(test)
    fake = centre.expand_as(real)
    alpha = paddle.to_tensor(rng.random(one_per_sample(real.shape), "float32"))
    with paddle.no_grad():
        estimate = functions.wasserstein_estimate(critic.score(real)[0], critic.score(fake)[0])
    norm = functions.gradient_norm(critic, real + alpha * (fake - real)).numpy()
    return {
        "wasserstein": float(estimate),
        "gradient_norm": float(norm.mean()),
        "gradient_norm_deviation": float(norm.std(ddof=1)),
    }


def time_graph(repeat):
    """Times a critic step of CIFAR-10's networks with and without a graph through the generator.

    The two take turns. Returns the median seconds of each, and whether the generator's weights
    got gradients. The first turn is not counted.
    """
    generator = functions.WganGpCifar10Generator(32)
    critic = functions.WganGpCifar10Discriminator(32)
    real = paddle.rand([16, 3, 32, 32])
    noise, labels = paddle.randn([16, 128]), paddle.randint(0, 10, [16])
    seconds = {"detached": [], "graph_left": []}
    gradients = {}
    for _ in range(repeat):
        for name, times in seconds.items():
            begin = time.perf_counter()
            fake = generator.generate(noise, labels)
            fake = fake.detach() if name == "detached" else fake
            mixed = functions.interpolate(real, fake, paddle.rand([16]))
            penalty = functions.gradient_penalty(functions.gradient_norm(critic, mixed))
            values = critic.score(real)[0], critic.score(fake)[0]
            (10.0 * penalty - functions.wasserstein_estimate(*values)).backward()
            times.append(time.perf_counter() - begin)
            gradients[name] = any(weight.grad is not None for weight in generator.parameters())
            for network in (critic, generator):
                network.clear_gradients(set_to_zero=False)
    return {
        "seconds": {name: float(np.median(times[1:])) for name, times in seconds.items()},
        "generator_has_gradients": gradients,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", required=True, help="mnist.pkl.gz")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=15, help="turns that are timed")
    parser.add_argument("--output", default=common.RESULTS / "mistakes.json", type=Path)
    options = parser.parse_args()
    if options.steps < 1 or options.repeat < 2:
        fail("--steps must be at least 1, --repeat at least 2.")
    paddle.set_device("cpu")
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        images = functions.read_mnist(options.mnist)
    except (OSError, UserError) as error:
        fail(str(error))
    digits = images.train_images.astype("float32") / 256
    test = images.test_images[:TEST_COUNT].astype("float32") / 256
    distance = np.sqrt(((test - digits.mean(0)) ** 2).sum((1, 2, 3))).mean()
    rows = {"steps": options.steps, "distance": float(distance)}
    for name, case in CASES.items():
        rows[name] = train(digits, test, *case, options.steps)
        print(name, rows[name], flush=True)
    rows["graph"] = time_graph(options.repeat)
    print(rows["graph"])
    options.output.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
