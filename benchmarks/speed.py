# SPDX-License-Identifier: Apache-2.0
"""Times the suite against plain Paddle and against PyTorch, side by side in one run.

    python benchmarks/speed.py                       # all three experiments, as configured
    python benchmarks/speed.py cifar10:128:16        # EXPERIMENT:WIDTH:BATCH
    python benchmarks/speed.py --profile             # by operator, and what a second core gives

Each side is a process of its own; they take turns, step by step, so that what else the
machine does meets all alike. The first round is not counted. PyTorch is wanted for this only:
`make torch` installs it; without it, that side is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import time
from os import path as osp

import numpy as np

HERE = osp.dirname(osp.abspath(__file__))
DEFAULT = ("toy:512:256", "mnist:64:50", "cifar10:128:16")
# Passes of a sample through the critic: of real and fake ones forward, and back to activations
# and to weights; of mixed ones forward, back, of their tangents, and back to weights.
CRITIC_PASSES = 2 * 3 + 4
# What the scripts set before they import Paddle.
SETTINGS = ("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "MKL_DEBUG_CPU_TYPE")
# What operators of the two frameworks do, by how their names begin.
KINDS = {
    "convolutions": ("conv2d", "mkldnn_convolution", "convolution_backward", "_convolution"),
    "matrix products": ("matmul", "mm", "addmm", "bmm"),
    "patches of small convolutions": ("unfold", "fold"),
}
# By which a profile's sides are told how many threads to use.
THREADS = ("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "OMP_NUM_THREADS")
QUIET = {"GLOG_minloglevel": "3", "PYTHONWARNINGS": "ignore"}


class Side:
    """A worker process.

    Args:
        side: "ours", "plain" or "torch".
        experiment: "EXPERIMENT:WIDTH:BATCH".
        more: Environment variables.
    """

    def __init__(self, side: str, experiment: str, **more: str):
        command = [sys.executable, osp.join(HERE, "worker.py"), side, *experiment.split(":")]
        environment = {**os.environ, **QUIET, **more}
        if side == "plain":
            # Paddle as it comes: on one thread, and by the matrix path that it chooses
            environment = {k: v for k, v in environment.items() if k not in SETTINGS}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.seconds = {}
        self.memory = ""

    def ask(self, what: str) -> dict:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{what}\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{' '.join(self.process.args)} ended without an answer: run it by hand.")

    def step(self, what: str, counts: bool) -> None:
        answer = self.ask(what)
        if counts:
            self.seconds.setdefault(what, []).append(answer["seconds"])
            self.memory = f"{answer['peak_gib']:.2f} ({answer['imports_gib']:.2f})"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def matmul_rate() -> float:
    """The machine's GFLOP/s in NumPy's matrix product: what no step can exceed."""
    left, right = (np.ones((2048, 2048), "float32") for _ in range(2))
    start = time.perf_counter()
    left @ right
    return 2 * 2048**3 / 1e9 / (time.perf_counter() - start)


def operations(experiment: str, width: int) -> tuple:
    """GFLOP of a forward pass of one sample, (generator, critic), as our networks compute it."""
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
        # the folded convolution sees the smaller picture, as does the shortcut
        generator += w * w * size**2 * (16 / 4 + 9 + 1 / 4)
    critic = w * 1024 * 27 + w * w * 256 * 16 + 3 * w * 256
    critic += w * w * (256 * 9 + 64 * 16 + 64) + 4 * w * w * 64 * 9 + 11 * w
    return 2 * generator / 1e9, 2 * critic / 1e9


def compare(experiment: str, repeat: int, with_plain: bool) -> None:
    name, width, batch = experiment.split(":")
    width, batch = int(width), int(batch)
    names = ["ours"] + ["plain"] * with_plain
    if importlib.util.find_spec("torch") is not None:
        names.append("torch")
    sides = {side: Side(side, experiment) for side in names}
    rates = []
    for turn in range(repeat + 1):
        for what in ("critic", "generator", "iteration"):
            for side, worker in sides.items():
                if side == "plain" and turn > 2:
                    continue  # so slow that more would tell nothing new
                worker.step(what, turn > 0)
        rates.append(matmul_rate())
    for worker in sides.values():
        worker.close()

    print(f"\n{name}, width {width}, critic's batch {batch}")
    print(f"{'':10}{'side':8}{'median s':>10}{'least':>10}{'most':>10}{'ours is':>14}")
    for what in ("critic", "generator", "iteration"):
        base = statistics.median(sides["ours"].seconds[what])
        for side, worker in sides.items():
            seconds = worker.seconds[what]
            median = statistics.median(seconds)
            ratio = "" if side == "ours" else f"{median / base:.2f} x as fast"
            print(
                f"{what:10}{side:8}{median:10.4f}{min(seconds):10.4f}{max(seconds):10.4f}{ratio:>16}"
            )
    memory = ", ".join(f"{side} {worker.memory}" for side, worker in sides.items())
    print(f"peak memory, GiB (after the imports): {memory}")
    generator, critic = operations(name, width)
    factor = 2 if name == "cifar10" else 1
    work = 5 * batch * (generator + CRITIC_PASSES * critic)
    work += factor * batch * (3 * generator + 2 * critic)
    rate = work / statistics.median(sides["ours"].seconds["iteration"])
    limit = statistics.median(rates)
    print(
        f"an iteration is {work:.1f} GFLOP (ours): {rate:.0f} GFLOP/s, {100 * rate / limit:.0f}% "
        f"of a matrix product's {limit:.0f} (least {min(rates):.0f}, most {max(rates):.0f})"
    )


def kind(operator: str) -> str:
    for name, beginnings in KINDS.items():
        if operator.startswith(beginnings):
            return name
    return "all other operators"


def profile(experiment: str, repeat: int) -> None:
    """Seconds of an iteration by kind of operator, on one thread and on all."""
    names = ["ours"] + ["torch"] * (importlib.util.find_spec("torch") is not None)
    count = str(len(os.sched_getaffinity(0)))
    sides = {
        (side, threads): Side(side, experiment, **dict.fromkeys(THREADS, number))
        for side in names
        for threads, number in (("one", "1"), ("all", count))
    }
    parts = {side: [] for side in sides}
    for turn in range(repeat + 1):
        for side, worker in sides.items():
            worker.step("iteration", turn > 0)
            if turn > 0:
                parts[side].append(worker.ask("profile")["operators"])
    for worker in sides.values():
        worker.close()
    print(f"\n{experiment.replace(':', ', ')}: median seconds of an iteration")
    for side in names:
        table, rows = {}, [*KINDS, "all other operators"]
        for threads in ("one", "all"):
            sums = [dict.fromkeys(rows, 0.0) for _ in range(repeat)]
            for turn, operators in zip(sums, parts[side, threads]):
                for operator, seconds in operators.items():
                    turn[kind(operator)] += seconds
            table[threads] = {row: statistics.median(turn[row] for turn in sums) for row in rows}
            table[threads]["an iteration, not profiled"] = statistics.median(
                sides[side, threads].seconds["iteration"]
            )
        print(f"| {side} | one thread | {count} threads | one / {count} |")
        print("| --- | --- | --- | --- |")
        for row in table["one"]:
            first, second = table["one"][row], table["all"][row]
            if second:
                print(f"| {row} | {first:.4f} | {second:.4f} | {first / second:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiments", nargs="*", help="EXPERIMENT:WIDTH:BATCH")
    parser.add_argument("--repeat", type=int, default=7, help="rounds that count")
    parser.add_argument("--no-plain", action="store_true", help="leave plain Paddle out")
    parser.add_argument("--profile", action="store_true", help="times by kind of operator instead")
    options = parser.parse_args()
    for experiment in options.experiments:
        if not re.fullmatch(r"(toy|mnist|cifar10):\d+:\d+", experiment):
            parser.error(f"{experiment!r} is not EXPERIMENT:WIDTH:BATCH, such as {DEFAULT[0]}.")
    for experiment in options.experiments or DEFAULT:
        if options.profile:
            profile(experiment, options.repeat)
            continue
        compare(experiment, options.repeat, not options.no_plain)


if __name__ == "__main__":
    main()
