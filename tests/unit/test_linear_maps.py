# SPDX-License-Identifier: Apache-2.0
"""Each rewrite against its plain formula, values and gradients, in float64."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

import functions
from kernels import maps
from kernels.broadcast import broadcast_channels
from kernels.first_order import first_order_penalty
from kernels.tape import current
from networks.layers import make_conv
from networks.layers import make_conv_transpose
from support.errors import UserError
from training import objectives


def mean_pool(x):
    count, channels, height, width = x.shape
    return x.reshape([count, channels, height // 2, 2, width // 2, 2]).mean([3, 5])


def double(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


PLAIN = {
    maps.conv: lambda x, layer: layer(x),
    maps.conv_mean_pool: lambda x, layer: mean_pool(layer(x)),
    maps.upsample_conv: lambda x, layer: layer(double(x)),
}


def values_and_gradients(function, layer, shape):
    """What `function(x, layer)` gives, and its gradients in x, weight and bias."""
    paddle.seed(1)
    x = paddle.randn(shape)
    x.stop_gradient = False
    y = function(x, layer)
    variables = [x, layer.weight, layer.bias]
    gradients = paddle.grad((y * paddle.randn(y.shape)).sum(), variables)
    return [y.numpy(), *(gradient.numpy() for gradient in gradients)]


def assert_alike(results, expected):
    for value, plain in zip(results, expected):
        np.testing.assert_allclose(value, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("fast", PLAIN, ids=lambda fast: fast.__name__)
def test_maps_are_their_plain_formulas(fast, size, float64):
    layer = nn.Conv2D(3, 5, size, padding=size // 2)
    layer.bias.set_value(paddle.randn([5]))
    shape = [2, 3, 6, 8]
    expected = values_and_gradients(PLAIN[fast], layer, shape)
    assert_alike(values_and_gradients(fast, layer, shape), expected)


STRIDED = {  # convolutions of stride 2, as functions.py and dcgan.py make them
    "same": (maps.conv, lambda: make_conv(3, 5, 5, 2)),
    "padded": (maps.conv, lambda: nn.Conv2D(3, 5, 4, stride=2, padding=1)),
    "transposed 5x5": (maps.conv_transpose, lambda: make_conv_transpose(3, 5, 5)),
    "transposed 4x4": (maps.conv_transpose, lambda: make_conv_transpose(3, 5, 4)),
}


@pytest.mark.parametrize("shape", [[2, 3, 6, 8], [2, 3, 5, 9]])
@pytest.mark.parametrize("name", STRIDED)
def test_small_convolutions_are_products(name, shape, float64, monkeypatch):
    fast, make = STRIDED[name]
    layer = make()
    layer.bias.set_value(paddle.randn([5]))
    expected = values_and_gradients(lambda x, layer: layer(x), layer, shape)
    assert_alike(values_and_gradients(fast, layer, shape), expected)

    # and are so only where they are small, and need no second derivative
    def refuse(*_):
        raise RuntimeError("by patches")

    monkeypatch.setattr(F, "unfold", refuse)
    monkeypatch.setattr(F, "fold", refuse)
    with pytest.raises(RuntimeError, match="by patches"):
        values_and_gradients(fast, layer, shape)
    with maps.twice_differentiable():
        assert_alike(values_and_gradients(fast, layer, shape), expected)
    monkeypatch.setattr(maps, "MAX_BATCHED_PLACES", 5)
    assert_alike(values_and_gradients(fast, layer, shape), expected)


def test_linear_and_its_bias(float64):
    layer, x = nn.Linear(4, 6), paddle.randn([7, 4])
    layer.bias.set_value(paddle.randn([6]))
    np.testing.assert_allclose(maps.linear(x, layer).numpy(), layer(x).numpy(), rtol=1e-12)
    weights = paddle.randn([7, 6])
    results = [
        paddle.grad((function(x) * weights).sum(), [layer.weight, layer.bias])
        for function in (lambda x: maps.linear(x, layer), layer)
    ]
    for value, expected in zip(*results):
        np.testing.assert_allclose(value.numpy(), expected.numpy(), rtol=1e-12)


def test_upsampling_repeats_pixels():
    x = paddle.randn([2, 3, 4, 5])
    expected = F.interpolate(x, scale_factor=2)
    np.testing.assert_array_equal(maps.upsample(x).numpy(), expected.numpy())


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_relu_with_and_without_a_slope(slope):
    x = np.array([-2.0, 0.0, 3.0], "float32")
    expected = np.where(x > 0, x, slope * x)
    np.testing.assert_allclose(maps.relu(paddle.to_tensor(x), slope).numpy(), expected)


def test_spread_repeats_a_number_over_its_channel(float64):
    columns, like = paddle.randn([2, 3]), paddle.zeros([2, 3, 4, 5])
    columns.stop_gradient = False
    wide = broadcast_channels(columns, like)
    expected = np.broadcast_to(columns.numpy()[:, :, None, None], [2, 3, 4, 5])
    np.testing.assert_array_equal(wide.numpy(), expected)
    weights = paddle.randn([2, 3, 4, 5])
    (gradient,) = paddle.grad((wide * weights).sum(), columns)
    np.testing.assert_allclose(gradient.numpy(), weights.numpy().sum((2, 3)), rtol=1e-12)


CRITICS = {
    "toy": (lambda: functions.WganGpToyDiscriminator(16), [5, 2]),
    "mnist": (lambda: functions.WganGpMnistDiscriminator(3), [4, 1, 28, 28]),
    "cifar10": (lambda: functions.WganGpCifar10Discriminator(5, False), [4, 3, 32, 32]),
    "conditional": (lambda: functions.WganGpCifar10Discriminator(5, True), [4, 3, 32, 32]),
}


PENALTIES = {
    "one-centred": lambda norm: 3.0 * functions.gradient_penalty(norm),
    "power": lambda norm: 2.0 * objectives.gradient_power(norm, 6.0),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", CRITICS)
def test_first_order_penalty_is_that_of_double_backward(name, penalty, float64):
    make, shape = CRITICS[name]
    critic, samples = make(), paddle.randn(shape)
    assert critic.piecewise_linear
    for weight in critic.parameters():
        if weight.ndim == 1:  # biases are 0 at first, where a mistake in them would not show
            weight.set_value(0.1 * paddle.randn(weight.shape))
    results = []
    for penalised_norm in (first_order_penalty, functions.penalised_norm):
        critic.clear_gradients()
        norm, term = penalised_norm(critic, samples, PENALTIES[penalty])
        term.backward()
        gradients = [weight.grad for weight in critic.parameters()]
        numbers = [None if part is None else part.numpy().copy() for part in gradients]
        results.append((norm.numpy(), float(term), numbers))
    (norm, term, gradients), (norm_2, term_2, expected) = results
    np.testing.assert_allclose(norm, norm_2, rtol=1e-10)
    assert term == pytest.approx(term_2, rel=1e-10) and term > 0
    moved = 0
    for gradient, plain in zip(gradients, expected):
        zero = 0.0  # no gradient and one of zero are the same: biases have no part in a slope
        gradient, plain = (zero if part is None else part for part in (gradient, plain))
        # Paddle's leaky ReLU has its slope in float32
        np.testing.assert_allclose(gradient, plain, rtol=1e-6, atol=1e-8)
        moved += np.abs(plain).max() > 0
    assert moved >= 4


def test_first_order_penalty_takes_no_second_derivative(monkeypatch):
    grad, asked = paddle.grad, []

    def watched(*arguments, **options):
        asked.append(options.get("create_graph", False))
        return grad(*arguments, **options)

    monkeypatch.setattr(paddle, "grad", watched)
    critic = functions.WganGpToyDiscriminator(8)
    first_order_penalty(critic, paddle.randn([3, 2]), functions.gradient_penalty)[1].backward()
    assert asked == [False, False]  # of the values, and of the penalty in the norms
    assert current is None


def test_the_setting_chooses_how_the_gradient_is_had():
    linear, normalised = (
        functions.WganGpMnistDiscriminator(2),
        functions.WganGpMnistDiscriminator(2, "layer"),
    )
    for critic, setting, expected in (
        (linear, "auto", first_order_penalty),
        (linear, "first_order", first_order_penalty),
        (linear, "double_backward", functions.penalised_norm),
        (normalised, "auto", functions.penalised_norm),
        (normalised, "double_backward", functions.penalised_norm),
    ):
        loss = functions.CriticLoss(critic, None, penalty_gradient=setting)
        assert loss.penalised_norm is expected
    with pytest.raises(UserError, match="this one normalises: choose double_backward, or auto"):
        functions.CriticLoss(normalised, None, penalty_gradient="first_order")
    assert not functions.WganGpCifar10Discriminator(4, norm="layer").piecewise_linear
