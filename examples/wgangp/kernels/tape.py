# SPDX-License-Identifier: Apache-2.0
"""A record of a pass through linear maps and ReLUs, and tangents that follow it."""

from __future__ import annotations

import contextlib
from typing import Any
from typing import Callable
from typing import Iterator
from typing import List
from typing import Optional
from typing import Tuple

import paddle

current: Optional[Tape] = None  # the tape that `maps` reports to


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
        outputs: Each map's output, in the order of the pass.
        parameters: The weights and biases of the maps.
        terms: For each map a function of the gradient at its output, which gives the term of the
            derivative that depends on the map's weights; filled by the tangents' pass.
        is_replaying: Whether the pass that runs is one of tangents.
    """

    def __init__(self):
        self.outputs: List[paddle.Tensor] = []
        self.parameters: List[paddle.Tensor] = []
        self.terms: List[Callable[[paddle.Tensor], paddle.Tensor]] = []
        self.is_replaying = False
        # A ReLU's input or output, whose signs make the mask, and its slope
        self._relus: List[Tuple[Any, float]] = []
        self._relus_left: Iterator[Tuple[Any, float]] = iter(())

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
        self.is_replaying, self.terms, self._relus_left = True, [], iter(self._relus)
        with self.recording():
            yield

    def add_map(self, output: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor) -> None:
        """Records a map's output and parameters."""
        self.outputs.append(output)
        self.parameters += [weight, bias]

    def add_relu(self, x: Any, slope: float) -> None:
        """Records a ReLU's input or output and its slope."""
        self._relus.append((x, slope))

    def next_relu(self) -> Tuple[Any, float]:
        """What `add_relu` recorded of the ReLU that a tangent meets."""
        return next(self._relus_left)
