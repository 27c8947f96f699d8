# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Linear maps and gates, of which the networks are made; and what being made of them allows.

Exact rewrites, each proved by a test against the plain formula:

- a convolution and a mean pool, or a doubling and a convolution, are one convolution;
- a convolution of few places is one batch of matrix products on a CPU;
- a bias is added by a matrix product, which Paddle does faster on a CPU than broadcasting;
- the gradient penalty's gradient is had without second derivatives (`Tape`).
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Callable
from typing import List
from typing import Optional
from typing import Sequence
from typing import Tuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

_tape: Optional[Tape] = None  # of the pass that is going on
_is_differentiated_twice = False
# Places (height times width) up to which a convolution's products are made in one batch. At more
# the patches, nine times a picture or more, cost what the batch gains.
FEW = 49


@contextlib.contextmanager
def twice_differentiable():
    """Within it, maps are made of operators that have second derivatives in Paddle."""
    global _is_differentiated_twice
    before, _is_differentiated_twice = _is_differentiated_twice, True
    try:
        yield
    finally:
        _is_differentiated_twice = before


def _apply(function: Callable, x, weight, bias):
    """`function(x, weight) + bias`, noted or followed by a tape if there is one."""
    if _tape is None:
        return _add(function(x, weight), bias)
    return _tape.linear_map(function, x, weight, bias)


def _add(y, bias):
    if not _is_on_cpu(y):
        return y + bias.reshape([1, -1] + [1] * (y.ndim - 2))
    rows = paddle.ones([len(y), 1], bias.dtype) @ bias.unsqueeze(0)  # see `spread`
    return y + (spread(rows, y) if y.ndim > 2 else rows)


def _is_on_cpu(x: paddle.Tensor) -> bool:
    """Whether it is; an exported program, which has no place yet, is kept plain."""
    return paddle.in_dynamic_mode() and x.place.is_cpu_place()


def _goes_by_batch(x: paddle.Tensor, weight: paddle.Tensor, places: int) -> bool:
    if weight.shape[2] == 1 or _is_differentiated_twice or not _is_on_cpu(x):
        return False
    return places <= FEW


def _convolve(x, weight, stride: int, padding):
    """`F.conv2d(x, weight, None, stride, padding)`, on a CPU by one batch of products if small.

    Paddle's own multiplies a picture at a time, for which its threads must wait for each other.
    """
    size, around, out = weight.shape[2], [], []
    for length in x.shape[2:]:
        if padding == "SAME":  # as in TensorFlow
            lacking = max((-(-length // stride) - 1) * stride + size - length, 0)
            around.append((lacking // 2, lacking - lacking // 2))
        else:
            around.append((padding, padding))
        out.append((length + sum(around[-1]) - size) // stride + 1)
    if not _goes_by_batch(x, weight, math.prod(out)):
        return F.conv2d(x, weight, None, stride, padding)
    (top, bottom), (left, right) = around
    patches = F.unfold(x, size, stride, [top, left, bottom, right])
    return (weight.reshape([len(weight), -1]) @ patches).reshape([len(x), -1, *out])


def _convolve_transposed(x, weight, padding: Sequence[int]):
    """`F.conv2d_transpose` of stride 2, padding [top, bottom, left, right]; as `_convolve`."""
    if not _goes_by_batch(x, weight, math.prod(x.shape[2:])):
        return F.conv2d_transpose(x, weight, None, 2, list(padding))
    size = weight.shape[2]
    top, bottom, left, right = padding
    height, width = (2 * length - 2 + size for length in x.shape[2:])
    flat = weight.reshape([len(weight), -1])
    patches = paddle.matmul(flat, x.reshape([*x.shape[:2], -1]), transpose_x=True)
    # whose own padding is alike on all sides
    whole = F.fold(patches, [height, width], size, 2)
    return whole[:, :, top : height - bottom, left : width - right]


def spread(columns: paddle.Tensor, like: paddle.Tensor) -> paddle.Tensor:
    """Numbers per sample and channel [N, C], so that they go with a tensor [N, C, ...].

    On a CPU, where broadcasting is several times slower, by a matrix product; by which the
    sum over places is one, too, in the backward pass.
    """
    count, channels = like.shape[:2]
    if not _is_on_cpu(like):
        return columns.reshape([count, channels] + [1] * (like.ndim - 2))
    ones = paddle.ones([1, math.prod(like.shape[2:])], columns.dtype)
    return (columns.reshape([count * channels, 1]) @ ones).reshape(like.shape)


def linear(x: paddle.Tensor, layer: nn.Linear) -> paddle.Tensor:
    """`layer(x)`."""
    return _apply(paddle.matmul, x, layer.weight, layer.bias)


def conv(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """`layer(x)`."""

    def function(x, weight):
        return _convolve(x, weight, layer._stride[0], layer._padding)

    return _apply(function, x, layer.weight, layer.bias)


def conv_transpose(x: paddle.Tensor, layer: nn.Conv2DTranspose) -> paddle.Tensor:
    """`layer(x)`, of a layer of stride 2 (see `functions.conv_transpose`)."""

    def function(x, weight):
        return _convolve_transposed(x, weight, layer._padding)

    return _apply(function, x, layer.weight, layer.bias)


def conv_mean_pool(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """`avg_pool2d(layer(x), 2)` of a 1x1 or 3x3 layer, in a quarter or 4/9 of the operations.

    A 1x1 layer and the pool may change places. A 3x3 layer and the pool are one 4x4
    convolution of stride 2, whose kernel is the mean of four shifted copies of the layer's.
    """
    if layer.weight.shape[2] == 1:
        return conv(F.avg_pool2d(x, 2), layer)

    def function(x, weight):
        return _convolve(x, _spread(weight, "pool"), stride=2, padding=1)

    return _apply(function, x, layer.weight, layer.bias)


def upsample_conv(x: paddle.Tensor, layer: nn.Conv2D) -> paddle.Tensor:
    """`layer(interpolate(x, scale_factor=2))` of a 1x1 or 3x3 layer; nearest neighbours.

    A 1x1 layer and the doubling may change places. A doubling and a 3x3 layer are one 4x4
    transposed convolution of stride 2.
    """
    if layer.weight.shape[2] == 1:
        return upsample(conv(x, layer))
    if not paddle.in_dynamic_mode():  # an exported program is kept plain
        return conv(upsample(x), layer)

    def function(x, weight):
        kernel = _spread(weight.transpose([1, 0, 2, 3]), "upsample")
        return _convolve_transposed(x, kernel, [1, 1, 1, 1])

    return _apply(function, x, layer.weight, layer.bias)


def upsample(x: paddle.Tensor) -> paddle.Tensor:
    """Doubles height and width [N, C, H, W] by repeating each pixel, as `F.interpolate` does."""
    count, channels, height, width = x.shape
    x = x.reshape([count, channels, height, 1, width, 1]).expand([-1, -1, -1, 2, -1, 2])
    return x.reshape([count, channels, 2 * height, 2 * width])


@functools.cache
def _spreading(name: str) -> paddle.Tensor:
    axis = {
        "pool": np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2,
        "upsample": np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]),
    }[name]
    return paddle.to_tensor(np.kron(axis, axis).T.astype("float32"))


def _spread(weight: paddle.Tensor, name: str) -> paddle.Tensor:
    """A 3x3 kernel [A, B, 3, 3] as the 4x4 one of the two maps in one."""
    first, second = weight.shape[:2]
    flat = weight.reshape([first * second, 9]) @ _spreading(name).astype(weight.dtype)
    return flat.reshape([first, second, 4, 4])


def relu(x: paddle.Tensor, slope: float = 0.0) -> paddle.Tensor:
    """ReLU, leaky if there is a slope."""
    if _tape is not None:
        return _tape.gate(x, slope)
    return F.leaky_relu(x, slope) if slope else F.relu(x)


# --8<-- [start:tape]
class Tape:
    """Notes a pass through linear maps and gates, and sends tangents the same way.

    A critic of convolutions, linear layers, pools and (leaky) ReLUs is, near a sample,
    linear: its gradient there is the product of the maps and of the gates that were open. A
    second pass, of a tangent, with those gates and without biases, gives the critic's
    derivative in the tangent's direction; and the derivative of THAT in the weights of a map
    is the outer product of the tangent that entered the map and the gradient at its output,
    both of which are known. So first-order kernels do.
    """

    def __init__(self):
        self.outputs: List[paddle.Tensor] = []  # of each map, in their order
        self.gates: List[Tuple[paddle.Tensor, float]] = []
        self.tangents: Optional[List[paddle.Tensor]] = None  # once they are sent

    @contextlib.contextmanager
    def running(self):
        """Within it, maps and gates are noted; or followed, if `follow` was called."""
        global _tape
        _tape = self
        try:
            yield
        finally:
            _tape = None

    def follow(self) -> None:
        """From here on, a pass is one of tangents."""
        self.tangents = []
        self.gates_left = iter(self.gates)

    def linear_map(self, function, x, weight, bias):
        if self.tangents is None:
            output = function(x, weight)
            self.outputs.append(output)
            return _add(output, bias)
        # Cut off from the maps before it: each has its own product with its own gradient.
        self.tangents.append(function(x.detach(), weight))
        return self.tangents[-1]

    def gate(self, x, slope):
        if self.tangents is None:
            self.gates.append((x, slope))
            return F.leaky_relu(x, slope) if slope else F.relu(x)
        entered, slope = next(self.gates_left)
        is_open = (entered > 0).astype(x.dtype)
        return x.detach() * (is_open * (1 - slope) + slope if slope else is_open)


def length(slopes: paddle.Tensor) -> paddle.Tensor:
    """Length of each sample's gradient over ALL of its dimensions: [N, ...] to [N].

    A tiny constant keeps the root's derivative finite where a gradient vanishes.
    """
    return paddle.sqrt(slopes.square().reshape([len(slopes), -1]).sum(1) + 1e-12)


def first_order_penalty(
    critic, samples: paddle.Tensor, penalty: Callable[[paddle.Tensor], paddle.Tensor]
) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """`functions.penalised_norm` of the same value and gradient, without second derivatives.

    Args:
        critic: Maps and gates of this module only; no normalisation.
        samples: [N, ...].
        penalty: Gradient norms [N] to a term of the loss.

    Returns:
        The gradient's norm at each sample, [N], and the term of the loss.
    """
    samples = samples.detach()
    samples.stop_gradient = False
    tape = Tape()
    with tape.running():
        values, _ = critic.score(samples)
    # A head that the values do not depend on has no gradient.
    slope, *gradients = paddle.grad(values.sum(), [samples, *tape.outputs], allow_unused=True)
    norm = length(slope)
    norm.stop_gradient = False
    term = penalty(norm)
    # by the chain rule down to d norm = slope . d slope / norm
    factor = paddle.grad(term, norm)[0] / norm
    tape.follow()
    with tape.running():
        critic.score(slope * factor.reshape([-1] + [1] * (slope.ndim - 1)))
    derivative = sum(
        (tangent * gradient).sum()
        for tangent, gradient in zip(tape.tangents, gradients)
        if gradient is not None
    )
    # the value of the penalty, the gradient of the derivative
    return norm.detach(), term.detach() + derivative - derivative.detach()


# --8<-- [end:tape]
