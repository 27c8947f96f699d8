# SPDX-License-Identifier: Apache-2.0
"""A record of a pass through linear maps and ReLUs, and tangents that follow it."""

from __future__ import annotations

import contextlib
from typing import List
from typing import Optional
from typing import Tuple

import paddle
import paddle.nn.functional as F

from kernels.broadcast import add_bias

current: Optional[Tape] = None  # of the pass that is going on


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
        global current
        current = self
        try:
            yield
        finally:
            current = None

    def follow(self) -> None:
        """From here on, a pass is one of tangents."""
        self.tangents = []
        self.gates_left = iter(self.gates)

    def linear_map(self, function, x, weight, bias):
        if self.tangents is None:
            output = function(x, weight)
            self.outputs.append(output)
            return add_bias(output, bias)
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


# --8<-- [end:tape]
