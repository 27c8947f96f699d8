# SPDX-License-Identifier: Apache-2.0
"""The objectives that people compare: WGAN-GP, its relatives WGAN and WGAN-div, the original GAN.

All are written so that the critic is high on real samples and its loss is minimised.
"""

from __future__ import annotations

import dataclasses
from typing import Callable
from typing import Optional

import paddle
import paddle.nn.functional as F

from functions import gradient_penalty
from functions import wasserstein_estimate


# --8<-- [start:objective]
@dataclasses.dataclass(frozen=True)
class Objective:
    """What an objective consists of; neither the losses nor the loop know which one they run.

    Args:
        critic_term: Critic's values of real and of fake samples, [N] and [M], to what the critic
            minimises.
        generator_term: Critic's values of fake samples, [N], to what the generator minimises.
        penalty: Gradient norms, [N], to a further term of the critic's; None for none.
        penalty_weight: The factor of that term.
        clip: The largest size of the critic's weights, to which they are cut after each step.
    """

    critic_term: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]
    generator_term: Callable[[paddle.Tensor], paddle.Tensor]
    penalty: Optional[Callable[[paddle.Tensor], paddle.Tensor]] = None
    penalty_weight: float = 0.0
    clip: Optional[float] = None


def wasserstein_critic(value_real: paddle.Tensor, value_fake: paddle.Tensor) -> paddle.Tensor:
    """E[D(fake)] - E[D(real)] (Arjovsky et al., arXiv 1701.07875)."""
    return -wasserstein_estimate(value_real, value_fake)


def wasserstein_generator(value_fake: paddle.Tensor) -> paddle.Tensor:
    """-E[D(fake)]."""
    return -value_fake.mean()


def gan_critic(value_real: paddle.Tensor, value_fake: paddle.Tensor) -> paddle.Tensor:
    """Cross entropy of telling real from fake; values are logits (Goodfellow et al., 1406.2661)."""
    # -log sigmoid(x) is softplus(-x), which does not overflow
    return F.softplus(-value_real).mean() + F.softplus(value_fake).mean()


def gan_generator(value_fake: paddle.Tensor) -> paddle.Tensor:
    """-E[log sigmoid(D(fake))], the generator's loss that does not saturate (ibid., section 3)."""
    return F.softplus(-value_fake).mean()


def gradient_power(norm: paddle.Tensor, power: float) -> paddle.Tensor:
    """E[||grad D||^p], the penalty of WGAN-div (Wu et al., arXiv 1712.01026).

    Args:
        norm: Gradient norms, [N].
        power: p; 6 in the paper.
    """
    return (norm**power).mean()


def make_objective(cfg) -> Objective:
    """The objective that LOSS.name asks for."""
    loss = cfg.LOSS
    wasserstein = wasserstein_critic, wasserstein_generator
    return {
        "wgan_gp": Objective(*wasserstein, gradient_penalty, cfg.TRAIN.penalty_weight),
        "wgan": Objective(*wasserstein, clip=loss.clip),
        "wgan_div": Objective(*wasserstein, lambda norm: gradient_power(norm, loss.p), loss.k),
        "gan": Objective(gan_critic, gan_generator),
    }[loss.name]


# --8<-- [end:objective]
