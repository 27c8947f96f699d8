# SPDX-License-Identifier: Apache-2.0
"""Maps against their plain formulas, and the first-order penalty against double backward.

In float64 the maps are Paddle's own operators. `test_fast_path` compares oneDNN with these.
"""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers import CRITICS
from paddle import nn
from plain import randomise

import functions
from kernels import maps
from kernels import plain
from kernels.broadcast import add_bias
from kernels.broadcast import broadcast_channels
from kernels.first_order import first_order_penalty
from kernels.first_order import length
from kernels.tape import Tape
from networks.base import Critic
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
    for value, other in zip(results, expected):
        np.testing.assert_allclose(value, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("fast", PLAIN, ids=lambda fast: fast.__name__)
def test_maps_equal_their_plain_formulas(fast, size, float64):
    layer = nn.Conv2D(3, 5, size, padding=size // 2)
    layer.bias.set_value(paddle.randn([5]))
    shape = [2, 3, 6, 8]
    expected = values_and_gradients(PLAIN[fast], layer, shape)
    assert_alike(values_and_gradients(fast, layer, shape), expected)


STRIDED = {  # convolutions of stride 2, of the kinds that the networks have
    "same": (maps.conv, lambda: make_conv(3, 5, 5, 2)),
    "padded": (maps.conv, lambda: nn.Conv2D(3, 5, 4, stride=2, padding=1)),
    "transposed 5x5": (maps.conv_transpose, lambda: make_conv_transpose(3, 5, 5)),
    "transposed 4x4": (maps.conv_transpose, lambda: make_conv_transpose(3, 5, 4)),
}


@pytest.mark.parametrize("shape", [[2, 3, 6, 8], [2, 3, 5, 9]])
@pytest.mark.parametrize("name", STRIDED)
def test_small_convolutions_are_matrix_products(name, shape, float64, monkeypatch):
    fast, make = STRIDED[name]
    layer = make()
    layer.bias.set_value(paddle.randn([5]))
    expected = values_and_gradients(lambda x, layer: layer(x), layer, shape)
    assert_alike(values_and_gradients(fast, layer, shape), expected)

    # Larger ones, and those that need second derivatives, are Paddle's own operators.
    def refuse(*_):
        raise RuntimeError("patches")

    monkeypatch.setattr(F, "unfold", refuse)
    monkeypatch.setattr(F, "fold", refuse)
    with pytest.raises(RuntimeError, match="patches"):
        values_and_gradients(fast, layer, shape)
    with maps.twice_differentiable():
        assert_alike(values_and_gradients(fast, layer, shape), expected)
    monkeypatch.setattr(plain, "MAX_UNFOLDED_PIXELS", 5)
    assert_alike(values_and_gradients(fast, layer, shape), expected)


def test_convolutions_of_7x7_pixels_unfold_and_those_of_8x8_do_not(float64, monkeypatch):
    sizes, unfold = [], F.unfold

    def watched(x, *arguments):
        sizes.append(x.shape[2])
        return unfold(x, *arguments)

    monkeypatch.setattr(F, "unfold", watched)
    for size in (6, 7, 8):
        maps.conv(paddle.randn([1, 2, size, size]), make_conv(2, 2, 3))
        maps.conv(paddle.randn([1, 2, size, size]), make_conv(2, 2, 1))
    assert sizes == [6, 7]


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


def test_broadcasting_repeats_a_number_over_its_channel(float64):
    columns, like = paddle.randn([2, 3]), paddle.zeros([2, 3, 4, 5])
    columns.stop_gradient = False
    wide = broadcast_channels(columns, like)
    expected = np.broadcast_to(columns.numpy()[:, :, None, None], [2, 3, 4, 5])
    np.testing.assert_array_equal(wide.numpy(), expected)
    weights = paddle.randn([2, 3, 4, 5])
    (gradient,) = paddle.grad((wide * weights).sum(), columns)
    np.testing.assert_allclose(gradient.numpy(), weights.numpy().sum((2, 3)), rtol=1e-12)


@pytest.mark.parametrize("shape", [[4, 3], [4, 3, 5], [4, 3, 5, 2]])
def test_biases_are_added_per_channel(shape, float64):
    y, bias = paddle.randn(shape), paddle.randn([3])
    expected = y.numpy() + bias.numpy().reshape([3] + [1] * (len(shape) - 2))
    np.testing.assert_allclose(add_bias(y, bias).numpy(), expected, rtol=1e-12)


def test_length_of_a_gradient():
    slope = paddle.to_tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(length(slope).numpy(), [5.0, 1e-6], rtol=1e-5)


def test_a_tape_ends_where_another_was_recording():
    layer, x = nn.Linear(2, 3), paddle.randn([4, 2])
    outer, inner = Tape(), Tape()
    with outer.recording():
        maps.linear(x, layer)
        with inner.recording():
            maps.linear(x, layer)
        with pytest.raises(RuntimeError), inner.replaying():
            raise RuntimeError
        maps.linear(x, layer)
    maps.linear(x, layer)
    assert len(outer.outputs) == 2 and len(inner.outputs) == 1


def test_tangents_take_the_recorded_masks_and_no_biases(float64):
    layer, x = nn.Linear(4, 6), paddle.randn([5, 4])
    layer.bias.set_value(paddle.randn([6]))
    tape, tangent = Tape(), paddle.randn([5, 4])
    with tape.recording():
        maps.relu(maps.linear(x, layer), 0.25)
    for _ in range(2):  # a tape can be replayed again
        with tape.replaying():
            found = maps.relu(maps.linear(tangent, layer), 0.25)
        mask = np.where(layer(x).numpy() > 0, 1, 0.25)
        expected = (tangent.numpy() @ layer.weight.numpy()) * mask
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_masks_are_the_derivative_of_paddles_relu(slope):
    """At 0, too."""
    x, tape = paddle.to_tensor([-2.0, 0.0, 3.0]), Tape()
    x.stop_gradient = False
    with tape.recording():
        (expected,) = paddle.grad(maps.relu(x, slope).sum(), x)
    with tape.replaying():
        found = maps.relu(paddle.ones([3]), slope)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


PENALTIES = {
    "one-centred": lambda norm: 3.0 * functions.gradient_penalty(norm),
    "one-sided": lambda norm: 3.0 * objectives.one_sided_penalty(norm),
    "power": lambda norm: 2.0 * objectives.gradient_power(norm, 6.0),
}
PIECEWISE_LINEAR = [case for case in CRITICS.values() if case.is_piecewise_linear]


def penalise(function, critic, samples, penalty, **options):
    """Norms, term, and the term's gradient in each weight."""
    critic.clear_gradients()
    norm, term = function(critic, samples, penalty, **options)
    term.backward()
    gradients = [weight.grad for weight in critic.parameters()]
    # No gradient and a gradient of zero are the same: biases have no part in a slope.
    gradients = [
        np.zeros(weight.shape) if gradient is None else gradient.numpy().copy()
        for weight, gradient in zip(critic.parameters(), gradients)
    ]
    return norm.numpy(), float(term), gradients


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("case", PIECEWISE_LINEAR, ids=str)
def test_first_order_penalty_is_that_of_double_backward(case, penalty, float64):
    def scaled(norm):  # No penalty is about 0 for slopes of this size.
        return PENALTIES[penalty](1.5 * norm / norm.detach().mean())

    critic, samples = randomise(case.make()), paddle.randn([3, *case.shape])
    norm, term, gradients = penalise(first_order_penalty, critic, samples, scaled)
    norm_2, term_2, expected = penalise(functions.penalised_norm, critic, samples, scaled)
    np.testing.assert_allclose(norm, norm_2, rtol=1e-10)
    assert term == pytest.approx(term_2, rel=1e-10) and term > 1e-6
    moved = set()
    for (name, _), gradient, other in zip(critic.named_parameters(), gradients, expected):
        # Paddle's leaky ReLU has its slope in float32.
        scale = np.abs(other).max()
        np.testing.assert_allclose(gradient, other, rtol=1e-6, atol=1e-6 * scale + 1e-12)
        if scale > 0:
            moved.add(name)
    # All weights have a part in the slope, except those of the class head.
    assert moved == {
        name
        for name, weight in critic.named_parameters()
        if weight.ndim > 1 and "linear_class" not in name
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", PIECEWISE_LINEAR, ids=str)
def test_the_check_passes_and_changes_no_bit(case, dtype):
    paddle.set_default_dtype(dtype)
    try:
        critic, samples = randomise(case.make(), 1.5), paddle.randn([3, *case.shape])
        results, draws = [], []
        for check in (False, True):
            paddle.seed(7)
            penalty = PENALTIES["one-centred"]
            results.append(penalise(first_order_penalty, critic, samples, penalty, check=check))
            draws.append(paddle.rand([3]).numpy())
    finally:
        paddle.set_default_dtype("float32")
    np.testing.assert_array_equal(*draws)
    (norm, term, gradients), (norm_2, term_2, expected) = results
    np.testing.assert_array_equal(norm, norm_2)
    assert term == term_2
    for gradient, other in zip(gradients, expected):
        np.testing.assert_array_equal(gradient, other)


def test_critics_of_full_width_pass_the_check():
    for critic, shape in (
        (functions.WganGpToyDiscriminator(), [64, 2]),
        (functions.WganGpMnistDiscriminator(), [4, 1, 28, 28]),
        (functions.WganGpCifar10Discriminator(), [2, 3, 32, 32]),
    ):
        for _ in range(2):
            first_order_penalty(critic, paddle.randn(shape), functions.gradient_penalty, check=True)
            randomise(critic)


class TwoLayers(Critic):
    """A critic that says the first-order penalty holds for it, and is right."""

    piecewise_linear = True

    def __init__(self):
        super().__init__()
        self.layer_1, self.layer_2 = nn.Linear(2, 8), nn.Linear(8, 1)
        self.layer_2.weight.set_value(paddle.linspace(-1, 1, 8).unsqueeze(1))  # both signs

    def score(self, samples):
        h = maps.relu(maps.linear(samples, self.layer_1))
        return maps.linear(h, self.layer_2).squeeze(1), None


class PaddlesRelu(TwoLayers):
    def score(self, samples):
        h = F.relu(maps.linear(samples, self.layer_1))
        return maps.linear(h, self.layer_2).squeeze(1), None


class PaddlesReluAtTheEnd(TwoLayers):
    def score(self, samples):
        values, _ = super().score(samples)
        return F.relu(values), None


class DirectLayer(TwoLayers):
    """Linear if the bias is 0, so only the missing weight shows it."""

    def score(self, samples):
        h = maps.relu(self.layer_1(samples))
        return maps.linear(h, self.layer_2).squeeze(1), None


class Offset(TwoLayers):
    def score(self, samples):
        h = maps.relu(maps.linear(samples, self.layer_1) + 0.5)
        return maps.linear(h, self.layer_2).squeeze(1), None


class OffsetOfZero(TwoLayers):
    """A parameter that is 0 at first, as biases are."""

    def __init__(self):
        super().__init__()
        self.offset = self.create_parameter([8], is_bias=True)

    def score(self, samples):
        h = maps.relu(maps.linear(samples, self.layer_1) + self.offset)
        return maps.linear(h, self.layer_2).squeeze(1), None


class Squared(TwoLayers):
    def score(self, samples):
        h = maps.linear(samples, self.layer_1)
        return maps.linear(h * h, self.layer_2).squeeze(1), None


WRONG = {
    PaddlesRelu: "another operation between them is not linear",
    PaddlesReluAtTheEnd: "another operation between them is not linear",
    DirectLayer: "layer_1.weight, layer_1.bias bypassed them",
    Offset: "another operation between them is not linear",
    OffsetOfZero: "offset bypassed them",
    Squared: "another operation between them is not linear",
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("critic", WRONG)
def test_the_check_refuses_critics_that_bypass_the_tape(critic, dtype):
    paddle.set_default_dtype(dtype)
    try:
        network, samples = critic(), paddle.randn([16, 2])
        with pytest.raises(UserError) as error:
            first_order_penalty(network, samples, functions.gradient_penalty, check=True)
    finally:
        paddle.set_default_dtype("float32")
    message = str(error.value)
    assert f"The gradient penalty of {critic.__name__} needs" in message
    assert WRONG[critic] in message
    assert "build the critic from kernels.maps" in message
    assert "set LOSS.penalty_gradient=double_backward" in message


def test_the_check_takes_inputs_of_exactly_zero():
    """A black patch of MNIST and a fresh bias give 0, where Paddle's leaky ReLU has slope 1."""
    critic = functions.WganGpMnistDiscriminator(2)
    samples = paddle.zeros([2, 1, 28, 28])
    samples[:, :, 10:16, 10:16] = paddle.rand([2, 1, 6, 6])
    first_order_penalty(critic, samples, functions.gradient_penalty, check=True)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-6, 1e6, np.nan])
def test_the_check_takes_slopes_of_any_size(scale):
    """A training that diverged is reported elsewhere, so NaN passes."""
    critic = TwoLayers()
    critic.layer_2.weight.set_value(scale * critic.layer_2.weight)
    first_order_penalty(critic, paddle.randn([5, 2]), functions.gradient_penalty, check=True)


def test_first_order_penalty_takes_no_second_derivative(monkeypatch):
    grad, asked = paddle.grad, []

    def watched(*arguments, **options):
        asked.append(options.get("create_graph", False))
        return grad(*arguments, **options)

    monkeypatch.setattr(paddle, "grad", watched)
    critic = functions.WganGpToyDiscriminator(8)
    first_order_penalty(critic, paddle.randn([3, 2]), functions.gradient_penalty)[1].backward()
    assert asked == [False, False]  # the gradients of the values, and of the penalty in the norms
