# SPDX-License-Identifier: Apache-2.0
"""Base classes of generators and critics, in the form that ppsci's Solver calls."""

from __future__ import annotations

import contextlib
from typing import Dict
from typing import Iterator
from typing import Optional
from typing import Tuple

import paddle
import ppsci
from paddle import nn


class Generator(ppsci.arch.Arch):
    """A function of (noise, labels), in the form that ppsci's Solver calls.

    A subclass defines `generate(noise, labels)`.

    Args:
        noise_dim: Length of a noise vector.
        num_classes: Number of classes of the labels; 0 if the generator takes no labels.

    Attributes:
        low: The value of black in generated pictures; white is 1. It is -1 for an output in
            [-1, 1] (tanh) and 0 for one in [0, 1] (sigmoid).
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
        """Noise [N, noise_dim], and int64 labels [N] if there are classes, to samples [N, ...]."""
        raise NotImplementedError

    def forward(self, inputs: Dict[str, paddle.Tensor]) -> Dict[str, paddle.Tensor]:
        return {"fake": self.generate(*(inputs[key] for key in self.input_keys))}


class Critic(ppsci.arch.Arch):
    """A critic: one unbounded value per sample, and class logits if it has an AC-GAN head.

    A subclass defines `score(samples)`, or `score(samples, labels)` if its values depend on labels.

    Attributes:
        takes_labels: Whether `score` takes labels, int64 [N].
        piecewise_linear: Whether the critic consists of linear maps and (leaky) ReLUs only,
            all of them applied by `kernels.maps`. Then the gradient penalty needs no second
            derivatives (`kernels.first_order`).
    """

    takes_labels = False
    piecewise_linear = False

    input_keys = ("real",)
    output_keys = ("value_real",)

    def score(self, samples: paddle.Tensor) -> Tuple[paddle.Tensor, Optional[paddle.Tensor]]:
        """Samples [N, ...] to values [N], and logits [N, K] or None."""
        raise NotImplementedError

    def judge(
        self, samples: paddle.Tensor, labels: Optional[paddle.Tensor] = None
    ) -> Tuple[paddle.Tensor, Optional[paddle.Tensor]]:
        """`score` of samples, with their labels if it takes them."""
        return self.score(samples, labels) if self.takes_labels else self.score(samples)

    def forward(self, inputs: Dict[str, paddle.Tensor]) -> Dict[str, paddle.Tensor]:
        # The Solver asks for the gradient of every input. Nothing needs that of real samples.
        value, logits = self.judge(inputs["real"].detach(), inputs.get("labels"))
        outputs = {"value_real": value}
        if logits is not None:
            outputs["logits_real"] = logits
        return outputs


@contextlib.contextmanager
def evaluating(network: nn.Layer) -> Iterator[None]:
    """Puts a network into evaluation mode; afterwards each layer has its former mode again."""
    before = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        yield
    finally:
        if network.training != before[0][1]:
            network.train()  # also sets a mode of Paddle's own, which the flags below do not
        for layer, training in before:
            layer.training = training


@contextlib.contextmanager
def frozen(network: nn.Layer) -> Iterator[None]:
    """Stops gradients into a network's weights; afterwards each weight is as it was before."""
    before = [(weight, weight.stop_gradient) for weight in network.parameters()]
    for weight, _ in before:
        weight.stop_gradient = True
    try:
        yield
    finally:
        for weight, stopped in before:
            weight.stop_gradient = stopped
