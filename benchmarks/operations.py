# SPDX-License-Identifier: Apache-2.0
"""Counts the operations of an iteration, as this suite computes it."""

from __future__ import annotations

from typing import Tuple

import common

# Passes of a sample through the critic in its step. Real and fake samples pass forward, and back
# to activations and to weights. Interpolated ones pass forward, back, as tangents, and back to
# weights.
CRITIC_PASSES = 2 * 3 + 4
# A normalisation needs second derivatives. They add two passes through the first one: back to
# activations and to weights.
NORMALISED_CRITIC_PASSES = CRITIC_PASSES + 2
INCEPTION_GFLOP = 11.422336192  # of a picture, in the convolutions


def _count_dcgan64(w: int) -> Tuple[int, int]:
    """Multiplications of DCGAN's generator and critic."""
    # 4x4 kernels of stride 2, from 8w channels at 4x4 pixels to w at 32x32
    shared = 16 * w * w * (8 * 4 * 16 + 4 * 2 * 64 + 2 * 256)
    color = 16 * 3 * w * 1024
    return 128 * 16 * 8 * w + shared + color, color + shared + 8 * w


def _count_resnet64(w: int) -> Tuple[int, int]:
    """Multiplications of the residual generator and critic for 64x64 pictures."""
    generator, critic = 128 * 16 * 8 * w + 9 * 3 * w * 4096, 9 * 3 * w * 4096 + 16 * 8 * w
    widths = (w, 2 * w, 4 * w, 8 * w, 8 * w)
    for number, (a, b) in enumerate(zip(widths, widths[1:])):
        large, small = 4096 >> 2 * number, 1024 >> 2 * number  # pixels
        critic += 9 * (a * b + b * b) * large + (9 * b * b + a * b) * small
        generator += 9 * 2 * b * b * small + (16 + 4) * a * b * small
    return generator, critic


def count_operations(experiment: str, width: int) -> Tuple[float, float]:
    """GFLOP of a sample's forward pass through our generator and through our critic."""
    w = width
    if experiment == "toy":
        hidden = 2 * w * w
        generator, critic = 2 * w + hidden + 2 * w, 2 * w + hidden + w
    elif experiment == "mnist":
        generator = 128 * 64 * w + 25 * (8 * w * w * 16 + 2 * w * w * 49 + w * 196)
        critic = 25 * (w * 196 + 2 * w * w * 49 + 8 * w * w * 16) + 64 * w
    elif experiment == "cifar10":
        generator = 128 * 16 * w + 27 * w * 1024
        for size in (8, 16, 32):
            # The merged convolution sees the smaller picture; the shortcut does, too.
            generator += w * w * size**2 * (16 / 4 + 9 + 1 / 4)
        critic = w * 1024 * 27 + w * w * 256 * 16 + 3 * w * 256
        critic += w * w * (256 * 9 + 64 * 16 + 64) + 4 * w * w * 64 * 9 + 11 * w
    else:
        count = {"dcgan64": _count_dcgan64, "resnet64": _count_resnet64}[experiment]
        generator, critic = count(w)
    return 2 * generator / 1e9, 2 * critic / 1e9


def count_iteration(experiment: str, width: int, batch: int) -> float:
    """GFLOP of an iteration: the critic's steps and one of the generator."""
    generator, critic = count_operations(experiment, width)
    setup = common.SETUPS[experiment]
    passes = NORMALISED_CRITIC_PASSES if setup.script == "image64" else CRITIC_PASSES
    work = common.CRITIC_STEPS * batch * (generator + passes * critic)
    return work + setup.generator_batch_factor * batch * (3 * generator + 2 * critic)
