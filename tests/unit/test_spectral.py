# SPDX-License-Identifier: Apache-2.0
"""Spectral normalisation against singular values, its paper's gradient and PyTorch's."""

import numpy as np
import paddle
import pytest
from helpers import CRITICS
from paddle import nn
from plain import randomise
from trainings import make_run

import wgangp_toy
from data.image_set import ImageSet
from functions import WganGpToyDiscriminator
from networks.dcgan import Dcgan64Discriminator
from networks.layers import make_conv
from networks.layers import make_linear
from networks.resnet64 import Resnet64Discriminator
from networks.spectral import SpectralNorm
from networks.spectral import step_power_iterations
from networks.wgan_lab import WganLabDiscriminator
from training import build
from training import checkpoints
from wgangp_mnist import Mnist

LAYERS = {"linear": lambda: make_linear(6, 4), "convolution": lambda: make_conv(3, 5, 3)}
all_layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
HINGE = "LOSS=hinge MODEL.dis_net.dim=8 MODEL.gen_net.dim=8 TRAIN.batch_size=16"


def as_matrix(weight):
    return weight.numpy().reshape(weight.shape[0], -1)


@all_layers
def test_the_largest_singular_value_becomes_1(make, float64):
    norm = SpectralNorm(make())
    for _ in range(300):
        norm.iterate()
    left, values, right = np.linalg.svd(as_matrix(norm.layer.weight))
    np.testing.assert_allclose(norm.weight.numpy(), norm.layer.weight.numpy() / values[0])
    np.testing.assert_allclose(np.linalg.svd(as_matrix(norm.weight))[1], values / values[0])
    sign = np.sign(left[:, 0] @ norm.u.numpy())
    np.testing.assert_allclose(norm.u.numpy(), sign * left[:, 0], atol=1e-6)
    np.testing.assert_allclose(norm.v.numpy(), sign * right[0], atol=1e-6)


@all_layers
def test_the_gradient_is_that_of_the_paper(make, float64):
    """Equation 12 of arXiv 1802.05957, for any unit vectors u and v."""
    norm = SpectralNorm(make())
    weight, u, v = as_matrix(norm.layer.weight), norm.u.numpy(), norm.v.numpy()
    inner = paddle.randn(norm.weight.shape)
    (found,) = paddle.grad((norm.weight * inner).sum(), norm.layer.weight)
    sigma, slope = u @ weight @ v, as_matrix(inner)
    expected = (slope - (slope * weight / sigma).sum() * np.outer(u, v)) / sigma
    np.testing.assert_allclose(as_matrix(found), expected, rtol=1e-10)


def test_steps_are_those_of_pytorch():
    """One iteration for each of its passes, the same weights, and the same gradients."""
    torch = pytest.importorskip("torch")
    norm = SpectralNorm(make_conv(3, 5, 3))
    layer = torch.nn.Conv2d(3, 5, 3)
    layer.weight.data = torch.from_numpy(norm.layer.weight.numpy().copy())
    other = torch.nn.utils.spectral_norm(layer)
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype("float32")
    other.weight_u.copy_(torch.from_numpy(norm.u.numpy()))
    for _ in range(3):
        norm.iterate()  # PyTorch does its iteration at the start of a pass
        other(torch.from_numpy(x)).square().sum().backward()
        np.testing.assert_allclose(norm.weight.numpy(), other.weight.detach().numpy(), rtol=1e-5)
        np.testing.assert_allclose(norm.u.numpy(), other.weight_u.numpy(), rtol=1e-4, atol=1e-6)
        y = nn.functional.conv2d(paddle.to_tensor(x), norm.weight)
        bias = paddle.to_tensor(other.bias.detach().numpy()).reshape([1, -1, 1, 1])
        (found,) = paddle.grad((y + bias).square().sum(), norm.layer.weight)
        expected = other.weight_orig.grad.numpy()
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
        with torch.no_grad():  # another weight, as after an optimiser's step
            other.weight_orig -= 0.01 * other.weight_orig.grad
            other.weight_orig.grad = None
        norm.layer.weight.set_value(other.weight_orig.detach().numpy())


@pytest.mark.parametrize(
    "critic",
    [
        lambda: CRITICS["mnist spectral"].make(),
        lambda: CRITICS["cifar10 spectral"].make(),
        lambda: WganGpToyDiscriminator(4, norm="spectral"),
        lambda: WganLabDiscriminator(2, "spectral"),
        lambda: Dcgan64Discriminator(2, "spectral", 3),
        lambda: Resnet64Discriminator(2, "spectral", 3, attention=True),
    ],
)
def test_all_layers_of_a_critic_are_normalised(critic):
    critic = critic()
    layers = [x for x in critic.sublayers() if isinstance(x, (nn.Linear, nn.Conv2D))]
    norms = [x for x in critic.sublayers() if isinstance(x, SpectralNorm)]
    assert [norm.layer for norm in norms] == layers and len(layers) > 3
    for norm in norms:
        assert np.linalg.svd(as_matrix(norm.weight))[1][0] == pytest.approx(1, abs=0.2)


def test_values_do_not_depend_on_the_weights_size():
    critic, points = randomise(WganGpToyDiscriminator(8, norm="spectral")), paddle.randn([5, 2])
    expected = critic.score(points)[0].numpy()
    for layer in critic.sublayers():
        if isinstance(layer, SpectralNorm):
            layer.layer.weight.set_value(7 * layer.layer.weight)
    np.testing.assert_allclose(critic.score(points)[0].numpy(), expected, rtol=1e-5)


def state(run):
    return {name: array.copy() for name, array in checkpoints.collect(run).arrays.items()}


def test_each_critic_step_is_followed_by_one_iteration(configure, monkeypatch):
    run = make_run(wgangp_toy.Toy(configure("toy", HINGE, "TRAIN.update_freq=2")))
    before, calls, step = state(run), [], SpectralNorm.iterate

    def watched(layer):
        calls.append(layer)
        step(layer)

    monkeypatch.setattr(SpectralNorm, "iterate", watched)
    run.generator.step(1)
    assert not calls  # nor does a pass of the critic change it
    for name, array in state(run).items():
        if name.startswith("discriminator/"):
            np.testing.assert_array_equal(array, before[name])
    run.step()
    assert len(calls) == 4 * run.critic.steps == 20


def test_a_run_resumes_with_the_same_vectors(configure):
    """The vectors are part of checkpoints, so that not a bit differs afterwards."""
    cfg = configure("toy", HINGE, "TRAIN.epochs=1 TRAIN.iters_per_epoch=4")
    whole, resumed = (make_run(wgangp_toy.Toy(cfg)) for _ in range(2))
    for _ in range(2):
        whole.step()
    checkpoint = checkpoints.collect(whole)
    checkpoint.arrays = state(whole)
    assert "discriminator/layers.0.u" in checkpoint.arrays
    step_power_iterations(resumed.critic.network)  # other vectors until it is restored
    checkpoints.restore(resumed, checkpoint)
    for run in (whole, resumed):
        run.seek()
        run.step()
    expected = state(whole)
    for name, array in state(resumed).items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_clip_of_normalised_weights_is_warned_about(configure, monkeypatch):
    logged = []
    monkeypatch.setattr(build.logger, "warning", logged.append)
    images, labels = np.zeros((50, 1, 28, 28), "uint8"), np.zeros(50, "int64")
    data = ImageSet(images, labels, images, labels)
    tiny = "DATA.source=digits MODEL.gen_net.dim=2 MODEL.dis_net.dim=2 MODEL.dis_net.norm=spectral"
    for loss in ("wgan", "hinge"):
        logged.clear()
        make_run(Mnist(configure("mnist", tiny, f"LOSS={loss}")), data)
        found = any("does not bound the critic's slope" in text for text in logged)
        assert found == (loss == "wgan")
