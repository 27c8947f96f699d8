# SPDX-License-Identifier: Apache-2.0
"""Base classes of generators and critics, in the form that ppsci's Solver calls."""

from __future__ import annotations

from typing import Dict
from typing import Optional
from typing import Tuple

import paddle
import ppsci


# --8<-- [start:base]
class Generator(ppsci.arch.Arch):
    """A function of (noise, labels), in the form that ppsci's Solver calls.

    A subclass defines `generate(noise, labels)`; everything that samples uses that. What is
    black in its pictures is `low`; white is 1.

    Args:
        noise_dim: Length of a noise vector.
        num_classes: Labels to tell apart; 0 if `labels` is no input.
    """

    low = -1.0

    def __init__(self, noise_dim: int, num_classes: int = 0):
        super().__init__()
        self.noise_dim, self.num_classes = noise_dim, num_classes
        self.input_keys = ("noise", "labels") if num_classes else ("noise",)
        self.output_keys = ("fake",)

    def generate(
        self, noise: paddle.Tensor, labels: Optional[paddle.Tensor] = None
    ) -> paddle.Tensor:
        raise NotImplementedError

    def forward(self, inputs: Dict[str, paddle.Tensor]) -> Dict[str, paddle.Tensor]:
        return {"fake": self.generate(*(inputs[key] for key in self.input_keys))}


class Critic(ppsci.arch.Arch):
    """A critic: one unbounded value a sample, and class logits where it has an AC-GAN head.

    A subclass defines `score(samples)`, which returns (values [N], logits [N, K] or None).
    It is piecewise linear if it is made of linear maps and (leaky) ReLUs only, by way of
    linear_maps.py; then the penalty needs no second derivatives.
    """

    piecewise_linear = False

    input_keys = ("real",)
    output_keys = ("value_real",)

    def score(self, samples: paddle.Tensor) -> Tuple[paddle.Tensor, Optional[paddle.Tensor]]:
        raise NotImplementedError

    def forward(self, inputs: Dict[str, paddle.Tensor]) -> Dict[str, paddle.Tensor]:
        # The Solver asks for the gradient of every input; nobody needs that of real samples.
        value, logits = self.score(inputs["real"].detach())
        outputs = {"value_real": value}
        if logits is not None:
            outputs["logits_real"] = logits
        return outputs


# --8<-- [end:base]
