# SPDX-License-Identifier: Apache-2.0
"""The networks of the weights that PaddleScience published, for evaluation only.

They differ from the paper's networks (functions.py) in four ways:

1. The CIFAR-10 generator upsamples by a pixel shuffle that mixes channels (see `Upsample`).
2. The CIFAR-10 critic always normalises, with ONE scale and offset for all of a sample.
3. Generators normalise with running statistics, where the authors use a batch's own.
4. The training differed: 64 pictures in the generator's batch instead of 128, and
   dequantisation noise drawn once for the whole set. Only the weights show this.

MNIST's generator is one pixel off the authors' from 7x7 to 14x14, and its critic's leaky ReLU has
slope 0.01 instead of 0.2. The toy networks differ in names only.

The weight files themselves were not available here. The tests compare names and shapes with
those of the files, and outputs with numbers of PaddleScience's own networks.
"""

from __future__ import annotations

from typing import Callable
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from networks.base import Critic
from networks.base import Generator

NUM_CLASSES = 10  # CIFAR-10's classes; shapes of weights depend on the number


class Upsample(nn.Layer):
    """Doubles height and width of [N, C, H, W] by a pixel shuffle of four copies of the channels.

    Pixel (2y + i, 2x + j) of channel c is pixel (y, x) of channel (4c + 2i + j) mod C. Channels
    that are C/4 apart become equal.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.pixel_shuffle(paddle.concat([x] * 4, 1), 2)


class BatchNorm(nn.BatchNorm2D):
    """Batch normalisation with running statistics, in training mode as well."""

    def forward(self, x: paddle.Tensor, labels: Optional[paddle.Tensor] = None) -> paddle.Tensor:
        return F.batch_norm(x, self._mean, self._variance, self.weight, self.bias, epsilon=1e-5)


class StoredNorm(nn.Layer):
    """Normalises with a stored mean and variance; with classes, scales per label.

    Args:
        channels: Channels of the input, or 1 for the same numbers in all channels.
        num_classes: Number of classes of the labels; 0 for one scale and offset for all.
    """

    def __init__(self, channels: int, num_classes: int = 0):
        super().__init__()
        shape = [num_classes, channels] if num_classes else [channels]
        self.scale = self.create_parameter(shape, default_initializer=nn.initializer.Constant(1.0))
        self.offset = self.create_parameter(shape, is_bias=True)
        self.register_buffer("mean", paddle.zeros([channels]))
        self.register_buffer("var", paddle.ones([channels]))

    def forward(self, x: paddle.Tensor, labels: Optional[paddle.Tensor] = None) -> paddle.Tensor:
        parts = [self.mean, self.var, self.scale, self.offset]
        if self.scale.ndim > 1:
            parts[2:] = [F.embedding(labels, rows) for rows in parts[2:]]
        mean, var, scale, offset = (part.reshape([-1, len(self.mean), 1, 1]) for part in parts)
        return (x - mean) / paddle.sqrt(var + 1e-5) * scale + offset


def make_conv(n_in: int, n_out: int, size: int) -> nn.Conv2D:
    """Makes a convolution that keeps height and width."""
    return nn.Conv2D(n_in, n_out, size, padding=size // 2)


def upsample_before(conv: nn.Conv2D) -> nn.Sequential:
    """Puts an upsampling before a convolution, whose name becomes `conv2D`."""
    return nn.Sequential(("upsample", Upsample()), ("conv2D", conv))


def pool_after(conv: nn.Conv2D) -> nn.Sequential:
    """Puts a 2x2 mean pool after a convolution, whose name becomes `conv2D`."""
    return nn.Sequential(("conv2D", conv), ("pool", nn.AvgPool2D(2)))


class ResidualBlock(nn.Layer):
    """Norm, ReLU, convolution, norm, ReLU, convolution, plus a shortcut.

    Args:
        dim: Input and output channels.
        norm: Makes a normalisation.
        resample: None, "up" (before the first convolution) or "down" (after the second).
    """

    def __init__(self, dim: int, norm: Callable[[], nn.Layer], resample: Optional[str] = None):
        super().__init__()
        shortcut, conv_1, conv_2 = (make_conv(dim, dim, size) for size in (1, 3, 3))
        if resample == "up":
            shortcut, conv_1 = upsample_before(shortcut), upsample_before(conv_1)
        elif resample == "down":
            shortcut, conv_2 = pool_after(shortcut), pool_after(conv_2)
        self.resample = resample
        self.conv_shortcut = shortcut  # The files have one even where it is not used.
        self.conv_1, self.conv_2 = conv_1, conv_2
        self.normalize1 = nn.LayerDict({"normalize": norm()})
        self.normalize2 = nn.LayerDict({"normalize": norm()})

    def forward(self, x: paddle.Tensor, labels: Optional[paddle.Tensor] = None) -> paddle.Tensor:
        h = self.conv_1(F.relu(self.normalize1["normalize"](x, labels)))
        h = self.conv_2(F.relu(self.normalize2["normalize"](h, labels)))
        return h + (x if self.resample is None else self.conv_shortcut(x))


class PublishedCifar10Generator(Generator):
    """Noise [N, noise_dim], labels [N] -> pictures [N, 3, 32, 32] in [-1, 1].

    Args:
        dim: Channels of every layer.
        noise_dim: Length of a noise vector.
        use_label: Whether normalisation in the blocks is conditional; the last one never is.
    """

    def __init__(self, dim: int = 128, noise_dim: int = 128, use_label: bool = True):
        super().__init__(noise_dim, NUM_CLASSES if use_label else 0)

        def norm():
            return StoredNorm(dim, NUM_CLASSES) if use_label else BatchNorm(dim)

        self.dim = dim
        net = self.generator = nn.Layer()
        net.linear1 = nn.Linear(noise_dim, 4 * 4 * dim)
        net.ResidualBlocks = nn.LayerList([ResidualBlock(dim, norm, "up") for _ in range(3)])
        net.Normalize = nn.Sequential(("normalize", BatchNorm(dim)))
        net.conv = make_conv(dim, 3, 3)

    def generate(self, noise, labels=None):
        net = self.generator
        h = net.linear1(noise).reshape([-1, self.dim, 4, 4])
        for block in net.ResidualBlocks:
            h = block(h, labels)
        return F.tanh(net.conv(F.relu(net.Normalize(h))))


class PublishedCifar10Discriminator(Critic):
    """Pictures [N, 3, 32, 32] -> values [N], logits [N, 10].

    Args:
        dim: Channels of every layer.
        use_label: Whether the AC-GAN head gives the logits. The files have its weights anyway.
    """

    def __init__(self, dim: int = 128, use_label: bool = True):
        super().__init__()
        self.use_label = use_label
        resamples = ("down", None, None)
        blocks = [ResidualBlock(dim, lambda: StoredNorm(1), resample) for resample in resamples]
        net = self.discriminator = nn.Layer()
        first = net.optimized_resblock_disc1 = nn.Layer()
        first.conv_1 = make_conv(3, dim, 3)
        first.conv_2 = pool_after(make_conv(dim, dim, 3))
        # The same as a pool before the 1x1 convolution, since both are linear.
        first.conv_shortcut = pool_after(make_conv(3, dim, 1))
        net.ResidualBlocks = nn.LayerList(blocks)
        net.linear = nn.Linear(dim, 1)
        net.linear2 = nn.Linear(dim, NUM_CLASSES)

    def score(self, samples):
        net = self.discriminator
        first = net.optimized_resblock_disc1
        h = first.conv_shortcut(samples) + first.conv_2(F.relu(first.conv_1(samples)))
        for block in net.ResidualBlocks:
            h = block(h)
        h = F.relu(h).mean([2, 3])
        return net.linear(h).squeeze(1), net.linear2(h) if self.use_label else None


class PublishedMnistGenerator(Generator):
    """Noise [N, noise_dim] -> digits [N, 1, 28, 28] in [0, 1].

    Args:
        dim: Channels at 14x14; the layers before it have 4 and 2 times as many.
        noise_dim: Length of a noise vector.
    """

    low = 0.0

    def __init__(self, dim: int = 64, noise_dim: int = 128):
        super().__init__(noise_dim)
        self.dim = dim
        net = self.generator = nn.Layer()
        net.linear1 = nn.Linear(noise_dim, 4 * 4 * 4 * dim)
        # 4 -> 8, 7 -> 14 and 14 -> 28 pixels. The second is one pixel off the other two.
        net.conv2d_transpose1 = nn.Conv2DTranspose(4 * dim, 2 * dim, 5, 2, [1, 2, 1, 2])
        net.conv2d_transpose2 = nn.Conv2DTranspose(2 * dim, dim, 5, 2, 2, output_padding=1)
        net.conv2d_transpose3 = nn.Conv2DTranspose(dim, 1, 5, 2, [1, 2, 1, 2])

    def generate(self, noise, labels=None):
        net = self.generator
        h = F.relu(net.linear1(noise)).reshape([-1, 4 * self.dim, 4, 4])
        h = F.relu(net.conv2d_transpose1(h))[:, :, :7, :7]
        h = F.relu(net.conv2d_transpose2(h))
        return F.sigmoid(net.conv2d_transpose3(h))


class PublishedMnistDiscriminator(Critic):
    """Digits [N, 1, 28, 28] -> values [N].

    Args:
        dim: Channels of the first convolution; the next ones have 2 and 4 times as many.
    """

    def __init__(self, dim: int = 64):
        super().__init__()
        net = self.discriminator = nn.Layer()
        net.conv2d_1 = nn.Conv2D(1, dim, 5, 2, "SAME")
        net.conv2d_2 = nn.Conv2D(dim, 2 * dim, 5, 2, "SAME")
        net.conv2d_3 = nn.Conv2D(2 * dim, 4 * dim, 5, 2, "SAME")
        net.linear = nn.Linear(4 * 4 * 4 * dim, 1)

    def score(self, samples):
        net, h = self.discriminator, samples
        for layer in (net.conv2d_1, net.conv2d_2, net.conv2d_3):
            h = F.leaky_relu(layer(h), 0.01)
        # Paddle's flatten has no second derivative; reshape has one.
        return net.linear(h.reshape([len(h), -1])).squeeze(1), None


def make_toy_layers(dim: int, n_out: int) -> nn.Sequential:
    """Makes four linear layers with ReLUs between them, [N, 2] to [N, n_out]."""
    hidden = [
        (f"reluLayer{i}", nn.Sequential(("linear", nn.Linear(n_in, dim)), ("relu", nn.ReLU())))
        for i, n_in in enumerate((2, dim, dim), 1)
    ]
    return nn.Sequential(*hidden, ("linear", nn.Linear(dim, n_out)))


class PublishedToyGenerator(Generator):
    """Noise [N, 2] -> points [N, 2].

    Args:
        dim: Width of the hidden layers.
    """

    def __init__(self, dim: int = 512):
        super().__init__(noise_dim=2)
        self.generator = make_toy_layers(dim, 2)

    def generate(self, noise, labels=None):
        return self.generator(noise)


class PublishedToyDiscriminator(Critic):
    """Points [N, 2] -> values [N].

    Args:
        dim: Width of the hidden layers.
    """

    def __init__(self, dim: int = 512):
        super().__init__()
        self.discriminator = make_toy_layers(dim, 1)

    def score(self, samples):
        return self.discriminator(samples).squeeze(1), None
