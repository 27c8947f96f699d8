# SPDX-License-Identifier: Apache-2.0
"""Streams: what is read depends on the seed and the position alone."""

import copy

import numpy as np
import pytest

import functions
from data import streams


def test_a_batch_does_not_depend_on_what_was_read_before():
    one = streams.normal_stream(100, (1, 2), 3)
    two = streams.normal_stream(100, (1, 2), 3)
    batches = [one[list(range(start, start + 10))] for start in range(0, 100, 10)]
    np.testing.assert_array_equal(two[list(range(50, 60))], batches[5])
    assert len(one) == 100 and batches[0].shape == (10, 3) and batches[0].dtype == np.float32
    assert len({batch.tobytes() for batch in batches}) == 10


def test_streams_of_other_seeds_differ():
    draws = [
        streams.uniform_stream(10, seed)[[0, 1, 2]].tobytes()
        for seed in [(1, 2), (2, 1), (1, 3), (1,)]
    ]
    assert len(set(draws)) == 4


def test_draws_have_their_distributions():
    positions = list(range(20000))
    noise = streams.normal_stream(20000, (0,), 2)[positions]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    alpha = streams.uniform_stream(20000, (0,))[positions]
    assert alpha.shape == (20000,) and 0 <= alpha.min() and alpha.max() < 1
    assert abs(alpha.mean() - 0.5) < 0.01
    labels = streams.label_stream(20000, (0,), 10)[positions]
    assert labels.dtype == np.int64
    np.testing.assert_allclose(np.bincount(labels) / 20000, 0.1, atol=0.01)


def test_labels_are_drawn_by_the_shares_of_their_classes():
    shares = np.array([0.7, 0.0, 0.2, 0.1])
    labels = streams.label_stream(20000, (0,), 4, shares)[list(range(20000))]
    assert labels.dtype == np.int64
    np.testing.assert_allclose(np.bincount(labels) / 20000, shares, atol=0.01)
    # Without shares, the draws are those of all versions.
    expected = np.random.default_rng((0, 0, 0)).integers(10, size=50)
    np.testing.assert_array_equal(streams.label_stream(50, (0,), 10)[list(range(50))], expected)


def test_each_pass_holds_every_row_once_in_a_new_order():
    shuffle = streams.Shuffle(7, (3,))
    rows = np.concatenate([shuffle(np.arange(i, i + 3)) for i in range(0, 21, 3)])
    passes = rows.reshape(3, 7)
    for one in passes:
        assert sorted(one) == list(range(7))
    assert len({tuple(one) for one in passes}) == 3


def test_a_set_smaller_than_a_batch_is_read_evenly():
    rows = streams.Shuffle(3, (3,))(np.arange(10))
    assert np.bincount(rows).tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


def test_pictures_keep_their_labels():
    labels = np.arange(20) % 10
    images = np.broadcast_to(labels[:, None, None, None], (20, 1, 2, 2)).astype("uint8")
    read = streams.shuffled_images(images, labels, functions.prepare_mnist, 60, (5,))
    positions = list(range(15, 55))
    pixels = read["real"][positions][:, 0, 0, 0] * 256
    np.testing.assert_array_equal(pixels, read["labels"][positions])


def test_a_copy_is_the_stream_itself():
    """ppsci deep-copies a dataset's configuration; `seek` must reach what is read."""
    images = np.zeros((5, 1, 2, 2), "uint8")
    read = streams.shuffled_images(images, np.zeros(5, "int64"), functions.prepare_mnist, 5, (0,))
    copied = copy.deepcopy(read)
    images[:] = 128
    assert (copied["real"][[0]] == 0.5).all()
    noise = streams.normal_stream(100, (1,), 3)
    copied = copy.deepcopy({"input": {"noise": noise}})["input"]["noise"]
    noise.seek(50)
    np.testing.assert_array_equal(copied[[0, 1]], streams.normal_stream(100, (1,), 3)[[50, 51]])


def test_another_attempt_draws_other_numbers_at_the_same_positions():
    stream = streams.normal_stream(100, (1, 2), 3)
    first = stream[[0, 1]]
    stream.seek(0, attempt=1)
    second = stream[[0, 1]]
    assert (second != first).all()
    stream.seek(0, attempt=1)
    np.testing.assert_array_equal(stream[[0, 1]], second)
    stream.seek(0)
    np.testing.assert_array_equal(stream[[0, 1]], first)


def test_a_failure_is_kept_by_its_stream_until_the_next_seek():
    errors = [OSError("first"), ValueError("second")]

    def draw(rng, positions):
        raise errors[calls.pop(0)]

    calls, other = [0, 1], streams.uniform_stream(10, (0,))
    stream = streams.Stream(10, (0,), draw)
    assert stream.failure is None
    for error in errors:
        # In the thread that reads, Paddle handles only this exception.
        with pytest.raises(StopIteration):
            stream[[0]]
        assert stream.failure is error
    other[[0]]
    assert other.failure is None
    stream.seek(5)
    assert stream.failure is None


def test_streams_have_numbers_of_their_own():
    """They seed a run's draws: another number is another run for the same seed."""
    numbers = {n: v for n, v in vars(streams).items() if n.isupper() and isinstance(v, int)}
    names = "REAL CRITIC_NOISE ALPHA GENERATOR_NOISE LABELS GRID EVALUATION INFERENCE TEST_ROWS"
    assert numbers == {name: number for number, name in enumerate(names.split())}


def test_draws_are_those_of_numpys_generator():
    """The same seed gives the same run in a later version."""
    stream = streams.normal_stream(100, (7, 1), 2)
    stream.seek(30, attempt=2)
    expected = np.random.default_rng((7, 1, 30 + 4, 2)).standard_normal((3, 2), "float32")
    np.testing.assert_array_equal(stream[[4, 5, 6]], expected)
    order = np.random.default_rng((7, 1, 10, 1, 0)).permutation(10)
    read = streams.shuffled_images(
        np.zeros((10, 1, 1, 1), "uint8"), np.arange(10), functions.prepare_mnist, 20, (7, 1)
    )
    np.testing.assert_array_equal(read["labels"][np.arange(10)], order)
