# SPDX-License-Identifier: Apache-2.0
"""All networks: what holds for each, and the paper's against a plain computation."""

import numpy as np
import paddle
import paddle.nn.functional as F
import plain
import pytest
from helpers import CRITICS
from helpers import GENERATORS
from paddle import nn
from plain import conv_count
from plain import count
from plain import randomise

import functions
from kernels import maps
from networks.base import evaluating
from networks.base import frozen
from networks.layers import make_conv
from networks.layers import make_conv_transpose
from networks.normalisation import BatchNorm
from networks.normalisation import LayerNorm
from networks.normalisation import NoNorm
from networks.normalisation import use_statistics
from support.errors import UserError

all_generators = pytest.mark.parametrize("case", GENERATORS.values(), ids=str)
all_critics = pytest.mark.parametrize("case", CRITICS.values(), ids=str)
all_networks = pytest.mark.parametrize(
    "case",
    [*GENERATORS.values(), *CRITICS.values()],
    ids=[*(f"generator {name}" for name in GENERATORS), *(f"critic {name}" for name in CRITICS)],
)


def make_inputs(generator, count):
    labels = paddle.arange(count) % max(generator.num_classes, 1)
    inputs = {"noise": paddle.randn([count, generator.noise_dim]), "labels": labels}
    return {key: inputs[key] for key in generator.input_keys}


def copy_state(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


@all_generators
def test_samples_have_their_shape_and_range(case):
    generator = randomise(case.make(), gain=3.0)
    assert generator.num_classes == case.num_classes
    assert generator.input_keys == (("noise", "labels") if case.num_classes else ("noise",))
    samples = generator(make_inputs(generator, 6))["fake"].numpy()
    assert samples.shape == (6, *case.shape) and samples.dtype == np.float32
    assert samples.std() > 0.1
    if case.low is not None:  # so large weights give black and white
        assert generator.low == case.low
        margin = 0.2 * (1 - case.low)
        assert case.low <= samples.min() < case.low + margin
        assert 1 - margin < samples.max() <= 1


@all_generators
def test_labels_change_the_samples_of_generators_that_take_them(case):
    generator = randomise(case.make())
    noise = paddle.tile(paddle.randn([1, generator.noise_dim]), [3, 1])
    same, again, other = generator.generate(noise, paddle.to_tensor([3, 3, 4])).numpy()
    np.testing.assert_allclose(same, again, atol=1e-5)
    assert (np.abs(other - same).max() > 1e-2) == (case.num_classes > 0)


@all_generators
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_samples_depend_on_each_other_only_by_batch_statistics(case, statistics):
    generator = randomise(case.make())
    inputs = make_inputs(generator, 4)
    generator(inputs)  # moves the running averages, if there are any
    use_statistics(generator, statistics)
    generator.eval()
    together = generator(inputs)["fake"].numpy()
    two = generator({key: value[:2] for key, value in inputs.items()})["fake"].numpy()
    expected = case.has_batch_norm and statistics == "batch"
    assert (np.abs(two - together[:2]).max() > 1e-3) == expected
    if not expected:
        np.testing.assert_allclose(two, together[:2], atol=1e-4)


@all_generators
def test_only_training_changes_running_averages(case):
    generator = case.make()
    before = copy_state(generator)
    for statistics in ("batch", "running"):
        use_statistics(generator, statistics)
        with evaluating(generator):
            generator(make_inputs(generator, 4))
        for name, value in copy_state(generator).items():
            np.testing.assert_array_equal(value, before[name])
    generator(make_inputs(generator, 4))
    changed = [
        name for name, value in copy_state(generator).items() if (value != before[name]).any()
    ]
    assert bool(changed) == case.has_batch_norm
    assert all("running_" in name for name in changed)


@all_critics
def test_critics_give_values_and_logits(case):
    critic = randomise(case.make())
    assert critic.piecewise_linear == case.is_piecewise_linear
    real = paddle.randn([4, *case.shape])
    real.stop_gradient = False
    outputs = critic({"real": real})
    assert outputs["value_real"].shape == [4]
    assert np.abs(outputs["value_real"].numpy()).max() > 1e-3
    if case.num_classes:
        assert outputs["logits_real"].shape == [4, case.num_classes]
    assert ("logits_real" in outputs) == (case.num_classes > 0)
    outputs["value_real"].sum().backward()
    assert real.grad is None  # the loss does not need it


@all_critics
def test_samples_are_independent_in_critics_without_batch_normalisation(case):
    critic, samples = randomise(case.make()), paddle.randn([3, *case.shape])
    together = critic.score(samples)[0].numpy()
    alone = np.array([float(critic.score(samples[i : i + 1])[0]) for i in range(3)])
    difference = np.abs(together - alone).max() / np.abs(together).max()
    assert difference > 1e-2 if case.norm == "batch" else difference < 1e-4


@all_critics
def test_critics_have_the_norm_that_they_are_made_with(case):
    kind = {"layer": LayerNorm, "batch": BatchNorm}.get(case.norm)
    layers = case.make().sublayers()
    found = {type(layer) for layer in layers if isinstance(layer, (LayerNorm, BatchNorm))}
    assert found == ({kind} if kind else set())


@all_networks
def test_fresh_networks_have_centred_weights_and_no_biases(case):
    paddle.seed(5)
    network = case.make()
    paddle.seed(5)
    again, other = copy_state(case.make()), copy_state(case.make())
    for name, value in network.named_parameters():
        weight = value.numpy()
        if value.stop_gradient:  # Paddle's running statistics
            continue
        np.testing.assert_array_equal(weight, again[name])
        if name.endswith(("bias", "offset", "gamma")):
            assert not weight.any(), name
        elif "norm" in name.lower():
            assert (weight == 1).all(), name
        else:
            assert (weight != other[name]).any(), name
            assert abs(weight.mean()) < 5 * weight.std() / np.sqrt(weight.size), name
            assert weight.std() > 0, name


@pytest.mark.parametrize("was_training", [True, False])
def test_evaluating_gives_back_the_mode_of_each_layer(was_training):
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    network.train() if was_training else network.eval()
    network[1].training = not was_training  # a layer of another mode than the rest
    before = [layer.training for layer in network.sublayers(include_self=True)]
    for error in (False, True):
        with pytest.raises(RuntimeError) if error else evaluating(network):
            if error:
                with evaluating(network):
                    raise RuntimeError
            assert not any(layer.training for layer in network.sublayers(include_self=True))
        assert [layer.training for layer in network.sublayers(include_self=True)] == before


def test_frozen_weights_get_no_gradient_and_are_as_before():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    network[1].bias.stop_gradient = True  # frozen already
    before = [weight.stop_gradient for weight in network.parameters()]
    x = paddle.randn([4, 2])
    x.stop_gradient = False
    with frozen(network):
        network(x).sum().backward()
    assert all(weight.grad is None for weight in network.parameters())
    assert x.grad is not None
    assert [weight.stop_gradient for weight in network.parameters()] == before
    with pytest.raises(RuntimeError), frozen(network):
        raise RuntimeError
    assert [weight.stop_gradient for weight in network.parameters()] == before
    network(x).sum().backward()
    assert network[0].weight.grad is not None


def test_toy_networks():
    generator, critic = functions.WganGpToyGenerator(), functions.WganGpToyDiscriminator()
    hidden = 2 * 512 + 512 + 2 * (512 * 512 + 512)
    assert count(generator) == hidden + 512 * 2 + 2
    assert count(critic) == hidden + 512 + 1
    points = generator({"noise": paddle.randn([7, 2])})["fake"]
    assert points.shape == [7, 2]
    value, logits = critic.score(points)
    assert value.shape == [7] and logits is None


def test_mnist_networks():
    generator, critic = functions.WganGpMnistGenerator(), functions.WganGpMnistDiscriminator()
    sizes = [(256, 128), (128, 64), (64, 1)]
    convs = sum(conv_count(b, a, 5) for b, a in sizes)
    assert count(generator) == 128 * 4096 + 4096 + convs
    convs = sum(conv_count(a, b, 5) for b, a in sizes)
    assert count(critic) == convs + 4096 + 1
    digits = generator({"noise": paddle.randn([3, 128])})["fake"]
    assert digits.shape == [3, 1, 28, 28]
    assert 0 <= float(digits.min()) <= float(digits.max()) <= 1
    h = digits
    # TensorFlow's padding, 28 -> 14 -> 7 -> 4.
    for layer, before in ((critic.conv_1, 1), (critic.conv_2, 1), (critic.conv_3, 2)):
        h = F.pad(h, [before, 2, before, 2])
        h = F.leaky_relu(F.conv2d(h, layer.weight, layer.bias, stride=2), 0.2)
    expected = F.linear(h.flatten(1), critic.linear.weight, critic.linear.bias).squeeze(1)
    np.testing.assert_allclose(critic.score(digits)[0].numpy(), expected.numpy(), rtol=1e-4)


@pytest.mark.parametrize("use_label", [True, False])
def test_cifar10_networks(use_label):
    generator = functions.WganGpCifar10Generator(use_label=use_label)
    critic = functions.WganGpCifar10Discriminator(use_label=use_label)
    c3, c1 = conv_count(128, 128, 3), conv_count(128, 128, 1)
    norms = 2 * 128 * (10 if use_label else 1)
    blocks = 3 * (2 * c3 + c1 + 2 * norms)
    assert count(generator) == 128 * 2048 + 2048 + blocks + 256 + conv_count(128, 3, 3)
    first = conv_count(3, 128, 3) + c3 + conv_count(3, 128, 1)
    # After the first block, only `down` has a convolution in its shortcut.
    heads = 129 + (1290 if use_label else 0)
    assert count(critic) == first + 6 * c3 + c1 + heads

    inputs = {"noise": paddle.randn([4, 128]), "labels": paddle.to_tensor([0, 1, 9, 9])}
    images = generator({key: inputs[key] for key in generator.input_keys})["fake"]
    assert images.shape == [4, 3, 32, 32]
    assert -1 <= float(images.min()) <= float(images.max()) <= 1
    value, logits = critic.score(images)
    assert value.shape == [4]
    assert logits.shape == [4, 10] if use_label else logits is None


def test_strided_convolution_pads_as_tensorflow_does():
    layer = make_conv(1, 1, 5, stride=2)
    image = paddle.rand([1, 1, 28, 28])
    padded = F.pad(image, [1, 2, 1, 2])
    plain = F.conv2d(padded, layer.weight, layer.bias, stride=2)
    np.testing.assert_allclose(layer(image).numpy(), plain.numpy(), atol=1e-6)
    assert plain.shape == [1, 1, 14, 14]


@pytest.mark.parametrize("size", [4, 5])
def test_transposed_convolution_is_the_adjoint_of_tensorflows_same_convolution(size):
    layer, x = make_conv_transpose(2, 3, size), paddle.rand([1, 2, 7, 7])
    y = paddle.rand([1, 3, 14, 14])
    y.stop_gradient = False
    image = F.conv2d(y, layer.weight, stride=2, padding="SAME")
    (adjoint,) = paddle.grad((image * x).sum(), y)
    np.testing.assert_allclose(layer(x).numpy(), adjoint.numpy(), atol=1e-5)


def plain_mlp(network, x):
    *hidden, last = (layer for layer in network.layers if hasattr(layer, "weight"))
    for layer in hidden:
        x = F.relu(plain.linear(x, layer))
    return plain.linear(x, last)


def plain_mnist_generator(network, noise, labels):
    h = F.relu(plain.linear(noise, network.linear)).reshape([len(noise), 12, 4, 4])
    for number, layer in enumerate((network.deconv_1, network.deconv_2, network.deconv_3)):
        # TensorFlow's: gaps between the pixels, then a correlation with the flipped kernel.
        wide = paddle.zeros([*h.shape[:2], 2 * h.shape[2], 2 * h.shape[3]])
        wide[:, :, ::2, ::2] = h
        kernel = layer.weight.transpose([1, 0, 2, 3]).flip([2, 3])
        h = F.conv2d(F.pad(wide, [3, 1, 3, 1]), kernel, layer.bias)
        h = F.relu(h) if number < 2 else F.sigmoid(h)
        h = h[:, :, :7, :7] if number == 0 else h
    return h


def plain_cifar10_generator(network, noise, labels):
    x = plain.linear(noise, network.linear).reshape([len(noise), 3, 4, 4])
    for block in network.blocks:
        h = plain.same_conv(
            plain.upsample(F.relu(plain.batch_norm(x, block.norm_1, labels))), block.conv_1
        )
        h = plain.same_conv(F.relu(plain.batch_norm(h, block.norm_2, labels)), block.conv_2)
        x = h + plain.same_conv(plain.upsample(x), block.conv_shortcut)
    return F.tanh(plain.same_conv(F.relu(plain.batch_norm(x, network.norm)), network.conv))


def plain_cifar10_critic(network, x):
    first = network.first
    h = plain.same_conv(F.relu(plain.same_conv(x, first.conv_1)), first.conv_2)
    x = F.avg_pool2d(h, 2) + plain.same_conv(F.avg_pool2d(x, 2), first.conv_shortcut)
    for number, block in enumerate(network.blocks):
        h = plain.same_conv(F.relu(plain.same_conv(F.relu(x), block.conv_1)), block.conv_2)
        if number == 0:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(plain.same_conv(x, block.conv_shortcut), 2)
        x = h + x
    h = F.relu(x).mean([2, 3])
    head = network.linear_class
    return plain.linear(h, network.linear)[:, 0], None if head is None else plain.linear(h, head)


@pytest.mark.parametrize(
    ("make", "plain"),
    [
        (lambda: functions.WganGpToyGenerator(5), lambda n, noise, _: plain_mlp(n, noise)),
        (lambda: functions.WganGpMnistGenerator(3), plain_mnist_generator),
        (lambda: functions.WganGpCifar10Generator(3), plain_cifar10_generator),
        (lambda: functions.WganGpCifar10Generator(3, use_label=False), plain_cifar10_generator),
    ],
)
def test_generators_against_a_plain_computation(make, plain):
    network, labels = randomise(make()), paddle.to_tensor([3, 0, 9])
    noise = paddle.randn([3, network.noise_dim])
    with paddle.no_grad():
        samples = network.generate(noise, labels)
        labels = labels if network.num_classes else None
        expected = plain(network, noise, labels)
    assert float(samples.std()) > 0.05  # neither all grey nor all saturated
    np.testing.assert_allclose(samples.numpy(), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use_label", [True, False])
def test_critics_against_a_plain_computation(use_label):
    toy, points = randomise(functions.WganGpToyDiscriminator(5)), paddle.randn([6, 2])
    critic = randomise(functions.WganGpCifar10Discriminator(4, use_label))
    images = paddle.uniform([3, 3, 32, 32], min=-1, max=1)
    with paddle.no_grad():
        value, logits = critic.score(images)
        expected = plain_cifar10_critic(critic, images)
        expected_toy = plain_mlp(toy, points).squeeze(1)
        np.testing.assert_allclose(toy.score(points)[0].numpy(), expected_toy.numpy(), rtol=1e-4)
    np.testing.assert_allclose(value.numpy(), expected[0].numpy(), rtol=1e-3, atol=1e-4)
    assert (logits is None) == (not use_label)
    if use_label:
        np.testing.assert_allclose(logits.numpy(), expected[1].numpy(), rtol=1e-3, atol=1e-4)


def plain_block(block, x):
    """The block with NumPy's repeat and mean, and Paddle's convolutions."""
    up = block.resample == "up"
    down = block.resample == "down"

    def double(x):
        return paddle.to_tensor(x.numpy().repeat(2, 2).repeat(2, 3)) if up else x

    def pool(x):
        n, c, h, w = x.shape
        x = x.numpy().reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)) if down else x.numpy()
        return x

    h = block.conv_1(double(F.relu(x)))
    h = pool(block.conv_2(F.relu(h)))
    shortcut = x if block.conv_shortcut is None else block.conv_shortcut(double(x))
    return h + (shortcut.numpy() if block.conv_shortcut is None else pool(shortcut))


@pytest.mark.parametrize("channels", [(4, 4), (3, 5)])
@pytest.mark.parametrize("resample", ["up", "down", None])
def test_residual_block_against_plain_resampling(resample, channels):
    block = functions.ResidualBlock(*channels, NoNorm, resample)
    x = paddle.randn([2, channels[0], 8, 8])
    assert (block.conv_shortcut is None) == (resample is None and channels == (4, 4))
    np.testing.assert_allclose(
        maps.leave(block(x)).numpy(), plain_block(block, x), rtol=1e-4, atol=1e-5
    )


def test_first_block_pools_the_shortcut_before_its_convolution():
    block, x = functions.FirstCriticBlock(5), paddle.randn([2, 3, 8, 8])
    pooled = x.numpy().reshape(2, 3, 4, 2, 4, 2).mean((3, 5))
    residual = block.conv_2(F.relu(block.conv_1(x))).numpy()
    residual = residual.reshape(2, 5, 4, 2, 4, 2).mean((3, 5))
    expected = block.conv_shortcut(paddle.to_tensor(pooled)).numpy() + residual
    np.testing.assert_allclose(maps.leave(block(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_critic_has_no_normalisation_unless_asked():
    plain = functions.WganGpCifar10Discriminator(4)
    assert not any("norm" in name for name in plain.state_dict())
    normed = functions.WganGpCifar10Discriminator(4, norm="layer")
    assert sum("norm" in name for name in normed.state_dict()) == 3 * 2 * 2
    with pytest.raises(UserError, match="null, layer, batch or spectral"):
        functions.WganGpCifar10Discriminator(4, norm="instance")
