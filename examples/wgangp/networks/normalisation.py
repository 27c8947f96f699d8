# SPDX-License-Identifier: Apache-2.0
"""Normalisation of generators and critics."""

from __future__ import annotations

from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels.broadcast import broadcast_channels
from support.errors import UserError


# --8<-- [start:normalisation]
class BatchNorm(nn.Layer):
    """Batch normalisation by the batch's OWN statistics, when sampling too.

    With classes, scale and offset are looked up per label (conditional batch normalisation).
    The authors keep no running averages: draw samples in batches of about a hundred, as
    they do, since a sample depends a little on its neighbours. Epsilon is 1e-5.

    Running averages of the statistics (a tenth of each training batch's) are kept beside, for
    whoever wants samples that do not depend on each other.

    Args:
        channels: Channels of the input [N, channels, H, W].
        num_classes: Labels to tell apart; 0 for one scale and offset for all.

    Attributes:
        sample_by_running: Whether running averages take the batch's place in evaluation.
    """

    def __init__(self, channels: int, num_classes: int = 0):
        super().__init__()
        rows = max(num_classes, 1)
        self.scale = self.create_parameter(
            [rows, channels], default_initializer=nn.initializer.Constant(1.0)
        )
        self.offset = self.create_parameter([rows, channels], is_bias=True)
        self.conditional = num_classes > 0
        self.sample_by_running = False
        self.register_buffer("running_mean", paddle.zeros([channels]))
        self.register_buffer("running_variance", paddle.ones([channels]))
        # Paddle's operator wants an affine map; the conditional one comes behind it
        self.plain = paddle.ones([channels]), paddle.zeros([channels])

    def forward(self, x, labels=None):
        by_running = self.sample_by_running and not self.training
        if not paddle.in_dynamic_mode():
            return self._exported(x, labels, by_running)
        running = self.running_mean, self.running_variance
        if not (self.training or by_running):
            running = tuple(part.clone() for part in running)  # which the operator would update
        affine = self.plain if self.conditional else (self.scale[0], self.offset[0])
        h = F.batch_norm(x, *running, *affine, training=not by_running, momentum=0.9, epsilon=1e-5)
        return self._by_label(h, labels) if self.conditional else h

    def _by_label(self, h, labels):
        scale, offset = (F.embedding(labels, rows) for rows in (self.scale, self.offset))
        return h * broadcast_channels(scale, h) + broadcast_channels(offset, h)

    def _exported(self, x, labels, by_running):
        # Written out, since ONNX has no form for an operator that takes the batch's statistics.
        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        mean, variance = self.running_mean.reshape(shape), self.running_variance.reshape(shape)
        if not by_running:
            mean = x.mean(axes, keepdim=True)
            variance = (x - mean).square().mean(axes, keepdim=True)
        h = (x - mean) / paddle.sqrt(variance + 1e-5)
        if self.conditional:
            return self._by_label(h, labels)
        return h * self.scale.reshape(shape) + self.offset.reshape(shape)


class LayerNorm(nn.Layer):
    """Layer normalisation over channels, height and width, a scale and offset per channel.

    Written out because Paddle's own layer_norm has no second derivative, which the
    gradient penalty needs. Samples stay independent, which the penalty needs as well.

    Args:
        channels: Channels of the input [N, channels, H, W].
    """

    def __init__(self, channels: int):
        super().__init__()
        shape = [1, channels, 1, 1]
        self.scale = self.create_parameter(shape, default_initializer=nn.initializer.Constant(1.0))
        self.offset = self.create_parameter(shape, is_bias=True)

    def forward(self, x, labels=None):
        centred = x - x.mean([1, 2, 3], keepdim=True)
        variance = centred.square().mean([1, 2, 3], keepdim=True)
        return centred / paddle.sqrt(variance + 1e-5) * self.scale + self.offset


class NoNorm(nn.Layer):
    """No normalisation: the critic's default."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x, labels=None):
        return x


def use_statistics(generator: nn.Layer, statistics: str) -> None:
    """Says what a generator's batch normalisation goes by in evaluation.

    Args:
        generator: A network with `BatchNorm` in it, or without.
        statistics: "batch", the samples' own, or "running", averages of training's batches.
    """
    for layer in generator.sublayers():
        if isinstance(layer, BatchNorm):
            layer.sample_by_running = statistics == "running"


def make_critic_norm(name: Optional[str], channels: int) -> nn.Layer:
    """The critic's normalisation by name: None, "layer", or "batch".

    "batch" is for objectives without a penalty: it ties samples together, while a penalty
    holds for each sample on its own (section 4 of the paper).

    Raises:
        UserError: For another name.
    """
    if name not in (None, "layer", "batch"):
        raise UserError(f"MODEL.dis_net.norm={name!r} is unknown: choose null, layer or batch.")
    return {None: NoNorm, "layer": LayerNorm, "batch": BatchNorm}[name](channels)


# --8<-- [end:normalisation]
