# SPDX-License-Identifier: Apache-2.0
"""Trains tiny networks and saves the arrays of each process, for test_processes.py.

`python -m paddle.distributed.launch --nproc_per_node 2 tests/runs/process.py FOLDER`
"""

import os
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers import SCRIPTS

from support.processor import prepare

prepare()

import numpy as np
import paddle
from hydra import compose
from hydra import initialize_config_dir
from trainings import make_run

import wgangp_mnist
from data import streams
from data import synthetic
from training import loop


def join_batches(count):
    """Returns a reader that joins `count` batches, each with the draws that it has alone."""
    read = streams.Stream.__getitem__

    def read_joined(stream, positions):
        parts = np.split(np.asarray(positions), count)
        return np.concatenate([read(stream, part) for part in parts])

    return read_joined


def make_mnist_run(folder, overrides):
    """A run on digits; each process starts with its own weights, and all get the first one's."""
    words = f"{overrides} TRAIN.iters_per_epoch=4 device=cpu output_dir={folder}".split()
    with initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
        cfg = compose("wgangp_mnist", words)
    paddle.set_device("cpu")
    paddle.seed(int(os.environ.get("PADDLE_TRAINER_ID", 0)))
    return make_run(wgangp_mnist.Mnist(cfg), synthetic.digits_set())


def train(folder, batches=1, update_freq=1):
    """Trains three iterations; returns the weights of both networks by name.

    Args:
        folder: The output folder.
        batches: How many batches each batch joins: one process then reads what several read.
        update_freq: Batches of an optimiser step.
    """
    overrides = (
        f"MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 TRAIN.batch_size={8 * batches} "
        f"TRAIN.update_freq={update_freq}"
    )
    with mock.patch.object(streams.Stream, "__getitem__", join_batches(batches)):
        run = make_mnist_run(folder, overrides)
        run.iteration = 1
        run.seek()
        for _ in range(3):
            run.step()
    return {
        f"{player.name}/{key}": value.numpy()
        for player in run.players
        for key, value in player.network.state_dict().items()
    }


def train_epoch_of_running_averages(folder):
    """Trains an epoch; returns the running averages before and after the processes share them."""
    overrides = (
        "MODEL.arch=wgan_lab MODEL.gen_net.dim=2 MODEL.dis_net.dim=2 TRAIN.batch_size=4 "
        "TRAIN.epochs=1 TRAIN.save_freq=0 TRAIN.ema.use_ema=true"
    )
    run, found = make_mnist_run(f"{folder}/epoch", overrides), {}
    share = run.share_buffers

    def keep(kind):
        buffers = [buffer for network in run.networks for buffer in network.buffers()]
        found.update({f"{kind}/{n}": buffer.numpy() for n, buffer in enumerate(buffers)})

    def share_and_keep():
        keep("own")
        share()
        keep("shared")

    run.share_buffers = share_and_keep
    loop.train(run, None, lambda path: None)
    return found


def main(folder):
    rank = os.environ["PADDLE_TRAINER_ID"]
    np.savez(f"{folder}/weights_{rank}.npz", **train(folder))
    np.savez(f"{folder}/averages_{rank}.npz", **train_epoch_of_running_averages(folder))


if __name__ == "__main__":
    main(sys.argv[1])
