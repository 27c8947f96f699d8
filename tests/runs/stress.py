# SPDX-License-Identifier: Apache-2.0
"""Kills trainings at random moments and resumes them: `python tests/runs/stress.py --kills 20`.

Each training is killed by SIGKILL, again and again. It must leave the same files as an
uninterrupted one: equal weights bit for bit, and equal records except for their clock.
"""

import argparse
import json
import os
import pickle
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "wgangp"
# It saves at every second iteration, so that many kills meet a half-written checkpoint.
SETTINGS = (
    "MODEL.gen_net.dim=16 MODEL.dis_net.dim=16 TRAIN.batch_size=16 log_freq=3 TRAIN.epochs=60 "
    "TRAIN.iters_per_epoch=2 TRAIN.eval_freq=20 TRAIN.eval_num_samples=50 device=cpu "
    "TRAIN.ema.use_ema=true TRAIN.resume=auto"
)


def start(folder: Path, overrides: str = "") -> subprocess.Popen:
    """Starts a training in a folder; its output is appended to FOLDER.out."""
    words = [*shlex.split(f"{SETTINGS} {overrides}"), f"hydra.run.dir={folder}"]
    with open(folder.with_suffix(".out"), "a", encoding="utf-8") as log:
        command = [sys.executable, "wgangp_toy.py", *words]
        return subprocess.Popen(command, cwd=SCRIPTS, stdout=log, stderr=log)


def wait_until(process: subprocess.Popen, is_met: Callable[[], bool]) -> None:
    """Waits until a condition is met or the process has ended, for at most three minutes."""
    deadline = time.monotonic() + 180
    while process.poll() is None and not is_met():
        if time.monotonic() > deadline:
            sys.exit("a process did not come so far within three minutes")
        time.sleep(0.01)


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Waits for a training's end, and exits if it failed."""
    if process.wait(timeout=300) != 0:
        sys.exit(f"a training ended with {process.returncode}; see {folder.with_suffix('.out')}")


def outcome(folder: Path):
    """Bytes of the final weights and of the best, and records without their clock."""
    weights = {}
    for path in sorted([*folder.glob("model_*.pdparams"), *folder.glob("checkpoints/best*params")]):
        for name, value in pickle.loads(path.read_bytes()).items():
            if name != "StructuredToParameterName@@":  # Its numbers count through a process.
                weights[path.name, name] = value.tobytes()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return weights, [{**json.loads(line), "seconds": None} for line in lines]


def kill_and_resume(folder: Path, kills: int, rng: random.Random, overrides: str = "") -> int:
    """Kills a training up to `kills` times and lets it end; returns how often it was killed."""
    config, killed = folder / "config.yaml", 0

    def written_at():
        return config.stat().st_mtime_ns if config.exists() else None

    while True:
        process, former = start(folder, overrides), written_at()
        if killed < kills:
            # Starting takes seconds that interrupt nothing: seven kills in eight wait for the
            # loop, which writes this file first.
            if rng.random() < 7 / 8:
                wait_until(process, lambda former=former: written_at() != former)
            time.sleep(rng.uniform(0, 1))
        if killed == kills or process.poll() is not None:
            finish(process, folder)
            return killed
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, killed, trainings = random.Random(arguments.seed), 0, 0
    with tempfile.TemporaryDirectory() as place:
        uninterrupted = Path(place) / "uninterrupted"
        finish(start(uninterrupted), uninterrupted)
        expected = outcome(uninterrupted)
        while killed < arguments.kills:
            trainings += 1
            folder = Path(place) / f"killed_{trainings}"
            killed += kill_and_resume(folder, arguments.kills - killed, rng)
            if outcome(folder) != expected:
                sys.exit(f"training {trainings} ended otherwise than the uninterrupted one")
            if list(folder.rglob("*.partial")):
                sys.exit(f"training {trainings} left partial files")
            print(f"{killed} kills: {trainings} trainings ended like the uninterrupted one")


if __name__ == "__main__":
    main()
