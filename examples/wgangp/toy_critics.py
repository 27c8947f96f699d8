# SPDX-License-Identifier: Apache-2.0
"""Trains critics with weight clipping and with the gradient penalty, as in the paper's figure 1.

`python toy_critics.py --output FOLDER` trains critics alone. The generator is fixed: real points
plus standard normal noise (section 3 of the paper). It writes

- toy_critics.png: level sets on the three toy sets (figure 1a);
- toy_gradients.png: for critics of twelve layers on the swiss roll, the gradient of the loss at
  each layer's output, and histograms of the weights (figure 1b);
- toy_critics.json: the numbers of figure 1b.
"""

from support.processor import prepare

prepare()

import argparse
import json
from os import path as osp
from typing import Dict
from typing import List
from typing import Tuple

import numpy as np
import paddle
from matplotlib import pyplot as plt
from ppsci.utils import logger

import functions
from data import synthetic
from support import storage
from support.errors import UserError
from support.errors import fail
from support.progress import Progress
from training import objectives

WASSERSTEIN = objectives.wasserstein_critic, objectives.wasserstein_generator
PENALTY = functions.Objective(*WASSERSTEIN, functions.gradient_penalty, penalty_weight=0.1)
SETS = ("8gaussians", "25gaussians", "swissroll")
BOUND = 0.01  # the bound of the weights in WGAN (arXiv 1701.07875)


def make_clipping(bound: float) -> functions.Objective:
    """The objective that clips weights to [-bound, bound]."""
    return functions.Objective(*WASSERSTEIN, clip=bound)


def draw_batch(
    name: str, rng: np.random.Generator, count: int
) -> Tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Draws real points, points of the fixed generator (real ones plus noise), and alphas."""
    real, other = (synthetic.draw_toy(name, rng, count) for _ in range(2))
    alpha = rng.random(count, "float32")
    fake = other + rng.standard_normal((count, 2), "float32")
    return tuple(paddle.to_tensor(part) for part in (real, fake, alpha))


def train_critic(
    name: str, objective: functions.Objective, dim: int, hidden: int, steps: int, seed: int
) -> functions.WganGpToyDiscriminator:
    """Trains a critic alone, with the optimiser of the objective's paper.

    Args:
        name: The toy set.
        objective: The objective.
        dim: Width of the hidden layers.
        hidden: Number of hidden layers.
        steps: Critic steps, of 256 points each.
        seed: The seed of weights and points.
    """
    paddle.seed(seed)
    critic, rng = functions.WganGpToyDiscriminator(dim, hidden), np.random.default_rng(seed)
    loss = functions.CriticLoss(critic, objective)
    if objective.clip is None:
        optimizer = paddle.optimizer.Adam(1e-4, 0.5, 0.9, parameters=critic.parameters())
    else:
        # Paddle's default epsilon. The pictures in the docs were made with it, so it stays,
        # although training.optimizers has TensorFlow's 1e-10.
        optimizer = paddle.optimizer.RMSProp(
            5e-5, rho=0.9, epsilon=1e-6, parameters=critic.parameters()
        )
    progress = Progress("steps", steps)
    for _ in range(steps):
        progress.add(1)
        real, fake, alpha = draw_batch(name, rng, 256)
        terms = loss({**critic({"real": real}), "real": real, "fake": fake, "alpha": alpha})
        sum(terms.values()).backward()
        optimizer.step()
        optimizer.clear_grad()
        loss.after_step()
    return critic


def measure_gradients(
    critic: functions.WganGpToyDiscriminator,
    objective: functions.Objective,
    name: str,
    seed: int,
) -> List[float]:
    """Measures the length of the gradient of the Wasserstein term at each hidden layer's output."""
    real, fake, _ = draw_batch(name, np.random.default_rng((seed, 1)), 1024)
    points, outputs = paddle.concat([real, fake]), []
    for layer in critic.layers:
        points = layer(points)
        if isinstance(layer, paddle.nn.ReLU):
            outputs.append(points)
    values = points.squeeze(1)
    gradients = paddle.grad(objective.critic_term(values[:1024], values[1024:]), outputs)
    return [float(gradient.square().sum().sqrt()) for gradient in gradients]


def flatten_weights(critic: functions.WganGpToyDiscriminator) -> np.ndarray:
    """All weights of a critic, without the biases."""
    return np.concatenate([w.numpy().ravel() for w in critic.parameters() if w.ndim == 2])


def draw_level_sets(
    critics: Dict[Tuple[str, str], functions.WganGpToyDiscriminator], path: str
) -> None:
    """Draws level sets of critics, by (row, toy set), with real points."""
    rows = sorted({row for row, _ in critics}, reverse=True)
    figure, axes = plt.subplots(len(rows), len(SETS), figsize=(10, 3.5 * len(rows)))
    axis = np.linspace(-2, 2, 128, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    for row, line in zip(rows, axes):
        for name, panel in zip(SETS, line):
            with paddle.no_grad():
                heights = critics[row, name].score(paddle.to_tensor(grid))[0].numpy()
            panel.contour(axis, axis, heights.reshape(128, 128), 20, cmap="viridis", linewidths=0.8)
            real = synthetic.draw_toy(name, np.random.default_rng(0), 500)
            panel.scatter(*real.T, s=4, c="tab:orange", marker="+", linewidths=0.6)
            panel.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=[], yticks=[])
            panel.set_title(f"{name}, {row}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_gradients(
    gradients: Dict[str, List[float]], weights: Dict[str, np.ndarray], path: str
) -> None:
    """Draws gradients by layer, and histograms of weights, by the critics' names."""
    figure, axes = plt.subplots(1, 1 + len(weights), figsize=(5 + 3.2 * len(weights), 3.4))
    for name, sizes in gradients.items():
        shown = [size if size > 0 else np.nan for size in sizes]
        axes[0].semilogy(range(1, len(sizes) + 1), shown, marker=".", label=name)
    axes[0].set(title="gradient of the loss at a layer's output", xlabel="hidden layer")
    axes[0].grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    for (name, values), panel in zip(weights.items(), axes[1:]):
        panel.hist(values, 80, color="tab:blue")
        panel.set(title=f"weights, {name}", yscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; exits with a message if a number is out of its range."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="folder for pictures and numbers")
    parser.add_argument("--steps", type=int, default=3000, help="critic steps of each critic")
    parser.add_argument("--dim", type=int, default=512, help="width of the critics' layers")
    parser.add_argument("--deep-dim", type=int, default=128, help="the same of the deep critics")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    least = min(options.steps, options.dim, options.deep_dim)
    if least < 1 or not 0 <= options.seed < 2**32:
        fail("--steps, --dim and --deep-dim must be at least 1, --seed from 0 to 2^32 - 1.")
    return options


def draw_figure_1a(options: argparse.Namespace) -> None:
    """Trains a critic on each toy set with each objective, and draws their level sets."""
    critics = {}
    for name in SETS:
        for row, objective in (
            (f"clipping {BOUND}", make_clipping(BOUND)),
            ("gradient penalty", PENALTY),
        ):
            logger.info(f"{name}, {row}")
            critics[row, name] = train_critic(
                name, objective, options.dim, 3, options.steps, options.seed
            )
    draw_level_sets(critics, osp.join(options.output, "toy_critics.png"))


def draw_figure_1b(options: argparse.Namespace) -> None:
    """Trains deep critics on the swiss roll, and draws and writes their gradients."""
    gradients, weights = {}, {}
    for row, objective in (
        *((f"clipping {bound}", make_clipping(bound)) for bound in (0.1, BOUND, 0.001)),
        ("gradient penalty", PENALTY),
    ):
        logger.info(f"twelve layers, {row}")
        critic = train_critic(
            "swissroll", objective, options.deep_dim, 11, options.steps, options.seed
        )
        gradients[row] = measure_gradients(critic, objective, "swissroll", options.seed)
        if objective.clip in (BOUND, None):
            weights[row] = flatten_weights(critic)
    draw_gradients(gradients, weights, osp.join(options.output, "toy_gradients.png"))
    clipped = np.abs(weights[f"clipping {BOUND}"])
    numbers = {
        "steps": options.steps,
        "seed": options.seed,
        "gradients": gradients,
        "share_of_weights_at_the_bound": float((clipped > 0.99 * BOUND).mean()),
    }
    with storage.replacing(osp.abspath(osp.join(options.output, "toy_critics.json"))) as file:
        file.write((json.dumps(numbers, indent=2) + "\n").encode())


def main() -> None:
    options = parse_arguments()
    logger.init_logger("ppsci")
    paddle.set_device("cpu")
    try:
        storage.check_writable(options.output, "Choose another folder with --output=FOLDER.")
    except UserError as error:
        fail(str(error))
    draw_figure_1a(options)
    draw_figure_1b(options)
    logger.info(
        f"Wrote toy_critics.png, toy_gradients.png and toy_critics.json to {options.output}"
    )


if __name__ == "__main__":
    main()
