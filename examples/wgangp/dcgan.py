# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""Networks of strided and transposed convolutions: MNIST's of the "WGAN lab", and 64x64 ones.

The lab is a teaching exercise that many courses share: WGAN by weight clipping, on digits.
"""

from __future__ import annotations

from typing import Optional

import paddle.nn.functional as F
from paddle import nn

import functions
import linear_maps as maps
from functions import BatchNorm
from functions import conv
from functions import conv_transpose
from functions import critic_norm
from functions import linear


class WganLabGenerator(functions.Generator):
    """Noise [N, 100] -> digits [N, 1, 28, 28] in [-1, 1].

    Args:
        dim: Channels at 14x14; twice as many at 7x7, and 16 times as many in the first layer.
        noise_dim: Length of a noise vector.
    """

    def __init__(self, dim: int = 64, noise_dim: int = 100):
        super().__init__(noise_dim)
        self.dim = dim
        self.linear_1, self.norm_1 = linear(noise_dim, 16 * dim, "he"), BatchNorm(16 * dim)
        self.linear_2 = linear(16 * dim, 2 * dim * 7 * 7, "he")
        self.norm_2 = BatchNorm(2 * dim * 7 * 7)
        self.deconv_1, self.norm_3 = conv_transpose(2 * dim, dim, 4), BatchNorm(dim)
        self.deconv_2 = conv_transpose(dim, 1, 4)

    def generate(self, noise, labels=None):
        h = F.relu(self.norm_1(self.linear_1(noise)))
        h = F.relu(self.norm_2(self.linear_2(h))).reshape([-1, 2 * self.dim, 7, 7])
        h = F.relu(self.norm_3(maps.conv_transpose(h, self.deconv_1)))
        return F.tanh(maps.conv_transpose(h, self.deconv_2))


class WganLabDiscriminator(functions.Critic):
    """Digits [N, 1, 28, 28] -> values [N].

    Args:
        dim: Channels at 14x14; twice as many at 7x7.
        norm: None, "layer" or "batch": normalisation after both convolutions.
    """

    def __init__(self, dim: int = 32, norm: Optional[str] = "batch"):
        super().__init__()
        self.piecewise_linear = norm is None
        self.conv_1, self.norm_1 = conv(1, dim, 5, stride=2), critic_norm(norm, dim)
        self.conv_2, self.norm_2 = conv(dim, 2 * dim, 5, stride=2), critic_norm(norm, 2 * dim)
        self.linear_1 = linear(2 * dim * 7 * 7, 32 * dim, "he")
        self.linear_2 = linear(32 * dim, 1)

    def score(self, samples):
        h = maps.relu(self.norm_1(maps.conv(samples, self.conv_1)), 0.2)
        h = maps.relu(self.norm_2(maps.conv(h, self.conv_2)), 0.2)
        h = maps.relu(maps.linear(h.reshape([len(h), -1]), self.linear_1), 0.2)
        return maps.linear(h, self.linear_2).squeeze(1), None


# --8<-- [start:dcgan]
def _small_normal(network: nn.Layer) -> None:
    """Weights N(0, 0.02), as DCGAN's (arXiv 1511.06434, section 4)."""
    draw = nn.initializer.Normal(0.0, 0.02)
    for layer in network.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Conv2DTranspose, nn.Linear)):
            draw(layer.weight)


class Dcgan64Generator(functions.Generator):
    """Noise [N, 128] -> pictures [N, 3, 64, 64] in [-1, 1].

    Args:
        dim: Channels at 32x32; 8 times as many at 4x4.
        noise_dim: Length of a noise vector.
        num_classes: Labels to tell apart (conditional batch normalisation); 0 for none.
    """

    def __init__(self, dim: int = 64, noise_dim: int = 128, num_classes: int = 0):
        super().__init__(noise_dim, num_classes)
        self.dim = dim
        widths = [8 * dim, 4 * dim, 2 * dim, dim]
        self.linear = linear(noise_dim, 4 * 4 * 8 * dim)
        self.norms = nn.LayerList([BatchNorm(width, num_classes) for width in widths])
        self.deconvs = nn.LayerList(
            [conv_transpose(a, b, 4) for a, b in zip(widths, [*widths[1:], 3])]
        )
        _small_normal(self)

    def generate(self, noise, labels=None):
        h = self.linear(noise).reshape([-1, 8 * self.dim, 4, 4])
        for norm, deconv in zip(self.norms, self.deconvs):
            h = maps.conv_transpose(F.relu(norm(h, labels)), deconv)
        return F.tanh(h)


class Dcgan64Discriminator(functions.Critic):
    """Pictures [N, 3, 64, 64] -> values [N], logits [N, K].

    Args:
        dim: Channels at 32x32; 8 times as many at 4x4.
        norm: None, "layer" or "batch": normalisation after all convolutions but the first.
        num_classes: Classes of the AC-GAN head; 0 for no head.
    """

    def __init__(self, dim: int = 64, norm: Optional[str] = "layer", num_classes: int = 0):
        super().__init__()
        self.piecewise_linear = norm is None
        widths = [dim, 2 * dim, 4 * dim, 8 * dim]
        self.convs = nn.LayerList(
            [nn.Conv2D(a, b, 4, stride=2, padding=1) for a, b in zip([3, *widths], widths)]
        )
        # none after the first convolution
        self.norms = nn.LayerList(
            [critic_norm(norm if number else None, width) for number, width in enumerate(widths)]
        )
        self.linear = linear(8 * dim, 1)
        self.linear_class = linear(8 * dim, num_classes) if num_classes else None
        _small_normal(self)

    def score(self, samples):
        h = samples
        for conv_, norm in zip(self.convs, self.norms):
            h = maps.relu(norm(maps.conv(h, conv_)), 0.2)
        h = h.mean([2, 3])
        logits = None if self.linear_class is None else maps.linear(h, self.linear_class)
        return maps.linear(h, self.linear).squeeze(1), logits


# --8<-- [end:dcgan]
