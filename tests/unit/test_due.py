# SPDX-License-Identifier: Apache-2.0
"""What is due at an iteration: a pure function of iteration and settings."""

import pytest
from omegaconf import OmegaConf

from training.due import Due
from training.due import what_is_due


def settings(**changes):
    train = {"epochs": 6, "iters_per_epoch": 4, "eval_freq": 2, "save_freq": 3, "on_nan": "stop"}
    return OmegaConf.create({**train, **changes})


def iterations_due(part, log_freq=100, **changes):
    train = settings(**changes)
    last = train.epochs * train.iters_per_epoch
    return [
        iteration
        for iteration in range(1, last + 1)
        if getattr(what_is_due(iteration, train, log_freq), part)
    ]


def test_records_are_due_at_the_first_iteration_at_intervals_and_at_epoch_ends():
    assert iterations_due("record") == [1, 4, 8, 12, 16, 20, 24]
    assert iterations_due("record", log_freq=5) == [1, 4, 5, 8, 10, 12, 15, 16, 20, 24]


def test_epochs_end_every_iters_per_epoch():
    assert iterations_due("epoch_end") == [4, 8, 12, 16, 20, 24]


def test_evaluations_are_due_at_their_epochs_and_at_the_end():
    assert iterations_due("evaluation") == [8, 16, 24]
    assert iterations_due("evaluation", eval_freq=4) == [16, 24]
    assert iterations_due("evaluation", eval_freq=100) == [24]


def test_checkpoints_are_due_at_their_epochs_and_at_the_end():
    assert iterations_due("checkpoint") == [12, 24]
    assert iterations_due("checkpoint", save_freq=4) == [16, 24]
    assert iterations_due("checkpoint", save_freq=0) == []


def test_a_run_that_may_roll_back_keeps_its_first_iteration():
    assert iterations_due("checkpoint", on_nan="roll_back") == [1, 12, 24]
    assert iterations_due("checkpoint", on_nan="roll_back", save_freq=0) == [1]


def test_the_end_is_due_once():
    assert iterations_due("end") == [24]


@pytest.mark.parametrize("iteration", [1, 7, 24])
def test_what_is_due_depends_on_its_arguments_alone(iteration):
    due = what_is_due(iteration, settings(), 7)
    assert due == what_is_due(iteration, settings(), 7)
    assert isinstance(due, Due)
    assert due.record  # 7 by log_freq, the others as the first and as an epoch's end
