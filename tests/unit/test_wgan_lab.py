# SPDX-License-Identifier: Apache-2.0
"""The networks of the WGAN lab."""

import numpy as np
import paddle
import paddle.nn.functional as F
import plain
from plain import conv_count
from plain import count
from plain import leaky
from plain import randomise

from networks import wgan_lab
from networks.normalisation import BatchNorm
from networks.normalisation import LayerNorm


def test_sizes_at_full_width():
    expected = 100 * 1024 + 1024 + 2 * 1024 + 1024 * 128 * 49 + 128 * 49 + 2 * 128 * 49
    expected += conv_count(128, 64, 4) + 2 * 64 + conv_count(64, 1, 4)
    assert count(wgan_lab.WganLabGenerator()) == expected
    expected = conv_count(1, 32, 5) + 2 * 32 + conv_count(32, 64, 5) + 2 * 64
    expected += 64 * 49 * 1024 + 1024 + 1024 + 1
    assert count(wgan_lab.WganLabDiscriminator()) == expected


def test_which_layers_are_he_and_which_glorot():
    generator, critic = wgan_lab.WganLabGenerator(8), wgan_lab.WganLabDiscriminator(8)
    plain.assert_deviations(
        {
            np.sqrt(2 / 100): [generator.linear_1],
            np.sqrt(2 / 128): [generator.linear_2],
            np.sqrt(4 / (16 * 16 / 4 + 16 * 8)): [generator.deconv_1],
            np.sqrt(4 / (16 * 8 / 4 + 16)): [generator.deconv_2],
            np.sqrt(4 / (25 + 25 * 8 / 4)): [critic.conv_1],
            np.sqrt(4 / (25 * 8 + 25 * 16 / 4)): [critic.conv_2],
            np.sqrt(2 / (16 * 49)): [critic.linear_1],
            np.sqrt(2 / 257): [critic.linear_2],
        }
    )


def test_normalisation_follows_both_convolutions():
    for norm, kind in (("layer", LayerNorm), ("batch", BatchNorm)):
        critic = wgan_lab.WganLabDiscriminator(2, norm)
        assert type(critic.norm_1) is type(critic.norm_2) is kind
    assert type(wgan_lab.WganLabDiscriminator(2).norm_1) is BatchNorm


def test_the_wgan_lab_against_a_plain_computation():
    network, noise = randomise(wgan_lab.WganLabGenerator(2)), paddle.randn([5, 100])
    h = plain.batch_norm(network.linear_1(noise)[:, :, None, None], network.norm_1)
    h = network.linear_2(F.relu(h)[:, :, 0, 0])[:, :, None, None]
    h = F.relu(plain.batch_norm(h, network.norm_2)).reshape([5, 4, 7, 7])
    h = F.relu(plain.batch_norm(plain.conv_transpose(h, network.deconv_1, 1), network.norm_3))
    digits, expected = network.generate(noise), F.tanh(plain.conv_transpose(h, network.deconv_2, 1))
    np.testing.assert_allclose(digits.numpy(), expected.numpy(), atol=1e-4)

    network = randomise(wgan_lab.WganLabDiscriminator(2, "layer", 10))
    h = plain.conv(F.pad(digits, [1, 2, 1, 2]), network.conv_1, stride=2)
    h = leaky(plain.layer_norm(h, network.norm_1))
    h = plain.conv(F.pad(h, [1, 2, 1, 2]), network.conv_2, stride=2)
    h = leaky(plain.layer_norm(h, network.norm_2)).reshape([5, -1])
    h = leaky(network.linear_1(h))
    for found, layer in zip(network.score(digits), (network.linear_2, network.linear_class)):
        expected = layer(h).reshape(found.shape)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_each_label_has_scales_and_offsets_of_its_own():
    network = randomise(wgan_lab.WganLabGenerator(2, num_classes=3))
    noise, label = paddle.randn([5, 100]), 1
    digits = network.generate(noise, paddle.full([5], label, "int64"))
    plain_network, state = wgan_lab.WganLabGenerator(2), network.state_dict()
    for key in state:
        if key.endswith(("scale", "offset")):
            state[key] = state[key][label : label + 1]
    plain_network.set_state_dict(state)
    expected = plain_network.generate(noise)
    np.testing.assert_allclose(digits.numpy(), expected.numpy(), atol=1e-4)
    other = network.generate(noise, paddle.full([5], 2, "int64"))
    assert float((other - digits).abs().max()) > 0.01
