# SPDX-License-Identifier: Apache-2.0
"""The trainings of docs/results: results.py runs these groups of rows, tables.py shows them."""

from __future__ import annotations

import dataclasses
from typing import Dict
from typing import List
from typing import Optional


@dataclasses.dataclass
class Row:
    """A training, and the evaluation of its final weights or of their moving average.

    Args:
        script: The experiment's script, without `wgangp_` and `.py`.
        model: Settings of both the training and the evaluation.
        training: Settings of the training alone.
        evaluation: Settings of the evaluation alone.
        trained_by: The row whose training this one evaluates; None for a training of its own.
    """

    script: str
    model: List[str]
    training: List[str] = dataclasses.field(default_factory=list)
    evaluation: List[str] = dataclasses.field(default_factory=list)
    trained_by: Optional[str] = None


# Each objective's optimiser and rate, as in conf/LOSS; the rate of wgan_gp is the authors' own.
# "gan" also has a row with the Adam of later practice.
OBJECTIVES = {
    "wgan_gp": ("wgan_gp", "Adam", 1e-4, []),
    "wgan_lp": ("wgan_lp", "Adam", 1e-4, []),
    "wgan": ("wgan", "RMSProp", 5e-5, []),
    "wgan_div": ("wgan_div", "Adam", 2e-4, []),
    "hinge": ("hinge", "Adam", 2e-4, []),
    "gan": ("gan", "SGD", 2e-4, []),
    "gan_adam": ("gan", "Adam", 2e-4, ["TRAIN.beta1=0.5", "TRAIN.beta2=0.999"]),
}


# Generator iterations in about two minutes of one core on the toy set, and in 150 s on MNIST
_TOY = {"wgan_gp": 2240, "wgan_lp": 2240, "wgan": 3440, "wgan_div": 2240, "hinge": 2240}
TOY_LENGTHS = {**_TOY, "gan": 11400, "gan_adam": 11400}
_MNIST = {"wgan_gp": 1600, "wgan_lp": 1600, "wgan": 2160, "wgan_div": 1360, "hinge": 1600}
MNIST_LENGTHS = {**_MNIST, "gan": 7080, "gan_adam": 7080}


def make_objective_rows(
    script: str, model: List[str], rate_factor: float, lengths: Dict[str, int], seeds: List[int]
) -> Dict[str, Row]:
    """Rows OBJECTIVE_SEED.

    Args:
        script: As in `Row`.
        model: As in `Row`.
        rate_factor: Multiplies the rate of every objective, since the runs are short.
        lengths: Generator iterations of each objective.
        seeds: Seeds of each objective.
    """
    rows = {}
    for name, length in lengths.items():
        objective, optimizer, rate, more = OBJECTIVES[name]
        for seed in seeds:
            rows[f"{name}_{seed}"] = Row(
                script,
                [*model, f"seed={seed}"],
                [
                    *(f"LOSS={objective}", f"TRAIN.optimizer={optimizer}"),
                    *(f"TRAIN.learning_rate={rate_factor * rate:g}", "TRAIN.lr_schedule=linear"),
                    *("TRAIN.epochs=4", f"TRAIN.iters_per_epoch={length // 4}"),
                    *("TRAIN.eval_freq=1", *more),
                ],
            )
    return rows


def width_settings(channels: int) -> List[str]:
    """The settings of the widths of both networks."""
    return [f"MODEL.gen_net.dim={channels}", f"MODEL.dis_net.dim={channels}"]


def make_digits_row(use_label: str, *settings: str, epochs: int = 14) -> Row:
    """A row of CIFAR-10's networks on coloured digits; an epoch takes a minute on one core."""
    return Row(
        "cifar10",
        [
            *("DATA.source=colored_digits", f"MODEL.use_label={use_label}", *width_settings(16)),
            "EVAL.num_samples=10000",  # as many as there are test digits
        ],
        [
            *("TRAIN.batch_size=32", "TRAIN.generator_batch_factor=1", "TRAIN.n_critic=2"),
            *("TRAIN.learning_rate=1e-3", f"TRAIN.epochs={epochs}", "TRAIN.iters_per_epoch=500"),
            *("TRAIN.eval_freq=1", "TRAIN.eval_num_samples=2000"),
            *("TRAIN.best_metric=frechet_distance", "MODEL.gen_net.batch_norm_groups=1"),
            *settings,
        ],
    )


TOY_SETS = ("8gaussians", "25gaussians", "swissroll")
TOY_SETTINGS = {"swissroll": ["TRAIN.learning_rate=1e-3"]}  # The mixtures have the default.
# A longer training leaves fewer points between the modes of 25 Gaussians.
TOY_LONG = ["TRAIN.iters_per_epoch=875", "TRAIN.learning_rate=8e-3"]
GROUPS: Dict[str, Dict[str, Row]] = {
    "toy": {
        **{
            f"{name}_{seed}": Row(
                "toy", [f"DATA.mode={name}", f"seed={seed}"], TOY_SETTINGS.get(name, [])
            )
            for name in TOY_SETS
            for seed in range(10)
        },
        **{
            f"25gaussians_long_{seed}": Row(
                "toy", ["DATA.mode=25gaussians", f"seed={seed}"], TOY_LONG
            )
            for seed in range(10)
        },
        **{
            f"25gaussians_truncated_{seed}": Row(
                *("toy", ["DATA.mode=25gaussians", f"seed={seed}"], TOY_LONG),
                ["EVAL.truncation=0.03"],
                trained_by=f"25gaussians_long_{seed}",
            )
            for seed in range(10)
        },
        "25gaussians_paper": Row("toy", ["DATA.mode=25gaussians", "preset=authors", "seed=0"]),
    },
    "mnist": {
        "full_width": Row(
            "mnist",
            [],
            [
                *("TRAIN.learning_rate=5e-4", "TRAIN.lr_schedule=linear", "TRAIN.epochs=16"),
                *("TRAIN.iters_per_epoch=720", "TRAIN.ema.use_ema=true"),
            ],
        ),
        "generator_norm": Row(
            "mnist",
            ["MODEL.arch=wgan_lab", "MODEL.gen_net.dim=32", "MODEL.dis_net.dim=16"],
            [
                *("TRAIN.learning_rate=1e-3", "TRAIN.n_critic=5", "TRAIN.epochs=20"),
                *("TRAIN.iters_per_epoch=1000", "TRAIN.lr_schedule=linear"),
                "TRAIN.ema.use_ema=true",
            ],
        ),
        # The shares of real digits are not equal, which the distance shows.
        "conditional": Row("mnist", ["preset=laptop"], [], ["DATA.label_distribution=data"]),
    },
    "emoji": {
        "laptop": Row("cifar10", ["preset=laptop", "DATA.label_distribution=data"]),
        "unconditional": Row(
            "cifar10", ["preset=laptop", "MODEL.use_label=false", "MODEL.dis_net.projection=false"]
        ),
    },
    "emoji64": {
        "laptop": Row(
            "image64",
            ["preset=laptop", "MODEL.use_label=true", "MODEL.dis_net.projection=true"],
        ),
        "projection": Row(
            "image64",
            [
                *("MODEL.use_label=true", *width_settings(32)),
                *("MODEL.dis_net.projection=true", "EVAL.inception=false"),
            ],
            [
                *("LOSS.generator_class_weight=1", "TRAIN.batch_size=32", "TRAIN.n_critic=2"),
                *("TRAIN.beta1=0.5", "TRAIN.learning_rate=1e-3", "TRAIN.lr_schedule=linear"),
                *("TRAIN.epochs=14", "TRAIN.iters_per_epoch=1000", "TRAIN.ema.use_ema=true"),
            ],
        ),
    },
    "colored_digits": {
        "weight_0.1": make_digits_row("true"),
        "weight_1": make_digits_row("true", "LOSS.generator_class_weight=1"),
        "projection": make_digits_row(
            "true", "MODEL.dis_net.projection=true", "LOSS.generator_class_weight=1"
        ),
        "projection_long": make_digits_row(
            "true",
            "MODEL.dis_net.projection=true",
            *("LOSS.generator_class_weight=2", "LOSS.critic_class_weight=2"),
            epochs=20,
        ),
        "unconditional": make_digits_row("false"),
        "laptop": Row(
            "cifar10", ["preset=laptop", "DATA.source=colored_digits", "EVAL.num_samples=10000"]
        ),
    },
    "lab": {"wgan_lab": Row("mnist", ["preset=wgan_lab"])},
    # The defaults are the paper's own settings.
    "cifar10": {
        "unconditional": Row("cifar10", ["MODEL.use_label=false"]),
        "conditional": Row("cifar10", ["MODEL.use_label=true"]),
    },
    "objectives_toy": make_objective_rows(
        "toy",
        ["DATA.mode=25gaussians", "preset=authors", *width_settings(256)],
        10,
        TOY_LENGTHS,
        [0, 1, 2],
    ),
    "objectives_mnist": make_objective_rows(
        "mnist", width_settings(16), 10, MNIST_LENGTHS, [0, 1, 2]
    ),
}
