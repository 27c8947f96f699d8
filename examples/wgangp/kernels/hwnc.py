# SPDX-License-Identifier: Apache-2.0
"""Pictures that stay laid out as [H, W, N, C] between layers, and functions of them.

In this layout a picture's place holds all pictures and channels. oneDNN's convolutions then have
long rows to work on and make no products with padding.
"""

from __future__ import annotations

import functools
from typing import Callable
from typing import List
from typing import Sequence
from typing import Tuple

import paddle

from kernels import autograd
from kernels import elementwise
from kernels import products
from kernels.autograd import Call
from kernels.autograd import ConvolutionMap
from kernels.elementwise import constant
from kernels.layer_norm import LayerNorm


class Pictures:
    """Pictures [N, C, H, W] that stay laid out as [H, W, N, C] between layers.

    Args:
        pixels: [H, W, N, C].
    """

    def __init__(self, pixels: paddle.Tensor):
        self.pixels = pixels

    @property
    def shape(self) -> List[int]:
        """[N, C, H, W]."""
        height, width, count, channels = self.pixels.shape
        return [count, channels, height, width]

    def __len__(self) -> int:
        return self.pixels.shape[2]

    def __add__(self, other: Pictures) -> Pictures:
        return Pictures(self.pixels + other.pixels)


_turn_in = functools.partial(elementwise.change_layout, is_entering=True)
_turn_out = functools.partial(elementwise.change_layout, is_entering=False)


def enter(x: paddle.Tensor) -> Pictures:
    """Lays pictures [N, C, H, W] out."""
    return Pictures(autograd.Linear.apply(x, _turn_in, _turn_out))


def leave(x: Pictures) -> paddle.Tensor:
    """Returns pictures as [N, C, H, W]."""
    return autograd.Linear.apply(x.pixels, _turn_out, _turn_in)


def convolve(
    x: Pictures, weight: paddle.Tensor, bias: paddle.Tensor, spec: ConvolutionMap
) -> Pictures:
    """Applies a map to pictures."""
    kernel = spec.kernel(weight)
    call = Call(spec, kernel, spec.geometry(x.pixels, kernel))
    return Pictures(autograd.Convolve.apply(x.pixels, weight, bias, call))


@paddle.no_grad()
def convolve_tangent(
    x: Pictures, weight: paddle.Tensor, spec: ConvolutionMap
) -> Tuple[Pictures, Callable[[paddle.Tensor], paddle.Tensor]]:
    """Applies a map without its bias to tangents.

    Returns:
        The outcome, and a function of the gradient at the map's output: a number, 0, whose
        gradient in the weight is that of the outcome's product with the gradient.
    """
    pixels, kernel = x.pixels.contiguous(), spec.kernel(weight)
    geometry = spec.geometry(pixels, kernel)

    def make_term(gradient: paddle.Tensor) -> paddle.Tensor:
        return autograd.WeightTerm.apply(
            weight, lambda: spec.weight_gradient(pixels, gradient.contiguous(), geometry)
        )

    return Pictures(spec.apply(pixels, kernel, geometry)), make_term


def multiply(x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
    """x @ weight + bias."""
    return autograd.Multiply.apply(x, weight, bias, "")


@paddle.no_grad()
def multiply_tangent(
    x: paddle.Tensor, weight: paddle.Tensor
) -> Tuple[paddle.Tensor, Callable[[paddle.Tensor], paddle.Tensor]]:
    """`convolve_tangent` of a linear layer."""
    x, weight_map = x.contiguous(), weight.contiguous()

    def make_term(gradient: paddle.Tensor) -> paddle.Tensor:
        return autograd.WeightTerm.apply(
            weight, lambda: products.multiply(x, gradient.contiguous(), "a")
        )

    return products.multiply(x, weight_map), make_term


def relu(x: Pictures, slope: float) -> Pictures:
    """A (leaky) ReLU."""
    return Pictures(autograd.Relu.apply(x.pixels, float(slope)))


def mask(entered: Pictures, x: Pictures, slope: float) -> Pictures:
    """x where what entered a ReLU (or left it) is positive, else slope * x."""
    return Pictures(elementwise.mask(entered.pixels, x.pixels.contiguous(), float(slope)))


def mean_pool(x: Pictures) -> Pictures:
    """The mean of each 2x2 pixels."""
    return Pictures(
        autograd.Linear.apply(x.pixels, elementwise.mean_pool, elementwise.spread_quarters)
    )


@paddle.no_grad()
def pool(x: Pictures, pool: elementwise.Pool) -> Pictures:
    """A mean or maximum of windows, without a gradient."""
    return Pictures(elementwise.apply_pool(x.pixels.contiguous(), pool))


def concat(parts: Sequence[Pictures]) -> Pictures:
    """Pictures with the channels of all parts."""
    return Pictures(paddle.concat([part.pixels for part in parts], -1))


def _repeat(x: paddle.Tensor) -> paddle.Tensor:
    return elementwise.spread_quarters(x * 4)


def _sum_quarters(x: paddle.Tensor) -> paddle.Tensor:
    return elementwise.mean_pool(x) * 4


def upsample(x: Pictures) -> Pictures:
    """Doubles height and width by nearest neighbours."""
    return Pictures(autograd.Linear.apply(x.pixels, _repeat, _sum_quarters))


def batch_norm(
    x: Pictures, scale: paddle.Tensor, offset: paddle.Tensor
) -> Tuple[Pictures, paddle.Tensor, paddle.Tensor]:
    """Batch normalisation with the pictures' own statistics.

    Args:
        x: Pictures.
        scale: Factors per channel, [C], or per picture and channel, [N, C].
        offset: Summands, of the same shape.

    Returns:
        The pictures, and the means and (biased) variances that they had, [C].
    """
    count, channels = x.shape[:2]
    if scale.shape not in ([channels], [count, channels]):
        raise ValueError(f"{count} pictures of {channels} channels got scales {scale.shape}.")
    y, mean, variance = autograd.BatchNorm.apply(x.pixels, scale, offset)
    return Pictures(y), mean, variance


def layer_norm(x: Pictures, scale: paddle.Tensor, offset: paddle.Tensor) -> Pictures:
    """Layer normalisation over channels, height and width.

    Args:
        x: Pictures.
        scale: Factors per channel, [1, C].
        offset: Summands, of the same shape.
    """
    return Pictures(LayerNorm.apply(x.pixels, scale, offset))


def mean(x: Pictures) -> paddle.Tensor:
    """The mean over a picture's pixels, [N, C]."""
    height, width, count, channels = x.pixels.shape
    weights = constant(1 / (height * width), (1, height * width))
    return (weights @ x.pixels.reshape([height * width, -1])).reshape([count, channels])
