# SPDX-License-Identifier: Apache-2.0
"""Layer normalisation of pictures [H, W, N, C] with its first and second derivatives.

With the mean m and the standard deviation 1/f of each picture, h = f (x - m), and u = scale * g
for a gradient g at the output, the gradient in x is J u, where

    J u = f (u - a - b h),  a = mean(u),  b = mean(u h).

J is linear and symmetric. For a gradient v at J u, with c = mean(v), d = mean(v h) and
e = mean(u v), the gradient in u is J v, and the gradient in x is

    f^2 (3 b d + a c - e) h - f^2 d u - f^2 b v + f^2 (a d + b c).

All means are over a picture's D = H * W * C numbers. The sums behind them are those of each
channel, and every result is a sum of pictures with a factor per picture and channel.
"""

from __future__ import annotations

import dataclasses
from typing import Optional
from typing import Tuple

import paddle

from kernels import elementwise
from kernels.autograd import Map
from kernels.autograd import needed
from kernels.autograd import take


@dataclasses.dataclass(frozen=True)
class _Statistics:
    """What a forward pass knows of its pictures.

    Attributes:
        mean: m, [N, 1].
        factor: f, [N, 1].
        means: The means of the channels, [N, C].
        variances: The variances of the channels, [N, C].
    """

    mean: paddle.Tensor
    factor: paddle.Tensor
    means: paddle.Tensor
    variances: paddle.Tensor


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What the derivatives know of a gradient g at the output.

    It is not a tuple: Paddle would take the tensors in a tuple for inputs with gradients.

    Attributes:
        statistics: Those of the pictures.
        sums: The sums of g over a channel, [N, C].
        products: The sums of g h over a channel, [N, C].
        size: D.
        scaled: f u, which `InputGradient` overwrites; None afterwards.
    """

    statistics: _Statistics
    sums: paddle.Tensor
    products: paddle.Tensor
    size: int
    scaled: Optional[paddle.Tensor] = None


def _normalise(
    x: paddle.Tensor, scale: paddle.Tensor, offset: paddle.Tensor
) -> Tuple[paddle.Tensor, _Statistics]:
    """The normalised pictures, and their statistics."""
    height, width, count, channels = x.shape
    # Each channel of each picture first: the library has a parallel, stable way for that.
    y, means, variances = elementwise.normalise(x.reshape([height, width, 1, -1]))
    means, variances = (part.reshape([count, channels]) for part in (means, variances))
    mean = means.mean(1, keepdim=True)
    factor = (variances + (means - mean).square()).mean(1, keepdim=True) + elementwise.EPSILON
    factor = factor.rsqrt()
    scales = factor * scale
    offsets = (means - mean) * scales + offset
    scales = scales * (variances + elementwise.EPSILON).sqrt()
    y = elementwise.affine(y.reshape(x.shape), scales, offsets, in_place=True)
    return y, _Statistics(mean, factor, means, variances)


def _take_sums(x: paddle.Tensor, gradient: paddle.Tensor, scale: paddle.Tensor, of: _Statistics):
    """The sums of a gradient, and f * scale * gradient, as `_Inputs`."""
    scales = of.factor * scale
    scaled, sums, products = elementwise.scale_and_sum(x, gradient, scales, of.means, of.variances)
    products = of.factor * (products + (of.means - of.mean) * sums)
    return _Inputs(of, sums, products, elementwise.count(x) // x.shape[2], scaled)


class LayerNorm(Map):
    """Layer normalisation of pictures [H, W, N, C]; scale and offset are [1, C].

    The gradient in x has a derivative (create_graph); those in scale and offset have none.
    """

    @staticmethod
    def compute(ctx, x, scale, offset):
        ctx.needs = [not part.stop_gradient for part in (x, scale, offset)]
        x = x.contiguous()
        y, ctx.statistics = _normalise(x, scale, offset)
        ctx.save_for_backward(x, scale)
        return y

    @staticmethod
    def differentiate(ctx, gradient):
        (x, scale), gradient = take(ctx), gradient.contiguous()
        needs, results = needed(ctx), [None] * 3
        if paddle.is_grad_enabled() and any(needs[1:]):
            raise RuntimeError(
                "kernels.maps: layer normalisation's gradients in its weights have no derivative "
                "(create_graph); run both passes inside maps.twice_differentiable()"
            )
        with paddle.no_grad():
            inputs = _take_sums(x, gradient, scale, ctx.statistics)
        if needs[1]:
            results[1] = inputs.products.sum(0, keepdim=True)
        if needs[2]:
            results[2] = inputs.sums.sum(0, keepdim=True)
        if needs[0]:
            results[0] = InputGradient.apply(x, gradient, scale, inputs)
        return tuple(results)


class InputGradient(Map):
    """The gradient in `LayerNorm`'s input, J u; it has a derivative."""

    @staticmethod
    def compute(ctx, x, gradient, scale, inputs):
        ctx.needs = [not part.stop_gradient for part in (x, gradient, scale)]
        ctx.inputs = dataclasses.replace(inputs, scaled=None)
        ctx.save_for_backward(x, gradient, scale)
        mean, factor = inputs.statistics.mean, inputs.statistics.factor
        a, b = _project(scale, inputs)
        ones = paddle.ones_like(scale)
        shift = factor * (b * factor * mean - a)
        return elementwise.accumulate(inputs.scaled, x, -factor.square() * b * ones, shift * ones)

    @staticmethod
    def differentiate(ctx, tangent):
        if paddle.is_grad_enabled():
            raise RuntimeError("kernels.maps: layer normalisation has no third derivative")
        (x, gradient, scale), v = take(ctx), tangent.contiguous()
        inputs, needs, results = ctx.inputs, ctx.needs, [None] * 3
        mean, factor = inputs.statistics.mean, inputs.statistics.factor
        ones = paddle.ones_like(scale)
        of_v = _take_sums(x, v, scale, inputs.statistics)
        a, b = _project(scale, inputs)
        c, d = _project(ones, of_v)
        products = elementwise.multiply(gradient, v)
        both = elementwise.sum_rows(products, elementwise.count(inputs.sums))
        both = both.reshape(inputs.sums.shape)
        if needs[0]:
            e = (both * scale).sum(1, keepdim=True) / inputs.size
            squared = factor.square()
            along = squared * factor * (3 * b * d + a * c - e)
            shift = squared * (a * d + b * c) - along * mean
            result = elementwise.affine(v, -squared * b * ones, shift * ones)
            elementwise.accumulate(result, x, along * ones)
            results[0] = elementwise.accumulate(result, gradient, -squared * d * scale)
        if needs[1]:
            # J v, times scale
            shift = factor * (d * factor * mean - c) * scale
            along = -factor.square() * d * scale
            results[1] = elementwise.accumulate(of_v.scaled, x, along, shift)
        if needs[2]:
            total = factor * (both - c * inputs.sums - d * inputs.products)
            results[2] = total.sum(0, keepdim=True)
        return tuple(results)


def _project(scale: paddle.Tensor, inputs: _Inputs) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """The means a and b, [N, 1], of a gradient at the output."""
    parts = (inputs.sums, inputs.products)
    return tuple((part * scale).sum(1, keepdim=True) / inputs.size for part in parts)
