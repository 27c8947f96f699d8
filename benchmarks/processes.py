# SPDX-License-Identifier: Apache-2.0
"""Times one process, and two with half the batch each: `python benchmarks/processes.py`.

The two take turns, so that other work on the machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import machine

CASES = {  # script, batch, generator iterations, more settings
    "toy": ("wgangp_toy.py", 256, 60, ["preset=authors"]),
    "mnist": ("wgangp_mnist.py", 50, 6, ["DATA.source=digits"]),
    "cifar10": ("wgangp_cifar10.py", 16, 4, ["DATA.source=synthetic", "EVAL.inception=false"]),
}


def time_iteration(case: str, processes: int, folder: Path) -> float:
    """Seconds of an iteration, without the first one, which also sets things up."""
    script, batch, iterations, more = CASES[case]
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "paddle.distributed.launch", f"--nproc_per_node={processes}"]
        command.append(f"--log_dir={folder}_log")
    command += [script, *more, f"TRAIN.batch_size={batch // processes}", "TRAIN.epochs=1"]
    command += [f"TRAIN.iters_per_epoch={iterations}", "TRAIN.eval_during_train=false"]
    command += ["TRAIN.save_freq=0", "device=cpu", f"hydra.run.dir={folder}"]
    subprocess.run(command, cwd=common.SUITE, check=True, capture_output=True)
    first, *_, last = common.read_records(folder)
    return (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--repeat", type=int, default=3, help="turns")
    parser.add_argument("--output", type=Path, help="write the figures into this file, as JSON")
    options = parser.parse_args()
    if not {*options.cases} <= {*CASES}:
        parser.error(f"the cases are {', '.join(CASES)}.")
    print(machine.describe_load(machine.look()))
    watch, rows = machine.Watch(), {}
    print("| experiment, batch | one process | two processes | ratio |\n| --- | --- | --- | --- |")
    for case in options.cases or CASES:
        with tempfile.TemporaryDirectory() as place:
            turns = [
                [time_iteration(case, n, Path(place) / f"{turn}_{n}") for n in (1, 2)]
                for turn in range(options.repeat)
            ]
        one, two = (statistics.median(column) for column in zip(*turns))
        rows[case] = {"batch": CASES[case][1], "one": one, "two": two}
        print(f"| {case}, {CASES[case][1]} | {one:.3f} | {two:.3f} | {one / two:.2f} |", flush=True)
        load = watch.stop()
        if options.output:
            machine.write_results(options.output, load, rows)
    print(machine.describe_load(load))


if __name__ == "__main__":
    main()
