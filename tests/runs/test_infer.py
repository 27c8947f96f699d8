# SPDX-License-Identifier: Apache-2.0
"""mode=infer: pictures, points, classes, and a strip between two noise vectors."""

import errno
import hashlib
import json
import os
import shutil

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
from support import weight_paths
from support.errors import UserError


@pytest.fixture
def cifar10(tmp_path, configure):
    """The CIFAR-10 experiment with the weights of a narrow conditional generator."""
    weight_files.save_weights(functions.WganGpCifar10Generator(4), str(tmp_path / "c.pdparams"))

    def make(overrides):
        weights = f"MODEL.gen_net.dim=4 INFER.pretrained_model_path={tmp_path}/c"
        return wgangp_cifar10.Cifar10(configure("cifar10", "mode=infer", weights, overrides))

    return make


def test_weights_with_another_checksum_are_refused_before_they_are_read(cifar10, tmp_path):
    (tmp_path / "c.pdparams").write_bytes(b"nonsense")
    digest = hashlib.sha256(b"nonsense").hexdigest()
    message = f"c.pdparams has the SHA-256 {digest}, but INFER.pretrained_sha256 demands {'0' * 64}"
    with pytest.raises(UserError, match=message):
        infer(cifar10(f"INFER.pretrained_sha256='{'0' * 64}'"))
    with pytest.raises(UserError, match="c.pdparams") as caught:
        infer(cifar10(f"INFER.pretrained_sha256='{digest.upper()}'"))
    assert "SHA-256" not in str(caught.value)


def test_the_checksum_of_a_download_is_checked_in_the_cache(cifar10, tmp_path, monkeypatch):
    downloads = []

    def download(address, path):
        downloads.append(address)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(tmp_path / "c.pdparams", path)

    monkeypatch.setattr(weight_paths, "download", download)
    experiment = cifar10("INFER.num_samples=1")
    digest = hashlib.sha256((tmp_path / "c.pdparams").read_bytes()).hexdigest()
    experiment.cfg.INFER.pretrained_model_path = "https://host/c"
    experiment.cfg.INFER.pretrained_sha256 = digest
    infer(experiment)
    experiment.cfg.INFER.pretrained_sha256 = "1" * 64
    with pytest.raises(UserError, match=f"downloaded from https.*SHA-256 {digest}, but"):
        infer(experiment)
    assert downloads == ["https://host/c.pdparams"]


def test_a_checksum_without_weights_is_refused(cifar10):
    experiment = cifar10(f"INFER.pretrained_sha256='{'0' * 64}'")
    experiment.cfg.INFER.pretrained_model_path = None
    with pytest.raises(UserError, match="pretrained_sha256 needs INFER.pretrained_model_path=PATH"):
        infer(experiment)


@pytest.mark.parametrize("label", ["cat", "1.5", "true", "10", "-1"])
def test_an_invalid_label_is_refused(cifar10, label):
    experiment = cifar10(f"INFER.label={label}")
    with pytest.raises(UserError, match="must be a whole number from 0 to 9"):
        infer(experiment)
    experiment.cfg.MODEL.use_label = False
    weights = functions.WganGpCifar10Generator(4, use_label=False)
    weight_files.save_weights(weights, experiment.cfg.INFER.pretrained_model_path + ".pdparams")
    with pytest.raises(UserError, match="the generator is not conditional"):
        infer(experiment)


def test_samples_do_not_depend_on_their_number(configure):
    generator = functions.WganGpCifar10Generator(4)
    generator.eval()

    def draw(count):
        settings = configure("cifar10", f"INFER.batch_size=4 INFER.num_samples={count}").INFER
        return draw_samples(generator, live_sampler(generator), settings, seed=42)

    few, more = draw(3), draw(9)
    assert few.shape == (3, 3, 32, 32) and more.shape == (9, 3, 32, 32)
    np.testing.assert_array_equal(few, more[:3])


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("name", [n for n, case in GENERATORS.items() if case.has_batch_norm])
def test_samples_do_not_depend_on_their_neighbours_with_running_averages(name, statistics):
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
    # Normalisation needs other samples next to the frames.
    assert len(seen[-1]) == 5 + experiment.cfg.INFER.batch_size
    written = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert written == [f"{number:02d}.png" for number in range(11)]
    content = json.loads((tmp_path / "infer.json").read_text())
    weights = tmp_path / "c.pdparams"
    assert content["script"] == "wgangp_cifar10" and content["versions"]["numpy"]
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert content["weights"] == {"source": f"{tmp_path}/c", "sha256": digest}
    assert Image.open(tmp_path / "pictures" / "00.png").size == (32, 32)
    assert Image.open(tmp_path / "samples.png").size[0] > 320
    strip = np.array(Image.open(tmp_path / "interpolation.png")).transpose(2, 0, 1)
    assert strip.shape == (3, 36, 5 * 34 + 2)
    frames = pictures.to_uint8(drawn[-1][:5].numpy(), -1.0)
    for number, frame in enumerate(frames):
        left = 2 + 34 * number
        np.testing.assert_array_equal(strip[:, 2:34, left : left + 32], frame)
    assert (tmp_path / "interpolation.gif").is_file()


def list_files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_samples_replace_those_of_an_earlier_inference_and_no_other_files(cifar10, tmp_path):
    former = list_files(tmp_path)
    infer(cifar10("INFER.num_samples=11 INFER.batch_size=11 INFER.frames=2"))
    assert len(list_files(tmp_path) - former) == 11 + 5
    (tmp_path / "pictures" / "cat.png").write_bytes(b"a user's own")
    infer(cifar10("INFER.num_samples=3 INFER.batch_size=3"))
    now = {f"pictures/{name}.png" for name in (0, 1, 2, "cat")}
    now |= {"samples.png", "samples.sha256", "infer.json"}
    assert list_files(tmp_path) - former == now
    # One that was changed, and one that another program wrote
    for name in ("2.png", "7.png"):
        (tmp_path / "pictures" / name).write_bytes(b"a user's own")
        with pytest.raises(UserError, match=f"holds 1 files .*such as pictures/{name}. They are"):
            infer(cifar10("INFER.num_samples=1 INFER.batch_size=1"))
        assert {"pictures/0.png", "pictures/1.png", f"pictures/{name}"} <= list_files(tmp_path)
        (tmp_path / "pictures" / name).unlink()


def test_a_failed_inference_leaves_the_former_samples(cifar10, tmp_path, monkeypatch):
    infer(cifar10("INFER.num_samples=2 INFER.batch_size=2"))
    former = {path: (tmp_path / path).read_bytes() for path in list_files(tmp_path)}

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(wgangp_cifar10.Cifar10, "save_samples", fail)
        with pytest.raises(UserError, match="can't be written to .*No space left"):
            infer(cifar10("INFER.num_samples=1 INFER.batch_size=1"))
    assert former == {path: (tmp_path / path).read_bytes() for path in list_files(tmp_path)}
    # A killed process leaves its folder; the next one removes it.
    (tmp_path / ".samples.abcdefgh.partial" / "pictures").mkdir(parents=True)
    infer(cifar10("INFER.num_samples=1 INFER.batch_size=1"))
    assert list_files(tmp_path / "pictures") == {"0.png"}
    assert not list(tmp_path.glob(".samples*"))


def test_the_picture_of_an_evaluation_is_replaced(cifar10, tmp_path):
    (tmp_path / "samples.png").write_bytes(b"a picture")
    with pytest.raises(UserError, match="such as samples.png"):
        infer(cifar10("INFER.num_samples=1 INFER.batch_size=1"))
    (tmp_path / "metrics.json").write_bytes(b"{}")
    infer(cifar10("INFER.num_samples=1 INFER.batch_size=1"))
    assert Image.open(tmp_path / "samples.png").size[0] > 32


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


@pytest.mark.parametrize("noise", [[[1.5], [-0.5]], [[1, 2], [2, 4]], [[1, 2], [-1, -2]]])
def test_interpolation_of_parallel_noises_is_a_straight_line(noise):
    between = interpolate({"noise": np.array(noise, "float32")}, 5)["noise"]
    np.testing.assert_allclose(between, np.linspace(*noise, 5), atol=1e-6)


def test_digits_are_written_as_grey_pictures_and_points_as_a_table(configure, tmp_path):
    weight_files.save_weights(functions.WganGpMnistGenerator(2), str(tmp_path / "m.pdparams"))
    tiny = f"MODEL.gen_net.dim=2 INFER.pretrained_model_path={tmp_path}/m"
    infer(wgangp_mnist.Mnist(configure("mnist", tiny, "INFER.num_samples=3 INFER.frames=2")))
    assert Image.open(tmp_path / "pictures" / "2.png").mode == "L"
    weight_files.save_weights(functions.WganGpToyGenerator(4), str(tmp_path / "t.pdparams"))
    tiny = f"MODEL.gen_net.dim=4 INFER.pretrained_model_path={tmp_path}/t"
    infer(wgangp_toy.Toy(configure("toy", tiny, "INFER.num_samples=30")))
    assert np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1).shape == (30, 2)


def test_frames_of_points_are_refused_before_anything_is_read(configure, tmp_path):
    absent = f"INFER.pretrained_model_path={tmp_path}/none INFER.frames=3"
    with pytest.raises(UserError, match="INFER.frames=3 is for pictures"):
        infer(wgangp_toy.Toy(configure("toy", absent)))
