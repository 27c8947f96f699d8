# SPDX-License-Identifier: Apache-2.0
"""Samples from fixed noise."""

import numpy as np
import paddle
import pytest

import functions
from measures import sampling
from networks import dcgan
from support import pictures


@pytest.fixture
def generator():
    return functions.WganGpCifar10Generator(4, 128, True)


def test_grid_inputs_have_a_class_per_column_and_a_noise_per_row(generator):
    inputs = {
        key: value.numpy() for key, value in sampling.grid_inputs(generator, 3, 12, 0).items()
    }
    assert inputs["labels"].reshape(3, 12).tolist() == [[*range(10), 0, 1]] * 3
    noise = inputs["noise"].reshape(3, 12, 128)
    assert (noise == noise[:, :1]).all() and (noise[0] != noise[1]).all()
    expected = np.random.default_rng((0, 5)).standard_normal((3, 1, 128), "float32")
    np.testing.assert_array_equal(noise[:, :1], expected)


def test_grid_inputs_without_labels_are_noise_only():
    generator = functions.WganGpToyGenerator(4)
    first, again, other = (sampling.grid_inputs(generator, 3, 4, seed) for seed in (1, 1, 2))
    assert list(first) == ["noise"]
    expected = np.random.default_rng((1, 5)).standard_normal((12, 2), "float32")
    np.testing.assert_array_equal(first["noise"].numpy(), expected)
    np.testing.assert_array_equal(first["noise"].numpy(), again["noise"].numpy())
    assert (first["noise"].numpy() != other["noise"].numpy()).all()


@pytest.mark.parametrize("is_training", [True, False])
def test_sample_leaves_mode_and_running_averages_alone(generator, is_training):
    inputs = sampling.grid_inputs(generator, 2, 10, 0)
    generator.train() if is_training else generator.eval()
    before = [buffer.numpy().copy() for buffer in generator.buffers()]
    assert sampling.sample(generator, inputs).shape == (20, 3, 32, 32)
    assert all(layer.training is is_training for layer in generator.sublayers(include_self=True))
    for buffer, kept in zip(generator.buffers(), before):
        np.testing.assert_array_equal(buffer.numpy(), kept)
    generator.train()
    generator(inputs)
    assert any((b.numpy() != kept).any() for b, kept in zip(generator.buffers(), before))


def test_sample_restores_the_mode_after_an_error(generator):
    with pytest.raises(KeyError):
        sampling.sample(generator, {"noise": paddle.zeros([2, 128])})
    assert all(layer.training for layer in generator.sublayers(include_self=True))


@pytest.mark.parametrize(("classes", "shape"), [(3, (10, 10)), (12, (5, 20)), (300, (1, 100))])
def test_a_grid_shows_as_many_classes_as_it_has_places(classes, shape, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(sampling, "sample", lambda _, inputs: seen.append(inputs["labels"].numpy()))
    monkeypatch.setattr(pictures, "save_grid", lambda *_: None)
    generator = dcgan.Dcgan64Generator(1, num_classes=classes)
    sampling.make_grid_drawer(generator, 3)(str(tmp_path / "x.png"))
    assert seen[0].reshape(shape).tolist() == [[n % classes for n in range(shape[1])]] * shape[0]


def test_grid_drawer_draws_the_same_samples_each_time(generator, tmp_path):
    draw = sampling.make_grid_drawer(generator, 3)
    first, second, expected = (str(tmp_path / f"{name}.png") for name in ("a", "b", "c"))
    draw(first)
    draw(second)
    samples = sampling.sample(generator, sampling.grid_inputs(generator, 10, 10, 3))
    pictures.save_grid(samples, expected, -1.0)
    for path in (first, second):
        np.testing.assert_array_equal(pictures.read_picture(path), pictures.read_picture(expected))
