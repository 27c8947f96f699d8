# SPDX-License-Identifier: Apache-2.0
"""oneDNN's maps with derivatives, on pictures laid out as [H, W, N, C].

The backward passes consist of the same maps, so that derivatives of any order exist.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Iterator
from typing import List
from typing import NamedTuple
from typing import Optional
from typing import Tuple

import paddle

from kernels import convolutions
from kernels import elementwise
from kernels import kernel_gradients
from kernels import products
from kernels import resampling
from kernels.convolutions import Geometry
from kernels.convolutions import Kernel
from kernels.convolutions import Padding

NO_SECOND_DERIVATIVE = (
    "kernels.maps: batch normalisation has no second derivative here (create_graph); run the "
    "forward pass inside maps.twice_differentiable()"
)
_is_input_only = False


@contextlib.contextmanager
def input_gradients() -> Iterator[None]:
    """Makes backward passes inside leave out gradients in weights and biases.

    `paddle.grad` of a map's input needs it: Paddle refuses gradients that it did not ask for, and
    does not say what it asks for.
    """
    global _is_input_only
    before, _is_input_only = _is_input_only, True
    try:
        yield
    finally:
        _is_input_only = before


class ConvolutionMap(NamedTuple):
    """A convolution, perhaps transposed, and perhaps with a resampling in one.

    Attributes:
        stride: Its stride.
        padding: Rows and columns of zeros around the convolution's input. They are cut off a
            transposed convolution's output.
        is_transposed: Whether it is a transposed convolution.
        resampling: "pool" or "upsample" where a resampling is folded into the kernel.
    """

    stride: int
    padding: Padding
    is_transposed: bool = False
    resampling: Optional[str] = None

    def kernel(self, weight: paddle.Tensor) -> Kernel:
        """The kernel of a layer's weight."""
        weight = weight.detach()
        if self.resampling == "upsample":
            weight = weight.transpose([1, 0, 2, 3])
        return Kernel(resampling.fold(weight, self.resampling) if self.resampling else weight)

    def geometry(self, x: paddle.Tensor, kernel: Kernel) -> Geometry:
        """The sizes for an input."""
        n_out, n_in, *size = kernel.weight.shape
        lengths, count = x.shape[:2], x.shape[2]
        channels = n_out if self.is_transposed else n_in
        if x.shape[3] != channels:  # oneDNN gets bare addresses, and would read beyond the end.
            raise ValueError(f"A map of {channels} channels got pictures of {x.shape[3]}.")
        if self.is_transposed:
            lengths = [
                (length - 1) * self.stride + k - sum(pad)
                for length, k, pad in zip(lengths, size, self.padding)
            ]
        return Geometry(count, n_in, n_out, *lengths, tuple(size), self.stride, self.padding)

    def apply(self, x, kernel: Kernel, geometry: Geometry, bias=None) -> paddle.Tensor:
        """The map itself."""
        if not self.is_transposed:
            return convolutions.forward(x, kernel, geometry, bias)
        y = convolutions.backward_data(x, kernel, geometry)
        return y if bias is None else elementwise.affine(y, None, bias, in_place=True)

    def apply_adjoint(self, y, kernel: Kernel, geometry: Geometry) -> paddle.Tensor:
        """The gradient in the map's input, of one at its output."""
        if self.is_transposed:
            return convolutions.forward(y, kernel, geometry)
        return convolutions.backward_data(y, kernel, geometry)

    def weight_gradient(self, x, y, geometry: Geometry) -> paddle.Tensor:
        """The gradient in the layer's weight, of the input and a gradient at the output."""
        pair = (y, x) if self.is_transposed else (x, y)
        gradient = kernel_gradients.backward_kernel(*pair, geometry)
        if self.resampling is not None:
            gradient = resampling.unfold_gradient(gradient, self.resampling)
        if self.resampling == "upsample":
            gradient = gradient.transpose([1, 0, 2, 3])
        return gradient


class Call(NamedTuple):
    """A map of a certain weight and size, or its adjoint.

    Attributes:
        spec: The map.
        kernel: The kernel of the weight.
        geometry: The sizes.
        is_adjoint: Whether it is the adjoint.
    """

    spec: ConvolutionMap
    kernel: Kernel
    geometry: Geometry
    is_adjoint: bool = False

    def run(self, x: paddle.Tensor, bias: Optional[paddle.Tensor]) -> paddle.Tensor:
        if self.is_adjoint:
            return self.spec.apply_adjoint(x, self.kernel, self.geometry)
        return self.spec.apply(x, self.kernel, self.geometry, bias)

    def adjoint(self) -> Call:
        """The map for its adjoint, and the other way round."""
        return self._replace(is_adjoint=not self.is_adjoint)


def take(ctx) -> Tuple[paddle.Tensor, ...]:
    """Returns what a forward pass saved, and lets it go: Paddle would keep it to the last layer.

    It stays where the backward pass is differentiated again.

    Raises:
        RuntimeError: For a second backward pass.
    """
    saved = ctx.saved_tensor()
    if saved is None:
        raise RuntimeError("a graph of kernels.maps has one backward pass: compute it again")
    if not paddle.is_grad_enabled():
        ctx.container = None
    return saved


def needed(ctx) -> List[bool]:
    """Which of input, weight and bias need a gradient."""
    return [need and not (number and _is_input_only) for number, need in enumerate(ctx.needs)]


class _Passes:
    """Whether a map's backward pass has run, and let go of what it needs."""

    are_over = False

    def refuse(self, gradient: paddle.Tensor) -> None:
        """A hook on the map's output; Paddle 3.2 would crash at what follows."""
        if self.are_over:
            raise RuntimeError(
                "a graph of kernels.maps has one backward pass: run the forward pass again"
            )


class Map(paddle.autograd.PyLayer):
    """A function with one backward pass, in addition to passes with create_graph.

    A subclass defines `compute(ctx, ...)` and `differentiate(ctx, *gradients)` in the place of
    `forward` and `backward`.
    """

    @classmethod
    def apply(cls, *args):
        passes = _Passes()
        outputs = super().apply(passes, *args)
        output = outputs[0] if isinstance(outputs, tuple) else outputs
        if not output.stop_gradient:
            output.register_hook(passes.refuse)
        return outputs

    @classmethod
    def forward(cls, ctx, passes, *args):
        ctx.passes = passes
        return cls.compute(ctx, *args)

    @classmethod
    def backward(cls, ctx, *gradients):
        ctx.passes.are_over = not paddle.is_grad_enabled()
        return cls.differentiate(ctx, *gradients)


class Convolve(Map):
    """A map of pictures [H, W, N, C] with a weight and a bias."""

    @staticmethod
    def compute(ctx, x, weight, bias, call):
        parts = (x, weight) if bias is None else (x, weight, bias)
        ctx.call, ctx.needs = call, [not part.stop_gradient for part in parts]
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        return call.run(x, bias)

    @staticmethod
    def differentiate(ctx, gradient):
        (x, weight), call, gradient = take(ctx), ctx.call, gradient.contiguous()
        needs, results = needed(ctx), [None] * len(ctx.needs)
        if needs[1]:
            pair = (gradient, x) if call.is_adjoint else (x, gradient)
            results[1] = WeightGradient.apply(*pair, call)
        del x
        if needs[0]:
            results[0] = Convolve.apply(gradient, weight, None, call.adjoint())
        if len(needs) > 2 and needs[2]:
            results[2] = elementwise.sum_rows(gradient, gradient.shape[-1])
        if not paddle.is_grad_enabled():
            ctx.call = None  # and with it the kernel's copies
        return tuple(results)


class WeightGradient(Map):
    """The gradient in a map's weight, of its input x and a gradient y at its output."""

    @staticmethod
    def compute(ctx, x, y, call):
        ctx.call, ctx.needs = call, (not x.stop_gradient, not y.stop_gradient)
        x, y = x.contiguous(), y.contiguous()
        ctx.save_for_backward(x, y)
        return call.spec.weight_gradient(x, y, call.geometry)

    @staticmethod
    def differentiate(ctx, gradient):
        (x, y), (needs_x, needs_y) = take(ctx), ctx.needs
        kernel = ctx.call.spec.kernel(gradient.contiguous())
        call = Call(ctx.call.spec, kernel, ctx.call.geometry)
        return (
            Convolve.apply(y, gradient, None, call.adjoint()) if needs_x else None,
            Convolve.apply(x, gradient, None, call) if needs_y else None,
        )


class WeightTerm(Map):
    """0, whose gradient in a weight is that of a map with known input and output gradient."""

    @staticmethod
    def compute(ctx, weight, make_gradient):
        ctx.make_gradient = make_gradient
        return paddle.zeros([])

    @staticmethod
    def differentiate(ctx, factor):
        gradient = ctx.make_gradient()
        return gradient if float(factor) == 1 else gradient * factor


class Multiply(Map):
    """A matrix product (`products.multiply`)."""

    @staticmethod
    def compute(ctx, a, b, bias, transposed):
        parts = (a, b) if bias is None else (a, b, bias)
        ctx.transposed, ctx.needs = transposed, [not part.stop_gradient for part in parts]
        a, b = a.contiguous(), b.contiguous()
        ctx.save_for_backward(a, b)
        return products.multiply(a, b, transposed, bias)

    @staticmethod
    def differentiate(ctx, gradient):
        (a, b), gradient = take(ctx), gradient.contiguous()
        # The factors of the gradients in a and b, and which of them is transposed
        ways = {
            "": ((gradient, b, "b"), (a, gradient, "a")),
            "a": ((b, gradient, "b"), (a, gradient, "")),
            "b": ((gradient, b, ""), (gradient, a, "a")),
        }[ctx.transposed]
        results = [
            Multiply.apply(left, right, None, transposed) if need else None
            for need, (left, right, transposed) in zip(needed(ctx), ways)
        ]
        if len(ctx.needs) > 2:
            needs_bias = needed(ctx)[2]
            results.append(
                elementwise.sum_rows(gradient, gradient.shape[-1]) if needs_bias else None
            )
        return tuple(results)


class Linear(Map):
    """A linear function and its adjoint."""

    @staticmethod
    def compute(ctx, x, function, adjoint):
        ctx.pair = adjoint, function
        return function(x.contiguous())

    @staticmethod
    def differentiate(ctx, gradient):
        return Linear.apply(gradient, *ctx.pair)


class Relu(Map):
    """A (leaky) ReLU."""

    @staticmethod
    def compute(ctx, x, slope):
        ctx.slope, y = slope, elementwise.relu(x.contiguous(), slope)
        # The output's sign is that of x. The next map keeps the output, too.
        ctx.save_for_backward(y.detach())
        return y

    @staticmethod
    def differentiate(ctx, gradient):
        mask = functools.partial(elementwise.mask, *take(ctx), slope=ctx.slope)
        return Linear.apply(gradient, mask, mask)


class BatchNorm(Map):
    """Batch normalisation, with a first derivative only; also returns mean and variance."""

    @staticmethod
    def compute(ctx, x, scale, offset):
        ctx.needs = [not part.stop_gradient for part in (x, scale, offset)]
        x, scale = x.contiguous(), scale.contiguous()
        y, mean, variance = elementwise.normalise(x)
        ctx.save_for_backward(x, scale, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return elementwise.affine(y, scale, offset.contiguous(), in_place=True), mean, variance

    @staticmethod
    def differentiate(ctx, gradient, *_):
        if paddle.is_grad_enabled():
            raise RuntimeError(NO_SECOND_DERIVATIVE)
        (x, scale, mean, variance), gradient = take(ctx), gradient.contiguous()
        needs_x, needs_scale, needs_offset = needed(ctx)
        results = [None] * 3
        if needs_scale:
            # Normalised again, instead of kept since the forward pass.
            factor = (variance + elementwise.EPSILON).rsqrt()
            product = elementwise.affine(x, factor, -mean * factor).multiply_(gradient)
            results[1] = elementwise.sum_rows(product, scale.size).reshape(scale.shape)
        if needs_offset:
            results[2] = elementwise.sum_rows(gradient, scale.size).reshape(scale.shape)
        if needs_x:
            inner = elementwise.affine(gradient, scale, None)
            results[0] = elementwise.normalise_backward(x, inner, mean, variance)
        return tuple(results)
