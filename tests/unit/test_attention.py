# SPDX-License-Identifier: Apache-2.0
"""Self-attention against its paper's formulas, and its second derivatives."""

import numpy as np
import paddle
import pytest
from plain import randomise

import functions
from kernels import maps
from networks.attention import SelfAttention
from networks.base import Critic
from networks.resnet64 import Resnet64Discriminator
from networks.resnet64 import Resnet64Generator
from support.errors import UserError


def plain_attention(layer, x):
    """Equations 1 to 3 of arXiv 1805.08318, sample by sample and pixel by pixel."""

    def apply(convolution, h):
        return convolution.weight.numpy()[:, :, 0, 0] @ h + convolution.bias.numpy()[:, None]

    results = []
    for h in x.reshape([*x.shape[:2], -1]):
        f, g, values = (apply(part, h) for part in (layer.f, layer.g, layer.h))
        o = np.zeros_like(values)
        for j in range(h.shape[1]):
            powers = np.exp([f[:, i] @ g[:, j] for i in range(h.shape[1])])
            o[:, j] = values @ (powers / powers.sum())
        results.append(h + layer.gamma.numpy() * apply(layer.v, o))
    return np.reshape(results, x.shape)


def test_attention_is_the_papers(float64):
    layer, x = randomise(SelfAttention(8)), paddle.randn([2, 8, 3, 4])
    expected = plain_attention(layer, x.numpy())
    assert np.abs(expected - x.numpy()).max() > 0.1
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-10)
    with maps.twice_differentiable():
        np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-10)


def test_large_scores_do_not_overflow():
    layer, x = randomise(SelfAttention(8)), 1e3 * paddle.randn([2, 8, 3, 4])
    with maps.twice_differentiable():
        assert np.isfinite(maps.leave(layer(x)).numpy()).all()


def test_fresh_attention_changes_nothing():
    layer, x = SelfAttention(8), paddle.randn([2, 8, 4, 4])
    np.testing.assert_array_equal(maps.leave(layer(x)).numpy(), x.numpy())


class Attentive(Critic):
    """A critic whose slope depends on the sample by attention alone."""

    def __init__(self):
        super().__init__()
        self.attention = SelfAttention(4)
        self.factors = paddle.randn([1, 4, 3, 3])

    def score(self, samples):
        return (maps.leave(self.attention(samples)) * self.factors).sum([1, 2, 3]), None


def test_the_penaltys_gradient_is_that_of_finite_differences(float64):
    """Second derivatives, against differences of first ones, in all weights."""
    critic, samples, step = randomise(Attentive(), 2.0), paddle.randn([2, 4, 3, 3]), 1e-5

    def penalty():
        x = samples.detach()
        x.stop_gradient = False
        (slope,) = paddle.grad(critic.score(x)[0].sum(), x)  # with Paddle's softmax
        return ((np.sqrt((slope.numpy() ** 2).sum((1, 2, 3))) - 1) ** 2).mean()

    norm, term = functions.penalised_norm(critic, samples, functions.gradient_penalty)
    assert float(term) == pytest.approx(penalty(), rel=1e-9)
    term.backward()
    for name, weight in critic.named_parameters():
        values = weight.numpy().copy()
        found = np.zeros(values.shape) if weight.grad is None else weight.grad.numpy()
        expected = np.zeros(values.size)
        for number in range(values.size):
            sides = []
            for sign in (1, -1):
                moved = values.copy()
                moved.flat[number] += sign * step
                weight.set_value(moved)
                sides.append(penalty())
            expected[number] = (sides[0] - sides[1]) / (2 * step)
        weight.set_value(values)
        if "weight" in name:
            assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-5, atol=1e-8, err_msg=name)


def test_attention_is_at_16x16_of_both_networks(monkeypatch):
    sizes, forward = [], SelfAttention.forward

    def watched(layer, x):
        sizes.append(x.shape[1:])
        return forward(layer, x)

    monkeypatch.setattr(SelfAttention, "forward", watched)
    generator = Resnet64Generator(2, attention=True)
    Resnet64Discriminator(2, attention=True).score(generator.generate(paddle.randn([2, 128])))
    assert sizes == [[8, 16, 16], [8, 16, 16]]


def test_attention_is_of_the_resnet_only(check_command):
    check_command("wgangp_image64.py MODEL.arch=resnet MODEL.attention=true")
    with pytest.raises(UserError, match="MODEL.attention=true is for MODEL.arch=resnet, not for d"):
        check_command("wgangp_image64.py MODEL.attention=true")
    check_command("wgangp_image64.py mode=eval MODEL.attention=true")
