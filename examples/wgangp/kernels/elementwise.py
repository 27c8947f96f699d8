# SPDX-License-Identifier: Apache-2.0
"""What oneDNN does between convolutions: ReLUs, biases, pools, layouts.

Pictures are laid out as [H, W, N, C].
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import List
from typing import NamedTuple
from typing import Optional
from typing import Tuple

import paddle

from kernels import onednn
from kernels.convolutions import CHANNELS_LAST
from kernels.convolutions import OUTERMOST_SAMPLES
from kernels.memory import empty

EPSILON = 1e-5  # added to variances in batch normalisation


def count(x: paddle.Tensor) -> int:
    """The number of numbers in a tensor. Paddle's own `size` takes thirty times as long."""
    return math.prod(x.shape)


@functools.cache
def _make_relu(size: int, slope: float, is_backward: bool) -> onednn.Primitive:
    own, flat = onednn.library(), onednn.describe((size,))
    numbers = ctypes.c_float(slope), ctypes.c_float(0)
    name = "eltwise_{}_primitive_desc_create"
    kind = (own.engine, onednn.TRAINING, onednn.RELU)
    forward = own.create(name.format("forward"), *kind, flat, flat, *numbers, None)
    if not is_backward:
        return onednn.Primitive(forward, (onednn.SRC, onednn.DST))
    backward = own.create(
        name.format("backward"), own.engine, onednn.RELU, flat, flat, flat, *numbers, forward, None
    )
    return onednn.Primitive(backward, (onednn.SRC, onednn.DIFF_DST, onednn.DIFF_SRC))


def relu(x: paddle.Tensor, slope: float) -> paddle.Tensor:
    """A (leaky) ReLU."""
    y = empty(x.shape)
    _make_relu(count(x), slope, False)(x.data_ptr(), y.data_ptr())
    return y


def mask(entered: paddle.Tensor, x: paddle.Tensor, slope: float) -> paddle.Tensor:
    """x where what entered a ReLU (or left it) is positive, else slope * x."""
    y = empty(x.shape)
    _make_relu(count(x), slope, True)(entered.data_ptr(), x.data_ptr(), y.data_ptr())
    return y


@functools.cache
def _make_affine(rows: int, columns: int, is_scaled: bool, is_shifted: bool) -> onednn.Primitive:
    own = onednn.library()
    whole, row = onednn.describe((rows, columns)), onednn.describe((1, columns))
    attributes, roles = None, [onednn.SRC, onednn.DST, onednn.SRC_1]
    if is_scaled and is_shifted:
        attributes = onednn.make_additions(False, row)
        roles.append(onednn.post_operation(0))
    operation = onednn.MULTIPLY if is_scaled else onednn.ADD
    name = "binary_primitive_desc_create"
    description = own.create(name, own.engine, operation, whole, row, whole, attributes)
    return onednn.Primitive(description, roles)


def affine(
    x: paddle.Tensor,
    scale: Optional[paddle.Tensor],
    offset: Optional[paddle.Tensor],
    in_place: bool = False,
) -> paddle.Tensor:
    """x * scale + offset.

    Args:
        x: [..., *shape].
        scale: Of some shape, [C] or [N, C]; None for 1.
        offset: Of the same shape; None for 0, if there is a scale.
        in_place: Whether x is overwritten.
    """
    y = x if in_place else empty(x.shape)
    parts = [part for part in (scale, offset) if part is not None]
    columns = count(parts[0])
    primitive = _make_affine(count(x) // columns, columns, scale is not None, offset is not None)
    primitive(x.data_ptr(), y.data_ptr(), *(part.data_ptr() for part in parts))
    return y


@functools.cache
def _make_accumulation(rows: int, columns: int, is_shifted: bool) -> onednn.Primitive:
    own = onednn.library()
    whole, row = onednn.describe((rows, columns)), onednn.describe((1, columns))
    attributes = onednn.make_additions(True, row if is_shifted else None)
    roles = [onednn.SRC, onednn.DST, onednn.SRC_1]
    if is_shifted:
        roles.append(onednn.post_operation(1))
    name = "binary_primitive_desc_create"
    description = own.create(name, own.engine, onednn.MULTIPLY, whole, row, whole, attributes)
    return onednn.Primitive(description, roles)


def accumulate(
    y: paddle.Tensor,
    x: paddle.Tensor,
    scale: paddle.Tensor,
    offset: Optional[paddle.Tensor] = None,
) -> paddle.Tensor:
    """Adds x * scale + offset to y in place; shapes as in `affine`. Returns y."""
    columns = count(scale)
    parts = (scale,) if offset is None else (scale, offset)
    primitive = _make_accumulation(count(x) // columns, columns, offset is not None)
    primitive(x.data_ptr(), y.data_ptr(), *(part.data_ptr() for part in parts))
    return y


@functools.cache
def _make_product(size: int) -> onednn.Primitive:
    own, flat = onednn.library(), onednn.describe((size,))
    name = "binary_primitive_desc_create"
    description = own.create(name, own.engine, onednn.MULTIPLY, flat, flat, flat, None)
    return onednn.Primitive(description, (onednn.SRC, onednn.SRC_1, onednn.DST))


def multiply(x: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
    """x * y, of one shape."""
    result = empty(x.shape)
    _make_product(count(x))(x.data_ptr(), y.data_ptr(), result.data_ptr())
    return result


@functools.lru_cache(maxsize=64)
def constant(value: float, shape: Tuple[int, ...]) -> paddle.Tensor:
    """A tensor of equal numbers, which must not be changed."""
    return paddle.full(shape, value, "float32")


def sum_rows(x: paddle.Tensor, columns: int) -> paddle.Tensor:
    """Sums a tensor, seen as a matrix of that many columns, over its rows."""
    rows = x.reshape([-1, columns])
    return (constant(1.0, (1, rows.shape[0])) @ rows).reshape([columns])


@functools.cache
def _make_turn(shape: Tuple[int, ...], is_entering: bool) -> onednn.Primitive:
    pair = onednn.describe(shape), onednn.describe(shape, OUTERMOST_SAMPLES)
    return onednn.make_reorder(*(pair if is_entering else reversed(pair)))


def change_layout(x: paddle.Tensor, is_entering: bool) -> paddle.Tensor:
    """[N, C, H, W] to [H, W, N, C], or back."""
    if is_entering:
        count, channels, height, width = x.shape
        y = empty([height, width, count, channels])
    else:
        height, width, count, channels = x.shape
        y = empty([count, channels, height, width])
    _make_turn((count, channels, height, width), is_entering)(x.data_ptr(), y.data_ptr())
    return y


class Pool(NamedTuple):
    """A pool of square windows.

    Attributes:
        kind: onednn.MEAN_POOL (which leaves the padding out) or onednn.MAX_POOL.
        size: Height and width of a window.
        stride: The stride.
        padding: Rows and columns around the pictures.
    """

    kind: int
    size: int
    stride: int
    padding: int = 0

    def shape(self, shape: List[int]) -> List[int]:
        """The output's shape [OH, OW, N, C], of the input's."""
        lengths = [(n + 2 * self.padding - self.size) // self.stride + 1 for n in shape[:2]]
        return [*lengths, *shape[2:]]


QUARTERS = Pool(onednn.MEAN_POOL, 2, 2)


@functools.cache
def _make_pool(pool: Pool, shape: Tuple[int, ...], is_backward: bool) -> onednn.Primitive:
    own = onednn.library()
    sides = []
    for height, width, count, channels in (shape, pool.shape(shape)):
        sides.append(onednn.describe((1, channels, height, width, count), CHANNELS_LAST))
    parts = ((pool.stride, 1), (pool.size, 1), (0, 0), *[(pool.padding, 0)] * 2)
    slide = [onednn.integers((number, number, last)) for number, last in parts]
    # A maximum of training would need room for the places of the maxima.
    purpose = onednn.TRAINING if pool.kind == onednn.MEAN_POOL else onednn.INFERENCE
    name = "pooling_{}_primitive_desc_create"
    forward = own.create(
        name.format("forward"), *(own.engine, purpose, pool.kind, *sides, *slide, None)
    )
    if not is_backward:
        return onednn.Primitive(forward, (onednn.SRC, onednn.DST))
    backward = own.create(
        name.format("backward"), *(own.engine, pool.kind, *sides, *slide, forward, None)
    )
    return onednn.Primitive(backward, (onednn.DIFF_SRC, onednn.DIFF_DST))


def apply_pool(x: paddle.Tensor, pool: Pool) -> paddle.Tensor:
    """The mean or maximum of each window."""
    y = empty(pool.shape(x.shape))
    _make_pool(pool, tuple(x.shape), False)(x.data_ptr(), y.data_ptr())
    return y


def mean_pool(x: paddle.Tensor) -> paddle.Tensor:
    """The mean of each 2x2 pixels."""
    return apply_pool(x, QUARTERS)


def spread_quarters(x: paddle.Tensor) -> paddle.Tensor:
    """The adjoint of `mean_pool`: a quarter of each pixel at 2x2 pixels."""
    height, width, *rest = x.shape
    y = empty([2 * height, 2 * width, *rest])
    _make_pool(QUARTERS, tuple(y.shape), True)(y.data_ptr(), x.data_ptr())
    return y


@functools.cache
def _make_normalisation(shape: Tuple[int, ...], is_backward: bool) -> onednn.Primitive:
    own, (height, width, count, channels) = onednn.library(), shape
    pictures = onednn.describe((1, channels, height, width, count), CHANNELS_LAST)
    name, epsilon = "batch_normalization_{}_primitive_desc_create", ctypes.c_float(EPSILON)
    forward = own.create(
        name.format("forward"),
        *(own.engine, onednn.TRAINING, pictures, pictures, epsilon, 0, None),
    )
    if not is_backward:
        roles = (onednn.SRC, onednn.DST, onednn.MEAN, onednn.VARIANCE)
        return onednn.Primitive(forward, roles)
    backward = own.create(
        name.format("backward"),
        *(own.engine, onednn.BACKWARD_DATA, *[pictures] * 3, epsilon, 0, forward, None),
    )
    roles = (onednn.SRC, onednn.DIFF_DST, onednn.DIFF_SRC, onednn.MEAN, onednn.VARIANCE)
    return onednn.Primitive(backward, roles)


def normalise(x: paddle.Tensor) -> Tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Normalises each channel: the result, and the channels' means and (biased) variances [C]."""
    y, mean, variance = empty(x.shape), empty(x.shape[-1:]), empty(x.shape[-1:])
    primitive = _make_normalisation(tuple(x.shape), False)
    primitive(*(part.data_ptr() for part in (x, y, mean, variance)))
    return y, mean, variance


def normalise_backward(
    x: paddle.Tensor, gradient: paddle.Tensor, mean: paddle.Tensor, variance: paddle.Tensor
) -> paddle.Tensor:
    """The gradient in `normalise`'s input, of one at its result."""
    result = empty(x.shape)
    primitive = _make_normalisation(tuple(x.shape), True)
    primitive(*(part.data_ptr() for part in (x, gradient, result, mean, variance)))
    return result


@functools.cache
def _make_scaling(shape: Tuple[int, ...]) -> onednn.Primitive:
    own, (height, width, channels) = onednn.library(), shape
    pictures = onednn.describe((1, channels, height, width, 1), CHANNELS_LAST)
    name, epsilon = "batch_normalization_{}_primitive_desc_create", ctypes.c_float(EPSILON)
    flags = onednn.GLOBAL_STATISTICS | onednn.SCALE_FLAG | onednn.SHIFT_FLAG
    forward = own.create(
        name.format("forward"),
        *(own.engine, onednn.TRAINING, pictures, pictures, epsilon, flags, None),
    )
    backward = own.create(
        name.format("backward"),
        *(own.engine, onednn.BACKWARD, *[pictures] * 3, epsilon, flags, forward, None),
    )
    roles = (onednn.SRC, onednn.DIFF_DST, onednn.DIFF_SRC, onednn.MEAN, onednn.VARIANCE)
    scales = (onednn.SCALE, onednn.DIFF_SCALE, onednn.DIFF_SHIFT)
    return onednn.Primitive(backward, (*roles, *scales))


def scale_and_sum(
    x: paddle.Tensor,
    y: paddle.Tensor,
    scale: paddle.Tensor,
    mean: paddle.Tensor,
    variance: paddle.Tensor,
) -> Tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """y * scale, and the sums over pixels of y and of y (x - mean), in one pass.

    It is the backward pass of a batch normalisation whose mean and variance are constants.

    Args:
        x: [H, W, N, C].
        y: Of x's shape.
        scale: [N, C].
        mean: [N, C].
        variance: Of x, [N, C]. It keeps the inner numbers of a usual size.
    """
    result, inner, sums = empty(y.shape), empty(scale.shape), empty(scale.shape)
    deviation = (variance + EPSILON).sqrt()
    height, width, *rest = x.shape
    parts = (x, y, result, mean, variance, scale * deviation, inner, sums)
    _make_scaling((height, width, math.prod(rest)))(*(part.data_ptr() for part in parts))
    return result, sums, inner * deviation
