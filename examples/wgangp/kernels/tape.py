# SPDX-License-Identifier: Apache-2.0
"""A record of a pass through linear maps and ReLUs, and tangents that follow it."""

from __future__ import annotations

import contextlib
from typing import Callable
from typing import Iterator
from typing import List
from typing import Optional
from typing import Tuple

import paddle
import paddle.nn.functional as F

from kernels.broadcast import add_bias
from kernels.broadcast import is_on_cpu

current: Optional[Tape] = None  # the tape that `maps` reports to


# --8<-- [start:tape]
class Tape:
    """Records a pass through linear maps and ReLUs, and sends tangents through the same pass.

    Near a sample, a critic of convolutions, linear layers, pools and (leaky) ReLUs is linear:
    its gradient is the product of its maps and of the ReLU masks, which are 1 where an input
    was positive and 0 (or the slope) elsewhere. A second pass takes a tangent through the
    same maps, without biases, and multiplies by the recorded masks. It gives the critic's
    derivative in the tangent's direction. The derivative of THAT in the weights of a map is
    the outer product of the tangent that entered the map and the gradient at the map's output.
    Both are known, so first-order kernels compute it.

    Attributes:
        outputs: Each map's output before its bias, in the order of the pass.
        parameters: The weights and biases of the maps.
        tangents: Each map's output in the tangents' pass; None while the tape records.
    """

    def __init__(self):
        self.outputs: List[paddle.Tensor] = []
        self.parameters: List[paddle.Tensor] = []
        self.tangents: Optional[List[paddle.Tensor]] = None
        # A ReLU's input and slope, from which the second pass makes the mask.
        self._relus: List[Tuple[paddle.Tensor, float]] = []
        self._relus_left: Iterator[Tuple[paddle.Tensor, float]] = iter(())

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Makes this the tape of the maps and ReLUs that run inside."""
        global current
        before, current = current, self
        try:
            yield
        finally:
            current = before

    @contextlib.contextmanager
    def replaying(self) -> Iterator[None]:
        """Makes a pass inside one of tangents, which repeats the recorded pass."""
        self.tangents, self._relus_left = [], iter(self._relus)
        with self.recording():
            yield

    def linear_map(
        self,
        function: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor],
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
    ) -> paddle.Tensor:
        """Applies `function(x, weight)`, and adds the bias unless x is a tangent."""
        if self.tangents is None:
            output = function(x, weight)
            self.outputs.append(output)
            self.parameters += [weight, bias]
            return add_bias(output, bias)
        # Detached from the maps before it: each map has its own product with its own gradient.
        self.tangents.append(function(x.detach(), weight))
        return self.tangents[-1]

    def relu(self, x: paddle.Tensor, slope: float) -> paddle.Tensor:
        """Applies a (leaky) ReLU, or multiplies a tangent by the recorded mask."""
        if self.tangents is None:
            self._relus.append((x, slope))
            return F.leaky_relu(x, slope) if slope else F.relu(x)
        entered, slope = next(self._relus_left)
        # On a CPU, Paddle's leaky ReLU has derivative 1 at 0, unlike its ReLU.
        is_open = entered >= 0 if slope and is_on_cpu(entered) else entered > 0
        is_open = is_open.astype(x.dtype)
        return x.detach() * (is_open * (1 - slope) + slope if slope else is_open)


# --8<-- [end:tape]
