# SPDX-License-Identifier: Apache-2.0
"""Several processes, started by Paddle's own launcher, and accumulated batches."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import agreement
import copies
import numpy as np
import process
import pytest
import stress
from helpers import SCRIPTS
from trainings import read_records

import wgangp_toy
from modes.evaluate import evaluate
from modes.train import train


def start(log, command, **options):
    """Starts two processes of a command, whose logs go into a folder."""
    environment = {name: text for name, text in os.environ.items() if "PADDLE" not in name}
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*launcher, f"--log_dir={log}", *shlex.split(command)],
        cwd=SCRIPTS,
        env=environment,
        stderr=subprocess.STDOUT,
        **options,
    )


def launch(log, command):
    """Runs two processes of a command to their end; returns their logs."""
    launcher = start(log, command, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = launcher.communicate(timeout=240)
    finally:
        end(launcher)
    logs = "".join(path.read_text() for path in sorted(log.glob("workerlog.*")))
    assert launcher.returncode == 0, output[-2000:] + logs[-4000:]
    return logs


def run_two(command, status=0):
    """Runs two processes as the launcher starts them, as copies of one that has imported Paddle.

    Returns:
        Their output.
    """
    environment = {name: text for name, text in os.environ.items() if "PADDLE" not in name}

    def run(variables):
        return copies.run(shlex.split(command), SCRIPTS, {**environment, **variables})

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(run, agreement.launcher_variables(2)))
    output = "".join(done.stdout + done.stderr for done in both)
    assert [done.returncode for done in both] == [status, status], output[-4000:]
    return output


def end(launcher):
    """Kills a launcher that still runs, and its processes, which would outlive it."""
    if launcher.poll() is None:
        for path in Path(f"/proc/{launcher.pid}/task").glob("*/children"):
            for child in path.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        launcher.kill()
        launcher.wait()


def assert_shared(first, second):
    """Both processes got the mean of their running averages.

    Each process normalises its own batches, so their averages differ before.
    """
    own = [name for name in first if name.startswith("own/")]
    # Three layers with a mean and a variance, of the generator and of its moving average.
    assert len(own) == 12
    for name in own:
        assert np.abs(first[name] - second[name]).max() > 0
        shared = name.replace("own/", "shared/")
        np.testing.assert_array_equal(first[shared], second[shared])
        mean = (first[name] + second[name]) / 2
        np.testing.assert_allclose(first[shared], mean, rtol=1e-5, atol=1e-6)


def test_processes_equal_one_with_the_batches_of_all(tmp_path):
    """Losses and weights of two and four processes agree with one process up to rounding.

    The processes have all variables of Paddle's launcher, but share one import of Paddle.
    """
    done = subprocess.run(
        [sys.executable, process.__file__, tmp_path],
        env={name: text for name, text in os.environ.items() if "PADDLE" not in name},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads((tmp_path / "agreement.json").read_text())["rows"]
    assert len(rows) == 7
    for name, row in rows.items():
        largest = max(row["critic_loss"], row["generator_loss"])
        if name == "cifar10:2:whole":  # normalises the batch as a whole
            assert largest > 1e-3, name
            continue
        assert largest < 5e-6, name
        # Adam moves CIFAR-10's biases before a batch normalisation by rounding alone.
        assert row["weights"] < 5e-6 or name.startswith("cifar10"), name
    assert_shared(*(dict(np.load(tmp_path / f"averages_{rank}.npz")) for rank in (0, 1)))


TINY = (
    "MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16 device=cpu "
    "TRAIN.epochs=3 TRAIN.iters_per_epoch=2 TRAIN.eval_freq=3 TRAIN.eval_num_samples=51 "
    "EVAL.num_samples=51 EVAL.batch_size=20"
)


def test_two_processes_train_resume_and_evaluate(tmp_path, configure):
    folder, other, log = tmp_path / "run", tmp_path / "other", tmp_path / "log"
    command = f"wgangp_toy.py {TINY} TRAIN.eval_freq=1"
    logs = launch(log, f"{command} hydra.run.dir={folder}")
    assert logs.count("[6/6] wasserstein") == 1  # The first process logs.
    # Two processes resume from the middle.
    (other / "checkpoints").mkdir(parents=True)
    shutil.copy(folder / "checkpoints" / "iteration_2.npz", other / "checkpoints")
    run_two(f"{command} hydra.run.dir={other} TRAIN.resume=auto")
    assert stress.outcome(other) == stress.outcome(folder)
    records = read_records(folder)
    assert [record["step"] for record in records] == [1, 2, 4, 6]
    assert json.loads((folder / "run.json").read_text())["machine"]["processes"] == 2
    # Figures of an odd number of samples, gathered from both processes, are those of one process.
    settings = f"{TINY} mode=eval EVAL.pretrained_gen_model_path={folder}/model_average_generator"
    evaluate(wgangp_toy.Toy(configure("toy", settings)))
    run_two(f"wgangp_toy.py {settings} hydra.run.dir={tmp_path}/both")
    one, two = (
        {name: row["value"] for name, row in json.loads(path.read_text())["metrics"].items()}
        for path in (tmp_path / "metrics.json", tmp_path / "both" / "metrics.json")
    )
    assert two == pytest.approx(one, rel=1e-5)
    assert {name: records[-1][name] for name in one} == pytest.approx(one, rel=1e-5)


def test_processes_that_see_other_folders_are_refused(tmp_path, configure):
    """Two machines without a common disk: one finds a checkpoint, the other finds none."""
    settings = f"{TINY} TRAIN.eval_during_train=false"
    cfg = configure("toy", settings)
    cfg.output_dir = str(tmp_path / "0")
    train(wgangp_toy.Toy(cfg))
    assert (tmp_path / "0" / "checkpoints" / "iteration_6.npz").exists()
    own = "'hydra.run.dir=\"" + str(tmp_path) + "/${oc.env:PADDLE_TRAINER_ID,0}\"'"
    command = f"wgangp_toy.py {settings} {own} TRAIN.resume=auto"
    logs = run_two(command, status=2)
    assert "checkpoints of the iterations 6, 0 (0 where there is none): all processes must" in logs


def test_a_terminated_launcher_saves_a_checkpoint(tmp_path):
    """Paddle's launcher sends SIGTERM three times within a second."""
    log, folder = tmp_path / "log", tmp_path / "run"
    journal = folder / "metrics.jsonl"
    endless = "TRAIN.epochs=9999 TRAIN.iters_per_epoch=50 TRAIN.n_critic=100"
    with open(tmp_path / "out", "wb") as out:
        launcher = start(log, f"wgangp_toy.py {TINY} {endless} hydra.run.dir={folder}", stdout=out)
    try:
        # A record means that both processes are in the loop.
        stress.wait_until(launcher, lambda: journal.exists() and journal.stat().st_size > 0)
        launcher.terminate()
        launcher.wait(timeout=60)
    finally:
        end(launcher)
    logs = (log / "workerlog.0").read_text()
    assert "Stopped after iteration" in logs and "Traceback" not in logs
    assert "stopped: records of" in (folder / "report.html").read_text()
    assert list((folder / "checkpoints").glob("iteration_*.npz"))


def test_several_processes_need_one_folder(tmp_path):
    logs = run_two(f"wgangp_toy.py {TINY}", status=2)
    assert "several processes need one folder for all" in logs and "Traceback" not in logs
