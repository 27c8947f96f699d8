# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of trainings: a short toy training that can be stopped."""

import os
import signal

import copies
import paddle
import pytest
import stress
from trainings import after_steps

import wgangp_toy
from modes.train import train
from support import pictures

SETTINGS = (
    "MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16 log_freq=3 TRAIN.epochs=3 "
    "TRAIN.iters_per_epoch=4 TRAIN.eval_num_samples=50 TRAIN.ema.use_ema=false"
)


@pytest.fixture
def stress_copies(monkeypatch):
    """The module `stress`, whose trainings are copies of a process that has imported Paddle."""

    def start(folder, overrides=""):
        log, words = folder.with_suffix(".out"), stress.make_words(folder, overrides)
        return copies.Copy(words, stress.SCRIPTS, os.environ, log, log)

    monkeypatch.setattr(stress, "start", start)
    return stress


@pytest.fixture
def make_toy(configure):
    """Makes the toy experiment of a short training, with more overrides."""
    return lambda *overrides: wgangp_toy.Toy(configure("toy", SETTINGS, *overrides))


@pytest.fixture
def toy(make_toy, tmp_path, monkeypatch):
    """Trains the toy networks for 12 iterations in a folder, and returns the folder.

    `toy("run", "TRAIN.keep=2", stop=6)` sends itself SIGTERM after iteration 6.
    """

    def make_drawer(*_):
        return lambda path: open(path, "w").close()

    # Pictures take longer than these trainings, and other tests cover them.
    monkeypatch.setattr(wgangp_toy.Toy, "make_drawer", make_drawer)
    monkeypatch.setattr(pictures, "draw_losses", lambda folder: None)

    def train_toy(folder, *overrides, stop=None):
        paddle.seed(1)
        experiment = make_toy(*overrides)
        experiment.cfg.output_dir = str(tmp_path / folder)

        def stop_at(run):
            if run.iteration == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patch:
            after_steps(patch, stop_at)
            train(experiment)
        return tmp_path / folder

    return train_toy
