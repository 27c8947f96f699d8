# SPDX-License-Identifier: Apache-2.0
"""Batch and layer normalisation against their formulas in NumPy."""

import contextlib

import numpy as np
import paddle
import pytest

from kernels import maps
from networks.normalisation import BatchNorm
from networks.normalisation import LayerNorm
from networks.normalisation import NoNorm
from networks.normalisation import make_critic_norm
from networks.normalisation import use_groups
from networks.normalisation import use_statistics
from support.errors import UserError

EPSILON = 1e-5
# At the second size, epsilon is as large as the variance.
sizes = pytest.mark.parametrize("size", [3.0, 0.003])


def normalise(x, axes):
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt(x.var(axes, keepdims=True) + EPSILON)


def draw(size, *shape):
    return (size * np.random.default_rng(0).standard_normal(shape) + 2 * size).astype("float32")


@sizes
def test_batch_norm_uses_batch_statistics_in_evaluation_too(size):
    norm, x = BatchNorm(3), draw(size, 5, 3, 4, 4)
    for mode in (norm.train, norm.eval):
        mode()
        found = norm(paddle.to_tensor(x)).numpy()
        np.testing.assert_allclose(found, normalise(x, (0, 2, 3)), atol=1e-5)


@sizes
def test_batch_norm_of_vectors(size):
    norm, x = BatchNorm(3), draw(size, 50, 3)
    found = norm(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(found, normalise(x, 0), atol=1e-5)


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("groups", [1, 3])
def test_batch_norm_of_a_single_row_gives_the_offset(classes, groups):
    """Paddle's operator would give back the row as it is, and leave the averages as they are."""
    norm, x = BatchNorm(3, classes), draw(1.0, groups, 3)
    offset = np.arange(3 * max(classes, 1), dtype="float32").reshape(-1, 3)
    norm.offset.set_value(offset)
    use_groups(norm, groups)
    labels = paddle.zeros([groups], "int64") if classes else None
    found = norm(paddle.to_tensor(x), labels).numpy()
    np.testing.assert_allclose(found, offset[:1].repeat(groups, 0), atol=1e-5)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.running_variance.numpy(), 0.9)


def test_conditional_batch_norm_scales_per_label():
    norm, x = BatchNorm(3, 10), draw(1.0, 4, 3, 4, 4)
    scale, offset = paddle.rand([10, 3]), paddle.rand([10, 3])
    norm.scale.set_value(scale)
    norm.offset.set_value(offset)
    labels = np.array([2, 7, 7, 0])
    expected = normalise(x, (0, 2, 3)) * scale.numpy()[labels][:, :, None, None]
    expected += offset.numpy()[labels][:, :, None, None]
    for mode in (norm.train, norm.eval):
        mode()
        found = norm(paddle.to_tensor(x), paddle.to_tensor(labels)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_running_averages_take_a_tenth_of_each_training_batch():
    norm = BatchNorm(3)
    use_statistics(paddle.nn.Sequential(norm), "running")
    mean, variance = np.zeros(3), np.ones(3)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = (5 + 2 * rng.standard_normal((4, 3, 5, 5))).astype("float32")
        norm(paddle.to_tensor(x))
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * x.var((0, 2, 3))
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(norm.running_variance.numpy(), variance, rtol=1e-5)
    norm.eval()
    expected = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + EPSILON)
    np.testing.assert_allclose(norm(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
    use_statistics(norm, "batch")
    found = norm(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(found, normalise(x, (0, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("classes", [0, 10])
@sizes
def test_an_exported_batch_norm_is_the_same(classes, statistics, size, static):
    norm, x = BatchNorm(3, classes), paddle.to_tensor(draw(size, 4, 3, 5, 5))
    inputs = [x, paddle.to_tensor([2, 7, 7, 0])] if classes else [x]
    norm.scale.set_value(paddle.rand(norm.scale.shape))
    norm.offset.set_value(paddle.rand(norm.offset.shape))
    norm.running_variance.set_value(size**2 * paddle.rand([3]))
    norm.running_mean.set_value(size * paddle.rand([3]))
    use_statistics(norm, statistics)
    norm.eval()
    expected = norm(*inputs).numpy()
    found = static(norm)(*inputs).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def static():
    """Makes a static program of a layer, as an export does."""
    translator = paddle.jit.dy2static.program_translator.ProgramTranslator()
    before = translator.enable_to_static
    paddle.jit.enable_to_static(True)  # a Solver in the same process switches it off
    yield lambda layer: paddle.jit.to_static(layer, full_graph=True)
    paddle.jit.enable_to_static(before)


def normalise_in_training(x, labels, weights, groups, is_twice):
    """Results in training, a cost's gradients in x, scale and offset, and running averages.

    Args:
        x: Pictures.
        labels: Their labels, or None.
        weights: The cost is the results' product with them.
        groups: The number of groups.
        is_twice: Whether the cost has also the square of its gradient in x.
    """
    paddle.seed(1)
    norm, x = BatchNorm(3, 0 if labels is None else 4), x.detach()
    norm.scale.set_value(paddle.rand(norm.scale.shape))
    norm.offset.set_value(paddle.rand(norm.offset.shape))
    use_groups(norm, groups)
    x.stop_gradient = False
    with maps.twice_differentiable() if is_twice else contextlib.nullcontext():
        y = maps.leave(norm(maps.enter(x), labels))
        cost = (y * weights).sum()
        if is_twice:
            cost += paddle.grad(cost, x, create_graph=True)[0].square().sum()
    gradients = paddle.grad(cost, [x, norm.scale, norm.offset])
    return [y, *gradients, norm.running_mean, norm.running_variance]


@pytest.mark.parametrize("dtype", ["float32", "float64"])  # oneDNN computes in float32 only
@pytest.mark.parametrize("is_twice", [False, True])
@pytest.mark.parametrize("classes", [0, 4])
def test_groups_of_a_training_batch_are_as_batches(classes, is_twice, dtype, float64):
    paddle.set_default_dtype(dtype)
    x, weights = 2 * paddle.randn([6, 3, 5, 4]) + 1, paddle.randn([6, 3, 5, 4])
    labels = paddle.to_tensor([2, 0, 1, 2, 0, 0]) if classes else None
    found = normalise_in_training(x, labels, weights, 2, is_twice)
    parts = []
    for start in range(2):  # interleaved halves
        own = [None if part is None else part[start::2] for part in (x, labels, weights)]
        parts.append(normalise_in_training(*own, 1, is_twice))
    result, x_gradient, scale, offset, mean, variance = (paddle.stack(pair) for pair in zip(*parts))
    expected = [part.transpose([1, 0, 2, 3, 4]).reshape(x.shape) for part in (result, x_gradient)]
    expected += [scale.sum(0), offset.sum(0), mean.mean(0), variance.mean(0)]
    size = 1e-12 if dtype == "float64" else 1e-5
    for one, other in zip(found, expected):
        scale = float(other.abs().max())
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=size * scale)


def test_groups_are_of_training_only():
    norm, x = BatchNorm(3), paddle.to_tensor(draw(1.0, 5, 3, 4, 4))
    use_groups(paddle.nn.Sequential(norm), 2)
    norm.eval()
    np.testing.assert_allclose(norm(x).numpy(), normalise(x.numpy(), (0, 2, 3)), atol=1e-5)
    norm.train()
    with pytest.raises(ValueError, match="A batch of 5 can't be split into 2 equal groups"):
        norm(x)
    assert norm(x[:4].mean([2, 3])).shape == [4, 3]


@sizes
def test_layer_norm_is_over_all_of_a_sample(size):
    norm, x = LayerNorm(3), draw(size, 5, 3, 4, 4)
    scale, offset = paddle.rand([1, 3, 1, 1]), paddle.rand([1, 3, 1, 1])
    norm.scale.set_value(scale)
    norm.offset.set_value(offset)
    expected = normalise(x, (1, 2, 3)) * scale.numpy() + offset.numpy()
    np.testing.assert_allclose(norm(paddle.to_tensor(x)).numpy(), expected, atol=1e-5)


def test_critics_norms_by_name():
    x = paddle.randn([2, 3, 4, 4])
    assert make_critic_norm(None, 3)(x) is x
    kinds = {None: NoNorm, "spectral": NoNorm, "layer": LayerNorm, "batch": BatchNorm}
    for name, kind in kinds.items():
        assert type(make_critic_norm(name, 3)) is kind
    with pytest.raises(UserError, match="MODEL.dis_net.norm='instance' is unknown: choose null"):
        make_critic_norm("instance", 3)
