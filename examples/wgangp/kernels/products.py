# SPDX-License-Identifier: Apache-2.0
"""Matrix products for linear layers, by oneDNN or by the matrix library of Paddle (MKL)."""

from __future__ import annotations

import functools
from typing import Optional

import paddle

from kernels import onednn
from kernels.memory import empty

SMALL = 2**20  # multiplications; below, a call of oneDNN from Python takes longer than the product


@functools.cache
def _make_product(rows: int, inner: int, columns: int, transposed: str, has_bias: bool):
    """A product [rows, inner] @ [inner, columns]; "a" or "b" lies transposed in memory."""
    own = onednn.library()
    left = onednn.describe((rows, inner), (1, 0) if transposed == "a" else None)
    right = onednn.describe((inner, columns), (1, 0) if transposed == "b" else None)
    bias = onednn.describe((1, columns)) if has_bias else None
    product = onednn.describe((rows, columns))
    description = own.create(
        "matmul_primitive_desc_create", own.engine, left, right, bias, product, None
    )
    roles = (onednn.SRC, onednn.WEIGHTS, onednn.DST) + ((onednn.BIAS,) if has_bias else ())
    return onednn.Primitive(description, roles)


@functools.cache
def _suits_onednn(rows: int, inner: int, columns: int, transposed: str, has_bias: bool) -> bool:
    """Whether oneDNN is the faster of the two.

    On processors with AVX-512 it has kernels of its own ("brg_matmul"). On others it falls back on
    an older product ("gemm:jit"): 61 GFLOP/s for [256, 512] @ [512, 512] on one core of an AMD
    EPYC, where MKL reaches 92.
    """
    # oneDNN 3.6 reads beyond a vector whose transpose lies in memory alike.
    if 1 in (rows, inner, columns) or rows * inner * columns < SMALL:
        return False
    product = _make_product(rows, inner, columns, transposed, has_bias)
    return not product.implementation.startswith("gemm")


def multiply(
    a: paddle.Tensor, b: paddle.Tensor, transposed: str = "", bias: Optional[paddle.Tensor] = None
) -> paddle.Tensor:
    """a @ b + bias, or a.T @ b ("a" transposed) or a @ b.T ("b" transposed)."""
    rows, inner = a.shape[::-1] if transposed == "a" else a.shape
    columns, length = b.shape if transposed == "b" else b.shape[::-1]
    if length != inner or b.dtype != paddle.float32:
        # oneDNN gets bare addresses, and would read beyond the end.
        raise ValueError(f"{a.shape} in float32 can't be multiplied by {b.shape} in {b.dtype}.")
    sizes = (rows, inner, columns, transposed, bias is not None)
    if _suits_onednn(*sizes):
        return multiply_by_onednn(a, b, sizes, bias)
    if bias is not None and not transposed:
        return paddle.addmm(bias.unsqueeze(0), a, b)
    product = paddle.matmul(a, b, transpose_x=transposed == "a", transpose_y=transposed == "b")
    return product if bias is None else product.add_(bias)


def name_kernel() -> str:
    """The name of oneDNN's kernel for large products, such as "gemm:jit:f32"."""
    return _make_product(128, 128, 128, "", False).implementation


def multiply_by_onednn(
    a: paddle.Tensor, b: paddle.Tensor, sizes: tuple, bias: Optional[paddle.Tensor] = None
) -> paddle.Tensor:
    """`multiply` for the arguments of `_make_product`, which are not checked."""
    product = empty([sizes[0], sizes[2]])
    further = () if bias is None else (bias.data_ptr(),)
    _make_product(*sizes)(a.data_ptr(), b.data_ptr(), product.data_ptr(), *further)
    return product
