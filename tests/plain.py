# SPDX-License-Identifier: Apache-2.0
"""Layers by their plain formulas, which the networks are compared with; and random weights."""

import numpy as np
import paddle
import paddle.nn.functional as F

from networks.spectral import step_power_iterations


def count(network):
    """The number of a network's weights and biases."""
    return sum(int(np.prod(weight.shape)) for weight in network.parameters())


def conv_count(n_in, n_out, size):
    """The number of weights and biases of a convolution."""
    return n_in * n_out * size**2 + n_out


def randomise(network, gain=1.0):
    """Draws all weights and biases, so that each part of a network has a share in its output.

    Fresh biases are 0, where a mistake in them would not show.
    """
    for weight in network.parameters():
        if weight.stop_gradient:  # Paddle's running statistics
            continue
        fan_in = np.prod(weight.shape[1:]) if weight.ndim == 4 else weight.shape[0]
        scale = gain / np.sqrt(fan_in) if weight.ndim > 1 else 0.3 * gain
        weight.set_value(scale * paddle.randn(weight.shape))
    for _ in range(20):
        step_power_iterations(network)
    return network


def leaky(x):
    return F.leaky_relu(x, 0.2)


def linear(x, layer):
    return F.linear(x, layer.weight, layer.bias)


def conv(x, layer, **options):
    return F.conv2d(x, layer.weight, layer.bias, **options)


def same_conv(x, layer):
    return conv(x, layer, padding=layer.weight.shape[-1] // 2)


def conv_transpose(x, layer, padding):
    return F.conv2d_transpose(x, layer.weight, layer.bias, stride=2, padding=padding)


def upsample(x):
    return F.interpolate(x, scale_factor=2)  # nearest neighbours


def layer_norm(x, norm):
    return F.layer_norm(x, x.shape[1:], epsilon=1e-5) * norm.scale + norm.offset


def batch_norm(x, norm, labels=None):
    """With the batch's statistics, and a scale and an offset per label or for all."""
    rows = [0] * len(x) if labels is None else [int(label) for label in labels]
    scale, offset = (
        paddle.stack([part[row] for row in rows]) for part in (norm.scale, norm.offset)
    )
    centred = x - x.mean([0, 2, 3], keepdim=True)
    h = centred / paddle.sqrt(centred.square().mean([0, 2, 3], keepdim=True) + 1e-5)
    return h * scale[:, :, None, None] + offset[:, :, None, None]


def assert_deviations(deviations):
    """Each layer of {deviation: layers} has uniform weights of that standard deviation.

    Samples of few weights scatter: 5 deviations of the estimate are allowed.
    """
    for deviation, layers in deviations.items():
        for layer in layers:
            weight = layer.weight.numpy()
            scatter = 5 * np.sqrt(0.2 / weight.size)  # of a uniform distribution's estimate
            np.testing.assert_allclose(weight.std(), deviation, rtol=scatter)
            assert np.abs(weight).max() <= deviation * np.sqrt(3) * 1.0001
            assert not layer.bias.numpy().any()
