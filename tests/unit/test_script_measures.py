# SPDX-License-Identifier: Apache-2.0
"""The measures that each script chooses."""

import numpy as np
import paddle
import pytest

import functions
import wgangp_cifar10
import wgangp_image64
import wgangp_mnist
import wgangp_toy
from data import synthetic
from data.image_set import ImageSet
from measures import digit_classifier
from measures import validators
from measures.classes import make_class_measure
from measures.evaluation import Evaluator
from measures.figures import BETTER
from networks.base import Generator
from support.errors import UserError

SMALL = "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 EVAL.batch_size=4".split()


def evaluate(generator, measures):
    return Evaluator(generator, measures, "unused", 0, "cpu").evaluate()


def test_cifar10_critic_sees_test_pictures_with_dequantisation_noise(configure):
    experiment = wgangp_cifar10.Cifar10(configure("cifar10", *SMALL, "EVAL.inception=false"))
    generator, critic = experiment.make_networks()
    data = synthetic.synthetic_set(train=2, test=9)
    measures = experiment.make_measures(data, generator, critic, 7)
    real = measures["critic"].validator.data_loader.dataset.input["real"]
    rows = validators.draw_test_rows(9, 7, 42)
    noise = real - functions.prepare_cifar10(data.test_images[rows])
    assert 0 <= noise.min() and noise.max() <= 1 / 128 + 1e-6 and noise.std() > 1e-3
    expected = functions.prepare_cifar10(data.test_images, np.random.default_rng((42, 6, 2)))
    np.testing.assert_array_equal(real, expected[rows])
    figures = evaluate(generator, measures)
    assert list(figures) == ["test_wasserstein", "test_accuracy_real", "test_accuracy_fake"]


@pytest.mark.parametrize("setting", [None, "uniform", "data"])
@pytest.mark.parametrize("script", ["cifar10", "image64"])
def test_labels_are_drawn_as_the_script_says(configure, script, setting):
    """The authors draw them uniformly; pictures of one's own may be uneven."""
    words = [f"DATA.label_distribution={setting}"] if setting else []
    experiment = {"cifar10": wgangp_cifar10.Cifar10, "image64": wgangp_image64.Image64}[script](
        configure(script, *SMALL, "MODEL.use_label=true", *words)
    )
    images, labels = np.zeros((8, 3, 1, 1), "uint8"), np.array([0, 0, 0, 0, 0, 2, 2, 9])
    data = ImageSet(images, labels, images[:1], labels[:1])
    generator, _ = experiment.make_networks()
    shares = experiment.label_shares(data, generator)
    if (setting or {"cifar10": "uniform", "image64": "data"}[script]) == "uniform":
        assert shares is None
    else:
        np.testing.assert_array_equal(shares, [0.625, 0, 0.25, 0, 0, 0, 0, 0, 0, 0.125])
    # The measure of each script gets them.
    given = []

    def make_inception_measure(*arguments):
        given.append(arguments[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validators, "make_inception_measure", make_inception_measure)
        experiment.make_measures(data, generator, None, 10)
    assert given[0] is shares or (given[0] == shares).all()


def test_a_generator_without_labels_draws_none(configure):
    experiment = wgangp_image64.Image64(configure("image64", *SMALL))
    generator, _ = experiment.make_networks()
    assert experiment.label_shares(None, generator) is None


@pytest.mark.parametrize("script", ["cifar10", "image64"])
def test_measures_without_critic_and_inception_are_none(configure, script):
    experiment = {"cifar10": wgangp_cifar10.Cifar10, "image64": wgangp_image64.Image64}[script](
        configure(script, *SMALL, "EVAL.inception=false")
    )
    generator, _ = experiment.make_networks()
    images = np.zeros((9, 3, 64, 64), "uint8")
    data = ImageSet(images, np.zeros(9, "int64"), images, np.zeros(9, "int64"))
    assert experiment.make_measures(data, generator, None, 10) == {}
    assert not experiment.has_measures(None)


def test_mnist_measures_are_the_classifiers_and_the_critics(configure):
    experiment = wgangp_mnist.Mnist(configure("mnist", *SMALL, "EVAL.batch_size=10"))
    generator, critic = experiment.make_networks()
    measures = experiment.make_measures(synthetic.digits_set(), generator, critic, 20)
    figures = evaluate(generator, measures)
    digits = [f"digit_{digit}" for digit in range(10)]
    assert list(figures) == [
        *("classifier_score", "classifier_score_deviation", "frechet_distance", "digit_kl"),
        *(*digits, "test_wasserstein"),
    ]
    assert sum(figures[name] for name in digits) == pytest.approx(1)
    # twenty real test digits hold nearly all classes; an untrained generator draws one
    real = measures["generated"].real
    assert measures["generated"].real_count == 20
    assert set(real) == set(figures) - {"test_wasserstein"}
    assert real["digit_kl"] < figures["digit_kl"]
    assert real["frechet_distance"] < figures["frechet_distance"]
    assert list(experiment.make_measures(synthetic.digits_set(), generator, None, 20)) == [
        "generated"
    ]


class OneDigitPerClass(Generator):
    """Draws a real digit of the class `(label + shift) mod 10`."""

    low = 0.0

    def __init__(self, digits, shift):
        super().__init__(noise_dim=2, num_classes=10)
        self.digits, self.shift = paddle.to_tensor(digits), shift

    def generate(self, noise, labels=None):
        return self.digits[(labels + self.shift) % 10]


def test_class_accuracy_is_the_share_of_right_digits():
    data, network = synthetic.digits_set(), digit_classifier.load()
    features = network.features(paddle.to_tensor(data.test_images.astype("float32")))
    predicted = network.logits(features).numpy().argmax(1)
    right = predicted == data.test_labels
    digits = [data.test_images[right & (data.test_labels == label)][0] for label in range(10)]
    digits = (np.stack(digits) + 0.5).astype("float32") / 256
    for shift, expected in ((0, 1.0), (3, 0.0)):
        generator = OneDigitPerClass(digits, shift)
        measure = make_class_measure(
            *(generator, network, data.test_images, data.test_labels, 60, 0, 20)
        )
        assert evaluate(generator, {"classes": measure}) == {"class_accuracy": expected}
    measure = make_class_measure(
        *(generator, network, data.test_images, data.test_labels, 10**4, 0, 20)
    )
    assert measure.real == {"class_accuracy": pytest.approx(right.mean())}
    # By shares, all labels are sevens here.
    shares = np.eye(10)[7]
    measure = make_class_measure(
        *(generator, network, data.test_images, data.test_labels, 60, 0, 20), shares
    )
    assert (measure.validator.data_loader.dataset.input["labels"] == 7).all()


def test_conditional_mnist_measures_its_classes(configure):
    words = "MODEL.arch=wgan_lab MODEL.use_label=true".split()
    experiment = wgangp_mnist.Mnist(configure("mnist", *SMALL, *words))
    generator, critic = experiment.make_networks()
    measures = experiment.make_measures(synthetic.digits_set(), generator, critic, 20)
    figures = evaluate(generator, measures)
    assert {"class_accuracy", "test_accuracy_real"} <= set(figures)
    assert 0 <= figures["class_accuracy"] <= 1 and measures["classes"].real_count == 20


def test_toy_measures_are_those_of_the_points(configure):
    experiment = wgangp_toy.Toy(configure("toy", *SMALL, "DATA.mode=8gaussians"))
    generator, critic = experiment.make_networks()
    figures = evaluate(generator, experiment.make_measures(None, generator, critic, 20))
    assert set(figures) == {"modes", "high_quality", "reverse_kl", "wasserstein_1", "wasserstein_2"}
    with pytest.raises(UserError, match="50000 samples are too many.*10000 at most"):
        experiment.make_measures(None, generator, critic, 50_000)


@pytest.mark.parametrize("script", [wgangp_toy, wgangp_mnist, wgangp_cifar10, wgangp_image64])
def test_best_metrics_have_a_direction(script):
    for name in script.CHOICES["TRAIN.best_metric"]:
        assert BETTER[name] in ("higher", "lower")
