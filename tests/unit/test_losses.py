# SPDX-License-Identifier: Apache-2.0
"""Formulas and losses: closed forms, finite differences, and the classic mistakes."""

import dataclasses

import numpy as np
import paddle
import pytest
from helpers import CRITICS
from plain import randomise

import functions
from functions import Objective
from kernels.first_order import first_order_penalty
from networks.base import Critic
from support.errors import UserError
from training.objectives import wasserstein_critic
from training.objectives import wasserstein_generator

WGAN_GP = Objective(
    wasserstein_critic, wasserstein_generator, functions.gradient_penalty, penalty_weight=10.0
)


class LinearCritic(Critic):
    """D(x) = <w, x>, whose gradient is w everywhere."""

    def __init__(self, weight):
        super().__init__()
        self.weight = self.create_parameter(weight.shape)
        self.weight.set_value(weight)

    def score(self, samples):
        axes = list(range(1, samples.ndim))
        return (samples * self.weight).sum(axes), None


class NormCritic(Critic):
    """D(x) = ||x||^2 / 2, whose gradient is x: another length for each sample."""

    def score(self, samples):
        return 0.5 * samples.square().sum(list(range(1, samples.ndim))), None


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def test_penalty_of_a_linear_critic_is_known_in_closed_form():
    weight = normal(3, 4, 4)
    critic = LinearCritic(weight)
    norms = functions.gradient_norm(critic, paddle.to_tensor(normal(5, 3, 4, 4, seed=1)))
    length = np.linalg.norm(weight)
    np.testing.assert_allclose(norms.numpy(), np.full(5, length), rtol=1e-5)
    penalty = functions.gradient_penalty(norms)
    np.testing.assert_allclose(float(penalty), (length - 1) ** 2, rtol=1e-5)
    # d/dw (||w|| - 1)^2 = 2 (||w|| - 1) w / ||w||
    penalty.backward()
    expected = 2 * (length - 1) * weight / length
    np.testing.assert_allclose(critic.weight.grad.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_norm_is_over_all_dimensions_of_each_sample():
    samples = normal(6, 3, 4, 4)
    norms = functions.gradient_norm(NormCritic(), paddle.to_tensor(samples)).numpy()
    assert norms.shape == (6,)
    np.testing.assert_allclose(norms, np.sqrt((samples**2).sum((1, 2, 3))), rtol=1e-5)
    # The classic mistake, a norm over the channels only, gives another value.
    over_channels = np.sqrt((samples**2).sum(1))
    mistaken = ((over_channels - 1) ** 2).mean()
    right = float(functions.gradient_penalty(paddle.to_tensor(norms)))
    np.testing.assert_allclose(right, ((norms - 1) ** 2).mean(), rtol=1e-5)
    assert abs(right - mistaken) > 1


def test_a_vanishing_gradient_gives_finite_gradients():
    critic = LinearCritic(np.zeros((2, 2), "float32"))
    norms = functions.gradient_norm(critic, paddle.to_tensor(normal(3, 2, 2)))
    functions.gradient_penalty(norms).backward()
    assert np.isfinite(critic.weight.grad.numpy()).all()


def test_one_alpha_per_sample_stays_on_the_line():
    real, fake = normal(4, 3, 5, 5), normal(4, 3, 5, 5, seed=1)
    alpha = np.array([0.0, 0.25, 0.7, 1.0], "float32")
    mixed = functions.interpolate(*(paddle.to_tensor(x) for x in (real, fake, alpha))).numpy()
    share = (mixed - real) / (fake - real)
    for number in range(4):
        np.testing.assert_allclose(share[number], alpha[number], atol=1e-2)
    np.testing.assert_allclose(mixed[0], real[0])
    np.testing.assert_allclose(mixed[3], fake[3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 4])
def test_an_alpha_per_pixel_is_refused(samples):
    real = paddle.to_tensor(normal(samples, 3, 5, 5))
    with pytest.raises(ValueError):
        functions.interpolate(real, real + 1, paddle.rand(real.shape))


@pytest.mark.parametrize("case", CRITICS.values(), ids=str)
def test_double_backward_agrees_with_finite_differences(case, float64):
    critic = randomise(case.make())
    samples = paddle.to_tensor(np.random.default_rng(3).standard_normal([2, *case.shape]))

    def penalty():
        return functions.gradient_penalty(functions.gradient_norm(critic, samples))

    penalty().backward()
    moved = {name for name, part in critic.named_parameters() if part.grad is not None}
    # All weights have a part in the slope but those of class heads, and those that
    # PaddleScience's files hold for shortcuts without a convolution.
    apart = "linear_class", "linear2", "Blocks.1.conv_shortcut", "Blocks.2.conv_shortcut"
    names = {name for name, _ in critic.named_parameters() if name.endswith("weight")}
    assert moved >= {name for name in names if not any(part in name for part in apart)}
    rng = np.random.default_rng(4)
    weights = [weight for weight in critic.parameters() if weight.grad is not None]
    # A direction in the space of all weights at once.
    directions = [rng.standard_normal(weight.shape) for weight in weights]
    slope = sum(float((w.grad.numpy() * d).sum()) for w, d in zip(weights, directions))
    start, values = [weight.numpy().copy() for weight in weights], []
    epsilon = 1e-7  # so small that hardly a ReLU mask changes
    for sign in (1, -1):
        for weight, value, direction in zip(weights, start, directions):
            weight.set_value(value + sign * epsilon * direction)
        values.append(float(penalty()))
    assert abs(slope) > 1e-6
    np.testing.assert_allclose(slope, (values[0] - values[1]) / (2 * epsilon), rtol=1e-4)


class HeadCritic(Critic):
    """D(x) = first coordinate; logits are the other ten."""

    def score(self, samples):
        return samples[:, 0], samples[:, 1:]


def cross_entropy(logits, labels):
    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -logs[np.arange(len(labels)), labels].mean()


def test_critic_loss_with_labels():
    real, fake, labels = normal(5, 11), normal(5, 11, seed=1), np.array([0, 3, 9, 3, 1])
    critic = HeadCritic()
    loss = functions.CriticLoss(critic, WGAN_GP, class_weight=0.5)
    outputs = critic({"real": paddle.to_tensor(real)})
    outputs.update(
        real=paddle.to_tensor(real),
        fake=paddle.to_tensor(fake),
        alpha=paddle.rand([5]),
        labels=paddle.to_tensor(labels),
    )
    terms = {name: float(value) for name, value in loss(outputs).items()}
    expected = {
        "critic_term": fake[:, 0].mean() - real[:, 0].mean(),
        "weighted_penalty": 0.0,  # the slope is 1 everywhere
        "weighted_class": 0.5 * cross_entropy(real[:, 1:], labels),
    }
    assert terms == pytest.approx(expected, rel=1e-5, abs=1e-6)
    figures = loss.mean_figures()
    assert figures["critic_loss"] == pytest.approx(sum(expected.values()), rel=1e-5)
    assert figures["wasserstein"] == pytest.approx(-expected["critic_term"], rel=1e-5)
    assert figures["gradient_norm"] == pytest.approx(1.0)
    assert figures["accuracy_real"] == pytest.approx((real[:, 1:].argmax(1) == labels).mean())
    assert figures["accuracy_fake"] == pytest.approx((fake[:, 1:].argmax(1) == labels).mean())
    loss.figures.clear()
    assert loss.mean_figures() == {}


def test_generator_loss_with_labels():
    fake, labels = normal(6, 11), np.array([0, 3, 9, 3, 1, 1])
    loss = functions.GeneratorLoss(HeadCritic(), WGAN_GP, class_weight=0.1)
    outputs = {"fake": paddle.to_tensor(fake), "labels": paddle.to_tensor(labels)}
    terms = {name: float(value) for name, value in loss(outputs).items()}
    expected = {
        "generator_term": -fake[:, 0].mean(),
        "weighted_class": 0.1 * cross_entropy(fake[:, 1:], labels),
    }
    assert terms == pytest.approx(expected, rel=1e-5)


def test_class_weights_are_the_authors_by_default():
    assert functions.CriticLoss(HeadCritic(), WGAN_GP).class_weight == 1.0
    assert functions.GeneratorLoss(HeadCritic(), WGAN_GP).class_weight == 0.1


def test_without_a_head_there_are_no_class_terms():
    critic = NormCritic()
    real, fake = paddle.to_tensor(normal(4, 3)), paddle.to_tensor(normal(4, 3, seed=1))
    outputs = {**critic({"real": real}), "real": real, "fake": fake, "alpha": paddle.rand([4])}
    critic_terms = functions.CriticLoss(critic, WGAN_GP)(outputs)
    assert set(critic_terms) == {"critic_term", "weighted_penalty"}
    assert set(functions.GeneratorLoss(critic, WGAN_GP)({"fake": fake})) == {"generator_term"}


def test_figures_are_means_since_they_were_cleared():
    loss = functions.GeneratorLoss(NormCritic(), WGAN_GP)
    losses = [float(loss({"fake": paddle.full([1, 1], x)})["generator_term"]) for x in (1.0, 3.0)]
    assert losses == [-0.5, -4.5]
    assert loss.mean_figures() == {"generator_loss": -2.5}


class HalfPiecewise(Critic):
    """Says that the first-order penalty holds for it, and is wrong."""

    piecewise_linear = True

    def score(self, samples):
        return samples.square().sum(1), None


def make_outputs(critic, shape, seed=0):
    real, fake = (paddle.to_tensor(normal(4, *shape, seed=seed + i)) for i in range(2))
    alpha = paddle.to_tensor(np.linspace(0, 1, 4, dtype="float32"))
    return {**critic({"real": real}), "real": real, "fake": fake, "alpha": alpha}


def test_penalty_gradient_chooses_how_the_gradient_is_computed():
    plain, normalised = CRITICS["mnist"].make(), CRITICS["mnist layer"].make()
    for critic, setting, expected in (
        (plain, "auto", True),
        (plain, "first_order", True),
        (plain, "double_backward", False),
        (normalised, "auto", False),
        (normalised, "double_backward", False),
    ):
        loss = functions.CriticLoss(critic, WGAN_GP, penalty_gradient=setting)
        assert loss.is_first_order == expected


@pytest.mark.parametrize("setting", ["auto", "double_backward"])
@pytest.mark.parametrize("name", ["mnist", "mnist layer"])
def test_the_penalty_of_the_loss_is_that_of_its_formula(name, setting):
    critic = randomise(CRITICS[name].make(), 1.5)
    loss = functions.CriticLoss(critic, WGAN_GP, penalty_gradient=setting)
    outputs = make_outputs(critic, (1, 28, 28))
    found = float(loss(outputs)["weighted_penalty"])
    mixed = functions.interpolate(outputs["real"], outputs["fake"], outputs["alpha"])
    norm = functions.gradient_norm(critic, mixed)
    assert found == pytest.approx(10 * float(((norm - 1) ** 2).mean()), rel=1e-4)
    assert loss.mean_figures()["gradient_penalty"] == pytest.approx(found / 10, rel=1e-4)
    assert loss.mean_figures()["gradient_norm"] == pytest.approx(float(norm.mean()), rel=1e-4)


@pytest.mark.parametrize("case", CRITICS.values(), ids=str)
def test_first_order_is_refused_for_critics_that_are_not_piecewise_linear(case):
    critic = case.make()
    if case.is_piecewise_linear:
        assert functions.CriticLoss(critic, WGAN_GP, penalty_gradient="first_order").is_first_order
        return
    with pytest.raises(UserError) as error:
        functions.CriticLoss(critic, WGAN_GP, penalty_gradient="first_order")
    assert "LOSS.penalty_gradient=first_order" in str(error.value)
    assert type(critic).__name__ in str(error.value)
    assert "Choose double_backward or auto." in str(error.value)


def test_only_the_first_penalty_is_checked(monkeypatch):
    checks = []

    def watched(critic, samples, penalty, check=False, labels=None):
        checks.append(check)
        return first_order_penalty(critic, samples, penalty, check, labels)

    monkeypatch.setattr(functions, "first_order_penalty", watched)
    critic = CRITICS["toy"].make()
    loss = functions.CriticLoss(critic, WGAN_GP)
    for seed in range(3):
        loss(make_outputs(critic, (2,), seed))
    assert checks == [True, False, False]


def test_a_critic_that_bypasses_the_maps_is_refused_in_its_first_step():
    critic = HalfPiecewise()
    with pytest.raises(UserError, match="HalfPiecewise .*LOSS.penalty_gradient=double_backward"):
        functions.CriticLoss(critic, WGAN_GP)(make_outputs(critic, (3,)))
    loss = functions.CriticLoss(critic, WGAN_GP, penalty_gradient="double_backward")
    loss(make_outputs(critic, (3,)))
    norm = 2 * np.linalg.norm(
        [
            (1 - a) * normal(4, 3)[i] + a * normal(4, 3, seed=1)[i]
            for i, a in enumerate([0, 1 / 3, 2 / 3, 1])
        ],
        axis=1,
    )
    assert loss.mean_figures()["gradient_norm"] == pytest.approx(norm.mean(), rel=1e-4)


@pytest.mark.parametrize("length", [0.5, 1.5])
def test_balance_compares_the_mean_estimate_with_the_optimal_one(length):
    objective = dataclasses.replace(WGAN_GP, optimal_estimate=functions.optimal_estimate)
    critic = LinearCritic(np.array([length, 0], "float32"))
    loss = functions.CriticLoss(critic, objective, penalty_gradient="double_backward")
    for shift in (1.0, 4.0):  # Two batches, as between two records
        outputs = make_outputs(critic, (2,))
        outputs["fake"] = outputs["real"] - paddle.to_tensor([shift, 7.0])
        loss(outputs)
    figures = loss.mean_figures()
    assert figures["wasserstein"] == pytest.approx(2.5 * length, rel=1e-4)
    if length < 1:  # An optimal critic has no such slope.
        assert "critic_balance" not in figures
    else:
        expected = 2.5 * length / (2 * 10 * length * (length - 1))
        assert figures["critic_balance"] == pytest.approx(expected, rel=1e-4)
    plain = functions.CriticLoss(critic, WGAN_GP, penalty_gradient="double_backward")
    plain(make_outputs(critic, (2,)))
    assert "critic_balance" not in plain.mean_figures()


def test_clipping_does_not_hide_weights_that_are_not_finite():
    objective = Objective(wasserstein_critic, wasserstein_generator, clip=0.01)
    critic = LinearCritic(np.array([-3.0, 0.005, 0.02, np.nan, np.inf], "float32"))
    functions.CriticLoss(critic, WGAN_GP).after_step()
    assert float(critic.weight[0]) == -3
    functions.CriticLoss(critic, objective).after_step()
    expected = np.array([-0.01, 0.005, 0.01, np.nan, np.nan], "float32")
    np.testing.assert_array_equal(critic.weight.numpy(), expected)
