# SPDX-License-Identifier: Apache-2.0
"""Streams: what is read depends on the seed and the position alone."""

import copy

import numpy as np

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


def test_distributions():
    positions = list(range(20000))
    noise = streams.normal_stream(20000, (0,), 2)[positions]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    alpha = streams.uniform_stream(20000, (0,))[positions]
    assert alpha.shape == (20000,) and 0 <= alpha.min() and alpha.max() < 1
    assert abs(alpha.mean() - 0.5) < 0.01
    labels = streams.label_stream(20000, (0,), 10)[positions]
    assert labels.dtype == np.int64
    np.testing.assert_allclose(np.bincount(labels) / 20000, 0.1, atol=0.01)


def test_each_pass_holds_every_row_once_in_a_new_order():
    shuffle = streams.Shuffle(7, (3,))
    rows = np.concatenate([shuffle(np.arange(i, i + 3)) for i in range(0, 21, 3)])
    passes = rows.reshape(3, 7)
    for one in passes:
        assert sorted(one) == list(range(7))
    assert len({tuple(one) for one in passes}) == 3


def test_a_set_smaller_than_a_batch():
    rows = streams.Shuffle(3, (3,))(np.arange(10))
    assert np.bincount(rows).tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


def test_pictures_keep_their_labels():
    labels = np.arange(20) % 10
    images = np.broadcast_to(labels[:, None, None, None], (20, 1, 2, 2)).astype("uint8")
    read = streams.shuffled_images(images, labels, functions.prepare_mnist, 60, (5,))
    positions = list(range(15, 55))
    pixels = read["real"][positions][:, 0, 0, 0] * 256
    np.testing.assert_array_equal(pixels, read["labels"][positions])


def test_copies_share_the_pictures():
    images = np.zeros((5, 1, 2, 2), "uint8")
    prepare = functions.prepare_mnist
    read = streams.shuffled_images(images, np.zeros(5, "int64"), prepare, 5, (0,))
    # ppsci deep-copies a dataset's configuration, arrays and all
    copied = copy.deepcopy(read)
    images[:] = 128
    assert (copied["real"][[0]] == 0.5).all()
