# SPDX-License-Identifier: Apache-2.0
"""The linear maps and ReLUs of networks, in exact rewrites that run faster.

Makers of layers are in `networks.layers`; the functions here apply a layer to its input.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Callable
from typing import Iterator
from typing import Sequence
from typing import Union

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import tape
from kernels.broadcast import add_bias
from kernels.broadcast import is_on_cpu

_is_differentiated_twice = False
# A convolution of up to that many pixels (height times width of its output) unfolds its input into
# patches. The patches of larger pictures, nine times their size or more, cost what they gain.
MAX_UNFOLDED_PIXELS = 49


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Makes the maps inside use only operators that have second derivatives in Paddle."""
    global _is_differentiated_twice
    before, _is_differentiated_twice = _is_differentiated_twice, True
    try:
        yield
    finally:
        _is_differentiated_twice = before


def _apply(
    function: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor],
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
) -> paddle.Tensor:
    """Computes `function(x, weight) + bias`, through the current tape if there is one."""
    if tape.current is None:
        return add_bias(function(x, weight), bias)
    return tape.current.linear_map(function, x, weight, bias)


def _unfolds(x: paddle.Tensor, weight: paddle.Tensor, pixels: int) -> bool:
    """Whether a convolution of so many pixels is computed from patches of its input."""
    if weight.shape[2] == 1 or _is_differentiated_twice or not is_on_cpu(x):
        return False
    return pixels <= MAX_UNFOLDED_PIXELS


def _convolve(
    x: paddle.Tensor, weight: paddle.Tensor, stride: int, padding: Union[int, str]
) -> paddle.Tensor:
    """Computes `F.conv2d(x, weight, None, stride, padding)`.

    On a CPU a small one is a batch of matrix products. Paddle's own operator multiplies one
    picture at a time, so that its threads wait for each other.
    """
    size, around, out = weight.shape[2], [], []
    for length in x.shape[2:]:
        if padding == "SAME":  # TensorFlow's rule
            lacking = max((-(-length // stride) - 1) * stride + size - length, 0)
            around.append((lacking // 2, lacking - lacking // 2))
        else:
            around.append((padding, padding))
        out.append((length + sum(around[-1]) - size) // stride + 1)
    if not _unfolds(x, weight, math.prod(out)):
        return F.conv2d(x, weight, None, stride, padding)
    (top, bottom), (left, right) = around
    patches = F.unfold(x, size, stride, [top, left, bottom, right])
    return (weight.reshape([len(weight), -1]) @ patches).reshape([len(x), -1, *out])


def _convolve_transposed(
    x: paddle.Tensor, weight: paddle.Tensor, padding: Sequence[int]
) -> paddle.Tensor:
    """Computes `F.conv2d_transpose` of stride 2 in the way of `_convolve`.

    Args:
        x: Pictures, [N, C, H, W].
        weight: The kernel, [C, D, size, size].
        padding: Pixels that are cut off: top, bottom, left, right.
    """
    if not _unfolds(x, weight, math.prod(x.shape[2:])):
        return F.conv2d_transpose(x, weight, None, 2, list(padding))
    size = weight.shape[2]
    top, bottom, left, right = padding
    height, width = (2 * length - 2 + size for length in x.shape[2:])
    flat = weight.reshape([len(weight), -1])
    patches = paddle.matmul(flat, x.reshape([*x.shape[:2], -1]), transpose_x=True)
    # F.fold cuts the same off at all sides, so the slice below does it.
    whole = F.fold(patches, [height, width], size, 2)
    return whole[:, :, top : height - bottom, left : width - right]


def linear(x: paddle.Tensor, layer: nn.Linear) -> paddle.Tensor:
    """Computes `layer(x)`."""
    return _apply(paddle.matmul, x, layer.weight, layer.bias)


def conv(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """Computes `layer(x)`."""

    def function(x, weight):
        return _convolve(x, weight, layer._stride[0], layer._padding)

    return _apply(function, x, layer.weight, layer.bias)


def conv_transpose(x: paddle.Tensor, layer: nn.Conv2DTranspose) -> paddle.Tensor:
    """Computes `layer(x)` of a layer of stride 2 (`networks.layers.make_conv_transpose`)."""

    def function(x, weight):
        return _convolve_transposed(x, weight, layer._padding)

    return _apply(function, x, layer.weight, layer.bias)


def conv_mean_pool(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """Computes `avg_pool2d(layer(x), 2)` with a quarter or 4/9 of the operations.

    A 1x1 layer and the pool may change places. A 3x3 layer and the pool are one 4x4
    convolution of stride 2. Its kernel is the mean of four shifted copies of the layer's.

    Args:
        x: Pictures [N, C, H, W] of even height and width.
        layer: A 1x1 or 3x3 convolution of stride 1 that keeps height and width.
    """
    if layer.weight.shape[2] == 1:
        return conv(F.avg_pool2d(x, 2), layer)

    def function(x, weight):
        return _convolve(x, _fold_resampling(weight, "pool"), stride=2, padding=1)

    return _apply(function, x, layer.weight, layer.bias)


def upsample_conv(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """Computes `layer(upsample(x))` with a quarter or 4/9 of the operations.

    A 1x1 layer and the upsampling may change places. The upsampling and a 3x3 layer are one
    4x4 transposed convolution of stride 2.

    Args:
        x: Pictures [N, C, H, W].
        layer: A 1x1 or 3x3 convolution of stride 1 that keeps height and width.
    """
    if layer.weight.shape[2] == 1:
        return upsample(conv(x, layer))
    if not paddle.in_dynamic_mode():  # An exported program gets the plain operators.
        return conv(upsample(x), layer)

    def function(x, weight):
        kernel = _fold_resampling(weight.transpose([1, 0, 2, 3]), "upsample")
        return _convolve_transposed(x, kernel, [1, 1, 1, 1])

    return _apply(function, x, layer.weight, layer.bias)


def upsample(x: paddle.Tensor) -> paddle.Tensor:
    """Doubles height and width of [N, C, H, W] by nearest neighbours, as `F.interpolate` does."""
    count, channels, height, width = x.shape
    x = x.reshape([count, channels, height, 1, width, 1]).expand([-1, -1, -1, 2, -1, 2])
    return x.reshape([count, channels, 2 * height, 2 * width])


@functools.cache
def _folding_matrix(resampling: str) -> paddle.Tensor:
    """The linear map, [9, 16], of flat 3x3 kernels to 4x4 ones that resample as well."""
    along_an_axis = {
        "pool": np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2,
        "upsample": np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]),
    }[resampling]
    return paddle.to_tensor(np.kron(along_an_axis, along_an_axis).T.astype("float32"))


def _fold_resampling(weight: paddle.Tensor, resampling: str) -> paddle.Tensor:
    """Folds a resampling into a convolution's kernel.

    Args:
        weight: The kernel, [A, B, 3, 3].
        resampling: "pool" (2x2 mean pool after the convolution) or "upsample" (nearest
            neighbours before it).

    Returns:
        The kernel of both maps in one, of stride 2, [A, B, 4, 4].
    """
    rows, columns = weight.shape[:2]
    flat = weight.reshape([rows * columns, 9]) @ _folding_matrix(resampling).astype(weight.dtype)
    return flat.reshape([rows, columns, 4, 4])


def relu(x: paddle.Tensor, slope: float = 0.0) -> paddle.Tensor:
    """Applies a ReLU, or a leaky one if the slope on its negative side is not 0."""
    if tape.current is not None:
        return tape.current.relu(x, slope)
    return F.leaky_relu(x, slope) if slope else F.relu(x)
