# SPDX-License-Identifier: Apache-2.0
"""Convolutions [N, C, H, W] by Paddle's own operators, where oneDNN does not serve."""

from __future__ import annotations

import math
from typing import Tuple

import paddle
import paddle.nn.functional as F

from kernels.broadcast import is_on_cpu

# A convolution of up to that many pixels (height times width of its output) unfolds its input into
# patches. The patches of larger pictures, nine times their size or more, cost what they gain.
MAX_UNFOLDED_PIXELS = 49


def _unfolds(x: paddle.Tensor, weight: paddle.Tensor, pixels: int) -> bool:
    """Whether a convolution of that many pixels is computed from patches of its input."""
    return weight.shape[2] > 1 and is_on_cpu(x) and pixels <= MAX_UNFOLDED_PIXELS


def convolve(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    stride: int,
    padding: Tuple[Tuple[int, int], Tuple[int, int]],
    is_differentiated_twice: bool,
) -> paddle.Tensor:
    """Computes `F.conv2d` without a bias.

    On a CPU a small one is a batch of matrix products. Paddle's own operator multiplies one
    picture at a time, so that its threads wait for each other.

    Args:
        x: Pictures, [N, C, H, W].
        weight: The kernel.
        stride: The stride.
        padding: Rows (top, bottom) and columns (left, right) of zeros.
        is_differentiated_twice: Whether only operators with second derivatives may be used.
    """
    sizes, ((top, bottom), (left, right)) = weight.shape[2:], padding
    out = [
        (length + sum(around) - size) // stride + 1
        for length, around, size in zip(x.shape[2:], padding, sizes)
    ]
    if is_differentiated_twice or not _unfolds(x, weight, math.prod(out)):
        return F.conv2d(x, weight, None, stride, [top, bottom, left, right])
    patches = F.unfold(x, sizes, stride, [top, left, bottom, right])
    return (weight.reshape([len(weight), -1]) @ patches).reshape([len(x), -1, *out])


def convolve_transposed(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    padding: Tuple[Tuple[int, int], Tuple[int, int]],
    is_differentiated_twice: bool,
) -> paddle.Tensor:
    """Computes `F.conv2d_transpose` of stride 2 without a bias, in the way of `convolve`.

    Args:
        x: Pictures, [N, C, H, W].
        weight: The kernel, [C, D, size, size].
        padding: Rows (top, bottom) and columns (left, right) that are cut off.
        is_differentiated_twice: Whether only operators with second derivatives may be used.
    """
    (top, bottom), (left, right) = padding
    if is_differentiated_twice or not _unfolds(x, weight, math.prod(x.shape[2:])):
        return F.conv2d_transpose(x, weight, None, 2, [top, bottom, left, right])
    size = weight.shape[2]
    height, width = (2 * length - 2 + size for length in x.shape[2:])
    flat = weight.reshape([len(weight), -1])
    patches = paddle.matmul(flat, x.reshape([*x.shape[:2], -1]), transpose_x=True)
    # F.fold cuts the same off at all sides, so the slice below does it.
    whole = F.fold(patches, [height, width], size, 2)
    return whole[:, :, top : height - bottom, left : width - right]
