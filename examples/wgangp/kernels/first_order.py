# SPDX-License-Identifier: Apache-2.0
"""The gradient penalty without second derivatives."""

from __future__ import annotations

from typing import Callable
from typing import Optional
from typing import Tuple

import paddle
from paddle import nn

from kernels.autograd import input_gradients
from kernels.tape import Tape
from support.errors import UserError

# How far the tangents' pass may be from slope times tangent, as a share of their lengths' product.
# Rounding stays below 1e-5 in float32, and below 1e-7 in float64, where Paddle's leaky ReLU has a
# slope in float32. A GPU's TF32 is 8,000 times as coarse as float32. A pass that misses an
# operation is off by a large share.
TOLERANCE = {paddle.float32: 5e-2, paddle.float64: 1e-6}


def length(slope: paddle.Tensor) -> paddle.Tensor:
    """Length of each sample's gradient over ALL of its dimensions, [N, ...] to [N].

    A tiny constant keeps the root's derivative finite where a gradient vanishes.
    """
    return paddle.sqrt(slope.square().reshape([len(slope), -1]).sum(1) + 1e-12)


def first_order_penalty(
    critic: nn.Layer,
    samples: paddle.Tensor,
    penalty: Callable[[paddle.Tensor], paddle.Tensor],
    check: bool = False,
    labels: Optional[paddle.Tensor] = None,
) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """Computes `functions.penalised_norm`, with the same gradient, without second derivatives.

    Args:
        critic: A critic of linear maps and (leaky) ReLUs, all of them applied by `kernels.maps`.
        samples: Points x, [N, ...].
        penalty: Maps gradient norms [N] to a term of the loss.
        check: Whether to verify that `kernels.maps` applies all of the critic. This takes two
            more forward passes.
        labels: Labels [N] for a critic that takes them.

    Returns:
        The gradient's norm at each sample, [N], and the term of the loss.

    Raises:
        UserError: If the check fails.
    """
    given = () if labels is None else (labels,)
    samples = samples.detach()
    samples.stop_gradient = False
    tape = Tape()
    with tape.recording():
        values, _ = critic.score(samples, *given)
    # Values do not depend on the map of a class head, so it has no gradient.
    with input_gradients():
        slope, *gradients = paddle.grad(values.sum(), [samples, *tape.outputs], allow_unused=True)
    norm = length(slope)
    if check:
        _check(critic, tape, slope, norm, given)
    norm.stop_gradient = False
    value = penalty(norm)
    # The chain rule down to d norm = slope . d slope / norm.
    factor = paddle.grad(value, norm)[0] / norm
    with tape.replaying():
        critic.score(slope * factor.reshape([-1] + [1] * (slope.ndim - 1)), *given)
    derivative = sum(
        term(gradient) for term, gradient in zip(tape.terms, gradients) if gradient is not None
    )
    # The penalty's value, with the gradient of `derivative`.
    return norm.detach(), value.detach() + derivative - derivative.detach()


@paddle.no_grad()
def _check(
    critic: nn.Layer,
    tape: Tape,
    slope: paddle.Tensor,
    norm: paddle.Tensor,
    given: Tuple[paddle.Tensor, ...],
) -> None:
    """Raises UserError unless the tape recorded everything that `critic.score` does.

    The pass of a tangent must give the slope times the tangent. It does not where an operation
    is missing on the tape, such as F.relu or a constant that is added. A layer that is called
    directly passes this test if its bias is 0, so the tape must also know all parameters.
    """
    recorded = {id(parameter) for parameter in tape.parameters}
    missing = [name for name, part in critic.named_parameters() if id(part) not in recorded]
    problem = f"{', '.join(missing)} bypassed them" if missing else ""
    axes = list(range(1, slope.ndim))
    along = slope / norm.reshape([-1] + [1] * len(axes))
    for tangent in (along, -along):  # A ReLU would let one of them through.
        with tape.replaying():
            values, _ = critic.score(tangent, *given)
        size = (slope.square().sum(axes) * tangent.square().sum(axes)).sqrt()
        difference = (values - (slope * tangent).sum(axes)).abs()
        # This is False for NaN: that a training diverged is reported elsewhere.
        if bool((difference > TOLERANCE.get(norm.dtype, 5e-2) * size + 1e-30).any()):
            problem = problem or "another operation between them is not linear"
    if problem:
        raise UserError(
            f"The gradient penalty of {type(critic).__name__} needs a critic that consists of the "
            f"linear maps and ReLUs of kernels.maps only, but {problem}: build the critic from "
            "kernels.maps, or set LOSS.penalty_gradient=double_backward."
        )
