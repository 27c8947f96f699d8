# SPDX-License-Identifier: Apache-2.0
"""Times the suite, plain Paddle and PyTorch in one run.

    python benchmarks/speed.py                       # all three experiments, as configured
    python benchmarks/speed.py cifar10:128:16        # EXPERIMENT:WIDTH:BATCH
    python benchmarks/speed.py --profile             # by operator, on one thread and on all

Each side is a process of its own. They take turns, step by step, so that other work on the
machine slows all alike. The first round is not counted. Only this program uses PyTorch:
`make torch` installs it; without it, the program leaves that side out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import time
from typing import Any
from typing import Dict
from typing import List
from typing import Sequence
from typing import Tuple

import common
import numpy as np

DEFAULTS = ("toy:512:256", "mnist:64:50", "cifar10:128:16")
STEPS = ("critic", "generator", "iteration")
# Passes of a sample through the critic in its step. Real and fake samples pass forward, and back
# to activations and to weights; interpolated ones forward, back, as tangents, and back to weights.
CRITIC_PASSES = 2 * 3 + 4
# Plain Paddle is so slow that a few rounds are enough.
PLAIN_ROUNDS = 2
# Kinds of operators, each with the beginnings of their names in both frameworks
KINDS = {
    "convolutions": ("conv2d", "mkldnn_convolution", "convolution_backward", "_convolution"),
    "matrix products": ("matmul", "mm", "addmm", "bmm"),
    "patches of small convolutions": ("unfold", "fold"),
}
OTHER_KIND = "all other operators"
# Rows of a profile below those of the kinds
WHOLE, PROFILED = "an iteration, not profiled", "an iteration, profiled"
# Variables that set the number of threads of both frameworks
THREADS = ("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "OMP_NUM_THREADS")


class Side:
    """A worker process.

    Args:
        side: "ours", "plain" or "torch".
        experiment: "EXPERIMENT:WIDTH:BATCH".
        **variables: Environment variables.
    """

    def __init__(self, side: str, experiment: str, **variables: str):
        worker = common.BENCHMARKS / "worker.py"
        self.process = subprocess.Popen(
            [sys.executable, str(worker), side, *experiment.split(":")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=common.side_environment(side, **variables),
        )
        self.seconds: Dict[str, List[float]] = {}
        self.memory = ""

    def ask(self, command: str) -> Dict[str, Any]:
        """Sends a command to the worker; returns its answer."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{command}\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        command_line = " ".join(self.process.args)
        raise SystemExit(f"{command_line} ended without an answer: run it by hand.")

    def time(self, step: str, is_counted: bool) -> None:
        """Lets the worker take a step, and keeps its time if it is counted."""
        answer = self.ask(step)
        if is_counted:
            self.seconds.setdefault(step, []).append(answer["seconds"])
            self.memory = f"{answer['peak_gib']:.2f} ({answer['imports_gib']:.2f})"

    def close(self) -> None:
        """Ends the worker."""
        self.process.stdin.close()
        self.process.wait()


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def measure_matmul_rate() -> float:
    """The machine's GFLOP/s in NumPy's matrix product, an upper bound of any step's rate."""
    left, right = (np.ones((2048, 2048), "float32") for _ in range(2))
    start = time.perf_counter()
    left @ right
    return 2 * 2048**3 / 1e9 / (time.perf_counter() - start)


def count_operations(experiment: str, width: int) -> Tuple[float, float]:
    """GFLOP of a sample's forward pass through our generator and through our critic."""
    w = width
    if experiment == "toy":
        hidden = 2 * w * w
        return 2 * (2 * w + hidden + 2 * w) / 1e9, 2 * (2 * w + hidden + w) / 1e9
    if experiment == "mnist":
        generator = 128 * 64 * w + 25 * (8 * w * w * 16 + 2 * w * w * 49 + w * 196)
        critic = 25 * (w * 196 + 2 * w * w * 49 + 8 * w * w * 16) + 64 * w
        return 2 * generator / 1e9, 2 * critic / 1e9
    generator = 128 * 16 * w + 27 * w * 1024
    for size in (8, 16, 32):
        # The merged convolution sees the smaller picture; the shortcut does, too.
        generator += w * w * size**2 * (16 / 4 + 9 + 1 / 4)
    critic = w * 1024 * 27 + w * w * 256 * 16 + 3 * w * 256
    critic += w * w * (256 * 9 + 64 * 16 + 64) + 4 * w * w * 64 * 9 + 11 * w
    return 2 * generator / 1e9, 2 * critic / 1e9


def count_iteration(experiment: str, width: int, batch: int) -> float:
    """GFLOP of an iteration: the critic's steps and one of the generator."""
    generator, critic = count_operations(experiment, width)
    factor = common.SETUPS[experiment].generator_batch_factor
    work = common.CRITIC_STEPS * batch * (generator + CRITIC_PASSES * critic)
    return work + factor * batch * (3 * generator + 2 * critic)


def compare(experiment: str, repeat: int, with_plain: bool) -> None:
    """Times the steps of all sides in turns and prints a table."""
    names = ["ours"] + ["plain"] * with_plain + ["torch"] * has_torch()
    sides = {side: Side(side, experiment) for side in names}
    rates = []
    for turn in range(repeat + 1):
        for step in STEPS:
            for side, worker in sides.items():
                if side != "plain" or turn <= PLAIN_ROUNDS:
                    worker.time(step, turn > 0)
        rates.append(measure_matmul_rate())
    for worker in sides.values():
        worker.close()
    print_comparison(experiment, sides, rates)


def print_comparison(experiment: str, sides: Dict[str, Side], rates: Sequence[float]) -> None:
    """Prints times, memory, and the rate of our iteration next to that of matrix products."""
    name, width, batch = experiment.split(":")
    print(f"\n{name}, width {width}, critic's batch {batch}")
    print(f"{'':10}{'side':8}{'median s':>10}{'least':>10}{'most':>10}{'ours is':>14}")
    for step in STEPS:
        base = statistics.median(sides["ours"].seconds[step])
        for side, worker in sides.items():
            seconds = worker.seconds[step]
            median = statistics.median(seconds)
            ratio = "" if side == "ours" else f"{median / base:.2f} x as fast"
            print(
                f"{step:10}{side:8}{median:10.4f}{min(seconds):10.4f}{max(seconds):10.4f}{ratio:>16}"
            )
    memory = ", ".join(f"{side} {worker.memory}" for side, worker in sides.items())
    print(f"peak memory, GiB (after the imports): {memory}")
    work = count_iteration(name, int(width), int(batch))
    rate = work / statistics.median(sides["ours"].seconds["iteration"])
    limit = statistics.median(rates)
    print(
        f"an iteration is {work:.1f} GFLOP (ours): {rate:.0f} GFLOP/s, {100 * rate / limit:.0f}% "
        f"of a matrix product's {limit:.0f} (least {min(rates):.0f}, most {max(rates):.0f})"
    )


def sum_by_kind(operators: Dict[str, float]) -> Dict[str, float]:
    """Seconds by kind of operator, from seconds by operator."""
    sums = dict.fromkeys([*KINDS, OTHER_KIND], 0.0)
    for operator, seconds in operators.items():
        kinds = (kind for kind, beginnings in KINDS.items() if operator.startswith(beginnings))
        sums[next(kinds, OTHER_KIND)] += seconds
    return sums


def profile(experiment: str, repeat: int) -> None:
    """Prints seconds of an iteration by kind of operator, on one thread and on all."""
    names = ["ours"] + ["torch"] * has_torch()
    count = str(common.count_cores())
    sides = {
        (side, threads): Side(side, experiment, **dict.fromkeys(THREADS, number))
        for side in names
        for threads, number in (("one", "1"), ("all", count))
    }
    rows = {side: [] for side in sides}
    for turn in range(repeat + 1):
        for side, worker in sides.items():
            worker.time("iteration", turn > 0)
            if turn > 0:
                answer = worker.ask("profile")
                rows[side].append(
                    {
                        **sum_by_kind(answer["operators"]),
                        PROFILED: answer["seconds"],
                        WHOLE: worker.seconds["iteration"][-1],
                    }
                )
    for worker in sides.values():
        worker.close()
    print(f"\n{experiment.replace(':', ', ')}: median seconds of an iteration")
    for side in names:
        print(f"| {side} | one thread | {count} threads | one / {count} |")
        print("| --- | --- | --- | --- |")
        for row in rows[side, "one"][0]:
            one, all_ = (
                statistics.median(turn[row] for turn in rows[side, threads])
                for threads in ("one", "all")
            )
            if all_:
                print(f"| {row} | {one:.4f} | {all_:.4f} | {one / all_:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiments", nargs="*", help="EXPERIMENT:WIDTH:BATCH")
    parser.add_argument("--repeat", type=int, default=7, help="rounds that count")
    parser.add_argument("--no-plain", action="store_true", help="leave plain Paddle out")
    parser.add_argument("--profile", action="store_true", help="times by kind of operator instead")
    options = parser.parse_args()
    for experiment in options.experiments:
        if not re.fullmatch(r"(toy|mnist|cifar10):\d+:\d+", experiment):
            parser.error(f"{experiment!r} is not EXPERIMENT:WIDTH:BATCH, such as {DEFAULTS[0]}.")
    for experiment in options.experiments or DEFAULTS:
        if options.profile:
            profile(experiment, options.repeat)
        else:
            compare(experiment, options.repeat, not options.no_plain)


if __name__ == "__main__":
    main()
