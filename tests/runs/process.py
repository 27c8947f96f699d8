# SPDX-License-Identifier: Apache-2.0
"""Trains a few iterations and keeps the weights of each process: for test_processes.py.

`python -m paddle.distributed.launch --nproc_per_node 2 tests/runs/process.py FOLDER BATCHES`

Where one process is to see what several see together, BATCHES of their batches make one of its.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest
import numpy as np
import paddle
from hydra import compose
from hydra import initialize_config_dir

import wgangp_mnist
from data import streams
from data import synthetic
from training import adversarial


def join_batches(count):
    """Makes a stream read `count` batches as one, each drawn as it would be alone."""
    read = streams.Stream.__getitem__

    def joined(stream, positions):
        parts = np.split(np.asarray(positions), count)
        return np.concatenate([read(stream, part) for part in parts])

    streams.Stream.__getitem__ = joined


def main(folder, batches):
    join_batches(batches)
    size = 8 * batches
    overrides = ["MODEL.gen_net.dim=4", "MODEL.dis_net.dim=4", f"TRAIN.batch_size={size}"]
    overrides += ["TRAIN.iters_per_epoch=4", "device=cpu", f"output_dir={folder}"]
    overrides += [f"TRAIN.update_freq={os.environ.get('UPDATE_FREQ', 1)}"]
    with initialize_config_dir(str(conftest.SCRIPTS / "conf"), version_base=None):
        cfg = compose("wgangp_mnist", overrides)
    paddle.set_device("cpu")
    # each starts with weights of its own: the first one's are taken
    paddle.seed(int(os.environ.get("PADDLE_TRAINER_ID", 0)))
    generator, critic = wgangp_mnist.make_networks(cfg)
    data = synthetic.digits_set()

    def real(rows, seed):
        return wgangp_mnist.real_images(data, rows, seed)

    solvers = adversarial.make_solvers(cfg, generator, critic, real)
    adversarial.seek(cfg, solvers, 1)
    for iteration in (1, 2, 3):
        adversarial.train_iteration(*solvers, iteration)
    name = os.environ.get("PADDLE_TRAINER_ID", "alone")
    state = {f"generator/{key}": value.numpy() for key, value in generator.state_dict().items()}
    state.update({f"critic/{key}": value.numpy() for key, value in critic.state_dict().items()})
    np.savez(f"{folder}/{name}.npz", **state)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
