# SPDX-License-Identifier: Apache-2.0
"""The networks: sizes, initialisation, and each piece against a plain computation."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import functions
from networks.layers import make_conv
from networks.layers import make_conv_transpose
from networks.layers import make_linear
from networks.normalisation import BatchNorm
from networks.normalisation import LayerNorm
from networks.normalisation import NoNorm
from networks.normalisation import use_statistics
from support.errors import UserError


def count(network):
    return sum(int(np.prod(weight.shape)) for weight in network.parameters())


def conv_weights(n_in, n_out, size):
    return n_in * n_out * size**2 + n_out


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
    convs = sum(conv_weights(b, a, 5) for b, a in sizes)
    assert count(generator) == 128 * 4096 + 4096 + convs
    convs = sum(conv_weights(a, b, 5) for b, a in sizes)
    assert count(critic) == convs + 4096 + 1
    digits = generator({"noise": paddle.randn([3, 128])})["fake"]
    assert digits.shape == [3, 1, 28, 28]
    assert 0 <= float(digits.min()) <= float(digits.max()) <= 1
    h = digits
    # TensorFlow's padding, 28 -> 14 -> 7 -> 4
    for layer, before in ((critic.conv_1, 1), (critic.conv_2, 1), (critic.conv_3, 2)):
        h = F.pad(h, [before, 2, before, 2])
        h = F.leaky_relu(F.conv2d(h, layer.weight, layer.bias, stride=2), 0.2)
    expected = F.linear(h.flatten(1), critic.linear.weight, critic.linear.bias).squeeze(1)
    np.testing.assert_allclose(critic.score(digits)[0].numpy(), expected.numpy(), rtol=1e-4)


@pytest.mark.parametrize("use_label", [True, False])
def test_cifar10_networks(use_label):
    generator = functions.WganGpCifar10Generator(use_label=use_label)
    critic = functions.WganGpCifar10Discriminator(use_label=use_label)
    c3, c1 = conv_weights(128, 128, 3), conv_weights(128, 128, 1)
    norms = 2 * 128 * (10 if use_label else 1)
    blocks = 3 * (2 * c3 + c1 + 2 * norms)
    assert count(generator) == 128 * 2048 + 2048 + blocks + 256 + conv_weights(128, 3, 3)
    first = conv_weights(3, 128, 3) + c3 + conv_weights(3, 128, 1)
    # of the blocks after the first, only `down` has a convolution in its shortcut
    heads = 129 + (1290 if use_label else 0)
    assert count(critic) == first + 6 * c3 + c1 + heads

    inputs = {"noise": paddle.randn([4, 128]), "labels": paddle.to_tensor([0, 1, 9, 9])}
    images = generator({key: inputs[key] for key in generator.input_keys})["fake"]
    assert images.shape == [4, 3, 32, 32]
    assert -1 <= float(images.min()) <= float(images.max()) <= 1
    value, logits = critic.score(images)
    assert value.shape == [4]
    assert logits.shape == [4, 10] if use_label else logits is None


def test_label_changes_the_picture_of_the_same_noise():
    generator = functions.WganGpCifar10Generator(8)
    for block in generator.blocks:
        block.norm_1.scale.set_value(paddle.rand([10, 8]))
    noise = paddle.tile(paddle.randn([1, 128]), [2, 1])
    same = generator.generate(noise, paddle.to_tensor([3, 3])).numpy()
    other = generator.generate(noise, paddle.to_tensor([3, 4])).numpy()
    np.testing.assert_allclose(same[0], same[1], atol=1e-6)
    assert np.abs(other[0] - other[1]).max() > 1e-2


@pytest.mark.parametrize(
    ("layer", "std"),
    [
        (lambda: make_linear(300, 500), np.sqrt(2 / 800)),
        (lambda: make_linear(300, 500, "he"), np.sqrt(2 / 300)),
        (lambda: make_conv(64, 128, 3), np.sqrt(4 / (9 * 64 + 9 * 128))),
        (lambda: make_conv(64, 128, 1, he=False), np.sqrt(2 / (64 + 128))),
        (lambda: make_conv(64, 128, 5, stride=2), np.sqrt(4 / (25 * 64 + 25 * 128 / 4))),
        (lambda: make_conv_transpose(128, 64, 5), np.sqrt(4 / (25 * 128 / 4 + 25 * 64))),
    ],
)
def test_initialisation_is_uniform_of_the_authors_deviation(layer, std):
    layer = layer()
    weight = layer.weight.numpy()
    assert weight.std() == pytest.approx(std, rel=0.02)
    assert np.abs(weight).max() == pytest.approx(std * np.sqrt(3), rel=0.01)
    assert not layer.bias.numpy().any()


def test_which_layers_of_cifar10_are_he_and_which_glorot():
    generator, critic = functions.WganGpCifar10Generator(), functions.WganGpCifar10Discriminator()
    he, glorot = np.sqrt(4 / (9 * 256)), np.sqrt(2 / 256)
    block = generator.blocks[0]
    deviations = {
        he: [block.conv_1, block.conv_2, critic.first.conv_2, critic.blocks[1].conv_1],
        glorot: [block.conv_shortcut, critic.blocks[0].conv_shortcut],
        np.sqrt(2 / (9 * 131)): [generator.conv],
        np.sqrt(4 / (9 * 131)): [critic.first.conv_1],
        np.sqrt(2 / 131): [critic.first.conv_shortcut],
        np.sqrt(2 / (128 + 2048)): [generator.linear],
    }
    for std, layers in deviations.items():
        for layer in layers:
            assert layer.weight.numpy().std() == pytest.approx(std, rel=0.05)


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


def plain_linear(x, layer):
    return F.linear(x, layer.weight, layer.bias)


def plain_conv(x, layer):
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def plain_double(x):
    return F.interpolate(x, scale_factor=2)  # nearest


def plain_norm(x, norm, labels=None):
    """Batch normalisation written out, with a scale and an offset per label or for all."""
    mean = x.mean([0, 2, 3], keepdim=True)
    h = (x - mean) / ((x - mean).square().mean([0, 2, 3], keepdim=True) + 1e-5).sqrt()
    rows = [0] * len(x) if labels is None else labels.tolist()
    scale, offset = (part.numpy()[rows][:, :, None, None] for part in (norm.scale, norm.offset))
    return h * paddle.to_tensor(scale) + paddle.to_tensor(offset)


def plain_mlp(network, x):
    *hidden, last = (layer for layer in network.layers if hasattr(layer, "weight"))
    for layer in hidden:
        x = F.relu(plain_linear(x, layer))
    return plain_linear(x, last)


def plain_mnist_generator(network, noise, labels):
    h = F.relu(plain_linear(noise, network.linear)).reshape([len(noise), 12, 4, 4])
    for number, layer in enumerate((network.deconv_1, network.deconv_2, network.deconv_3)):
        # TensorFlow's, by hand: a gap between pixels, a correlation with the kernel turned round
        wide = paddle.zeros([*h.shape[:2], 2 * h.shape[2], 2 * h.shape[3]])
        wide[:, :, ::2, ::2] = h
        kernel = layer.weight.transpose([1, 0, 2, 3]).flip([2, 3])
        h = F.conv2d(F.pad(wide, [3, 1, 3, 1]), kernel, layer.bias)
        h = F.relu(h) if number < 2 else F.sigmoid(h)
        h = h[:, :, :7, :7] if number == 0 else h
    return h


def plain_cifar10_generator(network, noise, labels):
    x = plain_linear(noise, network.linear).reshape([len(noise), 3, 4, 4])
    for block in network.blocks:
        h = plain_conv(plain_double(F.relu(plain_norm(x, block.norm_1, labels))), block.conv_1)
        h = plain_conv(F.relu(plain_norm(h, block.norm_2, labels)), block.conv_2)
        x = h + plain_conv(plain_double(x), block.conv_shortcut)
    return F.tanh(plain_conv(F.relu(plain_norm(x, network.norm)), network.conv))


def plain_cifar10_critic(network, x):
    first = network.first
    h = plain_conv(F.relu(plain_conv(x, first.conv_1)), first.conv_2)
    x = F.avg_pool2d(h, 2) + plain_conv(F.avg_pool2d(x, 2), first.conv_shortcut)
    for number, block in enumerate(network.blocks):
        h = plain_conv(F.relu(plain_conv(F.relu(x), block.conv_1)), block.conv_2)
        if number == 0:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(plain_conv(x, block.conv_shortcut), 2)
        x = h + x
    h = F.relu(x).mean([2, 3])
    head = network.linear_class
    return plain_linear(h, network.linear)[:, 0], None if head is None else plain_linear(h, head)


def randomise(network):
    """Weights that are not those of a fresh network, whose biases are zeros."""
    for weight in network.parameters():
        weight.set_value(paddle.uniform(weight.shape, min=-0.4, max=0.4))
    return network


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
    assert float(samples.std()) > 0.05  # neither all grey nor all cut off
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
    """The block by NumPy's repeat and mean, its convolutions by Paddle."""
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
    np.testing.assert_allclose(block(x).numpy(), plain_block(block, x), rtol=1e-4, atol=1e-5)


def test_first_block_pools_the_shortcut_before_its_convolution():
    block, x = functions.FirstCriticBlock(5), paddle.randn([2, 3, 8, 8])
    pooled = x.numpy().reshape(2, 3, 4, 2, 4, 2).mean((3, 5))
    residual = block.conv_2(F.relu(block.conv_1(x))).numpy()
    residual = residual.reshape(2, 5, 4, 2, 4, 2).mean((3, 5))
    expected = block.conv_shortcut(paddle.to_tensor(pooled)).numpy() + residual
    np.testing.assert_allclose(block(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_uses_batch_statistics_also_in_eval_mode():
    norm, x = BatchNorm(3), paddle.randn([5, 3, 4, 4]) * 3 + 2
    array = x.numpy()
    mean, variance = (f((0, 2, 3), keepdims=True) for f in (array.mean, array.var))
    expected = (array - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(norm(x).numpy(), expected, atol=1e-5)
    norm.eval()
    np.testing.assert_allclose(norm(x).numpy(), expected, atol=1e-5)


def test_conditional_batch_norm_scales_per_label():
    norm, plain, x = BatchNorm(3, 10), BatchNorm(3), paddle.randn([4, 3, 4, 4])
    scale, offset = paddle.rand([10, 3]), paddle.rand([10, 3])
    norm.scale.set_value(scale)
    norm.offset.set_value(offset)
    labels = np.array([2, 7, 7, 0])
    expected = plain(x).numpy() * scale.numpy()[labels][:, :, None, None]
    expected += offset.numpy()[labels][:, :, None, None]
    for mode in (norm.train, norm.eval):  # by the batch's statistics in both
        mode()
        np.testing.assert_allclose(norm(x, paddle.to_tensor(labels)).numpy(), expected, atol=1e-5)


def test_layer_norm_against_paddle():
    norm, x = LayerNorm(3), paddle.randn([5, 3, 4, 4]) * 3 + 2
    expected = F.layer_norm(x, x.shape[1:], epsilon=1e-5).numpy()
    np.testing.assert_allclose(norm(x).numpy(), expected, atol=1e-5)


def test_critic_has_no_normalisation_unless_asked():
    plain = functions.WganGpCifar10Discriminator(4)
    assert not any("norm" in name for name in plain.state_dict())
    normed = functions.WganGpCifar10Discriminator(4, norm="layer")
    assert sum("norm" in name for name in normed.state_dict()) == 3 * 2 * 2
    with pytest.raises(UserError, match="null, layer or batch"):
        functions.WganGpCifar10Discriminator(4, norm="instance")


def test_real_samples_get_no_gradient():
    critic, real = functions.WganGpToyDiscriminator(4), paddle.randn([3, 2])
    real.stop_gradient = False
    critic({"real": real})["value_real"].sum().backward()
    assert real.grad is None


def test_running_averages_follow_a_tenth_of_each_training_batch():
    norm = BatchNorm(3)
    use_statistics(paddle.nn.Sequential(norm), "running")
    mean, variance = np.zeros(3), np.ones(3)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = (5 + 2 * rng.standard_normal((4, 3, 5, 5))).astype("float32")
        norm(paddle.to_tensor(x))
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * x.var((0, 2, 3))
    np.testing.assert_allclose(norm.running_mean.numpy().ravel(), mean, rtol=1e-5)
    np.testing.assert_allclose(norm.running_variance.numpy().ravel(), variance, rtol=1e-5)
    norm.eval()
    expected = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
    np.testing.assert_allclose(norm(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
