# SPDX-License-Identifier: Apache-2.0
"""Coloured digits: how they are made, and the measures of their classes."""

import colorsys

import numpy as np
import paddle
import pytest

import functions
import wgangp_cifar10
import wgangp_mnist
from data import synthetic
from data.image_set import ImageSet
from measures import colored_digits
from measures import digit_classifier
from measures import metrics
from measures.evaluation import Evaluator
from measures.features import read_features
from networks.base import Generator
from support.errors import UserError


@pytest.fixture(scope="module")
def plain():
    return synthetic.digits_set()


@pytest.fixture(scope="module")
def data(plain):
    return synthetic.color_digits(plain)


def test_a_digit_gets_one_colour_and_keeps_its_brightness(plain, data):
    assert data.train_images.shape == (1500, 3, 32, 32) and data.test_images.shape[0] == 297
    assert data.train_images.dtype == np.uint8 and data.train_labels.dtype == np.int64
    np.testing.assert_array_equal(data.test_labels, plain.test_labels)
    for images, digits in (
        (data.train_images, plain.train_images),
        (data.test_images, plain.test_images),
    ):
        np.testing.assert_array_equal(images.max(1)[:, 2:-2, 2:-2], digits[:, 0])
        assert images.sum() == images[:, :, 2:-2, 2:-2].sum()
    # Where a digit is white, its picture shows the colour itself.
    shown = data.train_images[:50].reshape(50, 3, -1)
    brightest = plain.train_images[:50].reshape(50, -1).argmax(1)
    row, column = np.divmod(brightest, 28)
    ink = shown[np.arange(50), :, (row + 2) * 32 + column + 2] / 255
    np.testing.assert_allclose(ink.max(1), plain.train_images[:50].max((1, 2, 3)) / 255)
    grey = plain.train_images[:50, 0, :, :, None] * ink[:, None, None]
    expected = np.rint(grey / ink.max(1)[:, None, None, None])
    inner = data.train_images[:50, :, 2:-2, 2:-2].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(inner, expected, atol=1.01)


def test_colours_are_uniform_in_hue_and_saturated(data):
    colors = data.train_images.mean((2, 3))
    hue, saturation, _ = np.array([colorsys.rgb_to_hsv(*color) for color in colors]).T
    np.testing.assert_allclose(colored_digits.hues(colors), hue, atol=1e-9)
    counts = np.histogram(hue, 12, (0, 1))[0]
    assert ((counts - 125) ** 2 / 125).sum() < 31.3  # chi-square, 11 degrees, p = 0.001
    counts = np.histogram(saturation, 5, (0.5, 1))[0]
    assert counts.sum() > 1490 and ((counts - 300) ** 2 / 300).sum() < 18.5


def test_colours_depend_on_the_seed_alone(plain, data):
    again, other = (synthetic.color_digits(plain, seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.train_images, data.train_images)
    assert (other.train_images != data.train_images).any()
    # Training and test digits have colours of their own.
    hues = [colored_digits.hues(x[:99].mean((2, 3))) for x in (data.train_images, data.test_images)]
    assert (np.abs(hues[0] - hues[1]) > 0.01).mean() > 0.9


@pytest.mark.parametrize("words", [[], ["DATA.data_path=my.npz"]])
def test_the_digits_are_mnists_unless_a_path_is_given(configure, monkeypatch, plain, words):
    asked = []

    def fetch(path, addresses, checksum, without, folder):
        asked.append((path, addresses, checksum, folder))
        return path

    monkeypatch.setattr(wgangp_cifar10.downloads, "fetch", fetch)
    monkeypatch.setattr(functions, "read_mnist", lambda path, size: plain)
    words = ["DATA.source=colored_digits", *words]
    data = wgangp_cifar10.Cifar10(configure("cifar10", *words)).read_data()
    wgangp_mnist.Mnist(configure("mnist", *words[1:])).read_data()
    assert asked[0] == asked[1] and asked[0][0].endswith("my.npz" if words[1:] else "mnist.pkl.gz")
    np.testing.assert_array_equal(data.test_images, synthetic.color_digits(plain).test_images)


def test_hue_entropy_is_1_for_all_hues_and_0_for_one():
    assert colored_digits.hue_entropy(np.arange(1200) / 1200) == pytest.approx(1)
    assert colored_digits.hue_entropy(np.full(9, 0.4)) == 0
    # Two colours: log 2 / log 12. A hue of 1 is a hue of 0.
    assert colored_digits.hue_entropy(np.array([0, 1.0, 0.5, 0.5])) == pytest.approx(
        np.log(2) / np.log(12)
    )
    np.testing.assert_array_equal(colored_digits.hues(np.full((2, 3), 7.0)), [0, 0])


def test_class_figures_are_means_over_classes():
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((60, 3)), np.repeat([0, 2], 30)
    hue = np.concatenate([np.full(30, 0.1), np.arange(30) / 30])
    reference = [metrics.mean_and_covariance(rng.standard_normal((20, 3))) for _ in range(3)]
    figures = colored_digits.class_figures(features, hue, labels, reference)
    distances = [
        metrics.frechet_distance(metrics.mean_and_covariance(features[labels == k]), reference[k])
        for k in (0, 2)
    ]
    assert figures["class_frechet_distance"] == pytest.approx(np.mean(distances))
    even = colored_digits.hue_entropy(hue[30:])
    assert figures["hue_entropy"] == pytest.approx((0 + 0 + even) / 3)
    assert figures["hue_entropy_min"] == 0


def test_the_classifier_sees_the_digit_before_it_was_coloured(plain, data):
    network = colored_digits.ColoredDigitClassifier()
    colored = network.features(paddle.to_tensor(data.test_images[:20].astype("float32")))
    digits = paddle.to_tensor(plain.test_images[:20].astype("float32"))
    expected = digit_classifier.load().features(digits)
    np.testing.assert_array_equal(colored.numpy(), expected.numpy())


def test_a_fitted_last_layer_knows_scikit_learns_digits_in_colours(plain, data):
    network = colored_digits.ColoredDigitClassifier()
    features = read_features(data.test_images, network, "test digits")

    def accuracy():
        logits = network.logits(paddle.to_tensor(features)).numpy()
        return (logits.argmax(1) == data.test_labels).mean()

    before = accuracy()
    network.fit(data.train_images, data.train_labels)
    assert before < 0.87 and accuracy() > 0.97
    np.testing.assert_array_equal(read_features(data.test_images, network, "digits"), features)
    assert network.title == "MNIST classifier on coloured digits, last layer refitted"
    assert colored_digits.ColoredDigitClassifier.title == "MNIST classifier on coloured digits"
    # The same digits without colours have the same layer.
    other = digit_classifier.load()
    plain_features = read_features(plain.train_images, other, "digits")
    digit_classifier.fit_last_layer(other, plain_features, plain.train_labels)
    np.testing.assert_array_equal(other.linear.weight, network.classifier.linear.weight)


class Replay(Generator):
    """Gives the test pictures of its labels, all of them in one colour if that is set."""

    def __init__(self, data, wrong=0, one_color=False):
        super().__init__(1, 10)
        self.rows = [np.flatnonzero(data.test_labels == k) for k in range(10)]
        self.images, self.wrong, self.count = data.test_images, wrong, np.zeros(10, int)
        self.ink = np.array([1, 0.2, 0.2], "float32")[:, None, None] if one_color else None

    def generate(self, noise, labels=None):
        pictures = []
        for label in (labels.numpy() + self.wrong) % 10:
            rows = self.rows[label]
            picture = self.images[rows[self.count[label] % len(rows)]].astype("float32")
            self.count[label] += 1
            pictures.append(picture if self.ink is None else picture.max(0) * self.ink)
        return paddle.to_tensor(np.stack(pictures) / 127.995 - 1)


def test_measures_tell_right_classes_and_all_colours_from_wrong_ones_and_one_colour(data):
    figures = {}
    measures = colored_digits.make_measures(Replay(data), data, 290, 0, 100)
    for name, generator in {
        "right": Replay(data),
        "wrong": Replay(data, wrong=1),
        "one colour": Replay(data, one_color=True),
    }.items():
        figures[name] = Evaluator(generator, measures, "unused", 0, "cpu").evaluate()
    real = {**measures["generated"].real, **measures["classes"].real}
    assert set(real) == set(figures["right"])
    assert figures["right"]["class_accuracy"] == pytest.approx(real["class_accuracy"], abs=0.05)
    assert real["class_accuracy"] > 0.7 and figures["wrong"]["class_accuracy"] < 0.1
    assert real["hue_entropy"] > 0.85 and figures["right"]["hue_entropy"] > 0.85
    assert figures["one colour"]["hue_entropy"] == figures["one colour"]["hue_entropy_min"] == 0
    assert figures["one colour"]["class_accuracy"] == figures["right"]["class_accuracy"]
    least = figures["right"]["class_frechet_distance"]
    assert figures["wrong"]["class_frechet_distance"] > 3 * least > 0
    # Right digits of wrong classes are as good to a score without labels.
    assert figures["wrong"]["classifier_score"] == pytest.approx(
        figures["right"]["classifier_score"], rel=0.1
    )


def test_without_labels_the_recognised_digits_are_the_classes(data, configure):
    words = "DATA.source=colored_small_digits MODEL.use_label=false MODEL.gen_net.dim=2"
    experiment = wgangp_cifar10.Cifar10(configure("cifar10", words, "EVAL.batch_size=10"))
    generator, _ = experiment.make_networks()
    assert experiment.has_measures(None)
    measures = experiment.make_measures(experiment.read_data(), generator, None, 20)
    figures = Evaluator(generator, measures, "unused", 0, "cpu").evaluate()
    assert set(measures["classes"].real) <= set(figures)  # no accuracy of either
    assert figures["hue_entropy"] < 0.5


def test_a_set_without_a_digit_is_refused_by_name(data):
    kept = data.train_labels != 9
    training = data.train_images[kept], data.train_labels[kept]
    lacking = ImageSet(*training, data.test_images, data.test_labels)
    with pytest.raises(UserError, match="has 0 pictures of the digit 9"):
        colored_digits.make_measures(Replay(data), lacking, 20, 0, 100)
