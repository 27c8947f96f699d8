# SPDX-License-Identifier: Apache-2.0
"""A convolution and its adjoint by oneDNN, on pictures laid out as [H, W, N, C].

For oneDNN they are ONE sample of depth H, height W and width N. A kernel of width 1 slides over
it. Long rows of N suit its matrix kernels, and it leaves out the products with padding.
"""

from __future__ import annotations

import functools
from typing import List
from typing import NamedTuple
from typing import Optional
from typing import Tuple

import numpy as np
import paddle

from kernels import onednn
from kernels.memory import empty

Padding = Tuple[Tuple[int, int], Tuple[int, int]]  # (top, bottom), (left, right)
CHANNELS_LAST = (0, 2, 3, 4, 1)
OUTERMOST_SAMPLES = (2, 3, 0, 1)  # dims (N, C, H, W) in the memory of [H, W, N, C]
NARROW = 4  # oneDNN computes at least 16 channels; for fewer than NARROW there is another way.


class Geometry(NamedTuple):
    """The sizes of a convolution x [H, W, N, n_in] -> y [OH, OW, N, n_out].

    Attributes:
        count: Number of pictures N.
        n_in: Channels of x.
        n_out: Channels of y.
        height: H.
        width: W.
        size: Height and width of the kernel [n_out, n_in, *size].
        stride: Stride in both directions.
        padding: Rows and columns of zeros around x.
    """

    count: int
    n_in: int
    n_out: int
    height: int
    width: int
    size: Tuple[int, int]
    stride: int
    padding: Padding

    @property
    def out(self) -> Tuple[int, int]:
        """Height and width of y."""
        lengths = zip((self.height, self.width), self.size, self.padding)
        return tuple((n + sum(pad) - k) // self.stride + 1 for n, k, pad in lengths)

    @property
    def x_shape(self) -> List[int]:
        return [self.height, self.width, self.count, self.n_in]

    @property
    def y_shape(self) -> List[int]:
        return [*self.out, self.count, self.n_out]

    @property
    def kernel_shape(self) -> List[int]:
        return [self.n_out, self.n_in, *self.size]


class Kernel:
    """A convolution's kernel, and copies of it in the formats that oneDNN's primitives want.

    It lives as long as one forward pass and its backward pass, so that no copy outlives a change
    of the weights.

    Args:
        weight: [n_out, n_in, height, width].
    """

    def __init__(self, weight: paddle.Tensor):
        if weight.dtype != paddle.float32:  # oneDNN gets bare addresses.
            raise ValueError(f"A map of float32 pictures has a weight of {weight.dtype}.")
        self.weight = weight.contiguous()
        self._copies: List[Tuple[onednn.Handle, paddle.Tensor]] = []

    def in_format(self, memory: onednn.Handle) -> int:
        """The address of the kernel in a format, given by a descriptor of oneDNN."""
        for known, copy in self._copies:
            if onednn.library().is_equal(known, memory):
                return copy.data_ptr()
        copy = empty([onednn.library().size_of(memory) // 4])
        arrange = _make_arrangement(memory.value, tuple(self.weight.shape))
        arrange(self.weight.data_ptr(), copy.data_ptr())
        self._copies.append((memory, copy))
        return copy.data_ptr()


@functools.cache
def _make_arrangement(memory: int, shape: Tuple[int, ...]) -> onednn.Primitive:
    return onednn.make_reorder(onednn.describe((*shape, 1)), onednn.Handle(memory))


def describe_pictures(shape: List[int]) -> onednn.Handle:
    """Describes [H, W, N, C] as one sample."""
    height, width, count, channels = shape
    return onednn.describe((1, channels, height, width, count), CHANNELS_LAST)


def window_arguments(geometry: Geometry):
    """Strides, dilations and paddings as oneDNN takes them."""
    (top, bottom), (left, right) = geometry.padding
    stride = geometry.stride
    parts = ((stride, stride, 1), (0, 0, 0), (top, left, 0), (bottom, right, 0))
    return [onednn.integers(part) for part in parts]


def describe_forward(geometry: Geometry, has_bias: bool, kind: int):
    return onednn.library().create(
        "convolution_forward_primitive_desc_create",
        *(onednn.library().engine, kind, onednn.DIRECT),
        describe_pictures(geometry.x_shape),
        onednn.describe_any((*geometry.kernel_shape, 1)),
        onednn.describe((geometry.n_out,)) if has_bias else None,
        describe_pictures(geometry.y_shape),
        *window_arguments(geometry),
        None,
    )


@functools.cache
def _make_forward(geometry: Geometry, has_bias: bool) -> onednn.Primitive:
    roles = (onednn.SRC, onednn.WEIGHTS, onednn.DST) + ((onednn.BIAS,) if has_bias else ())
    return onednn.Primitive(describe_forward(geometry, has_bias, onednn.INFERENCE), roles)


def forward(
    x: paddle.Tensor,
    kernel: Kernel,
    geometry: Geometry,
    bias: Optional[paddle.Tensor] = None,
) -> paddle.Tensor:
    """Convolves pictures.

    Args:
        x: [H, W, N, n_in].
        kernel: The kernel.
        geometry: The sizes.
        bias: [n_out]; None for none.
    """
    y = empty(geometry.y_shape)
    primitive = _make_forward(geometry, bias is not None)
    further = () if bias is None else (bias.data_ptr(),)
    arranged = kernel.in_format(primitive.memories[1])
    primitive(x.data_ptr(), arranged, y.data_ptr(), *further)
    return y


@functools.cache
def _make_backward_data(geometry: Geometry) -> onednn.Primitive:
    description = onednn.library().create(
        "convolution_backward_data_primitive_desc_create",
        *(onednn.library().engine, onednn.DIRECT),
        describe_pictures(geometry.x_shape),
        onednn.describe_any((*geometry.kernel_shape, 1)),
        describe_pictures(geometry.y_shape),
        *window_arguments(geometry),
        describe_forward(geometry, False, onednn.TRAINING),
        None,
    )
    return onednn.Primitive(description, (onednn.DIFF_SRC, onednn.WEIGHTS, onednn.DIFF_DST))


def backward_data(y: paddle.Tensor, kernel: Kernel, geometry: Geometry) -> paddle.Tensor:
    """The transposed convolution, [OH, OW, N, n_out] to [H, W, N, n_in]."""
    if geometry.n_in < NARROW and geometry.stride == 2 and _is_doubled(geometry):
        return _backward_data_to_phases(y, kernel, geometry)
    x = empty(geometry.x_shape)
    primitive = _make_backward_data(geometry)
    primitive(x.data_ptr(), kernel.in_format(primitive.memories[1]), y.data_ptr())
    return x


def _is_doubled(geometry: Geometry) -> bool:
    """Whether x is twice as large as y, and each pixel of x depends on 3x3 pixels of y at most."""
    (top, _), (left, _) = geometry.padding
    is_twice = (geometry.height, geometry.width) == tuple(2 * n for n in geometry.out)
    # Pixel 2 i + a of x meets kernel row 2 (i - j) + a + top at row j of y.
    return is_twice and all(
        max(size - 1 - pad, 1 + pad) < 4 for size, pad in zip(geometry.size, (top, left))
    )


def _backward_data_to_phases(y, kernel: Kernel, geometry: Geometry) -> paddle.Tensor:
    """`backward_data` of stride 2 as a 3x3 convolution to 4 n_in channels.

    They are the pixels of the four phases (even or odd row and column) of x.
    """
    n_out, n_in, *size = geometry.kernel_shape
    (top, _), (left, _) = geometry.padding
    phases = kernel.weight.reshape([n_out * n_in, -1]) @ _phase_matrix(*size, top, left)
    phases = phases.reshape([n_out, n_in, 4, 9]).transpose([2, 1, 0, 3])
    rows, columns = geometry.out
    around = ((1, 1), (1, 1))
    inner = Geometry(geometry.count, n_out, 4 * n_in, rows, columns, (3, 3), 1, around)
    found = forward(y, Kernel(phases.reshape(inner.kernel_shape)), inner)
    x = empty(geometry.x_shape)
    _make_interleaving(rows, columns, geometry.count, n_in)(found.data_ptr(), x.data_ptr())
    return x


@functools.cache
def _phase_matrix(height: int, width: int, top: int, left: int) -> paddle.Tensor:
    """The linear map, [height * width, 4 * 9], of a kernel to those of the four phases."""

    def along(size: int, pad: int) -> np.ndarray:
        matrix = np.zeros((size, 2, 3), "float32")
        for phase in range(2):
            for offset in range(3):
                row = 2 * (1 - offset) + phase + pad
                if 0 <= row < size:
                    matrix[row, phase, offset] = 1
        return matrix

    both = np.einsum("qau,rbv->qrabuv", along(height, top), along(width, left))
    return paddle.to_tensor(both.reshape(height * width, 36))


@functools.cache
def _make_interleaving(rows: int, columns: int, count: int, channels: int) -> onednn.Primitive:
    dims = (rows, columns, count, 2, 2, channels)
    return onednn.make_reorder(onednn.describe(dims), onednn.describe(dims, (0, 3, 1, 4, 2, 5)))
