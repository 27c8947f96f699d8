# SPDX-License-Identifier: Apache-2.0
"""Features, class probabilities, and the statistics of a training set that are kept on disk."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import quadrants
from quadrants import Quadrants
from scipy.special import softmax

from measures import features
from support.errors import UserError


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(256, size=(30, 3, 8, 8)).astype("uint8")


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(features.logger, "warning", lines.append)
    return lines


def test_classify_orders_at_random_by_the_seed():
    values = np.arange(80, dtype="float32").reshape(20, 4) / 80
    network = Quadrants()
    first, again, other = (features.classify(network, values, seed) for seed in (1, 1, 2))
    plain = softmax(values.astype("float64") @ network.matrix, 1)
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != plain).any()
    np.testing.assert_allclose(np.sort(first, 0), np.sort(plain, 0), rtol=1e-5)


def test_classify_draws_its_order_from_the_evaluations_stream():
    values = np.arange(80, dtype="float32").reshape(20, 4) / 80
    network = Quadrants()
    plain = softmax(values.astype("float64") @ network.matrix, 1)
    order = np.random.default_rng((42, 6, 1)).permutation(20)
    for rows in (7, 1000):
        probabilities = features.classify(network, values, 42, rows)
        np.testing.assert_allclose(probabilities, plain[order], rtol=1e-5)


def test_read_features_covers_the_last_smaller_batch(images):
    network = Quadrants()
    read = features.read_features(images, network, "pictures", batch_size=8)
    assert [len(batch) for batch in network.seen] == [8, 8, 8, 6]
    quadrant = images[:, :, 4:, :4].astype("float64").mean((1, 2, 3)) / 64
    np.testing.assert_allclose(read[:, 2], quadrant, rtol=1e-5)


def test_statistics_are_mean_and_covariance_of_the_features(images):
    mean, covariance = features.reference_statistics(images, Quadrants())
    values = features.read_features(images, Quadrants(), "pictures").astype("float64")
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(covariance, np.cov(values, rowvar=False))


def test_statistics_are_kept_until_data_or_weights_change(images):
    network = Quadrants()
    first = features.reference_statistics(images, network)
    assert len(network.seen) == 1
    again = features.reference_statistics(images, network)
    assert len(network.seen) == 1
    for part, same in zip(first, again):
        np.testing.assert_array_equal(part, same)
    features.reference_statistics(images[:9], network)
    assert len(network.seen) == 2
    network.sha256 = "1" * 64
    features.reference_statistics(images, network)
    assert len(network.seen) == 3
    network.version = 2
    features.reference_statistics(images, network)
    assert len(network.seen) == 4


def test_statistics_path_depends_on_pictures_weights_and_versions(images, monkeypatch):
    network = Quadrants()
    paths = [features.statistics_path(images, network)]
    changed = images.copy()
    changed[-1, -1, -1, -1] ^= 1
    paths.append(features.statistics_path(changed, network))
    # the same bytes in another shape
    paths.append(features.statistics_path(images.reshape(30, 3, 4, 16), network))
    network.sha256 = "1" * 64
    paths.append(features.statistics_path(images, network))
    network.version = 2
    paths.append(features.statistics_path(images, network))
    monkeypatch.setattr(features, "STATISTICS_VERSION", features.STATISTICS_VERSION + 1)
    paths.append(features.statistics_path(images, network))
    assert len(set(paths)) == len(paths)


def test_statistics_path_is_the_same_in_every_release(tmp_path):
    """A release that changes this without a change of results throws away kept statistics."""
    images = np.arange(24, dtype="uint8").reshape(2, 3, 2, 2)
    path = features.statistics_path(images, Quadrants())
    assert path == f"{tmp_path}/cache/statistics/wgangp/102e4899bc97a8e2696b43b3c7255b6d.npz"
    # the layout in memory does not matter
    assert features.statistics_path(np.asfortranarray(images), Quadrants()) == path


def test_statistics_path_does_not_depend_on_source_text(images, tmp_path, monkeypatch):
    """Statistics outlive a comment that is added to the code behind them."""

    def copy_of_network(comment):
        path = tmp_path / "network_module.py"
        path.write_text(comment + Path(quadrants.__file__).read_text())
        spec = importlib.util.spec_from_file_location("network_module", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "network_module", module)
        spec.loader.exec_module(module)
        return module.Quadrants()

    network = copy_of_network("")
    features.reference_statistics(images, network)
    assert len(network.seen) == 1
    network = copy_of_network("# a comment\n")
    features.reference_statistics(images, network)
    assert len(network.seen) == 0


def test_statistics_cut_short_are_computed_again(images, warnings):
    network = Quadrants()
    first = features.reference_statistics(images, network)
    path = features.statistics_path(images, network)
    with open(path, "rb") as file:
        whole = file.read()
    for content in (whole[:100], b"", b"PK nonsense"):
        with open(path, "wb") as file:
            file.write(content)
        again = features.reference_statistics(images, network)
        np.testing.assert_array_equal(first[1], again[1])
    assert len(network.seen) == 4
    assert len(warnings) == 3
    assert all(path in line and "computed again" in line for line in warnings)


def test_statistics_that_cannot_be_kept_are_used_all_the_same(images, warnings, tmp_path):
    (tmp_path / "cache").write_text("a file in the place of the folder")
    mean, _ = features.reference_statistics(images, Quadrants())
    assert np.isfinite(mean).all()
    assert "can't be written" in warnings[0] and str(tmp_path / "cache") in warnings[0]


def test_statistics_of_one_picture_are_refused(images):
    with pytest.raises(UserError, match="training set of 1 is too small.*at least 2 pictures"):
        features.reference_statistics(images[:1], Quadrants())
    features.reference_statistics(images[:2], Quadrants())


def test_features_are_kept_until_data_or_weights_change(images):
    network = Quadrants()
    first = features.reference_features(images, network)
    np.testing.assert_array_equal(first, features.read_features(images, Quadrants(), "pictures"))
    again = features.reference_features(images, network)
    assert len(network.seen) == 1
    np.testing.assert_array_equal(first, again)
    features.reference_features(images[:9], network)
    assert len(network.seen) == 2
    # Statistics are computed from them, and are the same.
    mean, covariance = features.reference_statistics(images, network, first)
    assert len(network.seen) == 2
    np.testing.assert_allclose(covariance, np.cov(first.astype("float64"), rowvar=False))
    np.testing.assert_allclose(mean, first.astype("float64").mean(0))


def test_features_cut_short_are_computed_again(images, warnings, tmp_path):
    network = Quadrants()
    first = features.reference_features(images, network)
    path = Path(features.statistics_path(images, network, ".npy"))
    whole = path.read_bytes()
    np.save(tmp_path / "fewer.npy", first[:9])
    for content in (whole[:-7], whole[:20], b"", (tmp_path / "fewer.npy").read_bytes()):
        path.write_bytes(content)
        np.testing.assert_array_equal(features.reference_features(images, network), first)
    assert len(network.seen) == 5 and len(warnings) == 4
    assert all(str(path) in line and "computed again" in line for line in warnings)
    path.unlink()
    path.mkdir()
    np.testing.assert_array_equal(features.reference_features(images, network), first)
