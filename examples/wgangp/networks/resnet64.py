# SPDX-License-Identifier: Apache-2.0
"""Residual networks for 64x64 pictures."""

from __future__ import annotations

from typing import Optional

import paddle.nn.functional as F
from paddle import nn

from kernels import maps
from networks.attention import SelfAttention
from networks.base import Critic
from networks.base import Generator
from networks.layers import make_conv
from networks.layers import make_conv_transpose
from networks.layers import make_linear
from networks.layers import project
from networks.normalisation import BatchNorm
from networks.normalisation import make_critic_norm
from networks.spectral import normalise_weights

WIDTHS = (1, 2, 4, 8, 8)  # channels at 64x64, 32x32, ..., 4x4 in units of `dim`
ATTENTION_SIZE, ATTENTION_WIDTH = 16, 4  # where self-attention is, and the channels there


class DownBlock(nn.Layer):
    """Three 3x3 convolutions, the third of stride 2, plus a shortcut: a 1x1 one of stride 2.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        norm: "layer" or "batch": normalisation before each convolution of the block; None or
            "spectral" for none.
    """

    def __init__(self, n_in: int, n_out: int, norm: Optional[str]):
        super().__init__()
        self.norms = nn.LayerList([make_critic_norm(norm, n) for n in (n_in, n_out, n_out)])
        self.convs = nn.LayerList(
            [
                make_conv(n_in, n_out, 3),
                make_conv(n_out, n_out, 3),
                make_conv(n_out, n_out, 3, stride=2),
            ]
        )
        self.shortcut = make_conv(n_in, n_out, 1, stride=2, gain="glorot")

    def forward(self, x):
        h = x
        for norm, layer in zip(self.norms, self.convs):
            h = maps.conv(maps.relu(norm(h), 0.2), layer)
        return h + maps.conv(x, self.shortcut)


class UpBlock(nn.Layer):
    """Two 3x3 convolutions and a transposed 4x4 one, plus a shortcut: a transposed 2x2 one.

    Both transposed convolutions have stride 2.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        num_classes: Number of classes of the batch normalisation before each convolution; 0
            for no labels.
    """

    def __init__(self, n_in: int, n_out: int, num_classes: int):
        super().__init__()
        self.norms = nn.LayerList([BatchNorm(n_in, num_classes) for _ in range(3)])
        self.convs = nn.LayerList(
            [
                make_conv(n_in, n_in, 3),
                make_conv(n_in, n_in, 3),
                make_conv_transpose(n_in, n_out, 4),
            ]
        )
        self.shortcut = make_conv_transpose(n_in, n_out, 2)

    def forward(self, x, labels):
        h = x
        for norm, layer in zip(self.norms[:2], self.convs[:2]):
            h = maps.conv(maps.relu(norm(h, labels)), layer)
        h = maps.conv_transpose(maps.relu(self.norms[2](h, labels)), self.convs[2])
        return h + maps.conv_transpose(x, self.shortcut)


class Resnet64Generator(Generator):
    """Noise [N, noise_dim], labels [N] -> pictures [N, 3, 64, 64] in [-1, 1].

    Args:
        dim: Channels at 64x64; 8 times as many at 4x4.
        noise_dim: Length of a noise vector.
        num_classes: Number of classes (conditional batch normalisation); 0 for no labels.
        attention: Whether there is self-attention at 16x16.
    """

    def __init__(
        self, dim: int = 64, noise_dim: int = 128, num_classes: int = 0, attention: bool = False
    ):
        super().__init__(noise_dim, num_classes)
        self.dim = dim
        widths = [dim * width for width in reversed(WIDTHS)]
        self.linear = make_linear(noise_dim, 4 * 4 * widths[0])
        self.blocks = nn.LayerList([UpBlock(a, b, num_classes) for a, b in zip(widths, widths[1:])])
        self.norm = BatchNorm(dim)
        self.conv = make_conv(dim, 3, 3, gain="glorot")
        self.attention = SelfAttention(ATTENTION_WIDTH * dim) if attention else None

    def generate(self, noise, labels=None):
        h = maps.linear(noise, self.linear).reshape([-1, WIDTHS[-1] * self.dim, 4, 4])
        h = maps.enter(h)
        for block in self.blocks:
            h = block(h, labels)
            if self.attention is not None and h.shape[2] == ATTENTION_SIZE:
                h = self.attention(h)
        return F.tanh(maps.leave(maps.conv(maps.relu(self.norm(h)), self.conv)))


class Resnet64Discriminator(Critic):
    """Pictures [N, 3, 64, 64] -> values [N], logits [N, K].

    Args:
        dim: Channels at 64x64; 8 times as many at 4x4.
        norm: None, "spectral" (of all weights), "layer" or "batch" (in the blocks).
        num_classes: Classes of the AC-GAN head; 0 for no head.
        projection: Whether values depend on labels; only with classes.
        attention: Whether there is self-attention at 16x16. It is not piecewise linear.
    """

    def __init__(
        self,
        dim: int = 64,
        norm: Optional[str] = "layer",
        num_classes: int = 0,
        projection: bool = False,
        attention: bool = False,
    ):
        super().__init__()
        self.takes_labels = num_classes > 0 and projection
        self.piecewise_linear = norm in (None, "spectral") and not attention
        widths = [dim * width for width in WIDTHS]
        self.conv = make_conv(3, dim, 3)
        self.blocks = nn.LayerList([DownBlock(a, b, norm) for a, b in zip(widths, widths[1:])])
        features = 4 * 4 * widths[-1]
        self.linear = make_linear(features, 1)
        self.linear_class = make_linear(features, num_classes) if num_classes else None
        self.linear_projection = make_linear(features, num_classes) if self.takes_labels else None
        self.attention = SelfAttention(ATTENTION_WIDTH * dim) if attention else None
        normalise_weights(self, norm)

    def score(self, samples, labels=None):
        h = maps.conv(samples, self.conv)
        for block in self.blocks:
            h = block(h)
            if self.attention is not None and h.shape[2] == ATTENTION_SIZE:
                h = self.attention(h)
        h = maps.flatten(maps.relu(h, 0.2))
        logits = None if self.linear_class is None else maps.linear(h, self.linear_class)
        value = maps.linear(h, self.linear).squeeze(1)
        if self.takes_labels:
            value = value + project(h, labels, self.linear_projection)
        return value, logits
