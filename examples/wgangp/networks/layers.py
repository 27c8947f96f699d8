# SPDX-License-Identifier: Apache-2.0
"""Makers of linear and convolutional layers, initialised as in the authors' code.

`kernels.maps` has the functions that apply these layers.
"""

from __future__ import annotations

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from kernels import maps


def _uniform(std: float) -> paddle.ParamAttr:
    """Uniform initialisation of standard deviation `std`, as the authors' code has it."""
    bound = std * math.sqrt(3.0)
    return paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound))


def make_linear(n_in: int, n_out: int, gain: str = "glorot") -> nn.Linear:
    """Makes a linear layer, initialised as in the authors' `tflib/ops/linear.py`; biases are 0.

    Args:
        n_in: Input features.
        n_out: Output features.
        gain: "glorot" (`std = sqrt(2 / (n_in + n_out))`) or "he" (`std = sqrt(2 / n_in)`).
    """
    std = math.sqrt(2.0 / n_in) if gain == "he" else math.sqrt(2.0 / (n_in + n_out))
    return nn.Linear(n_in, n_out, _uniform(std), nn.initializer.Constant(0.0))


def make_conv(n_in: int, n_out: int, size: int, stride: int = 1, gain: str = "he") -> nn.Conv2D:
    """Makes a 'same' convolution, initialised as in the authors' `tflib/ops/conv2d.py`.

    Biases are 0.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        size: Height and width of the kernel.
        stride: Stride of the convolution.
        gain: "he" (`std = sqrt(4 / (fan_in + fan_out))`) or "glorot" (`sqrt(2 / ...)`).
    """
    fan_in, fan_out = n_in * size**2, n_out * size**2 / stride**2
    std = math.sqrt((4.0 if gain == "he" else 2.0) / (fan_in + fan_out))
    zero = nn.initializer.Constant(0.0)
    # "SAME" is TensorFlow's rule: (1, 2) around an even input for a 5x5 kernel of stride 2.
    return nn.Conv2D(
        n_in,
        n_out,
        size,
        stride,
        padding="SAME" if stride > 1 else size // 2,
        weight_attr=_uniform(std),
        bias_attr=zero,
    )


def make_conv_transpose(n_in: int, n_out: int, size: int) -> nn.Conv2DTranspose:
    """Makes a transposed convolution that doubles height and width (`tflib/ops/deconv2d.py`).

    Its initialisation is He-like, as in `make_conv`; biases are 0.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        size: Height and width of the kernel.
    """
    fan_in, fan_out = n_in * size**2 / 4, n_out * size**2
    std = math.sqrt(4.0 / (fan_in + fan_out))
    before, after = (size - 2) // 2, (size - 1) // 2
    return nn.Conv2DTranspose(
        n_in,
        n_out,
        size,
        stride=2,
        # The adjoint of TensorFlow's 'same' convolution crops one pixel less at the top and left.
        padding=[before, after, before, after],
        weight_attr=_uniform(std),
        bias_attr=nn.initializer.Constant(0.0),
    )


def project(features: paddle.Tensor, labels: paddle.Tensor, layer: nn.Linear) -> paddle.Tensor:
    """`<e_y, h>`, the part of a critic's value that depends on the label.

    For a pair, the value is `D(x, y) = D(x) + <e_y, h(x)>` (Miyato and Koyama, arXiv 1802.05637).
    For each label that is linear in h.

    Args:
        features: Features h of the samples, [N, D].
        labels: int64 [N].
        layer: From D features to one value per class.

    Returns:
        [N].
    """
    values = maps.linear(features, layer)
    return (values * F.one_hot(labels, values.shape[1]).astype(values.dtype)).sum(1)
