# SPDX-License-Identifier: Apache-2.0
"""Residual networks for 64x64 pictures."""

import numpy as np
import paddle
import paddle.nn.functional as F
import plain
import pytest
from plain import conv_count
from plain import count
from plain import leaky
from plain import randomise

from networks import resnet64
from networks.normalisation import BatchNorm
from networks.normalisation import LayerNorm
from support.errors import UserError


@pytest.mark.parametrize("classes", [0, 7])
def test_sizes_at_full_width(classes):
    generator = 128 * 8192 + 8192 + 2 * 64 + conv_count(64, 3, 3)
    for a, b in [(512, 512), (512, 256), (256, 128), (128, 64)]:
        generator += 2 * conv_count(a, a, 3) + conv_count(a, b, 4) + conv_count(a, b, 2)
        generator += 3 * 2 * a * max(classes, 1)
    critic = conv_count(3, 64, 3) + 8193 * (1 + classes)
    for a, b in [(64, 128), (128, 256), (256, 512), (512, 512)]:
        critic += conv_count(a, b, 3) + 2 * conv_count(b, b, 3) + conv_count(a, b, 1)
        critic += 2 * (a + b + b)
    assert count(resnet64.Resnet64Generator(num_classes=classes)) == generator
    assert count(resnet64.Resnet64Discriminator(num_classes=classes)) == critic


def test_which_layers_are_he_and_which_glorot():
    generator, critic = resnet64.Resnet64Generator(16), resnet64.Resnet64Discriminator(16)
    up, down = generator.blocks[1], critic.blocks[1]  # 128 to 64 channels, 32 to 64
    plain.assert_deviations(
        {
            np.sqrt(2 / (128 + 16 * 128)): [generator.linear],
            np.sqrt(4 / (9 * 256)): [up.convs[0], up.convs[1]],
            np.sqrt(4 / (16 * 128 / 4 + 16 * 64)): [up.convs[2]],
            np.sqrt(4 / (4 * 128 / 4 + 4 * 64)): [up.shortcut],
            np.sqrt(2 / (9 * 19)): [generator.conv],
            np.sqrt(4 / (9 * 19)): [critic.conv],
            np.sqrt(4 / (9 * 96)): [down.convs[0]],
            np.sqrt(4 / (9 * 128)): [down.convs[1]],
            np.sqrt(4 / (9 * 64 + 9 * 64 / 4)): [down.convs[2]],
            np.sqrt(2 / (32 + 64 / 4)): [down.shortcut],
            np.sqrt(2 / (16 * 128 + 1)): [critic.linear],
        }
    )


def plain_resnet_generator(network, noise, labels):
    x = network.linear(noise).reshape([-1, 16, 4, 4])
    for block in network.blocks:
        h = plain.conv(
            F.relu(plain.batch_norm(x, block.norms[0], labels)), block.convs[0], padding=1
        )
        h = plain.conv(
            F.relu(plain.batch_norm(h, block.norms[1], labels)), block.convs[1], padding=1
        )
        h = plain.conv_transpose(
            F.relu(plain.batch_norm(h, block.norms[2], labels)), block.convs[2], 1
        )
        x = h + plain.conv_transpose(x, block.shortcut, 0)
    return F.tanh(plain.conv(F.relu(plain.batch_norm(x, network.norm)), network.conv, padding=1))


def plain_resnet_critic(network, x):
    x = plain.conv(x, network.conv, padding=1)
    for block in network.blocks:
        h = plain.conv(leaky(plain.layer_norm(x, block.norms[0])), block.convs[0], padding=1)
        h = plain.conv(leaky(plain.layer_norm(h, block.norms[1])), block.convs[1], padding=1)
        h = leaky(plain.layer_norm(h, block.norms[2]))
        # TensorFlow's "same" pads at the bottom and right, for an even size and stride 2.
        h = plain.conv(F.pad(h, [0, 1, 0, 1]), block.convs[2], stride=2)
        x = h + plain.conv(x, block.shortcut, stride=2)
    return leaky(x).reshape([len(x), -1])


@pytest.mark.parametrize("classes", [0, 3])
def test_networks_against_a_plain_computation(classes):
    generator = randomise(resnet64.Resnet64Generator(2, num_classes=classes))
    critic = randomise(resnet64.Resnet64Discriminator(2, num_classes=classes))
    noise, labels = paddle.randn([3, 128]), paddle.to_tensor([2, 0, 2]) if classes else None
    with paddle.no_grad():
        images = generator.generate(noise, labels)
        expected = plain_resnet_generator(generator, noise, labels)
        np.testing.assert_allclose(images.numpy(), expected.numpy(), atol=1e-4)
        assert 0.05 < float(images.abs().mean()) < 0.95  # neither all grey nor all saturated
        value, logits = critic.score(images)
        h = plain_resnet_critic(critic, images)
        expected = critic.linear(h)[:, 0].numpy()
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-3, atol=1e-4)
        if classes:
            expected = critic.linear_class(h).numpy()
            np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_normalisation_precedes_each_convolution_of_the_blocks():
    for norm, kind in (("layer", LayerNorm), ("batch", BatchNorm)):
        critic = resnet64.Resnet64Discriminator(2, norm)
        found = [type(layer) for block in critic.blocks for layer in block.norms]
        assert found == [kind] * 12
    assert type(resnet64.Resnet64Discriminator(2).blocks[0].norms[0]) is LayerNorm
    with pytest.raises(UserError, match="null, layer, batch or spectral"):
        resnet64.Resnet64Discriminator(1, "instance")
