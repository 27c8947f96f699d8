# SPDX-License-Identifier: Apache-2.0
"""Maps, networks, losses and runs with oneDNN against the same with Paddle's own operators.

Numbers of exactly 0 are avoided before leaky ReLUs: there Paddle's CPU kernel has the derivative
1, and oneDNN has the slope.
"""

import dataclasses

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers import CRITICS
from helpers import GENERATORS
from helpers import has_onednn
from paddle import nn
from plain import randomise
from trainings import CIFAR10
from trainings import TOY
from trainings import make_run

import functions
import wgangp_cifar10
import wgangp_toy
from data import synthetic
from kernels import availability
from kernels import maps
from kernels import plain as plain_operators
from kernels import tape
from kernels.maps import Pictures
from modes.export import enabled_to_static
from networks import normalisation
from networks.base import frozen
from networks.layers import make_conv
from networks.layers import make_conv_transpose
from training.average import MovingAverage

pytestmark = pytest.mark.skipif(not has_onednn(), reason="Paddle's wheel has no oneDNN to call")


@pytest.fixture(autouse=True)
def with_onednn(monkeypatch):
    """Also where a variable turns oneDNN off."""
    monkeypatch.setattr(availability, "is_available", lambda: True)


@pytest.fixture
def on_path(monkeypatch):
    """Calls a function with oneDNN, or with Paddle's own operators: `on_path("plain", act)`."""

    def call(path, function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(availability, "is_available", lambda: path == "onednn")
            assert isinstance(maps.enter(paddle.ones([1, 1, 1, 1])), Pictures) == (path == "onednn")
            return function(*args)

    return call


@pytest.fixture
def on_both(on_path):
    """Calls a function with oneDNN and with Paddle's own operators; returns both results."""
    return lambda function, *args: [on_path(path, function, *args) for path in ("onednn", "plain")]


def assert_close(found, expected, tolerance=2e-5, what=""):
    """Arrays agree up to a share of the largest number in any of them."""
    assert len(found) == len(expected), what
    size = max(np.abs(part).max(initial=0) for part in expected) + 1e-30
    for one, other in zip(found, expected):
        assert one.shape == other.shape, what
        assert np.abs(one - other).max(initial=0) <= tolerance * size, what


def arrays(tensors):
    return [tensor.numpy().copy() for tensor in tensors]


def make_square(n_in, n_out, size):
    return nn.Conv2D(n_in, n_out, size, padding=size // 2)


# A map, a layer of it, and the shape of pictures
MAPS = {
    "3x3": (maps.conv, lambda: make_conv(5, 6, 3), [3, 5, 8, 6]),
    "3x3 of one picture": (maps.conv, lambda: make_conv(5, 6, 3), [1, 5, 8, 8]),
    "3x3 of large pictures": (maps.conv, lambda: make_conv(3, 4, 3), [2, 3, 20, 20]),
    "3x3 of odd sizes": (maps.conv, lambda: make_conv(1, 4, 3), [2, 1, 7, 5]),
    "to one channel": (maps.conv, lambda: make_conv(6, 1, 3), [2, 6, 12, 12]),
    "1x1": (maps.conv, lambda: make_conv(5, 3, 1), [3, 5, 4, 6]),
    "1x7": (maps.conv, lambda: nn.Conv2D(3, 4, (1, 7), padding=(0, 3)), [2, 3, 9, 9]),
    "7x1": (maps.conv, lambda: nn.Conv2D(3, 4, (7, 1), padding=(3, 0)), [2, 3, 9, 9]),
    "5x5 of stride 2": (maps.conv, lambda: make_conv(1, 4, 5, 2), [3, 1, 14, 14]),
    "5x5 of stride 2 and odd size": (maps.conv, lambda: make_conv(2, 4, 5, 2), [3, 2, 7, 9]),
    "4x4 of stride 2": (maps.conv, lambda: nn.Conv2D(3, 4, 4, 2, 1), [2, 3, 8, 6]),
    "to a pixel": (maps.conv, lambda: nn.Conv2D(3, 4, 4), [2, 3, 4, 4]),
    "transposed 5x5": (maps.conv_transpose, lambda: make_conv_transpose(4, 3, 5), [2, 4, 4, 5]),
    "transposed 4x4": (maps.conv_transpose, lambda: make_conv_transpose(4, 1, 4), [2, 4, 7, 7]),
    "transposed and cropped": (
        lambda x, layer: maps.conv_transpose(x, layer, crop=1),
        lambda: make_conv_transpose(6, 4, 5),
        [2, 6, 4, 4],
    ),
    "pooled 3x3": (maps.conv_mean_pool, lambda: make_square(3, 5, 3), [2, 3, 8, 6]),
    "pooled 1x1": (maps.conv_mean_pool, lambda: make_square(3, 5, 1), [2, 3, 8, 6]),
    "upsampled 3x3": (maps.upsample_conv, lambda: make_square(5, 3, 3), [2, 5, 4, 3]),
    "upsampled 1x1": (maps.upsample_conv, lambda: make_square(5, 3, 1), [2, 5, 4, 3]),
    "linear": (maps.linear, lambda: nn.Linear(7, 5), [6, 7]),
    "linear of one row": (maps.linear, lambda: nn.Linear(7, 5), [1, 7]),
    "linear to a number": (maps.linear, lambda: nn.Linear(7, 1), [6, 7]),
    "linear of a number": (maps.linear, lambda: nn.Linear(1, 5), [6, 1]),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_values_and_gradients_of_paddles(name, on_both):
    apply, make, shape = MAPS[name]
    layer = randomise(make())
    x = paddle.randn(shape)
    x.stop_gradient = False

    def differentiate():
        paddle.seed(2)
        y = maps.leave(apply(x, layer))
        weights = paddle.randn(y.shape)
        return [y, *paddle.grad((y * weights).sum(), [x, layer.weight, layer.bias])]

    for found, expected in zip(*on_both(differentiate)):
        assert_close(arrays([found]), arrays([expected]))


@pytest.mark.parametrize("frozen_parts", [("weight",), ("bias",), ("weight", "bias"), ("x",)])
@pytest.mark.parametrize("name", ["3x3", "transposed 5x5", "upsampled 3x3", "linear"])
def test_maps_with_frozen_parts(name, frozen_parts, on_both):
    apply, make, shape = MAPS[name]
    layer, x = randomise(make()), paddle.randn(shape)
    parts = {"x": x, "weight": layer.weight, "bias": layer.bias}
    for part in parts:
        parts[part].stop_gradient = part in frozen_parts

    def differentiate():
        for part in parts.values():
            part.clear_gradient()
        maps.leave(apply(x, layer)).square().sum().backward()
        assert [part for part in parts if parts[part].grad is None] == list(frozen_parts)
        return arrays(parts[part].grad for part in parts if part not in frozen_parts)

    assert_close(*on_both(differentiate))


def test_strided_views_are_read_in_their_order(on_both):
    conv, linear = randomise(make_conv(3, 4, 3)), randomise(nn.Linear(3, 4))
    pictures = paddle.randn([2, 6, 8, 3]).transpose([0, 3, 1, 2])[:, :, ::2]
    rows = paddle.randn([3, 5]).t()
    for found, expected in zip(
        *on_both(lambda: arrays([maps.leave(maps.conv(pictures, conv)), maps.linear(rows, linear)]))
    ):
        assert_close([found], [expected])


def transpose_plainly(x, layer, crop=0):
    """A transposed convolution by operators with second derivatives: zeros between pixels."""
    count, channels, height, width = x.shape
    x = paddle.stack([x, 0 * x], 4).reshape([count, channels, height, 2 * width])
    x = paddle.stack([x, 0 * x], 3).reshape([count, channels, 2 * height, 2 * width])
    size, (top, bottom, left, right) = layer.weight.shape[2], layer._padding
    around = [size - 1 - top, size - 2 - bottom - crop, size - 1 - left, size - 2 - right - crop]
    return F.conv2d(x, layer.weight.transpose([1, 0, 2, 3]).flip([2, 3]), layer.bias, 1, around)


# Paddle's transposed convolution has no second derivatives on a CPU.
REFERENCES = {
    "transposed 5x5": transpose_plainly,
    "transposed 4x4": transpose_plainly,
    "transposed and cropped": lambda x, layer: transpose_plainly(x, layer, 1),
    "upsampled 3x3": lambda x, layer: layer(maps.upsample(x)),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_second_derivatives(name, on_path):
    apply, make, shape = MAPS[name]
    layer, samples = randomise(make()), paddle.randn(shape)

    def differentiate(apply):
        x = samples.detach()
        x.stop_gradient = False
        layer.clear_gradients()
        with maps.twice_differentiable():
            y = maps.leave(apply(maps.enter(x) if x.ndim == 4 else x, layer))
            (slope,) = paddle.grad(y.square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        return arrays([slope, x.grad, layer.weight.grad, layer.bias.grad])

    results = (
        on_path("onednn", differentiate, apply),
        on_path("plain", differentiate, REFERENCES.get(name, apply)),
    )
    for found, expected in zip(*results):
        assert_close([found], [expected])


@pytest.mark.parametrize("name", MAPS)
def test_gradients_of_maps_can_be_differentiated(name, on_path, monkeypatch):
    """The gradients in input, weight and bias, in the input, the weight and what they are of."""
    monkeypatch.setattr(plain_operators, "MAX_UNFOLDED_PIXELS", 0)  # without second derivatives
    apply, make, shape = MAPS[name]
    layer, x = randomise(make()), paddle.randn(shape)
    outer = paddle.randn(maps.leave(apply(x, layer)).shape)
    x.stop_gradient = outer.stop_gradient = False

    def differentiate(apply):
        for part in (x, outer, layer.weight, layer.bias):
            part.clear_gradient()
        y = maps.leave(apply(x, layer))
        inner = [x, layer.weight, layer.bias]
        gradients = paddle.grad((y * outer).sum(), inner, create_graph=True)
        sum(gradient.square().sum() for gradient in gradients).backward()
        return arrays([x.grad, outer.grad, layer.weight.grad])

    results = (
        on_path("onednn", differentiate, apply),
        on_path("plain", differentiate, REFERENCES.get(name, apply)),
    )
    for found, expected in zip(*results):
        assert_close([found], [expected])


BETWEEN = {  # what networks have between maps
    "relu": maps.relu,
    "leaky relu": lambda x: maps.relu(x, 0.2),
    "mean pool": maps.mean_pool,
    "upsampling": maps.upsample,
    "mean": maps.mean,
    "flatten": maps.flatten,
    "sum": lambda x: maps.mean_pool(x) + maps.mean_pool(x),
    "concat": lambda x: maps.concat([x, maps.relu(x)]),
}


@pytest.mark.parametrize("shape", [[2, 3, 4, 6], [1, 1, 2, 2]])
@pytest.mark.parametrize("name", BETWEEN)
def test_operations_between_maps_are_paddles(name, shape, on_both):
    samples = paddle.randn(shape)

    def differentiate():
        paddle.seed(2)
        x = samples.detach()
        x.stop_gradient = False
        y = maps.leave(BETWEEN[name](maps.enter(x)))
        (gradient,) = paddle.grad((y * paddle.randn(y.shape)).sum(), x)
        return [y, gradient]

    for found, expected in zip(*on_both(differentiate)):
        assert_close(arrays([found]), arrays([expected]))


@pytest.mark.parametrize("pool", [maps.max_pool, maps.average_pool], ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [(3, 1, 1), (3, 2, 0), (2, 2, 0)])
def test_pools_are_paddles(pool, size, on_both):
    x = paddle.randn([2, 3, 9, 7])
    found, expected = on_both(lambda: [maps.leave(pool(maps.enter(x), *size))])
    assert_close(arrays(found), arrays(expected))


def test_pools_of_odd_sizes_have_gradients(on_both):
    samples = paddle.randn([2, 3, 5, 7])

    def differentiate():
        x = samples.detach()
        x.stop_gradient = False
        return paddle.grad(maps.leave(maps.mean_pool(maps.enter(x))).square().sum(), x)

    found, expected = on_both(differentiate)
    assert_close(arrays(found), arrays(expected))


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_relus_treat_what_is_not_finite_alike(slope, on_both):
    x = paddle.to_tensor([np.nan, np.inf, -np.inf, 0.0], "float32").reshape([1, 1, 2, 2])
    found, expected = on_both(lambda: maps.leave(maps.relu(maps.enter(x), slope)).numpy())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["train", "eval", "running"])
@pytest.mark.parametrize("classes", [0, 3])
def test_batch_normalisation_is_paddles(classes, mode, on_both):
    samples, labels = 2 * paddle.randn([4, 5, 6, 3]) + 1, paddle.to_tensor([2, 0, 1, 2])

    def differentiate():
        paddle.seed(2)
        norm, x = randomise(normalisation.BatchNorm(5, classes)), samples.detach()
        x.stop_gradient = False
        getattr(norm, "train" if mode == "train" else "eval")()
        normalisation.use_statistics(norm, "running" if mode == "running" else "batch")
        for _ in range(2):  # running averages of two batches
            y = maps.leave(norm(maps.enter(x), labels if classes else None))
        gradients = paddle.grad((y * paddle.randn(y.shape)).sum(), [x, norm.scale, norm.offset])
        return [y, *gradients, norm.running_mean, norm.running_variance]

    for found, expected in zip(*on_both(differentiate)):
        assert_close(arrays([found]), arrays([expected]))


def test_layer_normalisation_is_paddles(on_both):
    samples = 2 * paddle.randn([4, 5, 6, 3]) + 1

    def differentiate():
        paddle.seed(2)
        norm, x = randomise(normalisation.LayerNorm(5)), samples.detach()
        x.stop_gradient = False
        y = maps.leave(norm(maps.enter(x)))
        return [y, *paddle.grad((y * paddle.randn(y.shape)).sum(), [x, norm.scale, norm.offset])]

    for found, expected in zip(*on_both(differentiate)):
        assert_close(arrays([found]), arrays([expected]))


@pytest.mark.parametrize("shift", [0, 30])
def test_layer_normalisation_has_second_derivatives(shift, on_both):
    # Means that are large next to the deviations would show sums of squares that cancel.
    samples, factor = 2 * paddle.randn([4, 5, 6, 3]) + shift, paddle.randn([4, 5, 6, 3])

    def differentiate():
        paddle.seed(2)
        norm, x, outer = randomise(normalisation.LayerNorm(5)), samples.detach(), factor.detach()
        for part in (x, outer):
            part.stop_gradient = False
        with maps.twice_differentiable():
            y = maps.leave(norm(maps.enter(x)))
            (slope,) = paddle.grad((y * outer).sum(), x, create_graph=True)
        (slope * paddle.randn(y.shape)).sum().backward()
        return [slope, x.grad, outer.grad, norm.scale.grad]

    for found, expected in zip(*on_both(differentiate)):
        assert_close(arrays([found]), arrays([expected]), 1e-3 if shift else 2e-5)


def test_layer_normalisation_refuses_what_it_has_not():
    norm, x = randomise(normalisation.LayerNorm(2)), paddle.randn([2, 2, 3, 3])
    x.stop_gradient = False
    y = maps.leave(norm(maps.enter(x)))
    with pytest.raises(OSError, match="gradients in its weights have no derivative"):
        paddle.grad(y.square().sum(), x, create_graph=True)
    with maps.twice_differentiable():
        y = maps.leave(norm(maps.enter(x)))
        (slope,) = paddle.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(OSError, match="no third derivative"):
            paddle.grad(slope.square().sum(), x, create_graph=True)


# Cases that take Paddle's operators.
def test_other_inputs_take_paddles_operators(float64):
    assert not isinstance(maps.enter(paddle.ones([1, 1, 2, 2])), Pictures)  # float64
    assert not isinstance(maps.enter(paddle.ones([1, 1, 2, 2], "bfloat16")), Pictures)
    assert not isinstance(maps.enter(paddle.ones([0, 1, 2, 2], "float32")), Pictures)
    assert isinstance(maps.enter(paddle.ones([1, 1, 2, 2], "float32")), Pictures)


def test_programs_take_paddles_operators():
    layer, entered = randomise(make_square(2, 3, 3)), []

    def function(x):
        entered.append(maps.enter(x))
        return maps.leave(maps.relu(maps.upsample_conv(maps.conv(x, layer), other), 0.2))

    other = randomise(make_square(3, 2, 3))
    x = paddle.randn([2, 2, 6, 6])
    with enabled_to_static():  # A Solver in the same process switches it off.
        program = paddle.jit.to_static(
            function, input_spec=[paddle.static.InputSpec([None, 2, 6, 6])], full_graph=True
        )
        found = program(x)
    assert entered and not any(isinstance(part, Pictures) for part in entered)
    assert_close(arrays([found]), arrays([function(x)]))
    assert isinstance(entered[-1], Pictures)


# Whole steps.
OBJECTIVE = functions.Objective(
    lambda real, fake: fake.mean() - real.mean(),
    lambda fake: -fake.mean(),
    functions.gradient_penalty,
    10.0,
)


@pytest.fixture
def masks(monkeypatch):
    """Signs of what leaves ReLUs of `maps`."""
    relu, signs = maps.relu, []

    def watched(x, slope=0.0):
        y = relu(x, slope)
        if tape.current is None or not tape.current.is_replaying:
            signs.append(maps.leave(y).numpy() > 0)
        return y

    monkeypatch.setattr(maps, "relu", watched)
    return signs


def assert_steps_agree(on_path, masks, step, seeds=6, needed=2):
    """Losses and gradients of `step(seed)` agree, where no ReLU is on the other side of 0."""
    compared = 0
    for seed in range(seeds):
        found, found_masks = on_path("onednn", step, seed), masks[:]
        masks.clear()
        expected, expected_masks = on_path("plain", step, seed), masks[:]
        masks.clear()
        if all(map(np.array_equal, found_masks, expected_masks)):
            assert_close(found[:1], expected[:1], 1e-4)
            assert_close(found[1:], expected[1:], 1e-4)
            compared += 1
        if compared == needed:
            return
    raise AssertionError(f"ReLUs fell on the other side of 0 with {seeds - compared} seeds")


def gradients_of(network):
    """Gradients of all weights; no gradient and one of 0 are the same."""
    return [
        np.zeros(weight.shape, "float32") if weight.grad is None else weight.grad.numpy().copy()
        for weight in network.parameters()
    ]


@pytest.mark.parametrize("case", CRITICS.values(), ids=str)
def test_the_critics_step_is_that_of_paddles_operators(case, on_path, masks):
    """With the first-order penalty, or double backward where the critic normalises."""
    # Paddle takes seconds for second derivatives of batch normalisation of 64x64 pictures.
    is_slow = case.norm == "batch" and case.shape[-1] == 64
    objective = dataclasses.replace(OBJECTIVE, penalty=None) if is_slow else OBJECTIVE

    def step(seed):
        paddle.seed(seed)
        critic = randomise(case.make(), 1.5)
        real, fake = (paddle.randn([3, *case.shape]) for _ in range(2))
        inputs = {"real": real, "fake": fake, "alpha": paddle.rand([3])}
        inputs["labels"] = paddle.to_tensor([1, 0, 3])
        loss = sum(functions.CriticLoss(critic, objective)({**critic(inputs), **inputs}).values())
        loss.backward()
        return [loss.numpy(), *gradients_of(critic)]

    assert_steps_agree(on_path, masks, step)


@pytest.mark.parametrize("case", CRITICS.values(), ids=str)
def test_frozen_critics_pass_gradients_to_samples(case, on_path, masks):
    def step(seed):
        paddle.seed(seed)
        critic, x = randomise(case.make(), 1.5), paddle.randn([3, *case.shape])
        x.stop_gradient = False
        with frozen(critic):
            values, _ = critic.score(x)
            (gradient,) = paddle.grad(values.sum(), x)
        return arrays([values, gradient])

    assert_steps_agree(on_path, masks, step, needed=1)


@pytest.mark.parametrize("case", GENERATORS.values(), ids=str)
def test_the_generators_step_is_that_of_paddles_operators(case, on_path, masks):
    judge = next(critic for critic in CRITICS.values() if critic.shape == case.shape)

    def step(seed):
        paddle.seed(seed)
        generator, critic = randomise(case.make()), randomise(judge.make())
        noise, labels = paddle.randn([4, generator.noise_dim]), paddle.to_tensor([1, 0, 3, 1])
        inputs = {"noise": noise, "labels": labels}
        with frozen(critic):
            fake = generator(inputs)
            terms = functions.GeneratorLoss(critic, OBJECTIVE)({**fake, **inputs})
            loss = sum(terms.values())
            loss.backward()
        return [loss.numpy(), *gradients_of(generator)]

    assert_steps_agree(on_path, masks, step)


@pytest.mark.parametrize("name", ["mnist", "mnist layer", "mnist batch", "cifar10", "toy"])
def test_double_backward_is_that_of_paddles_operators(name, on_path, masks):
    def step(seed):
        paddle.seed(seed)
        critic = randomise(CRITICS[name].make(), 1.5)
        samples = paddle.randn([3, *CRITICS[name].shape])
        norm, term = functions.penalised_norm(critic, samples, functions.gradient_penalty)
        term.backward()
        return [norm.numpy(), *gradients_of(critic)]

    assert_steps_agree(on_path, masks, step, needed=1)


# Weights that change.
def step_with_adam(network, other):
    adam = paddle.optimizer.Adam(0.1, parameters=network.parameters())
    sum(weight.sum() for weight in network.parameters()).backward()
    adam.step()


def set_values(network, other):
    for weight, value in zip(network.parameters(), other.parameters()):
        weight.set_value(value)


def assign(network, other):
    for weight, value in zip(network.parameters(), other.parameters()):
        paddle.assign(value, weight)


def add_in_place(network, other):
    with paddle.no_grad():
        for weight in network.parameters():
            weight.add_(paddle.full([1], 0.1))


def average(network, other):
    moving = MovingAverage(other, 0.5)
    moving.network = network
    moving.update(0)


CHANGES = {
    "optimiser": step_with_adam,
    "set_value": set_values,
    "assign": assign,
    "in place": add_in_place,
    "set_state_dict": lambda network, other: network.set_state_dict(other.state_dict()),
    "average": average,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_forward_pass_uses_the_weights_of_that_moment(name, change, on_path):
    network, other = (randomise(GENERATORS[name].make()) for _ in range(2))
    noise, labels = paddle.randn([3, network.noise_dim]), paddle.to_tensor([0, 1, 2])

    def generate():
        return arrays(
            [network.generate(noise, labels) if name == "cifar10" else network.generate(noise)]
        )

    before = on_path("onednn", generate)
    CHANGES[change](network, other)
    found, expected = on_path("onednn", generate), on_path("plain", generate)
    assert_close(found, expected)
    assert np.abs(found[0] - before[0]).max() > 1e-2


@pytest.mark.parametrize("name", ["3x3", "1x1", "transposed 5x5", "pooled 3x3", "linear"])
def test_a_change_between_forward_and_backward_counts_as_with_paddle(name, on_path):
    """An optimiser's step there is a mistake that no operator notices."""
    apply, make, shape = MAPS[name]
    layer, samples = make(), paddle.randn(shape)

    def differentiate():
        paddle.seed(2)
        randomise(layer).clear_gradients()
        x = samples.detach()
        x.stop_gradient = False
        y = maps.leave(apply(x, layer)).square().sum()
        step_with_adam(layer, None)
        y.backward()
        return arrays([x.grad])

    assert_close(on_path("onednn", differentiate), on_path("plain", differentiate))


# What a graph is good for.
ENDS = {  # the map that a second backward pass meets first
    "conv": lambda x, layer: maps.conv(x, layer).pixels,
    "relu": lambda x, layer: maps.relu(maps.conv(x, layer)).pixels,
    "mean pool": lambda x, layer: maps.mean_pool(maps.conv(x, layer)).pixels,
    "normalisation": lambda x, layer: normalisation.BatchNorm(4)(maps.conv(x, layer)).pixels,
    "picture": lambda x, layer: maps.leave(maps.conv(x, layer)),
    "linear": lambda x, layer: maps.linear(maps.mean(maps.conv(x, layer)), nn.Linear(4, 2)),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_second_backward_pass_is_refused(end):
    """Paddle would crash the process."""
    x = paddle.randn([2, 3, 6, 6])
    x.stop_gradient = False
    y = ENDS[end](x, make_conv(3, 4, 3))
    y.sum().backward(retain_graph=True)
    for _ in range(2):
        with pytest.raises(OSError, match="a graph of kernels.maps has one backward pass"):
            y.square().sum().backward()


def test_the_gradient_in_samples_alone_needs_frozen_weights_or_twice_differentiable():
    critic, x = randomise(functions.WganGpMnistDiscriminator(2)), paddle.randn([2, 1, 28, 28])
    x.stop_gradient = False
    with frozen(critic):
        values, _ = critic.score(x)
        (found,) = paddle.grad(values.sum(), x)
    with maps.twice_differentiable():
        values, _ = critic.score(x)
        (expected,) = paddle.grad(values.sum(), x)
    assert_close(arrays([found]), arrays([expected]))
    # Paddle refuses the gradients of weights that nobody asked for.
    values, _ = critic.score(x)
    with pytest.raises(ValueError, match="should return None"):
        paddle.grad(values.sum(), x)


def test_batch_normalisation_refuses_second_derivatives():
    norm, x = normalisation.BatchNorm(3), paddle.randn([2, 3, 4, 4])
    x.stop_gradient = False
    y = maps.leave(norm(maps.enter(x)))
    with frozen(norm), pytest.raises(OSError, match="has no second derivative"):
        paddle.grad(y.sum(), x, create_graph=True)


# Runs.
EXPERIMENTS = {
    "toy": lambda cfg: make_run(wgangp_toy.Toy(cfg)),
    "cifar10": lambda cfg: make_run(
        wgangp_cifar10.Cifar10(cfg), synthetic.synthetic_set(train=20, test=5)
    ),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_runs_repeat_themselves_on_each_path_and_agree_with_the_other(name, configure, on_path):
    def train():
        paddle.seed(3)
        run = EXPERIMENTS[name](configure(name, TOY if name == "toy" else CIFAR10))
        before = [arrays(network.parameters()) for network in run.networks]
        run.step()  # five steps of the critic and one of the generator
        after = [arrays(network.parameters()) for network in run.networks]
        return before, after

    (begin, fast), (_, again) = on_path("onednn", train), on_path("onednn", train)
    (_, plain), (_, plain_again) = on_path("plain", train), on_path("plain", train)
    for found, same, other, other_again, start in zip(fast, again, plain, plain_again, begin):
        for parts in zip(found, same, other, other_again, start):
            one, repeated, reference, reference_again, at_start = parts
            np.testing.assert_array_equal(one, repeated)
            np.testing.assert_array_equal(reference, reference_again)
            if one.ndim > 1:  # Biases before batch normalisation follow rounding.
                moved = np.abs(reference - at_start).mean()
                assert np.abs(one - reference).mean() <= 0.05 * moved
