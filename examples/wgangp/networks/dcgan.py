# SPDX-License-Identifier: Apache-2.0
"""DCGAN's networks (Radford et al., arXiv 1511.06434) for 64x64 pictures."""

from __future__ import annotations

from typing import Optional

import paddle.nn.functional as F
from paddle import nn

from kernels import maps
from networks.base import Critic
from networks.base import Generator
from networks.layers import make_conv_transpose
from networks.layers import make_linear
from networks.layers import project
from networks.normalisation import BatchNorm
from networks.normalisation import make_critic_norm
from networks.spectral import normalise_weights


def _initialise(network: nn.Layer) -> None:
    """Draws weights from N(0, 0.02^2), as in section 4 of the paper."""
    draw = nn.initializer.Normal(0.0, 0.02)
    for layer in network.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose, nn.Linear)):
            draw(layer.weight)


class Dcgan64Generator(Generator):
    """Noise [N, noise_dim], labels [N] -> pictures [N, 3, 64, 64] in [-1, 1].

    Args:
        dim: Channels at 32x32; 8 times as many at 4x4.
        noise_dim: Length of a noise vector.
        num_classes: Number of classes (conditional batch normalisation); 0 for no labels.
    """

    def __init__(self, dim: int = 64, noise_dim: int = 128, num_classes: int = 0):
        super().__init__(noise_dim, num_classes)
        self.dim = dim
        widths = [8 * dim, 4 * dim, 2 * dim, dim]
        self.linear = make_linear(noise_dim, 4 * 4 * 8 * dim)
        self.norms = nn.LayerList([BatchNorm(width, num_classes) for width in widths])
        self.deconvs = nn.LayerList(
            [make_conv_transpose(a, b, 4) for a, b in zip(widths, [*widths[1:], 3])]
        )
        _initialise(self)

    def generate(self, noise, labels=None):
        h = maps.linear(noise, self.linear).reshape([-1, 8 * self.dim, 4, 4])
        for norm, deconv in zip(self.norms, self.deconvs):
            h = maps.conv_transpose(maps.relu(norm(h, labels)), deconv)
        return F.tanh(maps.leave(h))


class Dcgan64Discriminator(Critic):
    """Pictures [N, 3, 64, 64] -> values [N], logits [N, K].

    Args:
        dim: Channels at 32x32; 8 times as many at 4x4.
        norm: None, "spectral" (of all weights), "layer" or "batch" (after each convolution but the
            first).
        num_classes: Classes of the AC-GAN head; 0 for no head.
        projection: Whether values depend on labels; only with classes.
    """

    def __init__(
        self,
        dim: int = 64,
        norm: Optional[str] = "layer",
        num_classes: int = 0,
        projection: bool = False,
    ):
        super().__init__()
        self.takes_labels = num_classes > 0 and projection
        self.piecewise_linear = norm in (None, "spectral")
        widths = [dim, 2 * dim, 4 * dim, 8 * dim]
        self.convs = nn.LayerList(
            [nn.Conv2D(a, b, 4, stride=2, padding=1) for a, b in zip([3, *widths], widths)]
        )
        self.norms = nn.LayerList(
            [
                make_critic_norm(norm if number > 0 else None, width)
                for number, width in enumerate(widths)
            ]
        )
        self.linear = make_linear(8 * dim, 1)
        self.linear_class = make_linear(8 * dim, num_classes) if num_classes else None
        self.linear_projection = make_linear(8 * dim, num_classes) if self.takes_labels else None
        _initialise(self)
        normalise_weights(self, norm)

    def score(self, samples, labels=None):
        h = samples
        for layer, norm in zip(self.convs, self.norms):
            h = maps.relu(norm(maps.conv(h, layer)), 0.2)
        h = maps.mean(h)
        logits = None if self.linear_class is None else maps.linear(h, self.linear_class)
        value = maps.linear(h, self.linear).squeeze(1)
        if self.takes_labels:
            value = value + project(h, labels, self.linear_projection)
        return value, logits
