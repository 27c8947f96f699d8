# SPDX-License-Identifier: Apache-2.0
"""mode=infer: pictures, points, classes, and a strip between two noises."""

import numpy as np
import paddle
import pytest
from helpers import GENERATORS
from PIL import Image

import functions
import wgangp_cifar10
import wgangp_mnist
import wgangp_toy
from modes.infer import draw_samples
from modes.infer import infer
from modes.infer import interpolate
from modes.sample_files import save_frames
from modes.samplers import live_sampler
from networks.normalisation import use_statistics
from support import pictures
from support import weight_files
from support.errors import UserError


@pytest.fixture
def cifar10(tmp_path, configure):
    """The CIFAR-10 experiment with the weights of a narrow conditional generator."""
    weight_files.save_weights(functions.WganGpCifar10Generator(4), str(tmp_path / "c.pdparams"))

    def make(overrides):
        weights = f"MODEL.gen_net.dim=4 INFER.pretrained_model_path={tmp_path}/c"
        return wgangp_cifar10.Cifar10(configure("cifar10", "mode=infer", weights, overrides))

    return make


@pytest.mark.parametrize("label", ["cat", "1.5", "true", "10", "-1"])
def test_a_label_that_cannot_be_is_refused(cifar10, label):
    experiment = cifar10(f"INFER.label={label}")
    with pytest.raises(UserError, match="must be a whole number from 0 to 9"):
        infer(experiment)
    experiment.cfg.MODEL.use_label = False
    with pytest.raises(UserError, match="the generator is not conditional"):
        infer(experiment)


def test_samples_do_not_depend_on_how_many_are_drawn(configure):
    generator = functions.WganGpCifar10Generator(4)
    generator.eval()
    settings = configure("cifar10", "INFER.batch_size=4").INFER
    drawn = {}
    for settings.num_samples in (3, 9):
        drawn[settings.num_samples] = draw_samples(
            generator, live_sampler(generator), settings, seed=42
        )
    assert drawn[3].shape == (3, 3, 32, 32) and drawn[9].shape == (9, 3, 32, 32)
    np.testing.assert_array_equal(drawn[3], drawn[9][:3])


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("name", [n for n, case in GENERATORS.items() if case.has_batch_norm])
def test_with_running_averages_a_sample_does_not_depend_on_its_neighbours(name, statistics):
    generator = GENERATORS[name].make()
    use_statistics(generator, statistics)
    generator.eval()
    noise, labels = paddle.randn([3, generator.noise_dim]), paddle.to_tensor([0, 1, 2])
    one, other = (
        generator.generate(noise[rows], labels[rows])[0].numpy() for rows in ([0, 1], [0, 2])
    )
    assert (np.abs(one - other).max() < 1e-5) == (statistics == "running")


def test_infer_writes_pictures_of_a_class_and_a_strip(cifar10, tmp_path, monkeypatch):
    seen, drawn = [], []
    generate = functions.WganGpCifar10Generator.generate

    def watched(self, noise, labels):
        seen.append(labels.numpy())
        drawn.append(generate(self, noise, labels))
        return drawn[-1]

    monkeypatch.setattr(functions.WganGpCifar10Generator, "generate", watched)
    experiment = cifar10("INFER.num_samples=11 INFER.label=3 INFER.frames=5")
    infer(experiment)
    assert all((labels == 3).all() for labels in seen)
    # Frames are drawn among other samples, for the sake of normalisation.
    assert len(seen[-1]) == 5 + experiment.cfg.INFER.batch_size
    written = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert written == [f"{number:02d}.png" for number in range(11)]
    assert Image.open(tmp_path / "pictures" / "00.png").size == (32, 32)
    assert Image.open(tmp_path / "samples.png").size[0] > 320
    strip = np.array(Image.open(tmp_path / "interpolation.png")).transpose(2, 0, 1)
    assert strip.shape == (3, 36, 5 * 34 + 2)
    frames = pictures.to_uint8(drawn[-1][:5].numpy(), -1.0)
    for number, frame in enumerate(frames):
        left = 2 + 34 * number
        np.testing.assert_array_equal(strip[:, 2:34, left : left + 32], frame)
    assert (tmp_path / "interpolation.gif").is_file()


def test_a_strip_plays_forwards_and_backwards(tmp_path):
    frames = np.arange(0, 250, 50, "uint8").reshape([5, 1, 1, 1]).repeat(3, 1)
    save_frames(frames, str(tmp_path), enlarge=8)
    animation, seen = Image.open(tmp_path / "interpolation.gif"), []
    for number in range(animation.n_frames):
        animation.seek(number)
        seen.append(animation.convert("L").getpixel((0, 0)))
    assert seen == [0, 50, 100, 150, 200, 150, 100, 50]


def test_interpolation_keeps_its_ends_and_the_length():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 128)).astype("float32")
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    between = interpolate({"noise": noise, "labels": np.array([4, 4])}, 7)
    np.testing.assert_allclose(between["noise"][[0, -1]], noise, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(between["noise"], axis=1), 1, atol=1e-5)
    steps = np.linalg.norm(np.diff(between["noise"], axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    assert between["labels"].tolist() == [4] * 7


def test_digits_are_grey_pictures_and_points_a_table(configure, tmp_path):
    weight_files.save_weights(functions.WganGpMnistGenerator(2), str(tmp_path / "m.pdparams"))
    tiny = f"MODEL.gen_net.dim=2 INFER.pretrained_model_path={tmp_path}/m"
    infer(wgangp_mnist.Mnist(configure("mnist", tiny, "INFER.num_samples=3 INFER.frames=2")))
    assert Image.open(tmp_path / "pictures" / "2.png").mode == "L"
    weight_files.save_weights(functions.WganGpToyGenerator(4), str(tmp_path / "t.pdparams"))
    tiny = f"MODEL.gen_net.dim=4 INFER.pretrained_model_path={tmp_path}/t"
    infer(wgangp_toy.Toy(configure("toy", tiny, "INFER.num_samples=30")))
    assert np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1).shape == (30, 2)
    with pytest.raises(UserError, match="for pictures"):
        infer(wgangp_toy.Toy(configure("toy", tiny, "INFER.frames=3")))
