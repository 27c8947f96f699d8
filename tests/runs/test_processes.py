# SPDX-License-Identifier: Apache-2.0
"""Several processes, started by Paddle's own launcher, and accumulated batches."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stress
from helpers import SCRIPTS
from trainings import read_records

PROCESS = Path(__file__).with_name("process.py")


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


def launch(log, command, status=0):
    """Runs two processes of a command to their end; returns their logs."""
    launcher = start(log, command, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = launcher.communicate(timeout=240)
    finally:
        end(launcher)
    logs = "".join(path.read_text() for path in sorted(log.glob("workerlog.*")))
    assert launcher.returncode == status, output[-2000:] + logs[-4000:]
    return logs


def end(launcher):
    """Kills a launcher that still runs, and its processes, which would outlive it."""
    if launcher.poll() is None:
        for path in Path(f"/proc/{launcher.pid}/task").glob("*/children"):
            for child in path.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        launcher.kill()
        launcher.wait()


def run_alone(folder, batches, update_freq=1):
    """Runs one process of process.py; returns its weights."""
    environment = {**os.environ, "UPDATE_FREQ": str(update_freq)}
    command = [sys.executable, str(PROCESS), str(folder), str(batches)]
    subprocess.run(command, env=environment, check=True, timeout=240, capture_output=True)
    return dict(np.load(folder / "alone.npz"))


def assert_close(found, expected):
    """Weights have taken the same steps: each of Adam's first steps is about the rate, 1e-4."""
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5, err_msg=name)


def test_two_processes_equal_one_with_the_batches_of_both(tmp_path):
    launch(tmp_path / "log", f"{PROCESS} {tmp_path} 1")
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1))
    assert first.keys() == second.keys() and len(first) >= 12
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    both = run_alone(tmp_path, 2)
    assert_close(first, both)
    # One process with one of the batches ends elsewhere.
    single = run_alone(tmp_path, 1)
    assert max(np.abs(single[name] - first[name]).max() for name in first) > 1e-4
    # Accumulated batches equal one larger batch, too.
    assert_close(run_alone(tmp_path, 1, update_freq=2), both)


TINY = (
    "wgangp_toy.py MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16 device=cpu "
    "TRAIN.epochs=3 TRAIN.iters_per_epoch=2 TRAIN.eval_freq=3 TRAIN.eval_num_samples=51 "
    "EVAL.num_samples=51 EVAL.batch_size=20"
)


def test_two_processes_train_resume_and_evaluate(tmp_path, run_script):
    folder, other, log = tmp_path / "run", tmp_path / "other", tmp_path / "log"
    command = f"{TINY} TRAIN.eval_freq=1"
    logs = launch(log, f"{command} hydra.run.dir={folder}")
    assert logs.count("[6/6] wasserstein") == 1  # The first process logs.
    # Two processes resume from the middle.
    (other / "checkpoints").mkdir(parents=True)
    shutil.copy(folder / "checkpoints" / "iteration_2.npz", other / "checkpoints")
    launch(log, f"{command} hydra.run.dir={other} TRAIN.resume=auto")
    assert stress.outcome(other) == stress.outcome(folder)
    records = read_records(folder)
    assert [record["step"] for record in records] == [1, 2, 4, 6]
    # Figures of an odd number of samples, gathered from both processes, are those of one process.
    evaluation = f"mode=eval EVAL.pretrained_gen_model_path={folder}/model_average_generator"
    _, _, settings = TINY.partition(" ")
    done = run_script("toy", settings, evaluation, f"hydra.run.dir={tmp_path}/eval")
    assert "Wrote" in done.stdout
    figures = json.loads((tmp_path / "eval" / "metrics.json").read_text())["metrics"]
    for name, row in figures.items():
        assert records[-1][name] == pytest.approx(row["value"], rel=1e-5), name
    launch(log, f"{TINY} {evaluation} hydra.run.dir={tmp_path}/both")
    again = json.loads((tmp_path / "both" / "metrics.json").read_text())["metrics"]
    assert {name: row["value"] for name, row in again.items()} == pytest.approx(
        {name: row["value"] for name, row in figures.items()}, rel=1e-5
    )


def test_processes_that_see_other_folders_are_refused(tmp_path):
    """Two machines without a common disk: one finds a checkpoint, the other finds none."""
    own = "'hydra.run.dir=\"" + str(tmp_path) + "/${oc.env:PADDLE_TRAINER_ID,0}\"'"
    command = f"{TINY} TRAIN.eval_during_train=false {own}"
    run = [sys.executable, *shlex.split(command)]
    subprocess.run(run, cwd=SCRIPTS, check=True, timeout=240, capture_output=True)
    assert (tmp_path / "0" / "checkpoints" / "iteration_6.npz").exists()
    logs = launch(tmp_path / "log", f"{command} TRAIN.resume=auto", status=2)
    assert "checkpoints of the iterations 6, 0 (0 where there is none): all processes must" in logs


def test_a_terminated_launcher_saves_a_checkpoint(tmp_path):
    """Paddle's launcher sends SIGTERM three times within a second."""
    log, folder = tmp_path / "log", tmp_path / "run"
    journal = folder / "metrics.jsonl"
    endless = "TRAIN.epochs=9999 TRAIN.iters_per_epoch=50 TRAIN.n_critic=100"
    with open(tmp_path / "out", "wb") as out:
        launcher = start(log, f"{TINY} {endless} hydra.run.dir={folder}", stdout=out)
    try:
        # A record means that both processes are in the loop.
        stress.wait_until(launcher, lambda: journal.exists() and journal.stat().st_size > 0)
        launcher.terminate()
        launcher.wait(timeout=60)
    finally:
        end(launcher)
    logs = (log / "workerlog.0").read_text()
    assert "Stopped after iteration" in logs and "Traceback" not in logs
    assert list((folder / "checkpoints").glob("iteration_*.npz"))


def test_several_processes_need_one_folder(tmp_path):
    logs = launch(tmp_path / "log", TINY, status=2)
    assert "several processes need one folder for all" in logs and "Traceback" not in logs
