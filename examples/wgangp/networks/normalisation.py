# SPDX-License-Identifier: Apache-2.0
"""Normalisation of generators and critics."""

from __future__ import annotations

from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import hwnc
from kernels import maps
from kernels.broadcast import broadcast_channels
from support.errors import UserError


# --8<-- [start:normalisation]
class BatchNorm(nn.Layer):
    """Batch normalisation with the batch's OWN statistics, also in evaluation mode.

    With classes, each label has its own scale and offset (conditional batch normalisation).
    The authors keep no running averages. A sample therefore depends a little on the others of
    its batch: draw samples in batches of about a hundred, as the authors do. Epsilon is 1e-5.

    The layer also keeps running averages of the statistics: each training batch replaces a
    tenth of them. With those, samples do not depend on each other (see `use_statistics`).

    Args:
        channels: Channels of the input [N, channels] or [N, channels, H, W].
        num_classes: Number of classes of the labels; 0 for one scale and offset for all.

    Attributes:
        uses_running_averages: Whether evaluation mode normalises with the running averages.
    """

    def __init__(self, channels: int, num_classes: int = 0):
        super().__init__()
        rows = max(num_classes, 1)
        self.scale = self.create_parameter(
            [rows, channels], default_initializer=nn.initializer.Constant(1.0)
        )
        self.offset = self.create_parameter([rows, channels], is_bias=True)
        self.conditional = num_classes > 0
        self.uses_running_averages = False
        self.register_buffer("running_mean", paddle.zeros([channels]))
        self.register_buffer("running_variance", paddle.ones([channels]))
        # Paddle's operator needs a scale and an offset; those of the labels follow it.
        self.identity = paddle.ones([channels]), paddle.zeros([channels])

    def forward(self, x: paddle.Tensor, labels: Optional[paddle.Tensor] = None) -> paddle.Tensor:
        with_running = self.uses_running_averages and not self.training
        if not paddle.in_dynamic_mode():
            return self._exported(x, labels, with_running)
        # oneDNN's batch normalisation has no second derivative.
        is_plain = with_running or maps.is_differentiated_twice()
        if isinstance(x, hwnc.Pictures) and not is_plain:
            return self._laid_out(x, labels)
        x = maps.leave(x)
        averages = self.running_mean, self.running_variance
        # The operator updates what it gets, and keeps it for second derivatives: these are copies.
        running = averages if with_running else tuple(part.clone() for part in averages)
        affine = self.identity if self.conditional else self._parts(labels)
        h = F.batch_norm(
            x, *running, *affine, training=not with_running, momentum=0.9, epsilon=1e-5
        )
        if self.training:
            for average, found in zip(averages, running):
                paddle.assign(found, average)
        return self._scale_by_label(h, labels) if self.conditional else h

    def _laid_out(self, x, labels):
        scale, offset = self._parts(labels)
        h, *statistics = hwnc.batch_norm(x, scale, offset)
        if self.training:
            for average, found in zip((self.running_mean, self.running_variance), statistics):
                paddle.assign(0.9 * average + 0.1 * found, average)
        return h

    def _parts(self, labels):
        """Scale and offset, of each label if there are classes."""
        if self.conditional:
            return tuple(F.embedding(labels, rows) for rows in (self.scale, self.offset))
        return self.scale[0], self.offset[0]

    def _scale_by_label(self, h, labels):
        scale, offset = self._parts(labels)
        return h * broadcast_channels(scale, h) + broadcast_channels(offset, h)

    def _exported(self, x, labels, with_running):
        # ONNX has no operator that normalises with the batch's statistics, so this is written out.
        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        mean, variance = self.running_mean.reshape(shape), self.running_variance.reshape(shape)
        if not with_running:
            mean = x.mean(axes, keepdim=True)
            variance = (x - mean).square().mean(axes, keepdim=True)
        h = (x - mean) / paddle.sqrt(variance + 1e-5)
        if self.conditional:
            return self._scale_by_label(h, labels)
        return h * self.scale.reshape(shape) + self.offset.reshape(shape)


class LayerNorm(nn.Layer):
    """Layer normalisation over channels, height and width; a scale and an offset per channel.

    The gradient penalty needs second derivatives, and Paddle's own layer_norm has none, so the
    formula is written out. Samples stay independent of each other, as the penalty needs them to
    be. Epsilon is 1e-5.

    Args:
        channels: Channels of the input [N, channels, H, W].
    """

    def __init__(self, channels: int):
        super().__init__()
        shape = [1, channels, 1, 1]
        self.scale = self.create_parameter(shape, default_initializer=nn.initializer.Constant(1.0))
        self.offset = self.create_parameter(shape, is_bias=True)

    def forward(self, x: paddle.Tensor, labels: Optional[paddle.Tensor] = None) -> paddle.Tensor:
        if isinstance(x, hwnc.Pictures):
            scale, offset = (part.reshape([1, -1]) for part in (self.scale, self.offset))
            return hwnc.layer_norm(x, scale, offset, maps.is_differentiated_twice())
        centred = x - x.mean([1, 2, 3], keepdim=True)
        variance = centred.square().mean([1, 2, 3], keepdim=True)
        return centred / paddle.sqrt(variance + 1e-5) * self.scale + self.offset


class NoNorm(nn.Layer):
    """No normalisation: the default of the paper's critics.

    Args:
        channels: Ignored; the other normalisations have it.
    """

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x: paddle.Tensor, labels: Optional[paddle.Tensor] = None) -> paddle.Tensor:
        return x


def use_statistics(generator: nn.Layer, statistics: str) -> None:
    """Sets the statistics that a generator's batch normalisation uses in evaluation mode.

    Args:
        generator: A network, with or without `BatchNorm`.
        statistics: "batch" (those of the samples' own batch) or "running" (averages over
            training's batches).
    """
    for layer in generator.sublayers(include_self=True):
        if isinstance(layer, BatchNorm):
            layer.uses_running_averages = statistics == "running"


def make_critic_norm(name: Optional[str], channels: int) -> nn.Layer:
    """Makes a critic's normalisation.

    "batch" is for objectives without a gradient penalty. It makes samples depend on each other,
    while the penalty holds for each sample on its own (section 4 of the paper).

    Args:
        name: None, "layer" or "batch".
        channels: Channels of the input [N, channels, H, W].

    Raises:
        UserError: For another name.
    """
    if name not in (None, "layer", "batch"):
        raise UserError(f"MODEL.dis_net.norm={name!r} is unknown: choose null, layer or batch.")
    return {None: NoNorm, "layer": LayerNorm, "batch": BatchNorm}[name](channels)


# --8<-- [end:normalisation]
