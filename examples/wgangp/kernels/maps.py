# SPDX-License-Identifier: Apache-2.0
"""Linear maps and ReLUs that networks are made of, rewritten exactly for speed."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Callable
from typing import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import tape
from kernels.broadcast import add_bias
from kernels.broadcast import is_on_cpu

_is_differentiated_twice = False
# Places (height times width) up to which a convolution's products are made in one batch. At more
# the patches, nine times a picture or more, cost what the batch gains.
MAX_BATCHED_PLACES = 49


@contextlib.contextmanager
def twice_differentiable():
    """Within it, maps are made of operators that have second derivatives in Paddle."""
    global _is_differentiated_twice
    before, _is_differentiated_twice = _is_differentiated_twice, True
    try:
        yield
    finally:
        _is_differentiated_twice = before


def _apply(function: Callable, x, weight, bias):
    """`function(x, weight) + bias`, noted or followed by a tape if there is one."""
    if tape.current is None:
        return add_bias(function(x, weight), bias)
    return tape.current.linear_map(function, x, weight, bias)


def _is_batched(x: paddle.Tensor, weight: paddle.Tensor, places: int) -> bool:
    if weight.shape[2] == 1 or _is_differentiated_twice or not is_on_cpu(x):
        return False
    return places <= MAX_BATCHED_PLACES


def _convolve(x, weight, stride: int, padding):
    """`F.conv2d(x, weight, None, stride, padding)`, on a CPU by one batch of products if small.

    Paddle's own multiplies a picture at a time, for which its threads must wait for each other.
    """
    size, around, out = weight.shape[2], [], []
    for length in x.shape[2:]:
        if padding == "SAME":  # as in TensorFlow
            lacking = max((-(-length // stride) - 1) * stride + size - length, 0)
            around.append((lacking // 2, lacking - lacking // 2))
        else:
            around.append((padding, padding))
        out.append((length + sum(around[-1]) - size) // stride + 1)
    if not _is_batched(x, weight, math.prod(out)):
        return F.conv2d(x, weight, None, stride, padding)
    (top, bottom), (left, right) = around
    patches = F.unfold(x, size, stride, [top, left, bottom, right])
    return (weight.reshape([len(weight), -1]) @ patches).reshape([len(x), -1, *out])


def _convolve_transposed(x, weight, padding: Sequence[int]):
    """`F.conv2d_transpose` of stride 2, padding [top, bottom, left, right]; as `_convolve`."""
    if not _is_batched(x, weight, math.prod(x.shape[2:])):
        return F.conv2d_transpose(x, weight, None, 2, list(padding))
    size = weight.shape[2]
    top, bottom, left, right = padding
    height, width = (2 * length - 2 + size for length in x.shape[2:])
    flat = weight.reshape([len(weight), -1])
    patches = paddle.matmul(flat, x.reshape([*x.shape[:2], -1]), transpose_x=True)
    # whose own padding is alike on all sides
    whole = F.fold(patches, [height, width], size, 2)
    return whole[:, :, top : height - bottom, left : width - right]


def linear(x: paddle.Tensor, layer: nn.Linear) -> paddle.Tensor:
    """`layer(x)`."""
    return _apply(paddle.matmul, x, layer.weight, layer.bias)


def conv(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """`layer(x)`."""

    def function(x, weight):
        return _convolve(x, weight, layer._stride[0], layer._padding)

    return _apply(function, x, layer.weight, layer.bias)


def conv_transpose(x: paddle.Tensor, layer: nn.Conv2DTranspose) -> paddle.Tensor:
    """`layer(x)`, of a layer of stride 2 (see `functions.conv_transpose`)."""

    def function(x, weight):
        return _convolve_transposed(x, weight, layer._padding)

    return _apply(function, x, layer.weight, layer.bias)


def conv_mean_pool(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """`avg_pool2d(layer(x), 2)` of a 1x1 or 3x3 layer, in a quarter or 4/9 of the operations.

    A 1x1 layer and the pool may change places. A 3x3 layer and the pool are one 4x4
    convolution of stride 2, whose kernel is the mean of four shifted copies of the layer's.
    """
    if layer.weight.shape[2] == 1:
        return conv(F.avg_pool2d(x, 2), layer)

    def function(x, weight):
        return _convolve(x, _merge_kernel(weight, "pool"), stride=2, padding=1)

    return _apply(function, x, layer.weight, layer.bias)


def upsample_conv(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """`layer(interpolate(x, scale_factor=2))` of a 1x1 or 3x3 layer; nearest neighbours.

    A 1x1 layer and the doubling may change places. A doubling and a 3x3 layer are one 4x4
    transposed convolution of stride 2.
    """
    if layer.weight.shape[2] == 1:
        return upsample(conv(x, layer))
    if not paddle.in_dynamic_mode():  # an exported program is kept plain
        return conv(upsample(x), layer)

    def function(x, weight):
        kernel = _merge_kernel(weight.transpose([1, 0, 2, 3]), "upsample")
        return _convolve_transposed(x, kernel, [1, 1, 1, 1])

    return _apply(function, x, layer.weight, layer.bias)


def upsample(x: paddle.Tensor) -> paddle.Tensor:
    """Doubles height and width [N, C, H, W] by repeating each pixel, as `F.interpolate` does."""
    count, channels, height, width = x.shape
    x = x.reshape([count, channels, height, 1, width, 1]).expand([-1, -1, -1, 2, -1, 2])
    return x.reshape([count, channels, 2 * height, 2 * width])


@functools.cache
def _merging_matrix(name: str) -> paddle.Tensor:
    axis = {
        "pool": np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2,
        "upsample": np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]),
    }[name]
    return paddle.to_tensor(np.kron(axis, axis).T.astype("float32"))


def _merge_kernel(weight: paddle.Tensor, name: str) -> paddle.Tensor:
    """A 3x3 kernel [A, B, 3, 3] as the 4x4 one of the two maps in one."""
    first, second = weight.shape[:2]
    flat = weight.reshape([first * second, 9]) @ _merging_matrix(name).astype(weight.dtype)
    return flat.reshape([first, second, 4, 4])


def relu(x: paddle.Tensor, slope: float = 0.0) -> paddle.Tensor:
    """ReLU, leaky if there is a slope."""
    if tape.current is not None:
        return tape.current.gate(x, slope)
    return F.leaky_relu(x, slope) if slope else F.relu(x)
