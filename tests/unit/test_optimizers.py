# SPDX-License-Identifier: Apache-2.0
"""Optimisers: closed forms, schedules over the run's own length, the tensors they keep."""

import numpy as np
import paddle
import pytest

from support.errors import UserError
from training import optimizers


def step(network, optimizer, gradient=1.0):
    (gradient * sum(weight.sum() for weight in network.parameters())).backward()
    optimizer.step()
    optimizer.clear_grad()


def test_rmsprop_has_tensorflows_rho_and_epsilon(configure):
    """w -= rate g / sqrt(0.9 r + 0.1 g^2 + 1e-10), on a network of one weight; r starts at 0."""
    network = paddle.nn.Linear(1, 1, bias_attr=False)
    optimizer = optimizers.make_optimizer(network, "RMSProp", 0.5, configure("toy").TRAIN)
    weight, mean = float(network.weight), 0.0
    for gradient in (3.0, -1.0, 0.5):
        step(network, optimizer, gradient)
        mean = 0.9 * mean + 0.1 * gradient**2
        weight -= 0.5 * gradient / np.sqrt(mean + 1e-10)
        assert float(network.weight) == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e-8])
def test_adam_is_the_papers_with_the_configurations_betas(size, configure):
    """Closed form of two steps: m = b1 m + (1 - b1) g, v likewise, both corrected for bias.

    A gradient near epsilon shows its place: TensorFlow adds it before v is corrected.
    """
    train = configure("cifar10", "TRAIN.beta1=0.3 TRAIN.beta2=0.8 TRAIN.lr_schedule=constant").TRAIN
    network = paddle.nn.Linear(1, 1, bias_attr=False)
    optimizer = optimizers.make_optimizer(network, "Adam", 0.1, train)
    weight, first, second = float(network.weight), 0.0, 0.0
    for number, gradient in enumerate((2.0 * size, -1.0 * size), 1):
        step(network, optimizer, gradient)
        first = 0.3 * first + 0.7 * gradient
        second = 0.8 * second + 0.2 * gradient**2
        corrected = first / (1 - 0.3**number), second / (1 - 0.8**number)
        weight -= 0.1 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        assert float(network.weight) == pytest.approx(weight, rel=1e-4)


def test_sgd_has_the_configurations_momentum(configure):
    train = configure("toy", "TRAIN.momentum=0.5 TRAIN.lr_schedule=constant").TRAIN
    network = paddle.nn.Linear(1, 1, bias_attr=False)
    optimizer = optimizers.make_optimizer(network, "SGD", 0.1, train)
    start = float(network.weight)
    for _ in range(2):
        step(network, optimizer)
    # The velocity is 1, then 1.5.
    assert float(network.weight) == pytest.approx(start - 0.1 * 2.5, rel=1e-5)


@pytest.mark.parametrize("name", ["Adam", "RMSProp", "SGD"])
def test_an_optimisers_state_moves_to_another_network(name, configure):
    train = configure("toy").TRAIN

    def make():
        network = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.Linear(3, 1))
        return network, optimizers.make_optimizer(network, name, 0.1, train)

    network, optimizer = make()
    for gradient in (1.0, 2.0):
        step(network, optimizer, gradient)
    state = optimizers.get_state(network, optimizer)
    kinds = optimizers.STATE_NAMES[{"SGD": "Momentum"}.get(name, name)]
    assert set(state) == {
        f"{weight}/{kind}" for weight, _ in network.named_parameters() for kind in kinds
    }
    other, fresh = make()
    other.set_state_dict(network.state_dict())
    tensors = optimizers.match_state(other, fresh, state, "x")
    fresh.set_state_dict({**tensors, "LR_Scheduler": {"last_epoch": 0, "last_lr": 0.1}})
    step(network, optimizer, 3.0)
    step(other, fresh, 3.0)
    for one, two in zip(network.parameters(), other.parameters()):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight/moment9", np.zeros(1, "float32"), "not those of this training.*weight/moment9"),
        ("weight/moment1", np.zeros(3, "float32"), "another shape, or is not finite"),
        ("weight/moment1", np.zeros((1, 1)), "another shape"),
        ("weight/moment2", np.full((1, 1), np.inf, "float32"), "is not finite"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(name, value, message, configure):
    network = paddle.nn.Linear(1, 1, bias_attr=False)
    optimizer = optimizers.make_optimizer(network, "Adam", 0.1, configure("toy").TRAIN)
    step(network, optimizer)
    state = {**optimizers.get_state(network, optimizer), name: value}
    with pytest.raises(UserError, match=f"here: .*{message}"):
        optimizers.match_state(network, optimizer, state, "here")
