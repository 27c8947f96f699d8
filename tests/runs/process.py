# SPDX-License-Identifier: Apache-2.0
"""Trains three iterations and saves the weights of each process, for test_processes.py.

`python -m paddle.distributed.launch --nproc_per_node 2 tests/runs/process.py FOLDER BATCHES`

One of its batches joins BATCHES batches, so one process can see what several see together.
"""

import os
import sys
from pathlib import Path

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


def join_batches(count):
    """Makes streams read `count` batches as one, each with the draws that it has alone."""
    read = streams.Stream.__getitem__

    def joined(stream, positions):
        parts = np.split(np.asarray(positions), count)
        return np.concatenate([read(stream, part) for part in parts])

    streams.Stream.__getitem__ = joined


def main(folder, batches):
    join_batches(batches)
    overrides = (
        f"MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 TRAIN.batch_size={8 * batches} "
        f"TRAIN.update_freq={os.environ.get('UPDATE_FREQ', 1)} TRAIN.iters_per_epoch=4 "
        f"device=cpu output_dir={folder}"
    )
    with initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
        cfg = compose("wgangp_mnist", overrides.split())
    paddle.set_device("cpu")
    # Each process starts with its own weights; all get those of the first one.
    paddle.seed(int(os.environ.get("PADDLE_TRAINER_ID", 0)))
    run = make_run(wgangp_mnist.Mnist(cfg), synthetic.digits_set())
    run.iteration = 1
    run.seek()
    for _ in range(3):
        run.step()
    weights = {
        f"{player.name}/{key}": value.numpy()
        for player in run.players
        for key, value in player.network.state_dict().items()
    }
    name = os.environ.get("PADDLE_TRAINER_ID", "alone")
    np.savez(f"{folder}/{name}.npz", **weights)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
