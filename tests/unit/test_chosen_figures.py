# SPDX-License-Identifier: Apache-2.0
"""The figures of features that EVAL.measures chooses, and memorisation."""

import json

import numpy as np
import paddle
import pytest
from omegaconf import OmegaConf
from quadrants import Quadrants

import wgangp_mnist
from data import synthetic
from measures import metrics
from measures import neighbours
from measures import sampling
from measures import validators
from measures.evaluation import Evaluator
from measures.features import read_features
from measures.memorisation import Memorisation
from measures.validators import make_feature_measure
from modes.evaluate import evaluate as evaluate_weights
from networks import dcgan
from networks.base import Generator
from support import pictures
from support import weight_files
from support.errors import UserError

ALL = ("score", "frechet", "kid", "prdc", "memorisation")
NAMES = ("score", "distance", "kernel")
SEED = 42


class Copier(Generator):
    """A generator that draws given pictures, uint8 [M, C, H, W], in turn."""

    def __init__(self, images):
        super().__init__(2)
        self.images, self.drawn = images, 0

    def generate(self, noise, labels=None):
        rows = np.arange(self.drawn, self.drawn + len(noise)) % len(self.images)
        self.drawn += len(noise)
        # The middle of a level: truncation gives the level.
        return paddle.to_tensor((self.images[rows].astype("float32") + 0.5) / 127.995 - 1)


@pytest.fixture(scope="module")
def data():
    return synthetic.synthetic_set(train=60, test=40)


def make(generator, data, chosen, network=None, count=40):
    test = data.test_images if set(chosen) != {"score"} else None
    return make_feature_measure(
        *(generator, network or Quadrants(), data.train_images, count, NAMES, SEED, 7),
        test_images=test,
        chosen=chosen,
    )


def evaluate(generator, measure):
    return Evaluator(generator, {"some": measure}, "unused", SEED, "cpu").evaluate()


def test_a_copier_draws_what_it_copies(data):
    samples = Copier(data.test_images).generate(np.zeros(40)).numpy()
    np.testing.assert_array_equal(pictures.to_uint8(samples, -1.0), data.test_images)


def test_all_figures_are_plain_computations_from_the_same_features(data):
    network, generator = Quadrants(), Copier(data.test_images)
    measure = make(generator, data, ALL, network)
    network.seen.clear()
    figures = evaluate(generator, measure)
    assert sum(map(len, network.seen)) == 40  # Each sample goes through the network once.
    fake, training = (
        read_features(part, Quadrants(), "pictures")
        for part in (data.test_images, data.train_images)
    )
    rows = np.random.default_rng((SEED, 6, 3)).permutation(60)[:40]
    compared = training[np.sort(rows)]
    radii = [neighbours.squared_radii(part) for part in (fake, compared)]
    rng = np.random.default_rng((SEED, 6, 4))
    kernel, deviation = metrics.kernel_distance(fake, training, rng)
    expected = {
        **neighbours.compare_neighbourhoods(fake, compared, *radii),
        **{"kernel": kernel, "kernel_deviation": deviation},
        "distance": metrics.frechet_distance(*map(metrics.mean_and_covariance, (fake, training))),
    }
    found = {name: figures[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert 0 < figures["precision"] <= 1 and 0 < figures["coverage"] <= 1
    # The real pictures are the same ones in another order.
    assert measure.real_count == 40 and set(measure.real) == set(figures)
    for name in set(found) - {"kernel", "kernel_deviation"}:
        assert measure.real[name] == pytest.approx(figures[name])


def test_only_chosen_figures_are_computed(data):
    names = {
        "score": ["score", "score_deviation"],
        "frechet": ["distance"],
        "kid": ["kernel", "kernel_deviation"],
        "prdc": ["precision", "recall", "density", "coverage"],
        "memorisation": ["memorisation_pixels", "memorisation_features"],
    }
    for name, figures in names.items():
        generator = Copier(data.test_images)
        measure = make(generator, data, (name,))
        assert list(evaluate(generator, measure)) == figures
        assert (measure.draw_neighbours is not None) == (name == "memorisation")


def test_memorisation_is_1_for_copies_and_one_half_for_test_pictures(data):
    for images, expected in ((data.train_images, 1), (data.test_images, 0.5)):
        generator = Copier(images)
        measure = make(generator, data, ("memorisation",))
        figures = evaluate(generator, measure)
        for space in ("pixels", "features"):
            assert figures[f"memorisation_{space}"] == pytest.approx(expected, abs=1e-6)
            assert measure.real[f"memorisation_{space}"] == 0.5
    noise = np.random.default_rng(0).integers(256, size=(40, 3, 32, 32)).astype("uint8")
    generator = Copier(noise)
    figures = evaluate(generator, make(generator, data, ("memorisation",)))
    assert figures["memorisation_pixels"] < 0.05


@pytest.mark.parametrize("name", ["frechet", "kid", "prdc"])
def test_a_training_set_of_one_picture_is_refused(data, name):
    with pytest.raises(UserError, match="training set of 1 is too small"):
        make_feature_measure(
            *(Copier(data.test_images), Quadrants(), data.train_images[:1], 20, NAMES, SEED, 7),
            test_images=data.test_images,
            chosen=(name,),
        )


def test_memorisation_without_test_pictures_is_refused(data):
    with pytest.raises(UserError, match="at least 10 test pictures.*out of EVAL.measures"):
        make_feature_measure(
            *(Copier(data.test_images), Quadrants(), data.train_images, 20, NAMES, SEED, 7),
            test_images=data.test_images[:9],
            chosen=("memorisation",),
        )


@pytest.mark.parametrize("chosen", [["frechet", "score"], ["frechet", "kid"]])
def test_the_inception_measures_test_pictures_only_for_more(data, monkeypatch, chosen):
    monkeypatch.setattr(validators.downloads, "fetch", lambda path, *_: path)
    monkeypatch.setattr(validators.inception, "Inception", lambda *_: Quadrants())
    settings = OmegaConf.create(
        {"measures": chosen, "inception_weights": "x", "inception_sha256": "0", "batch_size": 7}
    )
    measure = validators.make_inception_measure(
        Copier(data.test_images), data.train_images, data.test_images, 20, SEED, settings
    )
    if "kid" in chosen:
        assert set(measure.real) == {"fid", "kid", "kid_deviation"} and measure.real_count == 20
    else:
        assert (measure.real, measure.real_count) == ({}, 0)


def test_neighbours_are_drawn_next_to_samples(data, monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr(
        pictures, "save_rows", lambda blocks, rows, path: drawn.update(blocks, rows=rows)
    )
    generator = Copier(data.train_images)
    make(generator, data, ("memorisation",)).draw_neighbours(str(tmp_path / "x.png"))
    samples, nearest = drawn["samples"], drawn["nearest by pixels"]
    assert drawn["rows"] == len(samples) == 10 and len(nearest) == 50
    np.testing.assert_array_equal(samples, data.train_images[:10])
    np.testing.assert_array_equal(nearest[::5], samples)  # A copy's nearest is the original.
    distances = (
        (nearest.astype("float64").reshape(10, 5, -1) - samples.reshape(10, 1, -1)) ** 2
    ).sum(2)
    assert (np.diff(distances) >= 0).all()
    assert drawn["nearest by features"].shape == (50, 3, 32, 32)


@pytest.mark.parametrize("num_classes", [0, 12])
def test_neighbours_are_those_of_the_first_samples_of_the_grid(num_classes, monkeypatch):
    """A generator that normalises its batch draws others in a grid of another shape."""
    shown = {}
    monkeypatch.setattr(pictures, "save_grid", lambda x, *_: shown.update(grid=x))
    monkeypatch.setattr(Memorisation, "draw", lambda _, x, path: shown.update(first=x))
    generator = dcgan.Dcgan64Generator(2, 3, num_classes)
    sampling.make_grid_drawer(generator, SEED)("unused.png")
    memorisation = Memorisation.__new__(Memorisation)
    validators._make_neighbours_drawer(generator, memorisation, SEED)("unused.png")
    expected = pictures.to_uint8(shown["grid"][:10], generator.low)
    np.testing.assert_array_equal(shown["first"], expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_pictures_are_a_file(channels, tmp_path):
    rng = np.random.default_rng(0)
    blocks = {
        "one": rng.integers(256, size=(3, channels, 28, 28)).astype("uint8"),
        "two": rng.integers(256, size=(6, channels, 28, 28)).astype("uint8"),
    }
    pictures.save_rows(blocks, 3, str(tmp_path / "x.png"))
    picture = pictures.read_picture(str(tmp_path / "x.png"))
    # Titles above; pixels are squares of 3x3, gaps are 2 of them.
    assert picture.shape == (24 + 3 * 92, 3 * 32 + 24 + 3 * 62, 3)
    first = picture[24 + 6 : 24 + 6 + 84 : 3, 6 : 6 + 84 : 3]
    expected = np.broadcast_to(blocks["one"][0].transpose(1, 2, 0), (28, 28, 3))
    np.testing.assert_array_equal(first, expected)


def test_mode_eval_reports_chosen_measures(configure, tmp_path):
    """The figures are those of the list, next to test digits', and neighbours.png is written."""
    words = "mode=eval DATA.source=digits MODEL.gen_net.dim=2 MODEL.dis_net.dim=2 "
    words += "EVAL.num_samples=20 EVAL.measures=[memorisation,kid]"
    experiment = wgangp_mnist.Mnist(configure("mnist", words))
    weight_files.save_weights(experiment.make_networks()[0], str(tmp_path / "g.pdparams"))
    experiment.cfg.EVAL.pretrained_gen_model_path = str(tmp_path / "g")
    evaluate_weights(experiment)
    rows = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert list(rows) == ["kernel_distance", "memorisation_pixels", "memorisation_features"]
    assert rows["kernel_distance"]["better"] == "lower"
    assert rows["kernel_distance"]["real"] < rows["kernel_distance"]["value"]
    for name in ("memorisation_pixels", "memorisation_features"):
        assert rows[name]["real"] == 0.5 and rows[name]["better"] is None
    assert (tmp_path / "neighbours.png").exists()
    experiment.cfg.EVAL.measures = ["kid"]
    evaluate_weights(experiment)  # It has no neighbours to show, and those are of former weights.
    assert not (tmp_path / "neighbours.png").exists()
