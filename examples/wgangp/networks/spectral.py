# SPDX-License-Identifier: Apache-2.0
"""Spectral normalisation of a critic's weights (Miyato et al., arXiv 1802.05957)."""

from __future__ import annotations

from typing import Optional
from typing import Union

import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import tape

# Power iterations of a fresh layer. Afterwards each step of the optimiser is followed by one.
FIRST_ITERATIONS = 15


class SpectralNorm(nn.Layer):
    """A layer whose weight W is divided by an estimate of its largest singular value.

    sigma = u^T W v, where power iterations keep the unit vectors u and v (algorithm 1 of the
    paper). A convolution's W is the matrix [out, in * height * width] of its kernel. Gradients
    flow through sigma into W; u and v are constants to them. A pass changes nothing, so all passes
    of a critic's step see the same weights: `step_power_iterations` is called once, after it.

    `kernels.maps` applies this layer like the one inside, so the critic stays piecewise linear.

    Args:
        layer: The layer; its weight and bias stay the parameters.

    Attributes:
        weight: W / sigma.
        bias: The layer's bias, which is not normalised.
    """

    def __init__(self, layer: Union[nn.Linear, nn.Conv2D]):
        super().__init__()
        self.layer = layer
        if isinstance(layer, nn.Conv2D):
            self._kernel_size, self._stride = layer._kernel_size, layer._stride
            self._padding = layer._padding
        rows, columns = self._matrix.shape
        self.register_buffer("u", F.normalize(paddle.randn([rows]), axis=0))
        self.register_buffer("v", F.normalize(paddle.randn([columns]), axis=0))
        for _ in range(FIRST_ITERATIONS):
            self.iterate()

    @property
    def _matrix(self) -> paddle.Tensor:
        return self.layer.weight.reshape([self.layer.weight.shape[0], -1])

    @property
    def weight(self) -> paddle.Tensor:
        if tape.current is not None:
            # The tape records W / sigma, and must know the parameter that it is made of.
            tape.current.parameters.append(self.layer.weight)
        with paddle.amp.auto_cast(enable=False):
            sigma = (self.u * paddle.mv(self._matrix, self.v)).sum()
            return self.layer.weight / sigma

    @property
    def bias(self) -> paddle.Tensor:
        return self.layer.bias

    @paddle.no_grad()
    def iterate(self) -> None:
        """Does a power iteration: v = W^T u and u = W v, each of length 1."""
        matrix = self._matrix
        paddle.assign(F.normalize(paddle.mv(matrix.t(), self.u), axis=0), self.v)
        paddle.assign(F.normalize(paddle.mv(matrix, self.v), axis=0), self.u)


def normalise_weights(critic: nn.Layer, norm: Optional[str]) -> None:
    """Gives spectral normalisation to all linear layers and convolutions of a critic.

    Args:
        critic: The critic, with its initial weights.
        norm: The critic's normalisation; nothing happens for others than "spectral".
    """
    if norm != "spectral":
        return
    for parent in critic.sublayers(include_self=True):
        for name, layer in parent.named_children():
            if isinstance(layer, (nn.Linear, nn.Conv2D)):
                parent.add_sublayer(name, SpectralNorm(layer))


def step_power_iterations(critic: nn.Layer) -> None:
    """Does one power iteration in each of a critic's spectral norms, if it has any."""
    for layer in critic.sublayers():
        if isinstance(layer, SpectralNorm):
            layer.iterate()
