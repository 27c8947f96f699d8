# SPDX-License-Identifier: Apache-2.0
"""Measures and their evaluation, with a small classifier whose answers are known."""

import logging

import numpy as np
import paddle
import pytest
from quadrants import Quadrants
from scipy.special import softmax

import functions
from data import synthetic
from measures import metrics
from measures import validators
from measures.evaluation import Evaluator
from measures.figures import BETTER
from measures.figures import format_figures
from measures.figures import is_better
from measures.validators import make_critic_measure
from measures.validators import make_feature_measure
from measures.validators import make_measure
from networks.normalisation import use_statistics
from support import pictures
from support.errors import UserError

SEED = 42


@pytest.fixture
def data():
    return synthetic.synthetic_set(train=30, test=9)


@pytest.fixture
def generator():
    return functions.WganGpCifar10Generator(4, 128, True)


@pytest.fixture
def lines():
    """Lines of ppsci's log, from INFO on."""
    found, log = [], logging.getLogger("ppsci")

    class Collector(logging.Handler):
        def emit(self, record):
            found.append(record.getMessage())

    handler, level = Collector(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.removeHandler(handler)
    log.setLevel(level)


def evaluate(generator, measure):
    return Evaluator(generator, {"some": measure}, "unused", SEED, "cpu").evaluate()


def feature_measure(generator, network, data, count=20, batch_size=4, **more):
    names = ("score", "distance")
    return make_feature_measure(
        generator, network, data.train_images, count, names, SEED, batch_size, **more
    )


def critic_measure(generator, critic, images, labels, count=9, batch_size=3):
    return make_critic_measure(generator, critic, images, labels, count, SEED, batch_size)


def toy_measure(generator, name="toy", metric=lambda _: {"modes": 1.0}, count=6):
    noise = np.random.default_rng(0).standard_normal((count, 2), "float32")
    expressions = {"fake": lambda batch: batch["fake"]}
    return make_measure(name, {"noise": noise}, expressions, metric, 4)


def inputs_of(measure):
    return measure.validator.data_loader.dataset.input


def modes(network):
    return [layer.training for layer in network.sublayers(include_self=True)]


def test_measure_gathers_all_batches_in_order():
    generator, seen = functions.WganGpToyGenerator(4), {}

    def metric(outputs):
        seen.update(outputs)
        return {"modes": 3, "other": np.float64(1) / 3}

    noise = np.random.default_rng(0).standard_normal((7, 2), "float32")
    expressions = {
        "fake": lambda batch: batch["fake"] + 1,
        "both": lambda batch: paddle.concat([batch["noise"], batch["fake"]], 1),
    }
    measure = make_measure("toy", {"noise": noise}, expressions, metric, 3)
    # float64 comes through ppsci: 1/3 is not rounded to float32
    assert evaluate(generator, measure) == {"modes": 3.0, "other": 1 / 3}
    fake = generator.generate(paddle.to_tensor(noise)).numpy()
    np.testing.assert_allclose(seen["fake"], fake + 1, rtol=1e-5)
    np.testing.assert_allclose(seen["both"], np.concatenate([noise, fake], 1), rtol=1e-5)
    assert measure.num_samples == 7
    assert (measure.measured_by, measure.real, measure.real_count) == (None, {}, 0)


def test_measure_logs_figures_of_real_samples(lines):
    noise = np.zeros((3, 2), "float32")
    real = {"modes": 8.0, "modes_deviation": 0.5}
    measure = make_measure(
        "toy", {"noise": noise}, {"fake": None}, None, 3, {"network": "x"}, real, 30
    )
    assert "Figures of 30 real samples: modes 8" in lines
    assert (measure.real, measure.real_count) == (real, 30)
    assert measure.measured_by == {"network": "x"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused(value):
    generator = functions.WganGpToyGenerator(4)
    generator.layers[-1].bias.set_value(paddle.full([2], value))
    with pytest.raises(UserError, match="samples hold NaN or infinity"):
        evaluate(generator, toy_measure(generator))


def test_figures_that_are_not_finite_are_refused(generator, data):
    measure = feature_measure(
        generator, Quadrants(), data, extra=lambda predicted: {"lost": float("inf")}
    )
    with pytest.raises(UserError, match="lost is not finite"):
        evaluate(generator, measure)


def test_evaluator_runs_each_measure():
    generator = functions.WganGpToyGenerator(4)
    measures = {
        "a": toy_measure(generator, "first", lambda _: {"modes": 3.0, "more": 0.5}),
        "b": toy_measure(generator, "second", lambda _: {"fid": 9.0}),
    }
    evaluator = Evaluator(generator, measures, "unused", SEED, "cpu")
    for _ in range(2):  # training evaluates many times with one evaluator
        assert evaluator.evaluate_each() == {"a": {"modes": 3.0, "more": 0.5}, "b": {"fid": 9.0}}
        assert evaluator.evaluate() == {"modes": 3.0, "more": 0.5, "fid": 9.0}


def test_evaluator_without_measures_has_no_figures():
    evaluator = Evaluator(functions.WganGpToyGenerator(4), {}, "unused", SEED, "cpu")
    assert evaluator.evaluate() == evaluator.evaluate_each() == {}


def test_evaluator_drops_ppscis_lines_while_it_runs(lines):
    generator, log = functions.WganGpToyGenerator(4), logging.getLogger("ppsci")

    def metric(_):
        log.info("from the metric")
        return {"modes": 1.0}

    measure = toy_measure(generator, metric=metric, count=90)
    evaluator = Evaluator(generator, {"toy": measure}, "unused", SEED, "cpu")
    lines.clear()
    evaluator.evaluate()
    assert lines == ["from the metric"]
    log.info("[Eval] by someone else")
    assert lines == ["from the metric", "[Eval] by someone else"]


def test_evaluator_drops_no_lines_after_an_error(lines):
    generator = functions.WganGpToyGenerator(4)
    generator.layers[-1].bias.set_value(paddle.full([2], float("nan")))
    evaluator = Evaluator(generator, {"toy": toy_measure(generator)}, "unused", SEED, "cpu")
    lines.clear()
    with pytest.raises(UserError):
        evaluator.evaluate()
    logging.getLogger("ppsci").info("[Eval] by someone else")
    assert lines == ["[Eval] by someone else"]


@pytest.mark.parametrize("is_training", [True, False])
def test_evaluator_restores_the_generators_mode(generator, data, is_training):
    generator.train() if is_training else generator.eval()
    generator.sublayers()[-1].training = not is_training
    before = modes(generator)
    evaluate(generator, feature_measure(generator, Quadrants(), data))
    assert modes(generator) == before


def test_evaluator_restores_the_generators_mode_after_an_error(generator, data):
    generator.conv.bias.set_value(paddle.full_like(generator.conv.bias, float("nan")))
    before = modes(generator)
    assert generator.training
    with pytest.raises(UserError, match="samples hold NaN"):
        evaluate(generator, feature_measure(generator, Quadrants(), data))
    assert modes(generator) == before


def test_evaluator_leaves_the_generators_running_averages_alone(generator, data):
    before = [buffer.numpy().copy() for buffer in generator.buffers()]
    assert before
    evaluate(generator, feature_measure(generator, Quadrants(), data))
    for buffer, kept in zip(generator.buffers(), before):
        np.testing.assert_array_equal(buffer.numpy(), kept)


def test_feature_measure_is_a_plain_computation(generator, data):
    network = Quadrants()
    measure = feature_measure(
        generator, network, data, extra=lambda predicted: {"nines": (predicted == 9).mean()}
    )
    inputs = inputs_of(measure)
    assert set(np.unique(inputs["labels"])) <= set(range(10)) and len(inputs["noise"]) == 20
    figures = evaluate(generator, measure)

    generator.eval()
    fakes = [
        generator.generate(*(paddle.to_tensor(inputs[k][i : i + 4]) for k in ("noise", "labels")))
        for i in range(0, 20, 4)
    ]
    images = np.concatenate([pictures.to_uint8(fake.numpy(), -1.0) for fake in fakes])
    features = Quadrants().features(paddle.to_tensor(images.astype("float32"))).numpy()
    p = softmax(features.astype("float64") @ network.matrix, 1)
    real = Quadrants().features(paddle.to_tensor(data.train_images.astype("float32"))).numpy()
    distance = metrics.frechet_distance(
        *((part.mean(0), np.cov(part, rowvar=False)) for part in (features, real))
    )
    order = np.random.default_rng((SEED, 6, 1)).permutation(20)
    score, deviation = functions.inception_score(p[order], 10)
    assert figures == pytest.approx(
        {
            **{"score": score, "score_deviation": deviation, "distance": distance},
            "nines": (p.argmax(1) == 9).mean(),
        },
        rel=1e-4,
    )
    # float64 comes through ppsci: no figure is rounded to float32
    assert any(np.float32(value) != value for value in figures.values())
    assert measure.measured_by == {
        **{"network": "quadrants", "sha256": "0" * 64, "reference": "30 training pictures"},
        "labels": "uniform",
    }


def test_feature_measure_draws_the_same_inputs_in_every_release(generator, data):
    network = Quadrants()
    measure = feature_measure(generator, network, data, count=12, test_images=data.train_images)
    rng = np.random.default_rng((SEED, 6))
    np.testing.assert_array_equal(
        inputs_of(measure)["noise"], rng.standard_normal((12, 128), "float32")
    )
    np.testing.assert_array_equal(inputs_of(measure)["labels"], rng.integers(10, size=12))
    np.testing.assert_array_equal(network.seen[-1], data.train_images[rng.permutation(30)[:12]])


def test_feature_measure_draws_labels_by_the_shares_of_their_classes(generator, data):
    shares = np.array([0.5, 0.3, 0.2, *[0] * 7])
    measure = feature_measure(generator, Quadrants(), data, count=2000, label_shares=shares)
    inputs = inputs_of(measure)
    np.testing.assert_allclose(
        np.bincount(inputs["labels"], minlength=10) / 2000, shares, atol=0.05
    )
    # The noise is what it is with equal shares.
    expected = np.random.default_rng((SEED, 6)).standard_normal((2000, 128), "float32")
    np.testing.assert_array_equal(inputs["noise"], expected)
    assert measure.measured_by["labels"] == "as in the training set"


def test_feature_measure_without_labels_draws_noise_only(data):
    generator = functions.WganGpCifar10Generator(4, 128, False)
    assert list(inputs_of(feature_measure(generator, Quadrants(), data))) == ["noise"]


def test_feature_measure_shows_its_network_bytes(generator, data):
    network = Quadrants()
    evaluate(generator, feature_measure(generator, network, data))
    for images in network.seen:
        assert (images == np.rint(images)).all() and 0 <= images.min() and images.max() <= 255
    for low in (-1.0, 0.0):
        values = np.linspace(low, 1, 1001).astype("float32")
        levels = pictures.to_levels(paddle.to_tensor(values), low).floor().numpy()
        np.testing.assert_array_equal(levels, pictures.to_uint8(values, low))


def test_feature_measure_uses_the_generators_black(data):
    """A generator in [0, 1] with a picture of 0.5 is a picture of grey level 127."""
    generator = functions.WganGpMnistGenerator(4)
    generator.deconv_3.weight.set_value(paddle.zeros_like(generator.deconv_3.weight))
    network = Quadrants()
    evaluate(generator, feature_measure(generator, network, data, count=10))
    assert (network.seen[-1] == 127).all()


def test_feature_measure_repeats_its_figures(generator, data):
    one, two = (
        evaluate(generator, feature_measure(generator, Quadrants(), data)) for _ in range(2)
    )
    assert one == two


def test_feature_measure_also_measures_real_pictures(generator, data):
    network = Quadrants()
    measure = feature_measure(generator, network, data, count=20, test_images=data.train_images)
    # as many as there are samples, drawn at random from all
    assert measure.real_count == 20 == len(network.seen[-1])
    assert measure.real["distance"] > 0 and measure.real["score_deviation"] > 0
    whole = feature_measure(generator, Quadrants(), data, count=40, test_images=data.train_images)
    # the training set against itself
    assert whole.real_count == 30 and abs(whole.real["distance"]) < 1e-6
    # a set with fewer pictures than splits has no figures
    few = feature_measure(generator, Quadrants(), data, test_images=data.test_images)
    assert (few.real, few.real_count) == ({}, 0)


def test_feature_measure_of_too_few_samples_is_refused(generator, data):
    with pytest.raises(UserError, match="9 samples are too few.*10 splits.*EVAL.num_samples"):
        feature_measure(generator, Quadrants(), data, count=9)
    feature_measure(generator, Quadrants(), data, count=10)


def test_running_statistics_make_samples_independent(data):
    figures = {}
    for statistics in ("batch", "running"):
        for batch_size in (4, 20):
            paddle.seed(0)
            generator = functions.WganGpCifar10Generator(4, 128, True)
            use_statistics(generator, statistics)
            measure = feature_measure(generator, Quadrants(), data, batch_size=batch_size)
            figures[statistics, batch_size] = evaluate(generator, measure)["distance"]
    assert figures["running", 4] == pytest.approx(figures["running", 20], rel=1e-5)
    assert figures["batch", 4] != pytest.approx(figures["batch", 20], rel=1e-5)


def test_critic_measure_is_a_plain_computation(generator, data):
    critic = functions.WganGpCifar10Discriminator(4, True, None)
    images = functions.prepare_cifar10(data.test_images)
    measure = critic_measure(generator, critic, images, data.test_labels, count=7)
    figures = evaluate(generator, measure)
    inputs = inputs_of(measure)
    rows = validators.draw_test_rows(9, 7, SEED)
    np.testing.assert_array_equal(inputs["real"], images[rows])
    np.testing.assert_array_equal(inputs["labels"], data.test_labels[rows])
    expected = np.random.default_rng((SEED, 6)).standard_normal((7, 128), "float32")
    np.testing.assert_array_equal(inputs["noise"], expected)
    real, labels = paddle.to_tensor(images[rows]), paddle.to_tensor(data.test_labels[rows])
    noise = paddle.to_tensor(inputs["noise"])
    # batch normalisation sees the same batches of three
    fake = paddle.concat(
        [generator.generate(noise[i : i + 3], labels[i : i + 3]) for i in (0, 3, 6)]
    )
    values, logits = zip(critic.score(real), critic.score(fake))
    expected = {
        "test_wasserstein": float(values[0].mean() - values[1].mean()),
        "test_accuracy_real": float(functions.correct(logits[0], labels).mean()),
        "test_accuracy_fake": float(functions.correct(logits[1], labels).mean()),
    }
    assert figures == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert measure.measured_by == {"network": "critic"}


def test_test_rows_are_a_random_part_of_the_test_set():
    rows = validators.draw_test_rows(1000, 100, SEED)
    assert len(set(rows)) == 100 and rows.min() < 50 and rows.max() > 950
    np.testing.assert_array_equal(validators.draw_test_rows(1000, 100, SEED), rows)
    assert set(validators.draw_test_rows(1000, 100, SEED + 1)) != set(rows)
    assert set(validators.draw_test_rows(1000, 10, SEED)) < set(rows)
    # The whole set keeps its order.
    for count in (1000, 5000):
        np.testing.assert_array_equal(validators.draw_test_rows(1000, count, SEED), np.arange(1000))


def test_critic_measure_compares_as_many_pictures_as_there_are(generator, data):
    critic = functions.WganGpCifar10Discriminator(4, False, None)
    images = functions.prepare_cifar10(data.test_images)
    measure = critic_measure(generator, critic, images, data.test_labels, count=50)
    assert measure.num_samples == 9
    # without an AC-GAN head there is no accuracy
    assert list(evaluate(generator, measure)) == ["test_wasserstein"]


def test_critic_measure_leaves_running_averages_alone(generator, data):
    critic = functions.WganGpCifar10Discriminator(4, True, "batch")
    before = [buffer.numpy().copy() for buffer in critic.buffers()]
    assert before
    images = functions.prepare_cifar10(data.test_images)
    figures = evaluate(
        generator, critic_measure(generator, critic, images, data.test_labels, batch_size=9)
    )
    for buffer, kept in zip(critic.buffers(), before):
        np.testing.assert_array_equal(buffer.numpy(), kept)
    # the statistics of the batch normalise all the same
    logits = critic.score(paddle.to_tensor(images))[1]
    accuracy = functions.correct(logits, paddle.to_tensor(data.test_labels)).mean()
    assert figures["test_accuracy_real"] == pytest.approx(float(accuracy))


@pytest.mark.parametrize("is_training", [True, False])
def test_critic_measure_restores_the_critics_mode(generator, data, is_training):
    critic = functions.WganGpCifar10Discriminator(4, True, "batch")
    critic.train() if is_training else critic.eval()
    images = functions.prepare_cifar10(data.test_images)
    evaluate(generator, critic_measure(generator, critic, images, data.test_labels))
    assert set(modes(critic)) == {is_training}


def test_critic_measure_restores_the_critics_mode_after_an_error(generator, data):
    critic = functions.WganGpCifar10Discriminator(4, True, "batch")
    images = np.zeros((9, 5, 32, 32), "float32")  # of five channels
    with pytest.raises(ValueError):
        evaluate(generator, critic_measure(generator, critic, images, data.test_labels))
    assert set(modes(critic)) == {True}


def test_is_better_knows_the_direction_of_a_figure():
    higher = ("inception_score", "classifier_score", "modes", "high_quality")
    higher += ("precision", "recall", "density", "coverage")
    higher += ("class_accuracy", "hue_entropy", "hue_entropy_min")
    lower = ("fid", "frechet_distance", "digit_kl", "reverse_kl", "kid", "kernel_distance")
    lower += ("wasserstein_1", "wasserstein_2", "class_frechet_distance")
    assert set(BETTER) == {*higher, *lower}
    for name in higher:
        assert BETTER[name] == "higher"
        assert is_better(name, 2, 1) and not is_better(name, 1, 2)
    for name in lower:
        assert BETTER[name] == "lower"
        assert is_better(name, 1, 2) and not is_better(name, 2, 1)
    assert not is_better("fid", 1, 1)
    assert not is_better("inception_score", 1, 1)


def test_format_figures_lists_those_with_a_direction_then_the_critics():
    figures = {"test_wasserstein": 1.5, "fid": 12.3456789, "fid_deviation": 1.0, "digit_3": 0.1}
    assert format_figures(figures) == "fid 12.346, test_wasserstein 1.5000"
