# SPDX-License-Identifier: Apache-2.0
"""Decides whether oneDNN computes the maps of networks on this machine."""

from __future__ import annotations

import functools
import os
import platform
from typing import List

import numpy as np
import paddle
import paddle.nn.functional as F
from ppsci.utils import logger

from kernels import convolutions
from kernels import kernel_gradients
from kernels import onednn
from kernels import products
from kernels.convolutions import Geometry
from kernels.convolutions import Kernel
from kernels.onednn import Unavailable

VARIABLE = "WGANGP_ONEDNN"  # The environment variable; 0 turns oneDNN off.
TOLERANCE = 1e-4  # largest difference in the self-test, as a share of the largest number
# A small case of each way to compute a convolution's maps
SELF_TEST = (
    Geometry(2, 8, 16, 6, 6, (3, 3), 1, ((1, 1), (1, 1))),
    Geometry(2, 8, 4, 10, 10, (3, 3), 1, ((1, 1), (1, 1))),
    Geometry(2, 3, 8, 8, 8, (4, 4), 2, ((1, 1), (1, 1))),
)


@functools.cache
def is_available() -> bool:
    """Whether oneDNN computes the maps of networks; the first call says so in the log."""
    try:
        _require()
    except Unavailable as reason:
        logger.info(f"Networks run on Paddle's own CPU operators: {reason}.")
        return False
    own = onednn.library()
    threads = "1 thread" if own.threads == 1 else f"{own.threads} threads"
    logger.info(f"Networks run on oneDNN {own.version} of Paddle's wheel, with {threads}.")
    return True


def describe() -> str:
    """What computes matrix products on this machine, on which their last bits depend."""
    if not is_available():
        return "Paddle"
    kernel = products.name_kernel()
    return f"oneDNN {onednn.library().version}, {kernel}, {onednn.library().threads} threads"


def _require() -> None:
    """Checks the platform, the library and its results.

    Raises:
        Unavailable: Says what keeps oneDNN from being used.
    """
    if os.environ.get(VARIABLE) == "0":
        raise Unavailable(f"{VARIABLE} is 0")
    if platform.system() != "Linux":
        raise Unavailable(f"oneDNN is called on Linux only, and this is {platform.system()}")
    onednn.library()
    try:
        differences = [*map(_measure_differences, SELF_TEST), _measure_product_differences()]
        worst = float(np.max(np.concatenate(differences)))  # NaN if one of them is
    except RuntimeError as error:
        raise Unavailable(f"oneDNN's self-test failed ({error})") from None
    if not worst <= TOLERANCE:
        raise Unavailable(f"oneDNN's results differ from Paddle's by {worst:.1e} of their size")


def _share(found: paddle.Tensor, expected: paddle.Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    found, expected = found.numpy(), expected.numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _draw(shape) -> paddle.Tensor:
    """Numbers between -1 and 1 that take nothing from Paddle's random generator."""
    size = 1
    for length in shape:
        size *= length
    return paddle.sin(paddle.arange(size, dtype="float32") * 1.7).reshape(shape)


def _measure_differences(geometry: Geometry) -> List[float]:
    """The differences of a convolution's three maps from Paddle's own."""
    x, weight, y = map(_draw, (geometry.x_shape, geometry.kernel_shape, geometry.y_shape))
    bias = _draw([geometry.n_out])
    pictures, kernel = x.transpose([2, 3, 0, 1]), weight.clone()
    pictures.stop_gradient = kernel.stop_gradient = False
    padding = [number for pair in geometry.padding for number in pair]
    with paddle.enable_grad():
        expected = F.conv2d(pictures, kernel, bias, geometry.stride, padding)
        total = (expected * y.transpose([2, 3, 0, 1])).sum()
        x_gradient, gradient = paddle.grad(total, [pictures, kernel])
    arranged = Kernel(weight)
    return [
        _share(convolutions.forward(x, arranged, geometry, bias), expected.transpose([2, 3, 0, 1])),
        _share(
            convolutions.backward_data(y, arranged, geometry), x_gradient.transpose([2, 3, 0, 1])
        ),
        _share(kernel_gradients.backward_kernel(x, y, geometry), gradient),
    ]


def _measure_product_differences() -> List[float]:
    """The differences of matrix products from Paddle's own."""
    a, b = _draw([6, 5]), _draw([5, 7])
    expected = a @ b
    pairs = {"": (a, b), "a": (a.t().contiguous(), b), "b": (a, b.t().contiguous())}
    return [
        _share(products.multiply_by_onednn(*pair, (6, 5, 7, transposed, False)), expected)
        for transposed, pair in pairs.items()
    ]
