# SPDX-License-Identifier: Apache-2.0
"""Matrix products by oneDNN, for linear layers."""

from __future__ import annotations

import functools
from typing import Optional

import paddle

from kernels import onednn
from kernels.memory import empty


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


def multiply(
    a: paddle.Tensor, b: paddle.Tensor, transposed: str = "", bias: Optional[paddle.Tensor] = None
) -> paddle.Tensor:
    """a @ b + bias, or a.T @ b ("a" transposed) or a @ b.T ("b" transposed)."""
    rows, inner = a.shape[::-1] if transposed == "a" else a.shape
    columns = b.shape[0] if transposed == "b" else b.shape[1]
    if 1 in (rows, inner, columns):
        # oneDNN 3.6 reads beyond a vector whose transpose lies in memory alike.
        flags = {"transpose_x": transposed == "a", "transpose_y": transposed == "b"}
        product = paddle.matmul(a, b, **flags)
        return product if bias is None else product + bias
    if (b.shape[1] if transposed == "b" else b.shape[0]) != inner or b.dtype != paddle.float32:
        # oneDNN gets bare addresses, and would read beyond the end.
        raise ValueError(f"{a.shape} in float32 can't be multiplied by {b.shape} in {b.dtype}.")
    product = empty([rows, columns])
    further = () if bias is None else (bias.data_ptr(),)
    primitive = _make_product(rows, inner, columns, transposed, bias is not None)
    primitive(a.data_ptr(), b.data_ptr(), product.data_ptr(), *further)
    return product
