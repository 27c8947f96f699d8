# SPDX-License-Identifier: Apache-2.0
"""How every weight of the paper's networks begins: its distribution, bounds and constants."""

import authors
import numpy as np
import pytest

import functions

CONSTANTS = {
    **{"bias": 0, "offset": 0, "scale": 1},
    **{"running_mean": 0, "running_variance": 1},
}


def glorot(fan_in, fan_out):
    return np.sqrt(2 / (fan_in + fan_out))


def he_like(fan_in, fan_out):
    return np.sqrt(4 / (fan_in + fan_out))


def he(fan_in):
    return np.sqrt(2 / fan_in)


# The standard deviation of each layer's weights, by the networks' width. A stride of 2 divides the
# fan-out of a convolution by 4, and the fan-in of a transposed one.
def cifar10_generator(dim):
    blocks = {
        f"blocks.{number}.{name}": deviation
        for number in range(3)
        for name, deviation in (
            ("conv_1", he_like(9 * dim, 9 * dim)),
            ("conv_2", he_like(9 * dim, 9 * dim)),
            ("conv_shortcut", glorot(dim, dim)),
        )
    }
    ends = {"linear": glorot(128, 4 * 4 * dim), "conv": glorot(9 * dim, 9 * 3)}
    return {**blocks, **ends}


def cifar10_critic(dim, classes=10):
    convs = [f"blocks.{number}.conv_{conv}" for number in range(3) for conv in (1, 2)]
    return {
        "first.conv_1": he_like(9 * 3, 9 * dim),
        "first.conv_2": he_like(9 * dim, 9 * dim),
        "first.conv_shortcut": glorot(3, dim),
        **dict.fromkeys(convs, he_like(9 * dim, 9 * dim)),
        "blocks.0.conv_shortcut": glorot(dim, dim),
        "linear": glorot(dim, 1),
        **({"linear_class": glorot(dim, classes)} if classes else {}),
    }


def mnist_generator(dim):
    return {
        "linear": glorot(128, 4 * 4 * 4 * dim),
        "deconv_1": he_like(25 * 4 * dim / 4, 25 * 2 * dim),
        "deconv_2": he_like(25 * 2 * dim / 4, 25 * dim),
        "deconv_3": he_like(25 * dim / 4, 25),
    }


def mnist_critic(dim):
    return {
        "conv_1": he_like(25, 25 * dim / 4),
        "conv_2": he_like(25 * dim, 25 * 2 * dim / 4),
        "conv_3": he_like(25 * 2 * dim, 25 * 4 * dim / 4),
        "linear": glorot(4 * 4 * 4 * dim, 1),
    }


def toy_network(dim, n_out):
    hidden = {"layers.0": he(2), "layers.2": he(dim), "layers.4": he(dim)}
    return {**hidden, "layers.6": glorot(dim, n_out)}


FULL_WIDTH = {
    "cifar10 generator": (functions.WganGpCifar10Generator, {}, cifar10_generator(128)),
    "cifar10 generator no label": (
        *(functions.WganGpCifar10Generator, {"use_label": False}, cifar10_generator(128)),
    ),
    "cifar10 critic": (functions.WganGpCifar10Discriminator, {}, cifar10_critic(128)),
    "cifar10 critic no label": (
        *(functions.WganGpCifar10Discriminator, {"use_label": False}, cifar10_critic(128, 0)),
    ),
    "mnist generator": (functions.WganGpMnistGenerator, {}, mnist_generator(64)),
    "mnist critic": (functions.WganGpMnistDiscriminator, {}, mnist_critic(64)),
    "toy generator": (functions.WganGpToyGenerator, {}, toy_network(512, 2)),
    "toy critic": (functions.WganGpToyDiscriminator, {}, toy_network(512, 1)),
}
# The authors' own draws, of narrow networks: their biases, scales and offsets are not the first.
AUTHORS = {
    ("cifar_acgan", "generator"): cifar10_generator(8),
    ("cifar_acgan", "critic"): cifar10_critic(8),
    ("cifar_uncond", "generator"): cifar10_generator(8),
    ("cifar_uncond", "critic"): cifar10_critic(8, 0),
    ("mnist", "generator"): mnist_generator(4),
    ("mnist", "critic"): mnist_critic(4),
    ("toy", "generator"): toy_network(32, 2),
    ("toy", "critic"): toy_network(32, 1),
}


def is_uniform(weight, deviation):
    """Whether numbers may be draws from U[-b, b] of a standard deviation, by bounds and moments.

    Each end of the range is missed by 28 / n of b with probability exp(-14) or so. Mean and
    deviation scatter by their formulas; five times that is allowed.
    """
    bound, count = deviation * np.sqrt(3), weight.size
    ends = np.array([-weight.min(), weight.max()]) / bound
    return (
        (ends <= 1 + 1e-6).all()
        and (ends >= 1 - 28 / count).all()
        and abs(weight.mean()) <= 5 * deviation / np.sqrt(count)
        and abs(weight.std() / deviation - 1) <= 5 * np.sqrt(0.2 / count)
    )


@pytest.mark.parametrize("name", FULL_WIDTH)
def test_every_tensor_begins_as_in_the_authors_code(name):
    make, options, deviations = FULL_WIDTH[name]
    expected = {f"{layer}.weight": deviation for layer, deviation in deviations.items()}
    for key, tensor in make(**options).state_dict().items():
        kind = key.rsplit(".", 1)[-1]
        if kind in CONSTANTS:
            assert (tensor.numpy() == CONSTANTS[kind]).all(), key
        else:
            assert is_uniform(tensor.numpy(), expected.pop(key)), key
    assert not expected  # each layer was there


@pytest.mark.parametrize(("case", "network"), AUTHORS)
def test_expected_deviations_are_those_of_the_authors_draws(case, network):
    expected = {f"{layer}.weight": value for layer, value in AUTHORS[case, network].items()}
    for key, weight in authors.part(case, f"weights/{network}").items():
        if key.endswith(".weight"):
            assert is_uniform(weight, expected.pop(key)), key
    assert not expected


OTHERS = {
    "of another deviation": lambda rng: rng.uniform(-np.sqrt(6), np.sqrt(6), 128),
    "of the deviation as its bound": lambda rng: rng.uniform(-1, 1, 128),
    "normal": lambda rng: rng.normal(0, 1, 128),
    "positive": lambda rng: rng.uniform(0, np.sqrt(3), 128),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_distributions_are_told_apart(name):
    rng = np.random.default_rng(0)
    assert is_uniform(rng.uniform(-np.sqrt(3), np.sqrt(3), 128), 1.0)
    assert not is_uniform(OTHERS[name](rng), 1.0)
