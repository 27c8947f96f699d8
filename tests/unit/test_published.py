# SPDX-License-Identifier: Apache-2.0
"""The networks of PaddleScience's weights: names, shapes, and outputs.

Outputs are compared with plain NumPy, and with numbers of PaddleScience's own networks in narrow
widths and evaluation mode (tests/golden/published).
"""

import json
import pickle

import numpy as np
import paddle
import pytest
from helpers import GOLDEN

import functions
import wgangp_cifar10
import wgangp_mnist
import wgangp_toy
from modes import recognition
from modes.evaluate import evaluate
from modes.evaluate import read_files
from modes.recognition import adopt_settings
from networks import published
from support import weight_files
from support.errors import UserError

LABELS = np.array([2, 7, 2, 0])


def layer(name, weight, bias):
    return {f"{name}.weight": weight, f"{name}.bias": [bias]}


def cifar10_generator(use_label):
    state = layer("generator.linear1", [128, 2048], 2048)
    for i in (0, 1, 2):
        block = f"generator.ResidualBlocks.{i}"
        state.update(layer(f"{block}.conv_shortcut.conv2D", [128, 128, 1, 1], 128))
        state.update(layer(f"{block}.conv_1.conv2D", [128, 128, 3, 3], 128))
        state.update(layer(f"{block}.conv_2", [128, 128, 3, 3], 128))
        for norm in (f"{block}.normalize1.normalize", f"{block}.normalize2.normalize"):
            if use_label:
                state[f"{norm}.scale"] = state[f"{norm}.offset"] = [10, 128]
                state[f"{norm}.mean"] = state[f"{norm}.var"] = [128]
            else:
                for part in ("weight", "bias", "_mean", "_variance"):
                    state[f"{norm}.{part}"] = [128]
    for part in ("weight", "bias", "_mean", "_variance"):
        state[f"generator.Normalize.normalize.{part}"] = [128]
    return {**state, **layer("generator.conv", [3, 128, 3, 3], 3)}


def cifar10_discriminator():
    first = "discriminator.optimized_resblock_disc1"
    state = layer(f"{first}.conv_1", [128, 3, 3, 3], 128)
    state.update(layer(f"{first}.conv_2.conv2D", [128, 128, 3, 3], 128))
    state.update(layer(f"{first}.conv_shortcut.conv2D", [128, 3, 1, 1], 128))
    for i, conv in ((0, ".conv2D"), (1, ""), (2, "")):
        block = f"discriminator.ResidualBlocks.{i}"
        state.update(layer(f"{block}.conv_shortcut{conv}", [128, 128, 1, 1], 128))
        state.update(layer(f"{block}.conv_1", [128, 128, 3, 3], 128))
        state.update(layer(f"{block}.conv_2{conv}", [128, 128, 3, 3], 128))
        for norm in ("normalize1", "normalize2"):
            for part in ("scale", "offset", "mean", "var"):
                state[f"{block}.{norm}.normalize.{part}"] = [1]
    state.update(layer("discriminator.linear", [128, 1], 1))
    return {**state, **layer("discriminator.linear2", [128, 10], 10)}  # without labels, too


def mnist_generator():
    return {
        **layer("generator.linear1", [128, 4096], 4096),
        **layer("generator.conv2d_transpose1", [256, 128, 5, 5], 128),
        **layer("generator.conv2d_transpose2", [128, 64, 5, 5], 64),
        **layer("generator.conv2d_transpose3", [64, 1, 5, 5], 1),
    }


def mnist_discriminator():
    return {
        **layer("discriminator.conv2d_1", [64, 1, 5, 5], 64),
        **layer("discriminator.conv2d_2", [128, 64, 5, 5], 128),
        **layer("discriminator.conv2d_3", [256, 128, 5, 5], 256),
        **layer("discriminator.linear", [4096, 1], 1),
    }


def toy(network, n_out):
    return {
        **layer(f"{network}.reluLayer1.linear", [2, 512], 512),
        **layer(f"{network}.reluLayer2.linear", [512, 512], 512),
        **layer(f"{network}.reluLayer3.linear", [512, 512], 512),
        **layer(f"{network}.linear", [512, n_out], n_out),
    }


EXPERIMENTS = {
    "cifar10": wgangp_cifar10.Cifar10,
    "mnist": wgangp_mnist.Mnist,
    "toy": wgangp_toy.Toy,
}
full_size = pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (published.PublishedCifar10Generator, cifar10_generator(True)),
        (published.PublishedCifar10Discriminator, cifar10_discriminator()),
        (lambda: published.PublishedCifar10Generator(use_label=False), cifar10_generator(False)),
        (
            lambda: published.PublishedCifar10Discriminator(use_label=False),
            cifar10_discriminator(),
        ),
        (published.PublishedMnistGenerator, mnist_generator()),
        (published.PublishedMnistDiscriminator, mnist_discriminator()),
        (published.PublishedToyGenerator, toy("generator", 2)),
        (published.PublishedToyDiscriminator, toy("discriminator", 1)),
    ],
)


@full_size
def test_names_and_shapes_are_those_of_the_published_files(make, shapes):
    assert {name: value.shape for name, value in make().state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("experiment", "shapes", "use_label"),
    [
        ("cifar10", (cifar10_generator(True), cifar10_discriminator()), True),
        ("cifar10", (cifar10_generator(False), cifar10_discriminator()), False),
        ("mnist", (mnist_generator(), mnist_discriminator()), False),
        ("toy", (toy("generator", 2), toy("discriminator", 1)), None),
    ],
)
def test_published_files_need_no_setting(experiment, shapes, use_label, configure, tmp_path):
    words = []
    for role, parts in zip(("gen", "dis"), shapes):
        # A file holds the width as sizes only, so zeros do.
        write(tmp_path / f"{role}.pdparams", {n: np.zeros(s, "f4") for n, s in parts.items()})
        words.append(f"EVAL.pretrained_{role}_model_path={tmp_path}/{role}")
    made = EXPERIMENTS[experiment](configure(experiment, *words))
    adopt_settings(made, read_files(made.cfg.EVAL, made.script))
    assert made.cfg.MODEL.arch == "published"
    assert made.cfg.MODEL.get("use_label") == use_label
    for network, expected in zip(made.make_networks(), shapes):
        state = network.state_dict()
        assert {name: value.shape for name, value in state.items()} == expected


def randomise(network):
    """Sets random weights and running statistics, and returns them as float64."""
    rng, state = np.random.default_rng(1), {}
    for name, value in network.state_dict().items():
        draw = rng.standard_normal(value.shape)
        if name.endswith(("var", "_variance")):
            state[name] = rng.uniform(0.5, 2.0, value.shape)
        elif value.ndim > 1 and name.endswith("weight"):
            fan_in = value.shape[0] if value.ndim == 2 else value.size // value.shape[0]
            state[name] = draw / np.sqrt(fan_in)
        elif name.endswith(("scale", "weight")):
            state[name] = 1 + 0.5 * draw
        else:
            state[name] = 0.5 * draw
        state[name] = state[name].astype("float32")
    network.set_state_dict(state)
    return {name: value.astype("float64") for name, value in state.items()}


class Plain:
    """The layers, computed in NumPy from the arrays of a file.

    Args:
        state: The arrays of the file, by name.
        top: The level above all names.
    """

    def __init__(self, state, top):
        self.state, self.top = state, top

    def __getitem__(self, name):
        return self.state[f"{self.top}.{name}"]

    def linear(self, name, x):
        return x @ self[f"{name}.weight"] + self[f"{name}.bias"]

    def conv(self, name, x, stride=1):
        """Pads as TensorFlow's "SAME": if the number of pixels is odd, with one more at the end."""
        weight = self[f"{name}.weight"]
        size = weight.shape[2]
        around = (-(-x.shape[2] // stride) - 1) * stride + size - x.shape[2]
        sides = (around // 2, around - around // 2)
        padded = np.pad(x, [(0, 0), (0, 0), sides, sides])
        places = range(0, x.shape[2], stride)
        rows = [
            [
                np.tensordot(padded[:, :, y : y + size, z : z + size], weight, ([1, 2, 3],) * 2)
                for z in places
            ]
            for y in places
        ]
        return np.array(rows).transpose(2, 3, 0, 1) + self[f"{name}.bias"][:, None, None]

    def conv_transpose(self, name, x, size, cut):
        """Adds a kernel at every second place, and cuts pixels off at the top and left."""
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        scattered = np.zeros((len(x), len(bias), 40, 40))
        for y in range(x.shape[2]):
            for z in range(x.shape[3]):
                kernels = np.tensordot(x[:, :, y, z], weight, 1)
                scattered[:, :, 2 * y : 2 * y + 5, 2 * z : 2 * z + 5] += kernels
        return scattered[:, :, cut : cut + size, cut : cut + size] + bias[:, None, None]

    def batch_norm(self, name, x):
        parts = (self[f"{name}.{part}"] for part in ("weight", "bias", "_mean", "_variance"))
        scale, offset, mean, variance = (part[:, None, None] for part in parts)
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + offset

    def conditional_norm(self, name, x):
        mean, variance = (self[f"{name}.{part}"][:, None, None] for part in ("mean", "var"))
        rows = (self[f"{name}.{part}"][LABELS][:, :, None, None] for part in ("scale", "offset"))
        scale, offset = rows
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + offset

    def layer_norm(self, name, x):
        scale, offset, mean, variance = (
            self[f"{name}.{part}"].item() for part in ("scale", "offset", "mean", "var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + offset


def relu(x):
    return np.maximum(x, 0)


def shuffle(x):
    count, channels, height, width = x.shape
    y = np.empty((count, channels, 2 * height, 2 * width))
    for c in range(channels):
        for i in (0, 1):
            for j in (0, 1):
                y[:, c, i::2, j::2] = x[:, (4 * c + 2 * i + j) % channels]
    return y


def mean_pool(x):
    return sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4


def plain_cifar10_generator(net, noise):
    conditional = "generator.ResidualBlocks.0.normalize1.normalize.scale" in net.state
    norm = net.conditional_norm if conditional else net.batch_norm
    h = net.linear("linear1", noise)
    h = h.reshape(len(h), -1, 4, 4)
    for i in (0, 1, 2):
        block = f"ResidualBlocks.{i}"
        shortcut = net.conv(f"{block}.conv_shortcut.conv2D", shuffle(h))
        h = shuffle(relu(norm(f"{block}.normalize1.normalize", h)))
        h = net.conv(f"{block}.conv_1.conv2D", h)
        h = relu(norm(f"{block}.normalize2.normalize", h))
        h = net.conv(f"{block}.conv_2", h) + shortcut
    return np.tanh(net.conv("conv", relu(net.batch_norm("Normalize.normalize", h))))


def plain_cifar10_critic(net, x):
    first = "optimized_resblock_disc1"
    h = mean_pool(net.conv(f"{first}.conv_2.conv2D", relu(net.conv(f"{first}.conv_1", x))))
    h = h + net.conv(f"{first}.conv_shortcut.conv2D", mean_pool(x))
    for i in (0, 1, 2):
        block, shortcut, name = f"ResidualBlocks.{i}", h, "conv_2"
        if i == 0:
            shortcut = mean_pool(net.conv(f"{block}.conv_shortcut.conv2D", h))
            name = "conv_2.conv2D"
        h = relu(net.layer_norm(f"{block}.normalize1.normalize", h))
        h = net.conv(f"{block}.conv_1", h)
        h = relu(net.layer_norm(f"{block}.normalize2.normalize", h))
        h = net.conv(f"{block}.{name}", h)
        h = (mean_pool(h) if i == 0 else h) + shortcut
    h = relu(h).mean((2, 3))
    return net.linear("linear", h)[:, 0], net.linear("linear2", h)


def plain_mnist_generator(net, noise):
    h = relu(net.linear("linear1", noise))
    h = h.reshape(len(h), -1, 4, 4)
    h = relu(net.conv_transpose("conv2d_transpose1", h, 7, 1))
    h = relu(net.conv_transpose("conv2d_transpose2", h, 14, 2))
    return 1 / (1 + np.exp(-net.conv_transpose("conv2d_transpose3", h, 28, 1)))


def plain_mnist_critic(net, x):
    for i in (1, 2, 3):
        x = net.conv(f"conv2d_{i}", x, stride=2)
        x = np.where(x > 0, x, 0.01 * x)
    # Channels, then rows, then columns.
    return net.linear("linear", x.reshape(len(x), -1))[:, 0], None


def plain_toy(net, x):
    for i in (1, 2, 3):
        x = relu(net.linear(f"reluLayer{i}.linear", x))
    return net.linear("linear", x)


def plain_toy_critic(net, x):
    return plain_toy(net, x)[:, 0], None


def close(actual, expected):
    assert expected.std() > 0.04  # Otherwise there would be little to compare.
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "plain"),
    [
        (lambda: published.PublishedCifar10Generator(8, 5), plain_cifar10_generator),
        (lambda: published.PublishedCifar10Generator(8, 5, False), plain_cifar10_generator),
        (lambda: published.PublishedMnistGenerator(2, 5), plain_mnist_generator),
        (lambda: published.PublishedToyGenerator(6), plain_toy),
    ],
)
def test_generators_against_numpy(make, plain):
    generator = make()
    net = Plain(randomise(generator), "generator")
    noise = paddle.randn([4, generator.noise_dim])
    inputs = {"noise": noise, "labels": paddle.to_tensor(LABELS)}
    fake = generator({key: inputs[key] for key in generator.input_keys})["fake"]
    close(fake, plain(net, noise.numpy().astype("float64")))


@pytest.mark.parametrize(
    ("make", "plain", "shape"),
    [
        (lambda: published.PublishedCifar10Discriminator(4), plain_cifar10_critic, [3, 32, 32]),
        (
            lambda: published.PublishedCifar10Discriminator(4, use_label=False),
            lambda net, x: (plain_cifar10_critic(net, x)[0], None),
            [3, 32, 32],
        ),
        (lambda: published.PublishedMnistDiscriminator(2), plain_mnist_critic, [1, 28, 28]),
        (lambda: published.PublishedToyDiscriminator(6), plain_toy_critic, [2]),
    ],
)
def test_critics_against_numpy(make, plain, shape):
    critic = make()
    net = Plain(randomise(critic), "discriminator")
    # Different contrasts, since the critic's mean over pixels makes all noise alike.
    contrasts = paddle.to_tensor([0.5, 1.0, 2.0, 4.0]).reshape([4] + [1] * len(shape))
    samples = paddle.randn([4, *shape]) * contrasts
    expected = plain(net, samples.numpy().astype("float64"))
    values, logits = critic.score(samples)
    close(values, expected[0])
    assert (logits is None) == (expected[1] is None)
    if logits is not None:
        close(logits, expected[1])
    assert functions.gradient_norm(critic, samples).shape == [4]


def test_upsampling_mixes_channels():
    x = paddle.arange(128, dtype="float32").reshape([1, 128, 1, 1])
    y = published.Upsample()(x).numpy()[0]
    assert y.shape == (128, 2, 2)
    for i in (1, 2, 3):
        np.testing.assert_array_equal(np.roll(y, 32 * i, 0), y)
    # For each of the four pixels one channel stays where it was: 0.8%.
    assert (y == x.numpy()[0]).mean() == 1 / 128


def test_norms_divide_by_the_root_of_variance_plus_epsilon():
    """With a variance as small as epsilon, 1e-5."""
    x = paddle.full([1, 2, 1, 1], 0.01)
    for norm, names in (
        (published.BatchNorm(2), ("_mean", "_variance")),
        (published.StoredNorm(2), ("mean", "var")),
    ):
        state = dict(norm.state_dict())
        state[names[0]].set_value(paddle.zeros([2]))
        state[names[1]].set_value(paddle.full([2], 1e-5))
        expected = 0.01 / np.sqrt(2e-5)
        np.testing.assert_allclose(norm(x).numpy().ravel(), [expected] * 2, rtol=1e-4)


@pytest.mark.parametrize("use_label", [True, False])
def test_training_mode_uses_the_stored_statistics_too(use_label):
    generator = published.PublishedCifar10Generator(4, 5, use_label)
    state = randomise(generator)
    noise, labels = paddle.randn([4, 5]), paddle.to_tensor(LABELS)
    generator.train()
    samples = generator.generate(noise, labels).numpy()
    assert np.abs(samples[0] - samples[1:]).max() > 0.1
    generator.eval()
    np.testing.assert_array_equal(generator.generate(noise, labels).numpy(), samples)
    for name, value in generator.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name])


def write(path, state):
    """A file as `paddle.save` writes it, which adds a table of names inside the program."""
    table = {name: f"layer_{i}.w_0" for i, name in enumerate(state)}
    path.write_bytes(pickle.dumps({**state, "StructuredToParameterName@@": table}, protocol=4))


@full_size
def test_a_published_file_is_loaded(make, shapes, tmp_path):
    rng = np.random.default_rng(2)
    state = {name: rng.random(shape, "float32") for name, shape in shapes.items()}
    write(tmp_path / "model.pdparams", state)
    network = make()
    weight_files.load_weights(network, str(tmp_path / "model"), "EVAL.x")
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name], err_msg=name)


@pytest.mark.parametrize(
    ("make", "make_other", "problem"),
    [
        (
            lambda: published.PublishedCifar10Generator(4),
            lambda: functions.WganGpCifar10Generator(4),
            "missing: generator.linear1.weight",
        ),
        (
            lambda: published.PublishedCifar10Generator(4),
            lambda: published.PublishedCifar10Generator(4, use_label=False),
            "missing: generator.ResidualBlocks.0.normalize1.normalize.scale",
        ),
        (
            lambda: published.PublishedMnistDiscriminator(2),
            lambda: functions.WganGpMnistDiscriminator(2),
            "missing: discriminator.conv2d_1.weight",
        ),
        (
            lambda: published.PublishedToyGenerator(4),
            lambda: published.PublishedToyGenerator(5),
            "misshapen: generator.reluLayer1.linear.weight [2, 5] where [2, 4] is expected",
        ),
    ],
)
def test_a_file_of_another_network_is_refused(make, make_other, problem, tmp_path):
    network = make()
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    weight_files.save_weights(make_other(), str(tmp_path / "model.pdparams"))
    with pytest.raises(UserError) as error:
        weight_files.load_weights(network, str(tmp_path / "model"), "EVAL.x")
    message = f"does not fit {type(network).__name__}, and was not loaded. {problem}"
    assert message in str(error.value)
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


SOURCES = {
    "cifar10": "mode=eval EVAL.num_samples=50 DATA.source=synthetic EVAL.inception=false",
    "mnist": "mode=eval EVAL.num_samples=50 DATA.source=digits",
    "toy": "mode=eval EVAL.num_samples=50",
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_mode_eval_takes_published_weights(experiment, configure, tmp_path, monkeypatch):
    make, tiny = EXPERIMENTS[experiment], "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4"
    networks = make(configure(experiment, tiny, "MODEL.arch=published")).make_networks()
    paths = []
    for network, role in zip(networks, ("gen", "dis")):
        path = tmp_path / f"model_{role}_{experiment}.pdparams"
        paddle.save(network.state_dict(), str(path))
        paths.append(f"EVAL.pretrained_{role}_model_path={path}")
    evaluated = make(configure(experiment, SOURCES[experiment], *paths))
    evaluate(evaluated)
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    evaluated.make_drawer(*networks)(str(tmp_path / "own.png"))
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "samples.png").read_bytes()
    # Settings of other networks are refused, with their names.
    monkeypatch.setattr(recognition, "list_given", lambda *_: {"MODEL.arch"})
    with pytest.raises(UserError, match="MODEL.arch=paper was given, but .* of MODEL.arch=publish"):
        evaluate(make(configure(experiment, SOURCES[experiment], *paths)))


GOLDEN_NETWORKS = {
    "cifar10_generator_conditional": lambda: published.PublishedCifar10Generator(8),
    "cifar10_generator_unconditional": lambda: published.PublishedCifar10Generator(
        8, use_label=False
    ),
    "cifar10_discriminator_conditional": lambda: published.PublishedCifar10Discriminator(8),
    "cifar10_discriminator_unconditional": lambda: published.PublishedCifar10Discriminator(
        8, use_label=False
    ),
    "mnist_generator": lambda: published.PublishedMnistGenerator(4),
    "mnist_discriminator": lambda: published.PublishedMnistDiscriminator(4),
}


def largest_difference(name, network, tmp_path):
    """How far the outputs of a network are from those of PaddleScience's with the same weights."""
    parts = {"weights": {}, "inputs": {}, "outputs": {}}
    with np.load(GOLDEN / "published" / f"{name}.npz") as arrays:
        for key, array in arrays.items():
            part, _, rest = key.partition("/")
            parts[part][rest] = array
    write(tmp_path / "golden.pdparams", parts["weights"])
    weight_files.load_weights(network, str(tmp_path / "golden"), "EVAL.x")
    network.eval()
    inputs = {key: paddle.to_tensor(value) for key, value in parts["inputs"].items()}
    if "discriminator" in name:
        value, logits = network.score(inputs["real"])
        found = {"value": value} if logits is None else {"value": value, "logits": logits}
    else:
        found = {"fake": network({key: inputs[key] for key in network.input_keys})["fake"]}
    assert found.keys() == parts["outputs"].keys()
    return max(np.abs(found[key].numpy() - parts["outputs"][key]).max() for key in found)


@pytest.mark.parametrize("name", GOLDEN_NETWORKS)
def test_outputs_are_those_of_paddlescience(name, tmp_path):
    assert largest_difference(name, GOLDEN_NETWORKS[name](), tmp_path) < 1e-5


def pad_by_two(network, monkeypatch):
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.Conv2D):
            layer._padding, layer._updated_padding = 2, [2, 2]
            layer._padding_algorithm = "EXPLICIT"
        elif isinstance(layer, paddle.nn.Conv2DTranspose):
            layer._padding = 2
            layer.output_padding = 1


def leave_out_norms(network, monkeypatch):
    monkeypatch.setattr(published.StoredNorm, "forward", lambda self, x, labels=None: x)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mnist_generator", pad_by_two),
        ("mnist_discriminator", pad_by_two),
        ("cifar10_discriminator_conditional", leave_out_norms),
        ("cifar10_generator_conditional", leave_out_norms),
    ],
)
def test_outputs_of_other_networks_are_not_those_of_paddlescience(
    name, change, tmp_path, monkeypatch
):
    network = GOLDEN_NETWORKS[name]()
    change(network, monkeypatch)
    assert largest_difference(name, network, tmp_path) > 1e-3
