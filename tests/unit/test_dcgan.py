# SPDX-License-Identifier: Apache-2.0
"""DCGAN's networks for 64x64 pictures."""

import numpy as np
import paddle
import paddle.nn.functional as F
import plain
import pytest
from plain import conv_count
from plain import count
from plain import leaky
from plain import randomise

from networks import dcgan
from networks.normalisation import LayerNorm
from networks.normalisation import NoNorm
from support.errors import UserError


@pytest.mark.parametrize("classes", [0, 7])
def test_sizes_at_full_width(classes):
    widths = [512, 256, 128, 64]
    generator = 128 * 8192 + 8192 + 2 * sum(widths) * max(classes, 1)
    generator += sum(conv_count(a, b, 4) for a, b in zip(widths, [*widths[1:], 3]))
    critic = sum(conv_count(a, b, 4) for a, b in [(3, 64), (64, 128), (128, 256), (256, 512)])
    # Layer normalisation of all but the first.
    critic += 2 * (128 + 256 + 512) + 513 * (1 + classes)
    assert count(dcgan.Dcgan64Generator(num_classes=classes)) == generator
    assert count(dcgan.Dcgan64Discriminator(num_classes=classes)) == critic


def test_weights_of_dcgan_are_small_and_normal():
    networks = dcgan.Dcgan64Generator(num_classes=4), dcgan.Dcgan64Discriminator(num_classes=4)
    weights = {
        f"{number} {name}": weight.numpy()
        for number, network in enumerate(networks)
        for name, weight in network.named_parameters()
        if name.endswith("weight")
    }
    assert len(weights) == 5 + 6
    for name, weight in weights.items():
        tolerance = 4 / np.sqrt(2 * weight.size)
        assert weight.std() == pytest.approx(0.02, rel=tolerance), name
        assert abs(weight.mean()) < 0.02 * 4 / np.sqrt(weight.size), name
        if weight.size > 10_000:  # of uniform weights 0.58 are there, and none beyond 0.035
            assert (np.abs(weight) < 0.02).mean() == pytest.approx(0.683, abs=0.02), name
            assert np.abs(weight).max() > 0.06, name
    for network in networks:
        for name, bias in network.named_parameters():
            assert not name.endswith("bias") or not bias.numpy().any(), name


def plain_dcgan_generator(network, noise, labels):
    h = network.linear(noise).reshape([-1, 16, 4, 4])
    for norm, deconv in zip(network.norms, network.deconvs):
        h = plain.conv_transpose(F.relu(plain.batch_norm(h, norm, labels)), deconv, 1)
    return F.tanh(h)


def plain_dcgan_critic(network, x):
    h = leaky(plain.conv(x, network.convs[0], stride=2, padding=1))
    for layer, norm in zip(network.convs[1:], list(network.norms)[1:]):
        h = leaky(plain.layer_norm(plain.conv(h, layer, stride=2, padding=1), norm))
    return h.mean([2, 3])


@pytest.mark.parametrize("classes", [0, 3])
def test_networks_against_a_plain_computation(classes):
    generator = randomise(dcgan.Dcgan64Generator(2, num_classes=classes))
    critic = randomise(dcgan.Dcgan64Discriminator(2, num_classes=classes))
    noise, labels = paddle.randn([3, 128]), paddle.to_tensor([2, 0, 2]) if classes else None
    with paddle.no_grad():
        images = generator.generate(noise, labels)
        expected = plain_dcgan_generator(generator, noise, labels)
        np.testing.assert_allclose(images.numpy(), expected.numpy(), atol=1e-4)
        assert 0.05 < float(images.abs().mean()) < 0.95  # neither all grey nor all saturated
        value, logits = critic.score(images)
        h = plain_dcgan_critic(critic, images)
        expected = critic.linear(h)[:, 0].numpy()
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-3, atol=1e-4)
        if classes:
            expected = critic.linear_class(h).numpy()
            np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_normalisation_follows_each_convolution_but_the_first():
    for norm, kind in ((None, NoNorm), ("layer", LayerNorm)):
        critic = dcgan.Dcgan64Discriminator(2, norm)
        assert [type(layer) for layer in critic.norms] == [NoNorm, kind, kind, kind]
    assert [type(layer) for layer in dcgan.Dcgan64Discriminator(2).norms][1] is LayerNorm
    with pytest.raises(UserError, match="null, layer, batch or spectral"):
        dcgan.Dcgan64Discriminator(1, "instance")
