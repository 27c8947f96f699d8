# SPDX-License-Identifier: Apache-2.0
"""Measures classic mistakes: `python benchmarks/mistakes.py --mnist mnist.pkl.gz`.

The program trains a critic alone, between real samples and a generator that always draws the same
sample, c. The distance is then known: W1 = E||x - c||. The critic D(x) = ||x - c|| attains it, with
a gradient of length 1 everywhere. Samples that the critic has not seen give its estimate and the
length of its gradient. The samples are MNIST's digits, where c is the mean digit, or the points of
the eight Gaussians, where c is their centre. The program also times a critic step with a graph
through the generator. It writes docs/results/mistakes.json, and tables.py makes tables of it. Rows
that the file has are kept: remove the file to measure everything again.
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
from data.synthetic import draw_toy
from kernels import maps
from support.errors import UserError
from support.errors import fail

BATCH, TEST_COUNT = 50, 1000
DIGITS_WIDTH, DIGITS_PENALTY_WEIGHT = 16, 10.0
# The width and the penalty's weight of the toy sets' default
POINTS_WIDTH, POINTS_PENALTY_WEIGHT = 128, 0.1


def norm_over_one_axis(critic, samples, labels=None):
    """The absolute gradient per pixel: `paddle.norm(gradient, axis=1)` of one channel.

    It is called like `functions.gradient_norm`, and has no use for labels.
    """
    samples.stop_gradient = False
    with maps.twice_differentiable():
        (gradient,) = paddle.grad(critic.score(samples)[0].sum(), samples, create_graph=True)
    return (gradient.square().sum(1) + 1e-12).sqrt()


def one_per_sample(rng, shape):
    """The paper's alpha: one number from U[0, 1] for each sample."""
    return rng.random([shape[0], *[1] * (len(shape) - 1)], "float32")


def one_per_value(rng, shape):
    """An alpha for each pixel or coordinate."""
    return rng.random(shape, "float32")


def normal_per_sample(rng, shape):
    """One number from N(0, 1) for each sample."""
    return rng.standard_normal([shape[0], *[1] * (len(shape) - 1)], "float32")


DIGITS_CASES = {  # norm in the penalty, alpha, normalisation of the critic
    "right": (functions.gradient_norm, one_per_sample, None),
    "one_axis": (norm_over_one_axis, one_per_sample, None),
    "alpha_per_pixel": (functions.gradient_norm, one_per_value, None),
    "batch_norm": (functions.gradient_norm, one_per_sample, "batch"),
    "alpha_normal": (functions.gradient_norm, normal_per_sample, None),
}
POINTS_CASES = {  # alpha
    "right": one_per_sample,
    "alpha_per_pixel": one_per_value,
    "alpha_normal": normal_per_sample,
}


def train(critic, draw_real, centre, norm_of, draw_alpha, penalty_weight, steps):
    """Trains a critic with Adam and a rate that falls to 0.

    Args:
        critic: The critic; its weights change.
        draw_real: Takes a random generator; returns a batch of real samples.
        centre: What the generator draws, one sample.
        norm_of: Takes the critic and samples; returns the norm that is penalised.
        draw_alpha: Takes a random generator and the shape of a batch; returns alpha.
        penalty_weight: The penalty's weight, lambda.
        steps: Number of steps.

    Returns:
        The random generator, for draws that are not those of the training.
    """
    rng = np.random.default_rng(0)
    rate = paddle.optimizer.lr.PolynomialDecay(1e-3, steps, 0.0)
    adam = paddle.optimizer.Adam(rate, 0.5, 0.9, parameters=critic.parameters())
    for _ in range(steps):
        real = paddle.to_tensor(draw_real(rng))
        fake = centre.expand_as(real)
        alpha = paddle.to_tensor(draw_alpha(rng, real.shape))
        norm = norm_of(critic, real + alpha * (fake - real))
        estimate = functions.wasserstein_estimate(critic.score(real)[0], critic.score(fake)[0])
        loss = penalty_weight * functions.gradient_penalty(norm) - estimate
        loss.backward()
        adam.step()
        adam.clear_grad()
        rate.step()
    return rng


def measure(critic, test, centre, rng):
    """Measures a critic at test samples and between them and the centre.

    Returns:
        Its estimate of the distance, the mean norm of its gradient at points as the paper draws
        them, and the norm's deviation across these points.
    """
    real = paddle.to_tensor(test)
    fake = centre.expand_as(real)
    alpha = paddle.to_tensor(one_per_sample(rng, real.shape))
    with paddle.no_grad():
        estimate = functions.wasserstein_estimate(critic.score(real)[0], critic.score(fake)[0])
    norm = functions.gradient_norm(critic, real + alpha * (fake - real)).numpy()
    return {
        "wasserstein": float(estimate),
        "gradient_norm": float(norm.mean()),
        "gradient_norm_deviation": float(norm.std(ddof=1)),
    }


def measure_digits(digits, test, steps, rows):
    """Measures the mistakes that MNIST's critic can make; adds the distance and rows."""
    centre = digits.mean(0, keepdims=True)
    rows["distance"] = float(np.sqrt(((test - centre) ** 2).sum((1, 2, 3))).mean())
    centre = paddle.to_tensor(centre)

    def draw_real(rng):
        return digits[rng.integers(len(digits), size=BATCH)]

    for name, (norm_of, draw_alpha, normalisation) in DIGITS_CASES.items():
        if name not in rows:
            paddle.seed(0)
            critic = functions.WganGpMnistDiscriminator(DIGITS_WIDTH, norm=normalisation)
            weight = DIGITS_PENALTY_WEIGHT
            rng = train(critic, draw_real, centre, norm_of, draw_alpha, weight, steps)
            rows[name] = measure(critic, test, centre, rng)
            print(name, rows[name], flush=True)


def measure_points(steps, rows):
    """Measures the mistakes in alpha on the eight Gaussians; adds the distance and rows."""
    test = draw_toy("8gaussians", np.random.default_rng(1), TEST_COUNT)
    rows["distance"] = float(np.linalg.norm(test, axis=1).mean())
    centre = paddle.zeros([1, 2])

    def draw_real(rng):
        return draw_toy("8gaussians", rng, BATCH)

    for name, draw_alpha in POINTS_CASES.items():
        if name not in rows:
            paddle.seed(0)
            critic = functions.WganGpToyDiscriminator(POINTS_WIDTH)
            norm_of, weight = functions.gradient_norm, POINTS_PENALTY_WEIGHT
            rng = train(critic, draw_real, centre, norm_of, draw_alpha, weight, steps)
            rows[name] = measure(critic, test, centre, rng)
            print("8gaussians", name, rows[name], flush=True)


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
    rows = common.read_results(options.output) if options.output.exists() else {}
    if rows.setdefault("steps", options.steps) != options.steps:
        fail(f"{options.output} has {rows['steps']} steps: remove it, or choose another --output.")
    measure_points(options.steps, rows.setdefault("8gaussians", {}))
    measure_digits(digits, test, options.steps, rows)
    if "graph" not in rows:
        rows["graph"] = time_graph(options.repeat)
        print(rows["graph"])
    options.output.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
