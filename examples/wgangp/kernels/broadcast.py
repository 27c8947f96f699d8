# SPDX-License-Identifier: Apache-2.0
"""Numbers per channel, repeated over the pixels of a picture."""

from __future__ import annotations

import math

import paddle


def add_bias(y: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
    """Adds a bias [C] to the channels of a tensor [N, C, ...]."""
    if not is_on_cpu(y):
        return y + bias.reshape([1, -1] + [1] * (y.ndim - 2))
    # A matrix product, for the reason given in `broadcast_channels`.
    rows = paddle.ones([len(y), 1], bias.dtype) @ bias.unsqueeze(0)
    return y + (broadcast_channels(rows, y) if y.ndim > 2 else rows)


def is_on_cpu(x: paddle.Tensor) -> bool:
    """Whether a tensor lies in a CPU's memory.

    It is False while a program is exported: the program gets the plain operators.
    """
    return paddle.in_dynamic_mode() and x.place.is_cpu_place()


def broadcast_channels(values: paddle.Tensor, like: paddle.Tensor) -> paddle.Tensor:
    """Broadcasts numbers per sample and channel, [N, C], to a tensor [N, C, ...].

    On a CPU this is a matrix product, since Paddle's broadcasting is several times slower there.
    The sum over pixels in the backward pass is then a matrix product, too.

    Args:
        values: Numbers, [N, C].
        like: A tensor [N, C, ...].

    Returns:
        On a CPU the numbers in the shape of `like`; elsewhere [N, C, 1, ...].
    """
    count, channels = like.shape[:2]
    if not is_on_cpu(like):
        return values.reshape([count, channels] + [1] * (like.ndim - 2))
    ones = paddle.ones([1, math.prod(like.shape[2:])], values.dtype)
    return (values.reshape([count * channels, 1]) @ ones).reshape(like.shape)
