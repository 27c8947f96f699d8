# SPDX-License-Identifier: Apache-2.0
"""A convolution's three linear maps by oneDNN, on pictures laid out as [H, W, N, C].

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

Padding = Tuple[Tuple[int, int], Tuple[int, int]]  # (top, bottom), (left, right)
CHANNELS_LAST = (0, 2, 3, 4, 1)
OUTERMOST_SAMPLES = (2, 3, 0, 1)  # dims (N, C, H, W) in the memory of [H, W, N, C]
# Up to so many output pixels, the kernel's gradient is computed as a dilated convolution, whose
# cost grows with the square of the picture's size.
MAX_DILATED_PIXELS = 64
NARROW = 4  # oneDNN computes at least 16 channels; for fewer than so many there is another way.


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


def empty(shape) -> paddle.Tensor:
    return paddle.empty(shape, "float32")


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


def _describe_pictures(shape: List[int]):
    height, width, count, channels = shape
    return onednn.describe((1, channels, height, width, count), CHANNELS_LAST)


def _slide(geometry: Geometry):
    """Strides, dilations and paddings as oneDNN takes them."""
    (top, bottom), (left, right) = geometry.padding
    stride = geometry.stride
    parts = ((stride, stride, 1), (0, 0, 0), (top, left, 0), (bottom, right, 0))
    return [onednn.integers(part) for part in parts]


def _describe_forward(geometry: Geometry, has_bias: bool, kind: int):
    return onednn.library().create(
        "convolution_forward_primitive_desc_create",
        *(onednn.library().engine, kind, onednn.DIRECT),
        _describe_pictures(geometry.x_shape),
        onednn.describe_any((*geometry.kernel_shape, 1)),
        onednn.describe((geometry.n_out,)) if has_bias else None,
        _describe_pictures(geometry.y_shape),
        *_slide(geometry),
        None,
    )


@functools.cache
def _make_forward(geometry: Geometry, has_bias: bool) -> onednn.Primitive:
    roles = (onednn.SRC, onednn.WEIGHTS, onednn.DST) + ((onednn.BIAS,) if has_bias else ())
    return onednn.Primitive(_describe_forward(geometry, has_bias, onednn.INFERENCE), roles)


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
        _describe_pictures(geometry.x_shape),
        onednn.describe_any((*geometry.kernel_shape, 1)),
        _describe_pictures(geometry.y_shape),
        *_slide(geometry),
        _describe_forward(geometry, False, onednn.TRAINING),
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


def backward_kernel(x: paddle.Tensor, y: paddle.Tensor, geometry: Geometry) -> paddle.Tensor:
    """The gradient in the kernel, [n_out, n_in, *size].

    Args:
        x: What the convolution got, [H, W, N, n_in].
        y: The gradient at its output, [OH, OW, N, n_out].
        geometry: The sizes.
    """
    gradient = empty(geometry.kernel_shape)
    if geometry.n_in < NARROW:
        make = _make_backward_weights_laid_out
    else:
        make = _make_dilated if _is_dilated(geometry) else _make_backward_weights
    make(geometry)(x, y, gradient)
    return gradient


def _is_dilated(geometry: Geometry) -> bool:
    """Whether `_make_dilated` computes the kernel's gradient."""
    rows, columns = geometry.out
    is_small = 1 < rows * columns <= MAX_DILATED_PIXELS and geometry.n_in > 1
    return is_small and min(_missing_at_end(geometry)) >= 0


class _Chain:
    """A primitive, with reorders of its arguments from and to the layouts that are given.

    Args:
        primitive: The primitive.
        layouts: For each argument a descriptor of what is given.
        output: The argument that it computes.
    """

    def __init__(self, primitive: onednn.Primitive, layouts, output: int):
        self.primitive, self.output = primitive, output
        own = onednn.library()
        self.sizes, self.reorders = [], []
        for number, (layout, memory) in enumerate(zip(layouts, primitive.memories)):
            same = own.is_equal(layout, memory)
            pair = (memory, layout) if number == output else (layout, memory)
            self.reorders.append(None if same else onednn.make_reorder(*pair))
            self.sizes.append(own.size_of(memory) // 4)

    def __call__(self, *tensors: paddle.Tensor) -> None:
        inner = []
        for number, tensor in enumerate(tensors):
            reorder = self.reorders[number]
            inner.append(tensor if reorder is None else empty([self.sizes[number]]))
            if reorder is not None and number != self.output:
                reorder(tensor.data_ptr(), inner[-1].data_ptr())
        self.primitive(*(tensor.data_ptr() for tensor in inner))
        if self.reorders[self.output] is not None:
            self.reorders[self.output](
                inner[self.output].data_ptr(), tensors[self.output].data_ptr()
            )


@functools.cache
def _make_backward_weights_laid_out(geometry: Geometry) -> _Chain:
    """oneDNN's own primitive in the pictures' layout: few channels are not worth another one."""
    own = onednn.library()
    kernel = (*geometry.kernel_shape, 1)
    x, y = _describe_pictures(geometry.x_shape), _describe_pictures(geometry.y_shape)
    description = own.create(
        "convolution_backward_weights_primitive_desc_create",
        *(own.engine, onednn.DIRECT, x, onednn.describe_any(kernel), None, y),
        *_slide(geometry),
        _describe_forward(geometry, False, onednn.TRAINING),
        None,
    )
    roles = (onednn.SRC, onednn.DIFF_DST, onednn.DIFF_WEIGHTS)
    layouts = [x, y, onednn.describe(kernel)]
    return _Chain(onednn.Primitive(description, roles), layouts, output=2)


@functools.cache
def _make_backward_weights(geometry: Geometry) -> _Chain:
    """oneDNN's own primitive for two-dimensional pictures, in its own formats."""
    own = onednn.library()
    height, width, count, n_in = geometry.x_shape
    x, y = (count, n_in, height, width), (count, geometry.n_out, *geometry.out)
    kernel = geometry.kernel_shape
    wanted = [onednn.describe_any(dims) for dims in (x, kernel)]
    wanted_y = onednn.describe_any(y)
    (top, bottom), (left, right) = geometry.padding
    stride = (geometry.stride, geometry.stride)
    slide = [onednn.integers(part) for part in (stride, (0, 0), (top, left), (bottom, right))]
    name = "convolution_{}_primitive_desc_create"
    hint = own.create(
        name.format("forward"),
        *(own.engine, onednn.TRAINING, onednn.DIRECT, *wanted, None, wanted_y, *slide, None),
    )
    description = own.create(
        name.format("backward_weights"),
        *(own.engine, onednn.DIRECT, *wanted, None, wanted_y, *slide, hint, None),
    )
    roles = (onednn.SRC, onednn.DIFF_DST, onednn.DIFF_WEIGHTS)
    layouts = [onednn.describe(dims, OUTERMOST_SAMPLES) for dims in (x, y)]
    return _Chain(
        onednn.Primitive(description, roles), [*layouts, onednn.describe(kernel)], output=2
    )


def _missing_at_end(geometry: Geometry) -> List[int]:
    """Rows and columns that x lacks for y, dilated by the stride, to take the kernel's places."""
    lengths = (geometry.height, geometry.width)
    return [
        size - length - before + (out - 1) * geometry.stride
        for size, length, (before, _), out in zip(
            geometry.size, lengths, geometry.padding, geometry.out
        )
    ]


@functools.cache
def _make_dilated(geometry: Geometry) -> _Chain:
    """The gradient as a forward convolution: samples are its channels, n_in is its batch.

    x with padding slides over y, whose pixels are as far apart as the stride.
    """
    own = onednn.library()
    (height, width, count, n_in), (rows, columns) = geometry.x_shape, geometry.out
    (top, _), (left, _) = geometry.padding
    (size_v, size_h), step = geometry.size, geometry.stride
    n_out = geometry.n_out
    # What is missing at the end, so that the outcome has the kernel's size; it may be negative.
    bottom = size_v - height - top + (rows - 1) * step
    right = size_h - width - left + (columns - 1) * step
    parts = ((1, 1, 1), (step - 1, step - 1, 0), (top, left, 0), (bottom, right, 0))
    y = (n_out, count, rows, columns, 1)
    description = own.create(
        "convolution_forward_primitive_desc_create",
        *(own.engine, onednn.INFERENCE, onednn.DIRECT),
        onednn.describe((1, count, height, width, n_in), CHANNELS_LAST),
        onednn.describe_any(y),
        None,
        onednn.describe((1, n_out, size_v, size_h, n_in), CHANNELS_LAST),
        *(onednn.integers(part) for part in parts),
        None,
    )
    primitive = onednn.Primitive(description, (onednn.SRC, onednn.WEIGHTS, onednn.DST))
    layouts = (
        onednn.describe((1, count, height, width, n_in), (0, 2, 3, 1, 4)),
        onednn.describe(y, (2, 3, 1, 0, 4)),
        onednn.describe((1, n_out, size_v, size_h, n_in), (0, 1, 4, 2, 3)),
    )
    return _Chain(primitive, layouts, output=2)
