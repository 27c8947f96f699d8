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
from typing import Tuple

import paddle

from kernels import elementwise
from kernels.autograd import Map
from kernels.autograd import needed
from kernels.autograd import take


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What the derivatives know of a picture's normalisation; all but the size [N, 1] or [N, C].

    It is no tuple: Paddle would take the tensors in a tuple for inputs with gradients.

    Attributes:
        mean: m.
        factor: f.
        sums: The sums of g over a channel.
        products: The sums of g h over a channel.
        size: D.
    """

    mean: paddle.Tensor
    factor: paddle.Tensor
    sums: paddle.Tensor
    products: paddle.Tensor
    size: int


def _sum_channels(x: paddle.Tensor) -> paddle.Tensor:
    """The sum of each picture's channels, [N, C]."""
    shape = x.shape[2:]
    return elementwise.sum_rows(x, shape[0] * shape[1]).reshape(shape)


def _normalise(x: paddle.Tensor, scale: paddle.Tensor, offset: paddle.Tensor):
    """The normalised pictures, m and f."""
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
    return y, mean, factor


class LayerNorm(Map):
    """Layer normalisation of pictures [H, W, N, C]; scale and offset are [1, C].

    The gradient in x has a derivative (create_graph); those in scale and offset have none.
    """

    @staticmethod
    def compute(ctx, x, scale, offset):
        ctx.needs = [not part.stop_gradient for part in (x, scale, offset)]
        x = x.contiguous()
        y, ctx.mean, ctx.factor = _normalise(x, scale, offset)
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
            sums = _sum_channels(gradient)
            products = _sum_channels(elementwise.multiply(gradient, x))
            products = ctx.factor * (products - ctx.mean * sums)
        if needs[1]:
            results[1] = products.sum(0, keepdim=True)
        if needs[2]:
            results[2] = sums.sum(0, keepdim=True)
        if needs[0]:
            inputs = _Inputs(ctx.mean, ctx.factor, sums, products, x.size // x.shape[2])
            results[0] = InputGradient.apply(x, gradient, scale, inputs)
        return tuple(results)


class InputGradient(Map):
    """The gradient in `LayerNorm`'s input, J u; it has a derivative."""

    @staticmethod
    def compute(ctx, x, gradient, scale, inputs):
        ctx.needs = [not part.stop_gradient for part in (x, gradient, scale)]
        ctx.inputs = inputs
        ctx.save_for_backward(x, gradient, scale)
        a, b = _project(scale, inputs)
        return _apply_jacobian(x, gradient, scale, a, b, inputs)

    @staticmethod
    def differentiate(ctx, tangent):
        if paddle.is_grad_enabled():
            raise RuntimeError("kernels.maps: layer normalisation has no third derivative")
        (x, gradient, scale), v = take(ctx), tangent.contiguous()
        inputs, needs, results = ctx.inputs, ctx.needs, [None] * 3
        factor, ones = inputs.factor, paddle.ones_like(scale)
        sums = _sum_channels(v)
        products = factor * (_sum_channels(elementwise.multiply(v, x)) - inputs.mean * sums)
        a, b = _project(scale, inputs)
        c, d = _project(ones, dataclasses.replace(inputs, sums=sums, products=products))
        both = _sum_channels(elementwise.multiply(gradient, v))
        if needs[0]:
            e = (both * scale).sum(1, keepdim=True) / inputs.size
            squared = factor.square()
            along = squared * factor * (3 * b * d + a * c - e)
            shift = squared * (a * d + b * c) - along * inputs.mean
            result = elementwise.affine(v, -squared * b * ones, shift * ones)
            elementwise.accumulate(result, x, along * ones)
            results[0] = elementwise.accumulate(result, gradient, -squared * d * scale)
        if needs[1]:
            # J v, times scale
            result = elementwise.affine(
                v, factor * scale, factor * (d * factor * inputs.mean - c) * scale
            )
            results[1] = elementwise.accumulate(result, x, -factor.square() * d * scale)
        if needs[2]:
            total = factor * (both - c * inputs.sums - d * inputs.products)
            results[2] = total.sum(0, keepdim=True)
        return tuple(results)


def _project(scale: paddle.Tensor, inputs: _Inputs) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """The means a and b, [N, 1]."""
    parts = (inputs.sums, inputs.products)
    return tuple((part * scale).sum(1, keepdim=True) / inputs.size for part in parts)


def _apply_jacobian(x, gradient, scale, a, b, inputs: _Inputs) -> paddle.Tensor:
    """J u of u = scale * gradient."""
    factor, ones = inputs.factor, paddle.ones_like(scale)
    shift = factor * (b * factor * inputs.mean - a)
    result = elementwise.affine(gradient, factor * scale, shift * ones)
    return elementwise.accumulate(result, x, -factor.square() * b * ones)
