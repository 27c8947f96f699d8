# SPDX-License-Identifier: Apache-2.0
"""Kills trainings in several ways and resumes them: `python tests/runs/stress.py --kills 20`.

Each training is killed again and again, in one of the ways of `KINDS`. A kill must end the process
as it promises, and the training must then leave the same files as an uninterrupted one: equal
weights bit for bit, and equal records except for their clock.
"""

import argparse
import json
import os
import pickle
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable
from typing import List
from typing import Optional
from typing import Sequence

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "wgangp"
# It saves at every second iteration, so that many kills meet a half-written checkpoint.
SETTINGS = (
    "MODEL.gen_net.dim=16 MODEL.dis_net.dim=16 TRAIN.batch_size=16 log_freq=3 TRAIN.epochs=60 "
    "TRAIN.iters_per_epoch=2 TRAIN.eval_freq=20 TRAIN.eval_num_samples=50 device=cpu "
    "TRAIN.ema.use_ema=true TRAIN.resume=auto"
)


def make_words(folder: Path, overrides: str) -> List[str]:
    """The words of a training's command behind `python`."""
    settings = shlex.split(f"{SETTINGS} {overrides}")
    return ["wgangp_toy.py", *settings, f"hydra.run.dir={folder}"]


def start(folder: Path, overrides: str = "") -> subprocess.Popen:
    """Starts a training in a folder; its output is appended to FOLDER.out."""
    with open(folder.with_suffix(".out"), "a", encoding="utf-8") as log:
        command = [sys.executable, *make_words(folder, overrides)]
        return subprocess.Popen(command, cwd=SCRIPTS, stdout=log, stderr=log)


def wait_until(
    process: subprocess.Popen, is_met: Callable[[], bool], interval: float = 0.01
) -> None:
    """Waits until a condition is met or the process has ended, for at most three minutes."""
    deadline = time.monotonic() + 180
    while process.poll() is None and not is_met():
        if time.monotonic() > deadline:
            sys.exit("a process did not come so far within three minutes")
        time.sleep(interval)


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


class Victim:
    """A training that is going to be killed.

    Args:
        folder: Its output folder.
        rng: Draws the moment.
        overrides: More settings.
    """

    def __init__(self, folder: Path, rng: random.Random, overrides: str):
        self.folder, self.rng = folder, rng
        self.log = folder.with_suffix(".out")
        self.logged = self.log.stat().st_size if self.log.exists() else 0
        self.former = self.written_at()
        self.process = start(folder, overrides)

    def written_at(self) -> Optional[int]:
        """When config.yaml was written, which the loop does first."""
        config = self.folder / "config.yaml"
        return config.stat().st_mtime_ns if config.exists() else None

    def wait_for_loop(self) -> None:
        wait_until(self.process, lambda: self.written_at() != self.former)

    def sleep(self, longest: float) -> None:
        time.sleep(self.rng.uniform(0, longest))

    def kill(self) -> Optional[bool]:
        """Ends it by SIGKILL; None if it had ended already."""
        if self.process.poll() is not None:
            return None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return True

    def terminate(self, times: int) -> Optional[bool]:
        """Sends SIGTERM; returns whether one line and status 143 followed, None if it had ended.

        Until Python runs the script's first lines, it is the system that ends the process.
        """
        for _ in range(times):
            if self.process.poll() is None:
                os.kill(self.process.pid, signal.SIGTERM)
                self.sleep(0.05)
        status = self.process.wait(timeout=180)
        with open(self.log, encoding="utf-8") as log:
            log.seek(self.logged)
            text = log.read()
        if status == 0:
            return None
        if status == -signal.SIGTERM and not text:
            return True
        has_line = "Error: interrupted." in text or "Stopped after iteration" in text
        has_dump = any(word in text for word in ("Traceback", "FatalError", "C++"))
        return status == 128 + signal.SIGTERM and has_line and not has_dump


def kill_at_random(victim: Victim) -> Optional[bool]:
    # Starting takes seconds that interrupt nothing: seven kills in eight wait for the loop.
    if victim.rng.random() < 7 / 8:
        victim.wait_for_loop()
    victim.sleep(1)
    return victim.kill()


def kill_while_writing(victim: Victim) -> Optional[bool]:
    victim.wait_for_loop()
    victim.sleep(0.5)
    place = victim.folder / "checkpoints"
    wait_until(victim.process, lambda: any(place.glob("*.partial")), 0)
    return victim.kill()


def kill_and_remove(victim: Victim) -> Optional[bool]:
    victim.wait_for_loop()
    victim.sleep(1)
    killed = victim.kill()
    if killed:
        shutil.rmtree(victim.folder / "checkpoints")
    return killed


def terminate_early(victim: Victim) -> Optional[bool]:
    victim.sleep(3)
    return victim.terminate(1)


def terminate_twice(victim: Victim) -> Optional[bool]:
    if victim.rng.random() < 3 / 4:
        victim.wait_for_loop()
    victim.sleep(1)
    return victim.terminate(2)


RANDOM = "SIGKILL at a random moment"
# Each kills a training, and returns whether that ended as it promises; None if the training had
# ended before.
KINDS = {
    RANDOM: kill_at_random,
    "SIGKILL while a checkpoint is written": kill_while_writing,
    "SIGKILL, then checkpoints/ removed": kill_and_remove,
    "SIGTERM within the first seconds": terminate_early,
    "two SIGTERMs at a random moment": terminate_twice,
}


def kill_and_resume(
    folder: Path,
    kills: int,
    rng: random.Random,
    overrides: str = "",
    kinds: Sequence[str] = (RANDOM,),
) -> int:
    """Kills a training up to `kills` times, in ways that take turns, and lets it end.

    Returns:
        How many kills ended as they promise.
    """
    right = 0
    for number in range(kills):
        victim = Victim(folder, rng, overrides)
        is_right = KINDS[kinds[number % len(kinds)]](victim)
        if is_right is None:
            finish(victim.process, folder)
            return right
        right += is_right
    finish(start(folder, overrides), folder)
    return right


def run_kind(kind: str, kills: int, place: Path, rng: random.Random, expected) -> int:
    """Kills trainings in one way; returns how many kills were followed by what they promise."""
    right = tried = trainings = 0
    while tried < kills:
        trainings += 1
        folder = place / f"{list(KINDS).index(kind)}_{trainings}"
        killed = kill_and_resume(folder, kills - tried, rng, kinds=(kind,))
        tried = min(kills, tried + max(killed, 1))
        if outcome(folder) != expected or list(folder.rglob("*.partial")):
            print(f"{kind}: a training did not end like the uninterrupted one: {folder}")
        else:
            right += killed
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a JSON file for the counts")
    arguments = parser.parse_args()
    rng, classes = random.Random(arguments.seed), {}
    with tempfile.TemporaryDirectory() as place:
        uninterrupted = Path(place) / "uninterrupted"
        finish(start(uninterrupted), uninterrupted)
        expected = outcome(uninterrupted)
        for number, kind in enumerate(KINDS):
            kills = (arguments.kills + number) // len(KINDS)
            right = run_kind(kind, kills, Path(place), rng, expected)
            classes[kind] = {"cases": kills, "right": right, "wrong": kills - right}
            print(f"{kind}: {right} of {kills} kills ended as they promise", flush=True)
    if arguments.output is not None:
        text = json.dumps({"seed": arguments.seed, "classes": classes}, indent=1)
        arguments.output.write_text(f"{text}\n", encoding="utf-8")
    if any(row["wrong"] for row in classes.values()):
        sys.exit("some kills did not end as they promise")


if __name__ == "__main__":
    main()
