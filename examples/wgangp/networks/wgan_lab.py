# SPDX-License-Identifier: Apache-2.0
"""The networks of the "WGAN lab", an exercise that many courses use."""

from __future__ import annotations

from typing import Optional

import paddle.nn.functional as F

from kernels import maps
from networks.base import Critic
from networks.base import Generator
from networks.layers import make_conv
from networks.layers import make_conv_transpose
from networks.layers import make_linear
from networks.layers import project
from networks.normalisation import BatchNorm
from networks.normalisation import make_critic_norm
from networks.spectral import normalise_weights


class WganLabGenerator(Generator):
    """Noise [N, noise_dim], labels [N] -> digits [N, 1, 28, 28] in [-1, 1].

    Args:
        dim: Channels at 14x14; twice as many at 7x7, and 16 times as many after the first layer.
        noise_dim: Length of a noise vector.
        num_classes: Number of classes (conditional batch normalisation); 0 for no labels.
    """

    def __init__(self, dim: int = 64, noise_dim: int = 100, num_classes: int = 0):
        super().__init__(noise_dim, num_classes)
        self.dim = dim
        self.linear_1 = make_linear(noise_dim, 16 * dim, "he")
        self.norm_1 = BatchNorm(16 * dim, num_classes)
        self.linear_2 = make_linear(16 * dim, 2 * dim * 7 * 7, "he")
        self.norm_2 = BatchNorm(2 * dim * 7 * 7, num_classes)
        self.deconv_1 = make_conv_transpose(2 * dim, dim, 4)
        self.norm_3 = BatchNorm(dim, num_classes)
        self.deconv_2 = make_conv_transpose(dim, 1, 4)

    def generate(self, noise, labels=None):
        h = F.relu(self.norm_1(maps.linear(noise, self.linear_1), labels))
        h = F.relu(self.norm_2(maps.linear(h, self.linear_2), labels))
        h = h.reshape([-1, 2 * self.dim, 7, 7])
        h = maps.relu(self.norm_3(maps.conv_transpose(h, self.deconv_1), labels))
        return F.tanh(maps.leave(maps.conv_transpose(h, self.deconv_2)))


class WganLabDiscriminator(Critic):
    """Digits [N, 1, 28, 28] -> values [N], logits [N, K].

    Args:
        dim: Channels at 14x14; twice as many at 7x7.
        norm: None, "spectral" (of all weights), "layer" or "batch" (after each convolution).
        num_classes: Classes of the AC-GAN head; 0 for no head.
        projection: Whether values depend on labels; only with classes.
    """

    def __init__(
        self,
        dim: int = 32,
        norm: Optional[str] = "batch",
        num_classes: int = 0,
        projection: bool = False,
    ):
        super().__init__()
        self.takes_labels = num_classes > 0 and projection
        self.piecewise_linear = norm in (None, "spectral")
        self.conv_1, self.norm_1 = make_conv(1, dim, 5, stride=2), make_critic_norm(norm, dim)
        self.conv_2, self.norm_2 = (
            make_conv(dim, 2 * dim, 5, stride=2),
            make_critic_norm(norm, 2 * dim),
        )
        self.linear_1 = make_linear(2 * dim * 7 * 7, 32 * dim, "he")
        self.linear_2 = make_linear(32 * dim, 1)
        self.linear_class = make_linear(32 * dim, num_classes) if num_classes else None
        self.linear_projection = make_linear(32 * dim, num_classes) if self.takes_labels else None
        normalise_weights(self, norm)

    def score(self, samples, labels=None):
        h = maps.relu(self.norm_1(maps.conv(samples, self.conv_1)), 0.2)
        h = maps.relu(self.norm_2(maps.conv(h, self.conv_2)), 0.2)
        h = maps.relu(maps.linear(maps.flatten(h), self.linear_1), 0.2)
        logits = None if self.linear_class is None else maps.linear(h, self.linear_class)
        value = maps.linear(h, self.linear_2).squeeze(1)
        if self.takes_labels:
            value = value + project(h, labels, self.linear_projection)
        return value, logits
