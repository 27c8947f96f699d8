# SPDX-License-Identifier: Apache-2.0
"""Kernel distance and figures of nearest neighbours: against other libraries, and by hand."""

import features_reference as reference
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from measures import metrics
from measures import neighbours


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", 7)
    monkeypatch.setattr(neighbours, "COLUMNS", 5)


@pytest.fixture(scope="module")
def sets():
    return reference.features()


def compare(fake, real):
    radii = (neighbours.squared_radii(part) for part in (fake, real))
    return neighbours.compare_neighbourhoods(fake, real, *radii)


def test_kernel_distance_is_that_of_torch_fidelity(sets):
    rng = np.random.RandomState(reference.SEED)
    figures = metrics.kernel_distance(*sets, rng, reference.SUBSETS, reference.SIZE)
    assert figures == pytest.approx(reference.read_golden()["torch_fidelity"]["kid"], rel=1e-6)


def test_precision_and_recall_are_those_of_torch_fidelity(sets):
    golden, figures = reference.read_golden()["torch_fidelity"], compare(*sets)
    assert 0.5 < figures["recall"] < figures["precision"] < 1
    for name in ("precision", "recall"):
        assert figures[name] == pytest.approx(golden[name], rel=1e-6)


def test_precision_recall_density_and_coverage_are_those_of_prdc(sets, small_blocks):
    assert compare(*sets) == pytest.approx(reference.read_golden()["prdc"], rel=1e-9)


def test_prdc_still_computes_the_golden_values(sets):
    pytest.importorskip("prdc")
    golden = reference.read_golden()["prdc"]
    assert reference.prdc_figures(*sets) == pytest.approx(golden, rel=1e-9)


def test_kernel_distance_by_hand():
    x, y = np.random.default_rng(0).standard_normal((2, 6, 3)).astype("float32")

    def kernel(a, b):
        return (a.astype("float64") @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    expected = sum(kernel(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j) / 30
    expected -= 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / 36
    # All six are in each subset of 1,000.
    value, deviation = metrics.kernel_distance(x, y, np.random.default_rng(0), subsets=3)
    assert value == pytest.approx(expected, rel=1e-5) and deviation == pytest.approx(0, abs=1e-9)


def test_kernel_distance_of_one_distribution_is_0_on_average():
    rng = np.random.default_rng(0)
    x, y, other = rng.standard_normal((3, 2000, 5)).astype("float32")
    value, deviation = metrics.kernel_distance(x, y, rng, size=200)
    assert abs(value) < deviation
    far, _ = metrics.kernel_distance(x, other + 1, rng, size=200)
    assert far > 10 * deviation


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("k", [1, 4])
def test_find_nearest_is_a_search_through_all(small_blocks, dtype, k):
    rng = np.random.default_rng(0)
    left, right = (rng.integers(0, 256, (n, 9)).astype(dtype) for n in (20, 33))
    left[3] = right[17]
    distances = cdist(left.astype("float64"), right.astype("float64"))
    numbers, found = neighbours.find_nearest(left, right, k)
    np.testing.assert_array_equal(numbers, distances.argsort(1)[:, :k])
    np.testing.assert_allclose(found, np.sort(distances)[:, :k])
    assert numbers[3, 0] == 17 and found[3, 0] == 0


def test_radii_are_distances_to_the_third_and_the_fifth_neighbour(small_blocks):
    features = np.random.default_rng(0).standard_normal((23, 4)).astype("float32")
    ordered = np.sort(cdist(features, features), 1)
    third, fifth = neighbours.squared_radii(features)
    np.testing.assert_allclose(third, ordered[:, 3] ** 2, rtol=1e-4)
    np.testing.assert_allclose(fifth, ordered[:, 5] ** 2, rtol=1e-4)
    # With four of them, the third is the farthest.
    third, fifth = neighbours.squared_radii(features[:4])
    np.testing.assert_array_equal(third, fifth)


def test_a_set_has_full_marks_against_itself():
    features = np.random.default_rng(0).standard_normal((200, 4)).astype("float32")
    figures = compare(features, features)
    assert figures["precision"] == figures["recall"] == figures["coverage"] == 1
    # A feature lies in its own ball and on the rim of those of five others, on average.
    assert 1 <= figures["density"] <= 1.2


def test_a_collapsed_generator_has_precision_only():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((300, 4)).astype("float32")
    fake = real[:1] + 1e-3 * rng.standard_normal((300, 4)).astype("float32")
    figures = compare(fake, real)
    assert figures["precision"] == 1 and figures["density"] > 0.5
    assert figures["recall"] < 0.02 and figures["coverage"] < 0.1


def test_share_nearer_is_a_share_of_pairs():
    rng = np.random.default_rng(0)
    fake, real = rng.integers(0, 9, 40) / 8, rng.integers(0, 9, 30) / 8
    below, equal = fake[:, None] < real, fake[:, None] == real
    expected = below.mean() + equal.mean() / 2
    assert neighbours.share_nearer(fake, real) == pytest.approx(expected)
    assert neighbours.share_nearer(real, real) == 0.5
    assert neighbours.share_nearer(np.zeros(5), real + 1) == 1
    assert neighbours.share_nearer(real + 2, real) == 0
