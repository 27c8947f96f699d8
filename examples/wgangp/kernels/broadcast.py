# SPDX-License-Identifier: Apache-2.0
"""Numbers per channel, spread over the places of a picture."""

from __future__ import annotations

import math

import paddle


def add_bias(y, bias):
    if not is_on_cpu(y):
        return y + bias.reshape([1, -1] + [1] * (y.ndim - 2))
    rows = paddle.ones([len(y), 1], bias.dtype) @ bias.unsqueeze(0)  # see `broadcast_channels`
    return y + (broadcast_channels(rows, y) if y.ndim > 2 else rows)


def is_on_cpu(x: paddle.Tensor) -> bool:
    """Whether it is; an exported program, which has no place yet, is kept plain."""
    return paddle.in_dynamic_mode() and x.place.is_cpu_place()


def broadcast_channels(columns: paddle.Tensor, like: paddle.Tensor) -> paddle.Tensor:
    """Numbers per sample and channel [N, C], so that they go with a tensor [N, C, ...].

    On a CPU, where broadcasting is several times slower, by a matrix product; by which the
    sum over places is one, too, in the backward pass.
    """
    count, channels = like.shape[:2]
    if not is_on_cpu(like):
        return columns.reshape([count, channels] + [1] * (like.ndim - 2))
    ones = paddle.ones([1, math.prod(like.shape[2:])], columns.dtype)
    return (columns.reshape([count * channels, 1]) @ ones).reshape(like.shape)
