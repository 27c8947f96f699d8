# SPDX-License-Identifier: Apache-2.0
"""A resampling of pictures and a 3x3 convolution as one convolution of stride 2.

A 3x3 convolution and a 2x2 mean pool are one 4x4 convolution of stride 2: its kernel is the mean
of four shifted copies of the 3x3 kernel. Nearest-neighbour upsampling and a 3x3 convolution are
one 4x4 transposed convolution of stride 2. Both do 4/9 of the operations.
"""

from __future__ import annotations

import functools

import numpy as np
import paddle


@functools.cache
def _folding_matrix(resampling: str, device: str) -> paddle.Tensor:
    """The linear map, [9, 16], of flat 3x3 kernels to 4x4 ones that resample as well.

    The jobs of a sweep may have different devices, so each device has a matrix of its own.
    """
    along_an_axis = {
        "pool": np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2,
        "upsample": np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]),
    }[resampling]
    return paddle.to_tensor(np.kron(along_an_axis, along_an_axis).T.astype("float32"), place=device)


def fold(weight: paddle.Tensor, resampling: str) -> paddle.Tensor:
    """Folds a resampling into a convolution's kernel.

    Args:
        weight: The kernel, [A, B, 3, 3].
        resampling: "pool" (2x2 mean pool after the convolution) or "upsample" (nearest
            neighbours before it).

    Returns:
        The kernel of both maps in one, of stride 2, [A, B, 4, 4].
    """
    rows, columns = weight.shape[:2]
    matrix = _folding_matrix(resampling, paddle.get_device()).astype(weight.dtype)
    flat = weight.reshape([rows * columns, 9]) @ matrix
    return flat.reshape([rows, columns, 4, 4])


def unfold_gradient(gradient: paddle.Tensor, resampling: str) -> paddle.Tensor:
    """The adjoint of `fold`: the gradient in a folded kernel to that in the 3x3 kernel."""
    rows, columns = gradient.shape[:2]
    flat = gradient.reshape([rows * columns, 16])
    matrix = _folding_matrix(resampling, paddle.get_device())
    flat = paddle.matmul(flat, matrix, transpose_y=True)
    return flat.reshape([rows, columns, 3, 3])
