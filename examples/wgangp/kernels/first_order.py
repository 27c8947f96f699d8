# SPDX-License-Identifier: Apache-2.0
"""The gradient penalty without second derivatives."""

from __future__ import annotations

from typing import Callable
from typing import Tuple

import paddle

from kernels.tape import Tape


# --8<-- [start:first_order]
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


# --8<-- [end:first_order]
