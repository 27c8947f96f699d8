# SPDX-License-Identifier: Apache-2.0
"""Trains tiny networks in several processes, and in one, for test_processes.py.

`python tests/runs/process.py FOLDER`
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import agreement

CASES = ("mnist:2", "toy:4", "cifar10:2")


def train_epoch_of_running_averages(folder):
    """Trains an epoch; returns the running averages before and after the processes share them."""
    import paddle

    from training import loop

    paddle.set_device("cpu")
    settings = (
        "MODEL.arch=wgan_lab MODEL.gen_net.dim=2 MODEL.dis_net.dim=2 TRAIN.batch_size=4 "
        "TRAIN.epochs=1 TRAIN.iters_per_epoch=2 TRAIN.save_freq=0 TRAIN.ema.use_ema=true "
        f"output_dir={folder}/epoch"
    )
    run, found = agreement.make_run("mnist", settings.split()), {}
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
    agreement.main([*CASES, f"--output={folder}/agreement.json"])

    def save_averages(rank):
        import numpy as np

        np.savez(f"{folder}/averages_{rank}.npz", **train_epoch_of_running_averages(folder))

    agreement.run_processes(2, save_averages)


if __name__ == "__main__":
    main(sys.argv[1])
