# SPDX-License-Identifier: Apache-2.0
"""Kills trainings at random moments and resumes them: `python tests/stress.py --kills 20`.

Each training is ended by SIGKILL, again and again, and must end with the files of one that was
left alone: weights bit for bit, and every record but for its clock.
"""

import argparse
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "wgangp"
# Saves at every second iteration, so that many kills meet a checkpoint half written.
SETTINGS = [
    *("MODEL.gen_net.dim=16", "MODEL.dis_net.dim=16", "TRAIN.batch_size=16", "log_freq=3"),
    *("TRAIN.epochs=60", "TRAIN.iters_per_epoch=2", "TRAIN.eval_freq=20", "device=cpu"),
    *("TRAIN.eval_num_samples=50", "TRAIN.ema.use_ema=true", "TRAIN.resume=auto"),
]


def start(folder: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "wgangp_toy.py", *SETTINGS, *more, f"hydra.run.dir={folder}"]
    with open(folder.with_suffix(".out"), "a", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=SCRIPTS, stdout=log, stderr=log)


def wait_for(process: subprocess.Popen, path: Path) -> None:
    """Waits until a file is written, or the process has ended; at most three minutes."""
    former = path.stat().st_mtime_ns if path.exists() else None
    deadline = time.monotonic() + 180
    while process.poll() is None:
        if path.exists() and path.stat().st_mtime_ns != former:
            return
        if time.monotonic() > deadline:
            sys.exit(f"{path} was not written within three minutes")
        time.sleep(0.01)


def finish(process: subprocess.Popen, folder: Path) -> None:
    if process.wait(timeout=300) != 0:
        sys.exit(f"a training ended with {process.returncode}; see {folder.with_suffix('.out')}")


def outcome(folder: Path):
    """Bytes of the final weights and of the best, and records without their clock."""
    weights = {}
    for path in sorted([*folder.glob("model_*.pdparams"), *folder.glob("checkpoints/best*params")]):
        for name, value in pickle.loads(path.read_bytes()).items():
            if name != "StructuredToParameterName@@":  # numbered through a process
                weights[path.name, name] = value.tobytes()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return weights, [{**json.loads(line), "seconds": None} for line in lines]


def kill_and_resume(folder: Path, kills: int, rng: random.Random, *more: str) -> int:
    """Kills a training up to `kills` times, lets it end; returns how often it was killed."""
    killed = 0
    while True:
        process = start(folder, *more)
        if killed < kills:
            # Starting takes seconds, in which there is little to interrupt: wait for the loop,
            # but for a kill in eight.
            if rng.random() < 7 / 8:
                wait_for(process, folder / "config.yaml")
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
        alone = Path(place) / "alone"
        finish(start(alone), alone)
        expected = outcome(alone)
        while killed < arguments.kills:
            trainings += 1
            folder = Path(place) / f"killed_{trainings}"
            killed += kill_and_resume(folder, arguments.kills - killed, rng)
            if outcome(folder) != expected:
                sys.exit(f"training {trainings} ended otherwise than the one left alone")
            if list(folder.rglob("*.partial")):
                sys.exit(f"training {trainings} left partial files")
            print(f"{killed} kills, {trainings} trainings ended alike")


if __name__ == "__main__":
    main()
