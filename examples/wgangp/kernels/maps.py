# SPDX-License-Identifier: Apache-2.0
"""The linear maps and ReLUs of networks, in exact rewrites that run faster.

Makers of layers are in `networks.layers`; the functions here apply a layer to its input. On a CPU
they use oneDNN (`kernels.availability` says when). Pictures then stay in a layout that suits it
(`kernels.hwnc`) from the first map to `leave`, `mean` or `flatten`. Elsewhere the functions use
Paddle's own operators.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Callable
from typing import Iterator
from typing import List
from typing import Sequence
from typing import Tuple
from typing import Union

import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import availability
from kernels import elementwise
from kernels import hwnc
from kernels import onednn
from kernels import plain
from kernels import resampling
from kernels import tape
from kernels.autograd import ConvolutionMap
from kernels.autograd import input_gradients
from kernels.broadcast import add_bias
from kernels.broadcast import is_on_cpu
from kernels.convolutions import Padding
from kernels.elementwise import Pool
from kernels.hwnc import Pictures

# A 3x3 convolution of stride 1 and a resampling in one
POOLING = ConvolutionMap(2, ((1, 1), (1, 1)), resampling="pool")
UPSAMPLING = ConvolutionMap(2, ((1, 1), (1, 1)), True, "upsample")

AnyPictures = Union[paddle.Tensor, Pictures]  # [N, C, H, W]

_is_differentiated_twice = False


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """For the gradient of a network in its input, which is differentiated again.

    The maps inside use only operators that have second derivatives, and backward passes inside
    leave out weights (see `kernels.autograd.input_gradients`).
    """
    global _is_differentiated_twice
    before, _is_differentiated_twice = _is_differentiated_twice, True
    try:
        with input_gradients():
            yield
    finally:
        _is_differentiated_twice = before


def is_differentiated_twice() -> bool:
    """Whether the passes that run need second derivatives."""
    return _is_differentiated_twice


def _is_fast(x: AnyPictures) -> bool:
    """Whether oneDNN serves a map of x."""
    if isinstance(x, Pictures):
        return True
    # Paddle's len takes ten times as long.
    is_served = is_on_cpu(x) and x.dtype == paddle.float32 and x.shape[0] > 0
    return is_served and availability.is_available()


def enter(x: AnyPictures) -> AnyPictures:
    """Lays pictures out as the maps want them, where oneDNN computes the maps."""
    return hwnc.enter(x) if not isinstance(x, Pictures) and _is_fast(x) else x


def leave(x: AnyPictures) -> paddle.Tensor:
    """Returns pictures as a tensor [N, C, H, W]."""
    return hwnc.leave(x) if isinstance(x, Pictures) else x


def flatten(x: AnyPictures) -> paddle.Tensor:
    """Flattens pictures to [N, C * H * W]."""
    # Paddle's flatten has no second derivative; reshape has one.
    return leave(x).reshape([len(x), -1])


def mean(x: AnyPictures) -> paddle.Tensor:
    """The mean over a picture's pixels, [N, C]."""
    return hwnc.mean(x) if isinstance(x, Pictures) else x.mean([2, 3])


def _apply(
    function: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor],
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
) -> paddle.Tensor:
    """Computes `function(x, weight) + bias`, through the current tape if there is one."""
    current = tape.current
    if current is None:
        return add_bias(function(x, weight), bias)
    if current.is_replaying:
        # Detached from the maps before it: each map has its own product with its own gradient.
        tangent = function(x.detach(), weight)
        current.terms.append(lambda gradient: (tangent * gradient).sum())
        return tangent
    output = function(x, weight)
    current.add_map(output, weight, bias)
    return add_bias(output, bias)


def _apply_fast(
    compute: Callable[[paddle.Tensor, paddle.Tensor], AnyPictures],
    compute_tangent: Callable[[], Tuple[AnyPictures, Callable]],
    weight: paddle.Tensor,
    bias: paddle.Tensor,
) -> AnyPictures:
    """`_apply` by a map of `kernels.hwnc`.

    Args:
        compute: The map, a function of weight and bias.
        compute_tangent: Returns the map of a tangent, and the term for the tape.
        weight: The layer's weight.
        bias: The layer's bias.
    """
    current = tape.current
    if current is None:
        return compute(weight, bias)
    if current.is_replaying:
        tangent, term = compute_tangent()
        current.terms.append(term)
        return tangent
    output = compute(weight, bias)
    current.add_map(output.pixels if isinstance(output, Pictures) else output, weight, bias)
    return output


def _apply_convolution(
    x: AnyPictures, weight: paddle.Tensor, bias: paddle.Tensor, spec: ConvolutionMap
) -> AnyPictures:
    """Applies a weight and a bias by a map."""
    if not _is_fast(x):
        return _apply(functools.partial(_convolve_plainly, spec), x, weight, bias)
    x = enter(x)
    return _apply_fast(
        lambda weight, bias: hwnc.convolve(x, weight, bias, spec),
        lambda: hwnc.convolve_tangent(x, weight, spec),
        weight,
        bias,
    )


def _convolve_plainly(
    spec: ConvolutionMap, x: paddle.Tensor, weight: paddle.Tensor
) -> paddle.Tensor:
    """Applies a weight by Paddle's own operators."""
    if spec.resampling == "upsample":
        weight = weight.transpose([1, 0, 2, 3])
    if spec.resampling is not None:
        weight = resampling.fold(weight, spec.resampling)
    if spec.is_transposed:
        return plain.convolve_transposed(x, weight, spec.padding, _is_differentiated_twice)
    return plain.convolve(x, weight, spec.stride, spec.padding, _is_differentiated_twice)


def linear(x: paddle.Tensor, layer: nn.Linear) -> paddle.Tensor:
    """Computes `layer(x)`."""
    weight, bias = layer.weight, layer.bias
    if x.ndim != 2 or not _is_fast(x):
        return _apply(paddle.matmul, x, weight, bias)
    return _apply_fast(
        lambda weight, bias: hwnc.multiply(x, weight, bias),
        lambda: hwnc.multiply_tangent(x, weight),
        weight,
        bias,
    )


def _pad(shape: List[int], layer: nn.Conv2D) -> Padding:
    """A layer's padding as numbers of rows and columns."""
    if layer._padding != "SAME":
        both = layer._padding if isinstance(layer._padding, (list, tuple)) else [layer._padding] * 2
        return tuple((number, number) for number in both)
    around = []
    for length, size, stride in zip(shape[2:], layer._kernel_size, layer._stride):
        # TensorFlow's rule: the larger half of what is lacking lies behind.
        lacking = max((-(-length // stride) - 1) * stride + size - length, 0)
        around.append((lacking // 2, lacking - lacking // 2))
    return tuple(around)


def conv(x: AnyPictures, layer: nn.Conv2D) -> AnyPictures:
    """Computes `layer(x)`."""
    return convolve(x, layer.weight, layer.bias, layer._stride[0], _pad(x.shape, layer))


def convolve(
    x: AnyPictures, weight: paddle.Tensor, bias: paddle.Tensor, stride: int, padding: Padding
) -> AnyPictures:
    """Computes `F.conv2d`; the padding is (top, bottom), (left, right)."""
    return _apply_convolution(x, weight, bias, ConvolutionMap(stride, padding))


def conv_transpose(x: AnyPictures, layer: nn.Conv2DTranspose, crop: int = 0) -> AnyPictures:
    """Computes `layer(x)` of a layer of stride 2 (`networks.layers.make_conv_transpose`).

    Args:
        x: Pictures.
        layer: The layer.
        crop: Number of rows and columns that the output lacks at the bottom and at the right.
    """
    top, bottom, left, right = layer._padding
    padding = ((top, bottom + crop), (left, right + crop))
    spec = ConvolutionMap(2, padding, is_transposed=True)
    return _apply_convolution(x, layer.weight, layer.bias, spec)


def conv_mean_pool(x: AnyPictures, layer: nn.Conv2D) -> AnyPictures:
    """Computes `avg_pool2d(layer(x), 2)` with a quarter or 4/9 of the operations.

    A 1x1 layer and the pool may change places. For a 3x3 layer see `kernels.resampling`.

    Args:
        x: Pictures of even height and width.
        layer: A 1x1 or 3x3 convolution of stride 1 that keeps height and width.
    """
    if layer._kernel_size[0] == 1:
        return conv(mean_pool(x), layer)
    return _apply_convolution(x, layer.weight, layer.bias, POOLING)


def upsample_conv(x: AnyPictures, layer: nn.Conv2D) -> AnyPictures:
    """Computes `layer(upsample(x))` with a quarter or 4/9 of the operations.

    A 1x1 layer and the upsampling may change places. For a 3x3 layer see `kernels.resampling`.

    Args:
        x: Pictures.
        layer: A 1x1 or 3x3 convolution of stride 1 that keeps height and width.
    """
    if layer._kernel_size[0] == 1:
        return upsample(conv(x, layer))
    if not paddle.in_dynamic_mode():  # An exported program gets the plain operators.
        return conv(upsample(x), layer)
    return _apply_convolution(x, layer.weight, layer.bias, UPSAMPLING)


def mean_pool(x: AnyPictures) -> AnyPictures:
    """Computes the mean of each 2x2 pixels."""
    if isinstance(x, Pictures) and not (x.shape[2] % 2 or x.shape[3] % 2):
        return hwnc.mean_pool(x)
    return F.avg_pool2d(leave(x), 2)


def max_pool(x: AnyPictures, size: int, stride: int, padding: int = 0) -> AnyPictures:
    """Computes `F.max_pool2d`, for evaluation only."""
    if isinstance(x, Pictures):
        return hwnc.pool(x, Pool(onednn.MAX_POOL, size, stride, padding))
    return F.max_pool2d(x, size, stride, padding)


def average_pool(x: AnyPictures, size: int, stride: int, padding: int = 0) -> AnyPictures:
    """Computes `F.avg_pool2d`, which does not count the padding, for evaluation only."""
    if isinstance(x, Pictures):
        return hwnc.pool(x, Pool(onednn.MEAN_POOL, size, stride, padding))
    return F.avg_pool2d(x, size, stride, padding)


def concat(parts: Sequence[AnyPictures]) -> AnyPictures:
    """Pictures with the channels of all parts."""
    return hwnc.concat(parts) if isinstance(parts[0], Pictures) else paddle.concat(parts, 1)


def upsample(x: AnyPictures) -> AnyPictures:
    """Doubles height and width by nearest neighbours, as `F.interpolate` does."""
    if isinstance(x, Pictures):
        return hwnc.upsample(x)
    count, channels, height, width = x.shape
    x = x.reshape([count, channels, height, 1, width, 1]).expand([-1, -1, -1, 2, -1, 2])
    return x.reshape([count, channels, 2 * height, 2 * width])


def relu(x: AnyPictures, slope: float = 0.0) -> AnyPictures:
    """Applies a ReLU, or a leaky one if the slope on its negative side is not 0."""
    current = tape.current
    if current is not None and current.is_replaying:
        return _mask(x, *current.next_relu())
    if isinstance(x, Pictures):
        entered = x = hwnc.relu(x, slope)
    else:
        entered, x = x, F.leaky_relu(x, slope) if slope else F.relu(x)
    if current is not None:
        current.add_relu(entered, slope)
    return x


def _mask(x: AnyPictures, entered: AnyPictures, slope: float) -> AnyPictures:
    """Multiplies a tangent by the mask of a ReLU that was recorded."""
    if isinstance(x, Pictures):
        return hwnc.mask(entered, x, slope)
    if not slope and _is_fast(x):
        return elementwise.mask(entered.detach().contiguous(), x.detach().contiguous(), 0.0)
    # On a CPU, Paddle's leaky ReLU has derivative 1 at 0, unlike its ReLU.
    is_open = entered >= 0 if slope and is_on_cpu(entered) else entered > 0
    is_open = is_open.astype(x.dtype)
    return x.detach() * (is_open * (1 - slope) + slope if slope else is_open)
