# SPDX-License-Identifier: Apache-2.0
"""The moving average of a generator's weights."""

import numpy as np
import paddle
import pytest

import functions
from training.average import MovingAverage


@pytest.mark.parametrize("decay", [0.2, 0.9])
def test_the_average_is_exponential_and_copies_buffers(decay):
    network = functions.WganGpCifar10Generator(dim=4)
    start = [weight.numpy().copy() for weight in network.parameters()]
    average = MovingAverage(network, decay)
    for step in (1, 2):
        for weight in network.parameters():
            weight.set_value(weight + 1.0)
        average.update(step)
    for buffer in network.buffers():
        buffer.set_value(buffer + 7.0)
    average.update(3)
    # Weights were w + 1, w + 2, w + 2; the decay is at most (1 + step) / (10 + step), here 0.31.
    expected = 0.0
    for step, weight in ((1, 1.0), (2, 2.0), (3, 2.0)):
        rate = 1 - min(decay, (1 + step) / (10 + step))
        expected += rate * (weight - expected)
    for before, weight in zip(start, average.network.parameters()):
        np.testing.assert_allclose(weight.numpy() - before, expected, rtol=1e-4)
    buffers = list(average.network.buffers())
    assert len(buffers) == 14
    for copy, buffer in zip(buffers, network.buffers()):
        np.testing.assert_array_equal(copy.numpy(), buffer.numpy())
        assert copy is not buffer


@pytest.mark.parametrize(
    ("step", "share"),
    [(1, 9 / 11), (2, 9 / 12), (90, 9 / 100), (8989, 9 / 8999), (8990, 0.001), (10**6, 0.001)],
)
def test_the_warm_up_lowers_the_decay_of_the_first_steps(step, share):
    """From 0 towards 1, one update goes 1 - decay of the way: 9 / (10 + step) at first."""
    network = paddle.nn.Linear(1, 1)
    network.weight.set_value(paddle.zeros([1, 1]))
    average = MovingAverage(network, 0.999)
    network.weight.set_value(paddle.ones([1, 1]))
    average.update(step)
    assert float(average.network.weight) == pytest.approx(share, rel=1e-4)


def test_without_a_decay_there_is_no_copy():
    network = functions.WganGpToyGenerator(4)
    average = MovingAverage(network, None)
    average.update(1)
    assert average.network is network and not average.is_kept
