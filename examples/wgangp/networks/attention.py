# SPDX-License-Identifier: Apache-2.0
"""Self-attention (Zhang et al., arXiv 1805.08318)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import maps
from networks.layers import make_conv

# f, g and h leave a quarter of the channels; the paper found shares from all to an eighth alike.
SHARE = 4


class SelfAttention(nn.Layer):
    """Each pixel of pictures x gets a mixture of all pixels, y = x + gamma * o.

    `o_j = v(sum_i beta_ji h(x_i))` with `beta_ji = softmax_i(f(x_i) . g(x_j))`, where f, g, h and v
    are 1x1 convolutions (equations 1 to 3 of the paper). gamma begins at 0, so a fresh layer
    changes nothing. For C channels and P pixels, the mixture takes O(P^2 C) operations and P^2
    numbers a picture.

    Args:
        channels: Channels of the pictures, at least 4.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.inner = channels // SHARE
        self.f, self.g, self.h = (
            make_conv(channels, self.inner, 1, gain="glorot") for _ in range(3)
        )
        self.v = make_conv(self.inner, channels, 1, gain="glorot")
        self.gamma = self.create_parameter([1], is_bias=True)

    def forward(self, x: maps.AnyPictures) -> maps.AnyPictures:
        height, width = x.shape[2:]
        f, g, h = (
            maps.leave(maps.conv(x, layer)).reshape([-1, self.inner, height * width])
            for layer in (self.f, self.g, self.h)
        )
        beta = _softmax(paddle.matmul(g, f, transpose_x=True))
        o = paddle.matmul(h, beta, transpose_y=True).reshape([-1, self.inner, height, width])
        return maps.enter(x) + maps.enter(self.gamma * maps.leave(maps.conv(o, self.v)))


def _softmax(x: paddle.Tensor) -> paddle.Tensor:
    """The softmax over the last axis; Paddle's own has no second derivative."""
    if not maps.is_differentiated_twice():
        return F.softmax(x)
    powers = paddle.exp(x - paddle.amax(x, axis=-1, keepdim=True).detach())
    return powers / powers.sum(-1, keepdim=True)
