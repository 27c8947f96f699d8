# SPDX-License-Identifier: Apache-2.0
"""Normalisation of generators and critics."""

from __future__ import annotations

from typing import List
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import hwnc
from kernels import maps
from kernels.broadcast import broadcast_channels
from support.errors import UserError


class BatchNorm(nn.Layer):
    """Batch normalisation with the batch's OWN statistics, also in evaluation mode.

    With classes, each label has its own scale and offset (conditional batch normalisation).
    The authors keep no running averages. A sample therefore depends a little on the others of
    its batch: draw samples in batches of about a hundred, as the authors do. Epsilon is 1e-5.

    The layer also keeps running averages of the statistics: each training batch replaces a
    tenth of them. With those, samples do not depend on each other (see `use_statistics`).

    In training, the rows of a batch may form groups, each normalised by its own statistics (see
    `use_groups`); the running averages then take the mean of the groups' statistics.

    Args:
        channels: Channels of the input [N, channels] or [N, channels, H, W].
        num_classes: Number of classes of the labels; 0 for one scale and offset for all.

    Attributes:
        uses_running_averages: Whether evaluation mode normalises with the running averages.
        groups: The number of groups of a training batch: row n belongs to group n mod groups.
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
        self.groups = 1
        self.register_buffer("running_mean", paddle.zeros([channels]))
        self.register_buffer("running_variance", paddle.ones([channels]))
        # Paddle's operator needs a scale and an offset; those of the labels follow it.
        self.identity = paddle.ones([channels]), paddle.zeros([channels])

    def forward(self, x: paddle.Tensor, labels: Optional[paddle.Tensor] = None) -> paddle.Tensor:
        with_running = self.uses_running_averages and not self.training
        if not paddle.in_dynamic_mode():
            return self._exported(x, labels, with_running)
        groups = self.groups if self.training else 1
        if len(x) % groups:
            raise ValueError(f"A batch of {len(x)} can't be split into {groups} equal groups.")
        # oneDNN's batch normalisation has no second derivative.
        is_plain = with_running or maps.is_differentiated_twice()
        if isinstance(x, hwnc.Pictures) and not is_plain:
            return self._laid_out(x, labels, groups)
        x = maps.leave(x)
        averages = self.running_mean, self.running_variance
        # The operator updates what it gets, and keeps it for second derivatives: these are copies.
        running = averages
        if not with_running:
            running = tuple(_repeat(part, groups).clone() for part in averages)
        affine = self.identity if self.conditional else self._parts(labels)
        rows = _join_groups(x, 0, groups)
        is_single = not with_running and rows.size == rows.shape[1]
        # Paddle gives back a single value of a channel as it is. A copy changes no statistics.
        h = F.batch_norm(
            paddle.concat([rows, rows]) if is_single else rows,
            *running,
            *(_repeat(part, groups) for part in affine),
            training=not with_running,
            momentum=0.9,
            epsilon=1e-5,
        )
        if self.training:
            for average, found in zip(averages, running):
                paddle.assign(_average(found, groups), average)
        h = _view(h[:1] if is_single else h, x.shape)
        return self._scale_by_label(h, labels) if self.conditional else h

    def _laid_out(self, x, labels, groups):
        affine = self._parts(labels)
        if self.conditional:
            affine = (_join_groups(part, 0, groups) for part in affine)
        else:
            affine = (_repeat(part, groups) for part in affine)
        pixels = _join_groups(x.pixels, 2, groups)
        h, *statistics = hwnc.batch_norm(hwnc.Pictures(pixels), *affine)
        if self.training:
            for average, found in zip((self.running_mean, self.running_variance), statistics):
                paddle.assign(0.9 * average + 0.1 * _average(found, groups), average)
        return hwnc.Pictures(_view(h.pixels, x.pixels.shape))

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


def _join_groups(x: paddle.Tensor, axis: int, groups: int) -> paddle.Tensor:
    """Makes the channels of all groups channels of their own, which moves nothing in memory.

    Args:
        x: [..., N, C, ...].
        axis: The axis of N.
        groups: The number of groups; row n belongs to group n mod groups.

    Returns:
        [..., N / groups, groups * C, ...].
    """
    rows, channels = x.shape[axis : axis + 2]
    joined = [rows // groups, groups * channels]
    return _view(x, [*x.shape[:axis], *joined, *x.shape[axis + 2 :]])


def _view(x: paddle.Tensor, shape: List[int]) -> paddle.Tensor:
    return x if x.shape == shape else x.reshape(shape)


def _repeat(part: paddle.Tensor, groups: int) -> paddle.Tensor:
    """Numbers per channel for each group, [C] to [groups * C]."""
    return part if groups == 1 else part.tile([groups])


def _average(found: paddle.Tensor, groups: int) -> paddle.Tensor:
    """The mean of the groups' statistics, [groups * C] to [C]."""
    return found if groups == 1 else found.reshape([groups, -1]).mean(0)


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
            return hwnc.layer_norm(x, scale, offset)
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


def use_groups(generator: nn.Layer, groups: int) -> None:
    """Lets a generator's batch normalisation split its training batches into groups.

    Each group is normalised by its own statistics. The authors' CIFAR-10 script runs its generator
    on two halves of a batch (`gan_cifar_resnet.py`). Here the halves are interleaved: row n belongs
    to group n mod groups. To a training both are the same, since the rows of a batch are drawn
    independently from one distribution. Interleaved groups cost nothing: seen as channels
    [N / groups, groups * C], they lie in memory as they are.

    Args:
        generator: A network, with or without `BatchNorm`.
        groups: The number of groups, which divides every training batch; 1 for whole batches.
    """
    for layer in generator.sublayers(include_self=True):
        if isinstance(layer, BatchNorm):
            layer.groups = groups


def make_critic_norm(name: Optional[str], channels: int) -> nn.Layer:
    """Makes a critic's normalisation.

    "batch" is for objectives without a gradient penalty. It makes samples depend on each other,
    while the penalty holds for each sample on its own (section 4 of the paper). "spectral"
    normalises weights, not features: `networks.spectral.normalise_weights` does it.

    Args:
        name: None, "layer", "batch" or "spectral".
        channels: Channels of the input [N, channels, H, W].

    Raises:
        UserError: For another name.
    """
    norms = {None: NoNorm, "spectral": NoNorm, "layer": LayerNorm, "batch": BatchNorm}
    if name not in norms:
        raise UserError(
            f"MODEL.dis_net.norm={name!r} is unknown: choose null, layer, batch or spectral."
        )
    return norms[name](channels)
