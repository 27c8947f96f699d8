# SPDX-License-Identifier: Apache-2.0
"""Objectives: WGAN-GP, WGAN-LP, WGAN with weight clipping, WGAN-div, hinge, the original GAN.

In all of them, the critic's values are high on real samples, and both losses are minimised.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from omegaconf import DictConfig

from functions import Objective
from functions import gradient_penalty
from functions import optimal_estimate
from functions import wasserstein_estimate


def wasserstein_critic(value_real: paddle.Tensor, value_fake: paddle.Tensor) -> paddle.Tensor:
    """E[D(fake)] - E[D(real)] (Arjovsky et al., arXiv 1701.07875)."""
    return -wasserstein_estimate(value_real, value_fake)


def wasserstein_generator(value_fake: paddle.Tensor) -> paddle.Tensor:
    """-E[D(fake)]."""
    return -value_fake.mean()


def gan_critic(value_real: paddle.Tensor, value_fake: paddle.Tensor) -> paddle.Tensor:
    """Cross entropy of real against fake; values are logits (Goodfellow et al., 1406.2661)."""
    # -log sigmoid(x) is softplus(-x), and softplus does not overflow.
    return F.softplus(-value_real).mean() + F.softplus(value_fake).mean()


def gan_generator(value_fake: paddle.Tensor) -> paddle.Tensor:
    """-E[log sigmoid(D(fake))], the loss that does not saturate (1406.2661, section 3)."""
    return F.softplus(-value_fake).mean()


def hinge_critic(value_real: paddle.Tensor, value_fake: paddle.Tensor) -> paddle.Tensor:
    """E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))] (Miyato et al., arXiv 1802.05957, eq. 16)."""
    return F.relu(1.0 - value_real).mean() + F.relu(1.0 + value_fake).mean()


def one_sided_penalty(norm: paddle.Tensor) -> paddle.Tensor:
    """E[max(0, ||grad D|| - 1)^2], which lets slopes be smaller than 1.

    Section 4 of the paper names it; Petzka et al. (arXiv 1709.08894) call it WGAN-LP.

    Args:
        norm: Gradient norms, [N].
    """
    return F.relu(norm - 1.0).square().mean()


def gradient_power(norm: paddle.Tensor, power: float) -> paddle.Tensor:
    """E[||grad D||^p], the penalty of WGAN-div (Wu et al., arXiv 1712.01026).

    Args:
        norm: Gradient norms, [N].
        power: p; 6 in the paper.
    """
    return (norm**power).mean()


def make_objective(loss: DictConfig) -> Objective:
    """Makes the objective that the section LOSS asks for.

    Args:
        loss: The section LOSS (name, penalty_weight, clip, k, p).
    """
    wasserstein = wasserstein_critic, wasserstein_generator
    return {
        "wgan_gp": Objective(
            *wasserstein,
            gradient_penalty,
            loss.penalty_weight,
            optimal_estimate=optimal_estimate,
        ),
        "wgan_lp": Objective(*wasserstein, one_sided_penalty, loss.penalty_weight),
        "wgan": Objective(*wasserstein, clip=loss.clip),
        "wgan_div": Objective(
            *wasserstein,
            lambda norm: gradient_power(norm, loss.p),
            loss.k,
            # The derivation of `optimal_estimate`, for the penalty E[g^p].
            optimal_estimate=lambda penalty, norm, weight: loss.p * weight * penalty,
        ),
        "hinge": Objective(hinge_critic, wasserstein_generator),
        "gan": Objective(gan_critic, gan_generator),
    }[loss.name]
