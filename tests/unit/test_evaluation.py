# SPDX-License-Identifier: Apache-2.0
"""Validators, statistics, the report: with a small classifier whose answers are known."""

import types

import numpy as np
import paddle
import pytest
from scipy import linalg
from scipy.special import softmax

import functions
import wgangp_cifar10
import wgangp_image64
import wgangp_mnist
import wgangp_toy
from data import synthetic
from measures import evaluation
from measures import metrics
from measures import sampling
from measures.features import classify
from measures.features import reference_statistics
from measures.report import make_rows
from measures.report import make_table
from support import pictures
from support import progress as progress_module
from support.errors import UserError
from support.progress import Progress

SMALL = ["MODEL.gen_net.dim=4", "MODEL.dis_net.dim=4", "EVAL.batch_size=4"]


class Quadrants:
    """Four features of a picture, the means of its quadrants, and ten linear logits of them."""

    title, sha256 = "quadrants", "0" * 64

    def __init__(self):
        self.matrix = np.random.default_rng(1).standard_normal((4, 10)).astype("float32")
        self.seen = []

    def features(self, images):
        self.seen.append(images.numpy())
        height, width = images.shape[2] // 2, images.shape[3] // 2
        parts = (images[..., top:, left:] for top in (0, height) for left in (0, width))
        means = [part[..., :height, :width].mean([1, 2, 3]) for part in parts]
        return paddle.stack(means, 1) / 64

    def logits(self, features):
        return features @ paddle.to_tensor(self.matrix)


def make(cfg, generator, network, data, count=20, **more):
    return evaluation.make_feature_validator(
        cfg, generator, network, data.train_images, count, ("score", "distance"), **more
    )


def evaluate(cfg, generator, validator):
    return evaluation.evaluate(evaluation.make_solver(cfg, generator, {"generated": validator}))


@pytest.fixture
def cifar10(configure):
    cfg = configure("cifar10", *SMALL)
    generator, critic = wgangp_cifar10.make_networks(cfg)
    return cfg, generator, critic, synthetic.synthetic_set(train=30, test=9)


def test_figures_are_those_of_a_plain_computation(cifar10):
    cfg, generator, _, data = cifar10
    network = Quadrants()
    validator = make(cfg, generator, network, data, extra=lambda p: {"nines": (p == 9).mean()})
    inputs = validator.data_loader.dataset.input
    assert set(np.unique(inputs["labels"])) <= set(range(10)) and len(inputs["noise"]) == 20
    figures = evaluate(cfg, generator, validator)

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
    order = np.random.default_rng((42, evaluation.streams.EVALUATION, 1)).permutation(20)
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


def test_the_network_sees_bytes(cifar10):
    cfg, generator, _, data = cifar10
    network = Quadrants()
    evaluate(cfg, generator, make(cfg, generator, network, data))
    for images in network.seen:
        assert (images == np.rint(images)).all() and 0 <= images.min() and images.max() <= 255
    for low in (-1.0, 0.0):
        values = np.linspace(low, 1, 1001).astype("float32")
        levels = pictures.to_levels(paddle.to_tensor(values), low).floor().numpy()
        np.testing.assert_array_equal(levels, pictures.to_uint8(values, low))


def test_the_order_is_random_but_seeded(cifar10):
    cfg, generator, _, data = cifar10
    features = np.arange(80, dtype="float32").reshape(20, 4) / 80
    network = Quadrants()
    first, again, other = (classify(network, features, s) for s in (1, 1, 2))
    plain = softmax(features.astype("float64") @ network.matrix, 1)
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != plain).any()
    np.testing.assert_allclose(np.sort(first, 0), np.sort(plain, 0), rtol=1e-5)
    one, two = (evaluate(cfg, generator, make(cfg, generator, network, data)) for _ in range(2))
    assert one == two


def test_real_pictures_are_measured_beside(cifar10):
    cfg, generator, _, data = cifar10
    network = Quadrants()
    validator = make(cfg, generator, network, data, count=20, test_images=data.train_images)
    # as many as there are samples, drawn at random from all
    assert validator.real_count == 20 == len(network.seen[-1])
    assert validator.real["distance"] > 0 and validator.real["score_deviation"] > 0
    whole = make(cfg, generator, Quadrants(), data, count=40, test_images=data.train_images)
    # the training set against itself
    assert whole.real_count == 30 and abs(whole.real["distance"]) < 1e-6
    rows = make_rows(evaluate(cfg, generator, whole), whole)
    assert rows["distance"]["real_num_samples"] == 30 and rows["distance"]["num_samples"] == 40
    assert rows["score"]["real"] == whole.real["score"]
    assert rows["score"]["real_deviation"] == whole.real["score_deviation"]
    # a set with too few for the splits has no figures beside
    few = make(cfg, generator, Quadrants(), data, test_images=data.test_images)
    assert few.real == {}


def test_statistics_are_kept_and_made_anew_for_other_data_or_weights(cifar10):
    _, _, _, data = cifar10
    network = Quadrants()
    first = reference_statistics(data.train_images, network)
    assert len(network.seen) == 1
    again = reference_statistics(data.train_images, network)
    assert len(network.seen) == 1
    for part, same in zip(first, again):
        np.testing.assert_array_equal(part, same)
    reference_statistics(data.test_images, network)
    assert len(network.seen) == 2
    network.sha256 = "1" * 64
    reference_statistics(data.train_images, network)
    assert len(network.seen) == 3


def test_statistics_cut_short_are_made_anew(cifar10, tmp_path):
    _, _, _, data = cifar10
    network = Quadrants()
    first = reference_statistics(data.train_images, network)
    (path,) = (tmp_path / "cache").rglob("*.npz")
    for content in (path.read_bytes()[:100], b"", b"PK nonsense"):
        path.write_bytes(content)
        again = reference_statistics(data.train_images, network)
        np.testing.assert_array_equal(first[1], again[1])
    assert len(network.seen) == 4


def test_too_few_samples_are_refused(cifar10):
    cfg, generator, _, data = cifar10
    with pytest.raises(UserError, match="9 samples are too few.*10 splits.*EVAL.num_samples"):
        make(cfg, generator, Quadrants(), data, count=9)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused(configure, value):
    cfg = configure("toy", *SMALL)
    generator, _ = wgangp_toy.make_networks(cfg)
    generator.layers[-1].bias.set_value(paddle.full([2], value))
    (validator,) = wgangp_toy.make_validators(cfg, generator, 20).values()
    with pytest.raises(UserError, match="samples hold NaN or infinity"):
        evaluate(cfg, generator, validator)


def test_running_averages_make_samples_independent(configure):
    data = synthetic.synthetic_set(train=12, test=3)
    figures = {}
    for batch_norm in ("batch", "running"):
        for batch_size in (4, 20):
            paddle.seed(0)
            cfg = configure(
                *("cifar10", *SMALL[:2], f"EVAL.batch_norm={batch_norm}"),
                f"EVAL.batch_size={batch_size}",
            )
            generator, _ = wgangp_cifar10.make_networks(cfg)
            validator = make(cfg, generator, Quadrants(), data)
            figures[batch_norm, batch_size] = evaluate(cfg, generator, validator)["distance"]
    assert figures["running", 4] == pytest.approx(figures["running", 20], rel=1e-5)
    assert figures["batch", 4] != pytest.approx(figures["batch", 20], rel=1e-5)


def test_evaluation_and_drawing_leave_running_averages_alone(cifar10):
    cfg, generator, _, data = cifar10
    before = [buffer.numpy().copy() for buffer in generator.buffers()]
    evaluate(cfg, generator, make(cfg, generator, Quadrants(), data))
    sampling.sample(generator, sampling.grid_inputs(cfg, generator, 10, 10))
    for buffer, kept in zip(generator.buffers(), before):
        np.testing.assert_array_equal(buffer.numpy(), kept)
    assert generator.training
    generator(sampling.grid_inputs(cfg, generator, 10, 10))
    assert any((b.numpy() != kept).any() for b, kept in zip(generator.buffers(), before))


def test_critic_validator_measures_what_it_says(configure):
    cfg = configure("cifar10", *SMALL[:2], "EVAL.batch_size=3", "EVAL.inception=false")
    generator, critic = wgangp_cifar10.make_networks(cfg)
    data = synthetic.synthetic_set(train=2, test=9)
    (validator,) = wgangp_cifar10.make_validators(cfg, generator, critic, data, 7).values()
    figures = evaluate(cfg, generator, validator)
    real = validator.data_loader.dataset.input["real"]
    noise = real - functions.prepare_cifar10(data.test_images[:7])
    assert 0 <= noise.min() and noise.max() <= 1 / 128 + 1e-6 and noise.std() > 1e-3
    real = paddle.to_tensor(real)
    labels = paddle.to_tensor(data.test_labels[:7])
    noise = paddle.to_tensor(validator.data_loader.dataset.input["noise"])
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


def test_evaluation_leaves_the_critics_running_averages_alone(configure):
    cfg = configure("cifar10", *SMALL[:2], "EVAL.inception=false", "MODEL.dis_net.norm=batch")
    generator, critic = wgangp_cifar10.make_networks(cfg)
    before = [buffer.numpy().copy() for buffer in critic.buffers()]
    assert before
    data = synthetic.synthetic_set(train=2, test=9)
    (validator,) = wgangp_cifar10.make_validators(cfg, generator, critic, data, 9).values()
    figures = evaluate(cfg, generator, validator)
    for buffer, kept in zip(critic.buffers(), before):
        np.testing.assert_array_equal(buffer.numpy(), kept)
    # by the batch's own statistics all the same
    assert critic.training
    real = paddle.to_tensor(validator.data_loader.dataset.input["real"])
    accuracy = functions.correct(critic.score(real)[1], paddle.to_tensor(data.test_labels[:9]))
    assert figures["test_accuracy_real"] == pytest.approx(float(accuracy.mean()))


def test_more_toy_samples_than_can_be_compared_are_refused(configure):
    cfg = configure("toy", *SMALL)
    generator, _ = wgangp_toy.make_networks(cfg)
    with pytest.raises(UserError, match="50000 samples are too many.*10000 at most"):
        wgangp_toy.make_validators(cfg, generator, 50_000)


def test_without_a_critic_its_validator_is_left_out(cifar10):
    cfg, generator, _, data = cifar10
    cfg.EVAL.inception = False
    assert wgangp_cifar10.make_validators(cfg, generator, None, data, 10) == {}


def test_the_toy_sets_have_their_floor_beside(configure):
    cfg = configure("toy", *SMALL, "DATA.mode=25gaussians")
    generator, _ = wgangp_toy.make_networks(cfg)
    (validator,) = wgangp_toy.make_validators(cfg, generator, 2000).values()
    figures, real = evaluate(cfg, generator, validator), validator.real
    assert real["modes"] == 25 and validator.real_count == 2000
    assert real["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.01)
    assert 0 < real["reverse_kl"] < 0.02
    assert real["wasserstein_2"] < 0.3 < figures["wasserstein_2"]


def test_progress_tells_how_far_and_how_long(monkeypatch, tmp_path):
    lines, clock = [], iter([0, 10, 40, 50, 100, 101])
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(progress_module.logger, "info", lines.append)
    progress = Progress("pictures", 100)
    for _ in range(5):
        progress.add(20)
    # at 40 s 40 of 100 were done, at 100 s 80
    assert lines == ["40 of 100 pictures, 00:01:00 left", "80 of 100 pictures, 00:00:25 left"]
    progress.add(20)  # the next evaluation begins anew
    assert len(lines) == 2 and progress.count == 20


def test_rows_and_table():
    figures = {"fid": 12.3456789, "inception_score": 5.0, "inception_score_deviation": 0.25}
    figures.update(modes=7.0, test_wasserstein=1.5)
    by = {"network": "some network", "sha256": "abc" * 20}
    validator = types.SimpleNamespace(
        measured_by=by,
        real={"modes": 8.0, "modes_deviation": 0.5},
        real_count=30,
        data_loader=types.SimpleNamespace(dataset=range(50)),
    )
    rows = make_rows(figures, validator)
    assert set(rows) == {"fid", "inception_score", "modes", "test_wasserstein"}
    assert rows["inception_score"] == {
        **{"value": 5.0, "deviation": 0.25, "num_samples": 50, "better": "higher"},
        **{"real": None, "real_deviation": None, "real_num_samples": None, "measured_by": by},
    }
    assert rows["modes"]["real"] == 8.0 and rows["modes"]["real_deviation"] == 0.5
    assert rows["modes"]["real_num_samples"] == 30
    assert rows["test_wasserstein"]["better"] is None
    assert make_table(rows).splitlines() == [
        "figure            value   deviation  real  better  samples  measured by",
        "fid               12.346  -          -     lower   50       some network (abcabcabcabc)",
        "inception_score   5       0.25       -     higher  50       some network (abcabcabcabc)",
        "modes             7       -          8     higher  50       some network (abcabcabcabc)",
        "test_wasserstein  1.5     -          -     -       50       some network (abcabcabcabc)",
    ]


def test_figures_that_are_not_finite_are_refused(cifar10):
    cfg, generator, _, data = cifar10
    validator = make(cfg, generator, Quadrants(), data, extra=lambda p: {"lost": float("inf")})
    with pytest.raises(UserError, match="lost is not finite"):
        evaluate(cfg, generator, validator)


def test_statistics_that_cannot_be_kept_are_used_all_the_same(cifar10, tmp_path, monkeypatch):
    _, _, _, data = cifar10
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    lines = []
    monkeypatch.setattr(evaluation.logger, "warning", lines.append)
    network = Quadrants()
    mean, _ = reference_statistics(data.train_images, network)
    assert np.isfinite(mean).all() and "could not be kept" in lines[0]
    with pytest.raises(UserError, match="1 training picture"):
        reference_statistics(data.train_images[:1], network)


def test_best_metrics_have_a_direction():
    for script in (wgangp_toy, wgangp_mnist, wgangp_cifar10, wgangp_image64):
        for name in script.CHOICES["TRAIN.best_metric"]:
            assert evaluation.BETTER[name] in ("higher", "lower")
    assert evaluation.is_better("inception_score", 2, 1) and evaluation.is_better("fid", 1, 2)
    assert not evaluation.is_better("inception_score", 1, 2)
    assert not evaluation.is_better("fid", 2, 1) and not evaluation.is_better("fid", 1, 1)


def test_frechet_distance_of_known_distributions():
    rng = np.random.default_rng(0)
    # diagonal covariances: the distance is that of each axis
    means, spreads = rng.standard_normal((2, 6)), rng.random((2, 6)) + 0.1
    left, right = ((m, np.diag(s**2)) for m, s in zip(means, spreads))
    expected = ((means[0] - means[1]) ** 2).sum() + ((spreads[0] - spreads[1]) ** 2).sum()
    assert metrics.frechet_distance(left, right) == pytest.approx(expected)
    assert metrics.frechet_distance(left, left) == pytest.approx(0, abs=1e-9)
    # any covariances, by SciPy's root of the product
    a, b = rng.standard_normal((2, 6, 6))
    left, right = (means[0], a @ a.T), (means[1], b @ b.T)
    root = linalg.sqrtm(left[1] @ right[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(left[1] + right[1] - 2 * root)
    assert metrics.frechet_distance(left, right) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_fewer_samples_than_features():
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((2, 5, 40))
    distance = metrics.frechet_distance(*map(metrics.mean_and_covariance, parts))
    # the overlap of two low-rank covariances is that of their factors
    factors = [(part - part.mean(0)) / 2 for part in parts]
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    means = ((parts[0].mean(0) - parts[1].mean(0)) ** 2).sum()
    expected = means + (factors[0] ** 2).sum() + (factors[1] ** 2).sum() - 2 * overlap
    assert distance == pytest.approx(expected, rel=1e-6)


def test_mean_and_covariance_in_pieces():
    features = np.random.default_rng(0).random((50, 7), "float32") + 100
    mean, covariance = metrics.mean_and_covariance(features, rows=8)
    assert covariance.dtype == mean.dtype == np.float64
    np.testing.assert_allclose(mean, features.astype("float64").mean(0))
    np.testing.assert_allclose(covariance, np.cov(features.astype("float64"), rowvar=False))


def test_shares_of_classes():
    shares, kl = metrics.class_shares(np.array([0, 0, 0, 2]), 3)
    assert shares.tolist() == [0.75, 0, 0.25]
    assert kl == pytest.approx(0.75 * np.log(0.75 * 3) + 0.25 * np.log(0.25 * 3))
    assert metrics.class_shares(np.arange(30) % 10, 10)[1] == pytest.approx(0)
