# SPDX-License-Identifier: Apache-2.0
"""The moving average (EMA) of a generator's weights."""

from __future__ import annotations

import copy
from typing import Optional

import paddle

from networks.base import Generator


class MovingAverage:
    """A generator whose weights are the exponential moving average of another's.

    Each step does `average += (1 - decay) * (weights - average)`. The decay of a step is at
    most (1 + step) / (10 + step), so that the average soon forgets the first weights. Buffers
    (running statistics) are copied, since an average of averages would lag twice.

    Args:
        generator: The generator that is trained.
        decay: In [0, 1); None for no average: then `network` is that generator itself.
    """

    prefix = "average"  # Names of its arrays in a checkpoint begin so.

    def __init__(self, generator: Generator, decay: Optional[float]):
        self.source, self.decay = generator, decay
        self.network = generator if decay is None else copy.deepcopy(generator)

    @property
    def is_kept(self) -> bool:
        """Whether there is an average that differs from the generator."""
        return self.decay is not None

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Steps the average after `step` steps of the generator."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, current in zip(self.network.parameters(), self.source.parameters()):
            paddle.assign(average + (1 - decay) * (current - average), average)
        for average, current in zip(self.network.buffers(), self.source.buffers()):
            paddle.assign(current, average)
