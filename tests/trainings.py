# SPDX-License-Identifier: Apache-2.0
"""Tiny runs in the tests' own process."""

import json

import numpy as np
import paddle

from support import npz
from training import build
from training import checkpoints
from training.run import Run
from training.run_settings import RunSettings

TOY = "preset=authors MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16"
CIFAR10 = "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 TRAIN.batch_size=2"


def make_run(experiment, data=None):
    """A run at its start, with the networks that an experiment makes.

    Args:
        experiment: A script's experiment.
        data: A data set in the place of the experiment's own.
    """
    generator, critic = experiment.make_networks()
    data = experiment.read_data() if data is None else data
    return build.make_run(
        RunSettings.of(experiment.cfg),
        generator,
        critic,
        lambda length, seed: experiment.make_real_streams(data, generator, length, seed),
        experiment.fingerprint(data),
    )


def after_steps(monkeypatch, act):
    """Makes every run call `act(run)` after each of its iterations."""
    step = Run.step

    def step_and_act(run):
        step(run)
        act(run)

    monkeypatch.setattr(Run, "step", step_and_act)


def rewrite_checkpoint(path, arrays=None, **contents):
    """Replaces arrays and contents of a checkpoint; its checksum is right afterwards."""
    arrays = dict(arrays or {})
    if contents:
        contents = {**checkpoints.read(str(path)).contents, **contents}
        arrays["contents"] = np.frombuffer(json.dumps(contents).encode(), "uint8")
    with np.load(path) as former:
        npz.write_npz(str(path), {**former, **arrays})


def read_records(folder):
    """Records of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_clock(records):
    """Records whose seconds are 0: two equal runs differ in nothing else."""
    return [{**record, "seconds": 0} for record in records]


def load_arrays(path):
    """Arrays of a .pdparams file, in their order."""
    return list(paddle.load(str(path), return_numpy=True).values())
