# SPDX-License-Identifier: Apache-2.0
"""Critics whose values depend on labels: their values, their penalty, and the losses."""

import numpy as np
import paddle
import pytest
from plain import randomise

import functions
import wgangp_cifar10
import wgangp_image64
import wgangp_mnist
from functions import Objective
from kernels.first_order import first_order_penalty
from networks import dcgan
from networks import resnet64
from networks import wgan_lab
from networks.base import Critic
from support.errors import UserError
from training.objectives import wasserstein_critic
from training.objectives import wasserstein_generator

WGAN_GP = Objective(
    wasserstein_critic, wasserstein_generator, functions.gradient_penalty, penalty_weight=10.0
)
LABELS = np.array([3, 0, 9, 3])


def make_critic(**options):
    return randomise(functions.WganGpCifar10Discriminator(4, **options), 1.5)


def make_lab_critic(**options):
    critic = wgan_lab.WganLabDiscriminator(2, options.pop("norm", None), 10, **options)
    return randomise(critic, 1.5)


def make_dcgan_critic(**options):
    critic = dcgan.Dcgan64Discriminator(2, options.pop("norm", None), 10, **options)
    return randomise(critic, 1.5)


def make_resnet64_critic(**options):
    critic = resnet64.Resnet64Discriminator(1, options.pop("norm", None), 10, **options)
    return randomise(critic, 1.5)


@pytest.mark.parametrize(
    ("make", "last", "shape"),
    [
        (make_critic, "linear", [4, 3, 32, 32]),
        (make_lab_critic, "linear_2", [4, 1, 28, 28]),
        (make_dcgan_critic, "linear", [4, 3, 64, 64]),
        (make_resnet64_critic, "linear", [4, 3, 64, 64]),
    ],
)
def test_a_projection_is_a_linear_layer_for_each_label(make, last, shape, float64):
    critic, plain, samples = make(projection=True), make(), paddle.randn(shape)
    assert critic.takes_labels and critic.piecewise_linear
    value, logits = critic.score(samples, paddle.to_tensor(LABELS))
    state = critic.state_dict()
    plain.set_state_dict({key: state[key] for key in plain.state_dict()})
    for row, label in enumerate(LABELS):
        for kind in ("weight", "bias"):
            own, added = (
                getattr(layer, kind) for layer in (getattr(critic, last), critic.linear_projection)
            )
            getattr(getattr(plain, last), kind).set_value(own + added[..., label : label + 1])
        expected, same_logits = plain.score(samples)
        assert float(value[row]) == pytest.approx(float(expected[row]), rel=1e-9)
    np.testing.assert_allclose(logits.numpy(), same_logits.numpy(), rtol=1e-9)


def test_without_labels_there_is_no_projection():
    for options in ({"use_label": False, "projection": True}, {"projection": False}):
        critic = make_critic(**options)
        assert not critic.takes_labels and critic.linear_projection is None
        critic.judge(paddle.zeros([2, 3, 32, 32]), paddle.to_tensor([1, 2]))


@pytest.mark.parametrize(
    ("make", "norm", "shape"),
    [
        (make_critic, None, [4, 3, 32, 32]),
        (make_critic, "spectral", [4, 3, 32, 32]),
        (make_lab_critic, None, [4, 1, 28, 28]),
        (make_dcgan_critic, None, [4, 3, 64, 64]),
        (make_resnet64_critic, None, [4, 3, 64, 64]),
    ],
)
def test_the_first_order_penalty_of_a_projection_is_that_of_double_backward(
    make, norm, shape, float64
):
    critic, samples = make(projection=True, norm=norm), paddle.randn(shape)
    labels, found = paddle.to_tensor(LABELS), []

    def penalty(norm):
        return 3 * functions.gradient_penalty(norm)

    for compute in (
        lambda: first_order_penalty(critic, samples, penalty, check=True, labels=labels),
        lambda: functions.penalised_norm(critic, samples, penalty, labels),
    ):
        critic.clear_gradients()
        norms, term = compute()
        term.backward()
        parts = {
            name: part.grad.numpy().copy()
            for name, part in critic.named_parameters()
            if part.ndim > 1 and "class" not in name
        }
        found.append((norms.numpy(), float(term), parts))
    (norms, term, grads), (norms_2, term_2, expected) = found
    np.testing.assert_allclose(norms, norms_2, rtol=1e-9)
    assert term == pytest.approx(term_2, rel=1e-9) and term > 1e-6
    for name, gradient in expected.items():
        np.testing.assert_allclose(grads[name], gradient, atol=1e-7 * np.abs(gradient).max())
    if norm is None:  # Only the weights of labels that occur have a part in the slope.
        used = np.flatnonzero(np.abs(grads["linear_projection.weight"]).max(0))
        assert used.tolist() == sorted(set(LABELS))


class LabelCritic(Critic):
    """D(x, y) = (1 + y) x, whose slope is 1 + y."""

    takes_labels = True

    def score(self, samples, labels):
        return (1 + labels.astype("float32")) * samples[:, 0], None


def test_losses_take_the_values_of_pairs():
    rng, critic = np.random.default_rng(0), LabelCritic()
    real, fake = rng.standard_normal((2, 4, 1)).astype("float32")
    tensors = {"real": real, "fake": fake, "labels": LABELS, "alpha": np.full(4, 0.5, "float32")}
    outputs = {key: paddle.to_tensor(value) for key, value in tensors.items()}
    outputs.update(critic(outputs))
    terms = functions.CriticLoss(critic, WGAN_GP)(outputs)
    factor = 1 + LABELS
    assert float(terms["critic_term"]) == pytest.approx((factor * (fake - real)[:, 0]).mean())
    assert float(terms["weighted_penalty"]) == pytest.approx(10 * ((factor - 1) ** 2).mean())
    (term,) = functions.GeneratorLoss(critic, WGAN_GP)(outputs).values()
    assert float(term) == pytest.approx(-(factor * fake[:, 0]).mean())


@pytest.mark.parametrize("script", ["wgangp_cifar10.py", "wgangp_image64.py DATA.data_path=X"])
def test_a_projection_needs_labels(script, check_command):
    check_command(f"{script} MODEL.dis_net.projection=true MODEL.use_label=true")
    with pytest.raises(UserError, match="projection=true needs MODEL.use_label=true"):
        check_command(f"{script} MODEL.dis_net.projection=true MODEL.use_label=false")


def test_the_papers_mnist_networks_take_no_labels(check_command):
    check_command("wgangp_mnist.py MODEL.use_label=true MODEL.arch=wgan_lab")
    with pytest.raises(UserError, match="MODEL.use_label=true needs MODEL.arch=wgan_lab"):
        check_command("wgangp_mnist.py MODEL.use_label=true")


@pytest.mark.parametrize("setting", [True, False])
def test_the_scripts_make_the_critic_with_a_projection(setting, configure):
    words = f"MODEL.dis_net.projection={setting} MODEL.gen_net.dim=2 MODEL.dis_net.dim=2"
    _, critic = wgangp_cifar10.Cifar10(configure("cifar10", words)).make_networks()
    assert critic.takes_labels == setting
    words += " MODEL.use_label=true"
    for arch in ("dcgan", "resnet"):
        cfg = configure("image64", f"{words} MODEL.arch={arch}")
        generator, critic = wgangp_image64.Image64(cfg).make_networks()
        assert critic.takes_labels == setting and generator.num_classes == 10
    cfg = configure("mnist", f"{words} MODEL.arch=wgan_lab")
    generator, critic = wgangp_mnist.Mnist(cfg).make_networks()
    assert critic.takes_labels == setting and generator.num_classes == 10
