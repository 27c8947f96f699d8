# SPDX-License-Identifier: Apache-2.0
"""Several processes, by Paddle's own launcher, and batches that are accumulated."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stress
from helpers import SCRIPTS

PROCESS = Path(__file__).with_name("process.py")


def launch(count, log, *command, cwd=None, status=0):
    """Runs a command in `count` processes; gives what all wrote."""
    environment = {name: text for name, text in os.environ.items() if "PADDLE" not in name}
    launcher = subprocess.Popen(
        [
            *(sys.executable, "-m", "paddle.distributed.launch"),
            *(f"--nproc_per_node={count}", f"--log_dir={log}", *map(str, command)),
        ],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = launcher.communicate(timeout=240)
    finally:
        end(launcher)
    logs = "".join(path.read_text() for path in sorted(log.glob("workerlog.*")))
    assert launcher.returncode == status, said[-2000:] + logs[-4000:]
    return logs


def end(launcher):
    """Kills a launcher that still runs, and its processes, which would outlive it."""
    if launcher.poll() is None:
        for path in Path(f"/proc/{launcher.pid}/task").glob("*/children"):
            for child in path.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        launcher.kill()
        launcher.wait()


def alone(folder, batches, update_freq=1):
    environment = {**os.environ, "UPDATE_FREQ": str(update_freq)}
    command = [sys.executable, str(PROCESS), str(folder), str(batches)]
    subprocess.run(command, env=environment, check=True, timeout=240, capture_output=True)
    return dict(np.load(folder / "alone.npz"))


def assert_close(found, expected):
    """Weights that moved by the same steps; Adam's first steps are as large as the rate."""
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5, err_msg=name)


def test_two_processes_are_one_with_the_batches_of_both(tmp_path):
    launch(2, tmp_path / "log", PROCESS, tmp_path, 1)
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1))
    assert first.keys() == second.keys() and len(first) >= 12
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    both = alone(tmp_path, 2)
    assert_close(first, both)
    # and not what one batch alone gives
    single = alone(tmp_path, 1)
    assert max(np.abs(single[name] - first[name]).max() for name in first) > 1e-4
    # accumulated batches are one larger batch, too
    assert_close(alone(tmp_path, 1, update_freq=2), both)


TINY = ["MODEL.gen_net.dim=8", "MODEL.dis_net.dim=8", "TRAIN.batch_size=16", "device=cpu"]
TINY += ["TRAIN.epochs=3", "TRAIN.iters_per_epoch=2", "TRAIN.eval_freq=3"]
TINY += ["TRAIN.eval_num_samples=51", "EVAL.num_samples=51", "EVAL.batch_size=20"]


def test_the_command_in_two_processes(tmp_path, run_script):
    folder, other, log = tmp_path / "run", tmp_path / "other", tmp_path / "log"
    command = ["wgangp_toy.py", *TINY, "TRAIN.eval_freq=1"]
    logs = launch(2, log, *command, f"hydra.run.dir={folder}", cwd=SCRIPTS)
    assert logs.count("[6/6] wasserstein") == 1  # the first process tells
    # from the middle, in two processes again
    (other / "checkpoints").mkdir(parents=True)
    shutil.copy(folder / "checkpoints" / "iteration_2.npz", other / "checkpoints")
    launch(2, log, *command, f"hydra.run.dir={other}", "TRAIN.resume=auto", cwd=SCRIPTS)
    assert stress.outcome(other) == stress.outcome(folder)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 4, 6]
    # an uneven number of samples, gathered from both processes, is measured as in one
    done = run_script(
        *("toy", "mode=eval", *TINY, f"hydra.run.dir={tmp_path}/eval"),
        f"EVAL.pretrained_gen_model_path={folder}/model_average_generator",
    )
    assert "Wrote" in done.stdout
    figures = json.loads((tmp_path / "eval" / "metrics.json").read_text())["metrics"]
    for name, row in figures.items():
        assert records[-1][name] == pytest.approx(row["value"], rel=1e-5), name
    together = ["mode=eval", f"EVAL.pretrained_gen_model_path={folder}/model_average_generator"]
    launch(
        *(2, log, "wgangp_toy.py", *TINY, *together, f"hydra.run.dir={tmp_path}/both"),
        cwd=SCRIPTS,
    )
    again = json.loads((tmp_path / "both" / "metrics.json").read_text())["metrics"]
    assert {name: row["value"] for name, row in again.items()} == pytest.approx(
        {name: row["value"] for name, row in figures.items()}, rel=1e-5
    )


def test_processes_that_see_other_folders_are_refused(tmp_path):
    """As on two machines without a disk in common: one finds a checkpoint, the other none."""
    own = "hydra.run.dir='" + str(tmp_path) + "/${oc.env:PADDLE_TRAINER_ID,0}'"
    run = [sys.executable, "wgangp_toy.py", *TINY, "TRAIN.eval_during_train=false", own]
    subprocess.run(run, cwd=SCRIPTS, check=True, timeout=240, capture_output=True)
    assert (tmp_path / "0" / "checkpoints" / "iteration_6.npz").exists()
    together = ["wgangp_toy.py", *TINY, "TRAIN.eval_during_train=false", own, "TRAIN.resume=auto"]
    logs = launch(2, tmp_path / "log", *together, cwd=SCRIPTS, status=2)
    assert "checkpoints of the iterations 6, 0 (0 where there is none): all must see" in logs


def test_terminating_the_launcher_saves(tmp_path):
    """Which sends SIGTERM three times within a second."""
    log, folder = tmp_path / "log", tmp_path / "run"
    settings = [*TINY, "TRAIN.epochs=9999", "TRAIN.iters_per_epoch=50", "TRAIN.n_critic=100"]
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node=2"]
    command += [f"--log_dir={log}", "wgangp_toy.py", *settings, f"hydra.run.dir={folder}"]
    environment = {name: text for name, text in os.environ.items() if "PADDLE" not in name}
    with open(tmp_path / "out", "wb") as out:
        launcher = subprocess.Popen(command, cwd=SCRIPTS, env=environment, stdout=out, stderr=out)
    try:
        for _ in range(2):  # it is begun, and has a record: so both processes are in the loop
            stress.wait_for(launcher, folder / "metrics.jsonl")
        launcher.terminate()
        launcher.wait(timeout=60)
    finally:
        end(launcher)
    logs = (log / "workerlog.0").read_text()
    assert "Stopped after iteration" in logs and "Traceback" not in logs
    assert list((folder / "checkpoints").glob("iteration_*.npz"))


def test_several_processes_want_one_folder(tmp_path):
    logs = launch(2, tmp_path / "log", "wgangp_toy.py", *TINY, cwd=SCRIPTS, status=2)
    assert "several processes need one folder for all" in logs and "Traceback" not in logs
