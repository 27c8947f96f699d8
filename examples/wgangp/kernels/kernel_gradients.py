# SPDX-License-Identifier: Apache-2.0
"""The gradient in a convolution's kernel by oneDNN, on pictures laid out as [H, W, N, C].

There are three ways, chosen by shape, since none is the fastest everywhere.
"""

from __future__ import annotations

import functools
import math
from typing import List
from typing import Tuple

import paddle

from kernels import onednn
from kernels.convolutions import CHANNELS_LAST
from kernels.convolutions import NARROW
from kernels.convolutions import OUTERMOST_SAMPLES
from kernels.convolutions import Geometry
from kernels.convolutions import describe_forward
from kernels.convolutions import describe_pictures
from kernels.convolutions import window_arguments
from kernels.memory import empty
from kernels.memory import scratch

# The dilated way takes SLICE pictures at once (a vector register's numbers), and rows of TILE
# pixels, or fewer by the stride. More of them would not fit into a core's cache.
SLICE, TILE = 16, 256
MAX_STRIDED_CHANNELS = 32  # With a larger stride and at most this many input channels it is slower.
# Numbers of pictures that SLICE does not divide take it all at once, up to this many output pixels.
MAX_DILATED_PIXELS = 64


def backward_kernel(x: paddle.Tensor, y: paddle.Tensor, geometry: Geometry) -> paddle.Tensor:
    """The gradient in the kernel, [n_out, n_in, *size].

    Args:
        x: What the convolution got, [H, W, N, n_in].
        y: The gradient at its output, [OH, OW, N, n_out].
        geometry: The sizes.
    """
    gradient = empty(geometry.kernel_shape)
    if geometry.n_in < NARROW or geometry.size == (1, 1):
        make = _make_laid_out
    else:
        make = _make_dilated if _is_dilated(geometry) else _make_two_dimensional
    make(geometry)(x, y, gradient)
    return gradient


def _is_dilated(geometry: Geometry) -> bool:
    """Whether `_Dilated` computes the gradient."""
    pixels = math.prod(geometry.out)
    is_quick = pixels <= MAX_DILATED_PIXELS or geometry.count % SLICE == 0
    is_quick = is_quick and (geometry.stride == 1 or geometry.n_in > MAX_STRIDED_CHANNELS)
    return pixels > 1 and is_quick and min(_missing_at_end(geometry)) >= 0


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
            inner.append(tensor if reorder is None else scratch(number, self.sizes[number]))
            if reorder is not None and number != self.output:
                reorder(tensor.data_ptr(), inner[-1].data_ptr())
        self.primitive(*(tensor.data_ptr() for tensor in inner))
        if self.reorders[self.output] is not None:
            self.reorders[self.output](
                inner[self.output].data_ptr(), tensors[self.output].data_ptr()
            )


@functools.cache
def _make_laid_out(geometry: Geometry) -> _Chain:
    """oneDNN's own primitive in the pictures' layout.

    Few channels and kernels of one pixel are not worth a copy in another layout.
    """
    own = onednn.library()
    kernel = (*geometry.kernel_shape, 1)
    x, y = describe_pictures(geometry.x_shape), describe_pictures(geometry.y_shape)
    description = own.create(
        "convolution_backward_weights_primitive_desc_create",
        *(own.engine, onednn.DIRECT, x, onednn.describe_any(kernel), None, y),
        *window_arguments(geometry),
        describe_forward(geometry, False, onednn.TRAINING),
        None,
    )
    roles = (onednn.SRC, onednn.DIFF_DST, onednn.DIFF_WEIGHTS)
    layouts = [x, y, onednn.describe(kernel)]
    return _Chain(onednn.Primitive(description, roles), layouts, output=2)


@functools.cache
def _make_two_dimensional(geometry: Geometry) -> _Chain:
    """oneDNN's own primitive for two-dimensional pictures, in its own formats."""
    own = onednn.library()
    height, width, count, n_in = geometry.x_shape
    x, y = (count, n_in, height, width), (count, geometry.n_out, *geometry.out)
    kernel = geometry.kernel_shape
    wanted = [onednn.describe_any(dims) for dims in (x, kernel)]
    wanted_y = onednn.describe_any(y)
    (top, bottom), (left, right) = geometry.padding
    stride = (geometry.stride, geometry.stride)
    parts = [onednn.integers(part) for part in (stride, (0, 0), (top, left), (bottom, right))]
    name = "convolution_{}_primitive_desc_create"
    hint = own.create(
        name.format("forward"),
        *(own.engine, onednn.TRAINING, onednn.DIRECT, *wanted, None, wanted_y, *parts, None),
    )
    description = own.create(
        name.format("backward_weights"),
        *(own.engine, onednn.DIRECT, *wanted, None, wanted_y, *parts, hint, None),
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


class _Tile:
    """The gradient by some rows of y, as a forward convolution.

    Samples are its channels and n_in is its batch. x with padding slides over y, whose pixels are
    as far apart as the stride.

    Args:
        geometry: The sizes of the rows.
        part: Number of pictures in a slice.

    Attributes:
        primitives: The convolution that writes a result, and the one that adds to it.
        enter_x: Copies a slice of x into the layout that they want.
        enter_y: As `enter_x`.
        memories: Descriptors of the three arguments.
    """

    def __init__(self, geometry: Geometry, part: int):
        height, width, count, n_in = geometry.x_shape
        rows, columns, _, n_out = geometry.y_shape
        x, y = (1, part, height, width, n_in), (n_out, part, rows, columns, 1)
        result = (1, n_out, *geometry.size, n_in)
        first = self._make(geometry, x, onednn.describe_any(y), result, None)
        self.memories = first.memories
        inner_x, inner_y, _ = first.memories
        self.primitives = (
            first,
            self._make(geometry, x, inner_y, result, onednn.make_additions(True)),
        )
        apart = count * n_in, count * n_out  # numbers from one pixel to the next
        given_x = onednn.describe_strided(x, (1, n_in, width * apart[0], apart[0], 1))
        given_y = onednn.describe_strided(y, (1, n_out, columns * apart[1], apart[1], 1))
        self.enter_x = onednn.make_reorder(given_x, inner_x)
        self.enter_y = onednn.make_reorder(given_y, inner_y)

    @staticmethod
    def _make(geometry: Geometry, x, y, result, attributes) -> onednn.Primitive:
        """The convolution of x, whose kernel has the layout y."""
        own, step = onednn.library(), geometry.stride
        (top, _), (left, _) = geometry.padding
        parts = (
            *((1, 1, 1), (step - 1, step - 1, 0)),
            *((top, left, 0), (*_missing_at_end(geometry), 0)),
        )
        description = own.create(
            "convolution_forward_primitive_desc_create",
            *(own.engine, onednn.INFERENCE, onednn.DIRECT),
            onednn.describe(x, CHANNELS_LAST),
            y,
            None,
            onednn.describe(result, CHANNELS_LAST),
            *(onednn.integers(part) for part in parts),
            attributes,
        )
        return onednn.Primitive(description, (onednn.SRC, onednn.WEIGHTS, onednn.DST))


_make_tile = functools.cache(_Tile)


def _cut(geometry: Geometry) -> List[Tuple[int, int, Geometry]]:
    """Cuts y into tiles of rows: the first row of x and of y, and the sizes of each."""
    rows, columns = geometry.out
    step, tiles = geometry.stride, []
    height = max(1, TILE // (step * columns))
    (top, _), sides = geometry.padding
    for first in range(0, rows, height):
        last = min(first + height, rows) - 1
        begin, end = first * step - top, last * step - top + geometry.size[0]
        inside = max(begin, 0), min(end, geometry.height)
        if inside[0] >= inside[1]:  # The padding alone adds nothing.
            continue
        padding = (inside[0] - begin, end - inside[1]), sides
        tile = geometry._replace(height=inside[1] - inside[0], padding=padding)
        tiles.append((inside[0], first, tile))
    return tiles or [(0, 0, geometry)]


class _Dilated:
    """The gradient as the sum of those of tiles of rows, in slices of the pictures (`_Tile`).

    Args:
        geometry: The sizes.
    """

    def __init__(self, geometry: Geometry):
        _, width, count, n_in = geometry.x_shape
        _, columns, _, n_out = geometry.y_shape
        part = SLICE if count % SLICE == 0 else count
        # Of each call, the bytes before its part of x and of y
        self.calls = [
            (
                *(
                    4 * n_in * (row_x * width * count + start),
                    4 * n_out * (row_y * columns * count + start),
                ),
                _make_tile(tile, part),
            )
            for start in range(0, count, part)
            for row_x, row_y, tile in _cut(geometry)
        ]
        size_of = onednn.library().size_of
        self.sizes = [
            max(size_of(tile.memories[number]) // 4 for *_, tile in self.calls)
            for number in range(3)
        ]
        result = (1, n_out, *geometry.size, n_in)
        wanted = onednn.describe(result, (0, 1, 4, 2, 3))
        self.leave = onednn.make_reorder(self.calls[0][-1].memories[2], wanted)

    def __call__(self, x: paddle.Tensor, y: paddle.Tensor, gradient: paddle.Tensor) -> None:
        inner = [scratch(number, size).data_ptr() for number, size in enumerate(self.sizes)]
        for number, (before_x, before_y, tile) in enumerate(self.calls):
            tile.enter_x(x.data_ptr() + before_x, inner[0])
            tile.enter_y(y.data_ptr() + before_y, inner[1])
            tile.primitives[number > 0](*inner)
        self.leave(inner[2], gradient.data_ptr())


_make_dilated = functools.cache(_Dilated)
