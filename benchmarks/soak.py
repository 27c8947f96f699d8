# SPDX-License-Identifier: Apache-2.0
"""Trains the toy networks for an hour and watches memory and files: `python benchmarks/soak.py`.

The training writes a checkpoint at each epoch, evaluates at every second one and has a moving
average. The program prints a row for each tenth of the time, and ends with an error if memory or
files have grown.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Tuple

import common

SETTINGS = [
    *("MODEL.gen_net.dim=128", "MODEL.dis_net.dim=128", "TRAIN.iters_per_epoch=200"),
    *("TRAIN.epochs=100000", "TRAIN.eval_num_samples=1000", "TRAIN.ema.use_ema=true"),
    *("TRAIN.lr_schedule=constant", "TRAIN.learning_rate=1e-3", "device=cpu"),
    *("TRAIN.batch_size=256", "TRAIN.generator_batch_factor=1", "TRAIN.n_critic=5"),
]


def measure(pid: int, folder: Path) -> Tuple[float, int, int, int]:
    """Resident memory in MiB, open files, files in checkpoints/, pictures in samples/."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS:"))
    files = [len(list((folder / part).glob("*"))) for part in ("checkpoints", "samples")]
    return memory / 1024, len(os.listdir(f"/proc/{pid}/fd")), *files


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="length")
    minutes = parser.parse_args().minutes
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        folder = Path(place) / "run"
        command = [sys.executable, "wgangp_toy.py", *SETTINGS, f"hydra.run.dir={folder}"]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        process = subprocess.Popen(command, cwd=common.SUITE, stdout=subprocess.DEVNULL)
        # A signal or an error that ends this program also ends the training.
        stack.callback(process.kill)
        start, rows = time.monotonic(), []
        print("minutes  memory, MiB  open files  checkpoints  samples  iteration", flush=True)
        for part in range(1, 11):
            time.sleep(max(start + part * minutes * 6 - time.monotonic(), 0))
            if process.poll() is not None:
                sys.exit(f"The training ended with status {process.returncode}.")
            row = measure(process.pid, folder)
            rows.append(row)
            records = common.read_records(folder)
            step = records[-1]["step"] if records else 0
            print(
                f"{part * minutes / 10:7.1f}  {row[0]:11.1f}  {row[1]:10}  {row[2]:11}  "
                f"{row[3]:7}  {step:>9}",
                flush=True,
            )
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    # Caches fill in the first fifth.
    settled, last = rows[1], rows[-1]
    if last[0] > settled[0] * 1.05 or last[1] > settled[1] or last[2] > settled[2]:
        sys.exit("Memory or files grew.")


if __name__ == "__main__":
    main()
