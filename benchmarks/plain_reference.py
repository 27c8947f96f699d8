# SPDX-License-Identifier: Apache-2.0
"""The experiments in plain Paddle, a reference for the suite's speed.

Networks and formulas are those of functions.py, but with Paddle's own operators in place of the
rewrites in kernels/, and with a plain training step.
"""

from __future__ import annotations

import common
import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import broadcast
from kernels import maps

# The rewrites are replaced before functions.py and networks/ import any of them by name.
broadcast.broadcast_channels = lambda columns, like: columns.unsqueeze([2, 3])
maps.linear = maps.conv = lambda x, layer: layer(x)


def conv_transpose(x, layer, crop=0):
    y = layer(x)
    return y[:, :, : y.shape[2] - crop, : y.shape[3] - crop]


maps.conv_transpose = conv_transpose
maps.conv_mean_pool = lambda x, layer: F.avg_pool2d(layer(x), 2)
maps.upsample_conv = lambda x, layer: layer(F.interpolate(x, scale_factor=2))

import functions  # noqa: E402
from networks import dcgan  # noqa: E402
from networks import resnet64  # noqa: E402
from networks.normalisation import use_groups  # noqa: E402


class Experiment(common.Reference):
    """An experiment with networks of width `dim`."""

    def __init__(self, name: str, dim: int, batch: int):
        super().__init__(name, batch)
        paddle.set_device("cpu")
        paddle.seed(0)
        make_generator, make_critic = {
            "toy": (functions.WganGpToyGenerator, functions.WganGpToyDiscriminator),
            "mnist": (functions.WganGpMnistGenerator, functions.WganGpMnistDiscriminator),
            "cifar10": (functions.WganGpCifar10Generator, functions.WganGpCifar10Discriminator),
            "dcgan64": (dcgan.Dcgan64Generator, dcgan.Dcgan64Discriminator),
            "resnet64": (resnet64.Resnet64Generator, resnet64.Resnet64Discriminator),
        }[name]
        self.generator, self.critic = make_generator(dim), make_critic(dim)
        use_groups(self.generator, self.setup.batch_norm_groups)
        self.real = paddle.rand([batch, *self.setup.shape])
        self.labels = paddle.randint(0, 10, [self.generator_batch])
        self.optimizers = {
            network: paddle.optimizer.Adam(1e-4, *self.setup.betas, parameters=network.parameters())
            for network in (self.generator, self.critic)
        }

    def draw_fakes(self, count: int) -> paddle.Tensor:
        noise = paddle.randn([count, self.setup.noise_dim])
        labels = self.labels[:count] if self.setup.is_conditional else None
        return self.generator.generate(noise, labels)

    def critic_step(self) -> None:
        with paddle.no_grad():
            fake = self.draw_fakes(self.batch)
        values, logits = self.critic.score(self.real)
        mixed = functions.interpolate(self.real, fake, paddle.rand([self.batch]))
        norm = functions.gradient_norm(self.critic, mixed)
        penalty = self.setup.penalty_weight * functions.gradient_penalty(norm)
        loss = self.critic.score(fake)[0].mean() - values.mean() + penalty
        if logits is not None:
            loss = loss + F.cross_entropy(logits, self.labels[: self.batch])
        self._step(self.critic, loss)

    def generator_step(self) -> None:
        for weight in self.critic.parameters():
            weight.stop_gradient = True
        values, logits = self.critic.score(self.draw_fakes(self.generator_batch))
        loss = -values.mean()
        if logits is not None:
            loss = loss + 0.1 * F.cross_entropy(logits, self.labels)
        self._step(self.generator, loss)
        for weight in self.critic.parameters():
            weight.stop_gradient = False

    def _step(self, network: nn.Layer, loss: paddle.Tensor) -> None:
        optimizer = self.optimizers[network]
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
