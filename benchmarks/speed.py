# SPDX-License-Identifier: Apache-2.0
"""Times the suite and PyTorch in one run.

    python benchmarks/speed.py                       # all experiments, as configured
    python benchmarks/speed.py cifar10:128:16        # EXPERIMENT:WIDTH:BATCH
    python benchmarks/speed.py inception:20          # features of BATCH pictures at once
    python benchmarks/speed.py --path both           # with and without oneDNN
    python benchmarks/speed.py --profile             # by operator, on one thread and on all

Each side is a process of its own. They take turns, step by step, so that other work on the
machine slows all alike; a pause after each step lets the threads of the last side fall asleep.
The first round is not counted. `make torch` installs PyTorch; without it, that side is left out.
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
from pathlib import Path
from typing import Any
from typing import Dict
from typing import List
from typing import Sequence

import common
import machine
from operations import INCEPTION_GFLOP
from operations import count_iteration

from support import processor

DEFAULTS = (
    *("toy:512:256", "mnist:64:50", "cifar10:128:16", "cifar10:128:64"),
    *("dcgan64:32:64", "resnet64:32:16", "inception:20"),
)
STEPS = ("critic", "generator", "iteration")
PATHS = {"onednn": ["onednn"], "plain": ["plain"], "both": ["onednn", "plain"]}
NAMES = {
    "onednn": "the suite",
    "plain": "the suite without oneDNN",
    "paddle": "plain Paddle",
    "torch": "PyTorch",
}
# Seconds after a step: OpenMP's threads wait actively for 0.2 s before they sleep.
PAUSE = 0.3
LEAST_ROUNDS = 2
# Plain Paddle is so slow that a few rounds are enough.
PADDLE_ROUNDS = 2
PRODUCT_SIZE = 2048
# Kinds of operators, each with the beginnings of their names in the frameworks and in oneDNN
KINDS = {
    "convolutions": ("conv2d", "mkldnn_convolution", "convolution", "_convolution"),
    "matrix products": ("matmul", "mm", "addmm", "bmm"),
    "patches of small convolutions": ("unfold", "fold"),
    "changes of layout": ("reorder",),
}
OTHER_KIND = "all other operators"
# Rows of a profile below those of the kinds
WHOLE, PROFILED = "an iteration, not profiled", "an iteration, profiled"
# Variables that set the number of threads of both frameworks
THREADS = ("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "OMP_NUM_THREADS")


class Side:
    """A worker process.

    Args:
        side: "onednn", "plain", "paddle", "torch" or "products".
        experiment: "EXPERIMENT:WIDTH:BATCH".
        pause: Seconds to wait after each answer.
        **variables: Environment variables.

    Attributes:
        seconds: The times of the steps that count.
        facts: What the worker's last answer says in addition, such as its memory.
    """

    def __init__(self, side: str, experiment: str, pause: float, **variables: str):
        worker = common.BENCHMARKS / "worker.py"
        self.process = subprocess.Popen(
            [sys.executable, str(worker), side, *experiment.split(":")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=common.side_environment(side, **variables),
        )
        self.side, self.pause = side, pause
        self.seconds: Dict[str, List[float]] = {}
        self.facts: Dict[str, Any] = {}

    def ask(self, command: str) -> Dict[str, Any]:
        """Sends a command to the worker; returns its answer after a pause."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{command}\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                time.sleep(self.pause)
                return json.loads(line)
        command_line = " ".join(self.process.args)
        raise SystemExit(f"{command_line} ended without an answer: run it by hand.")

    def time(self, step: str, is_counted: bool) -> None:
        """Lets the worker take a step, and keeps its time if it is counted."""
        self.facts = self.ask(step)
        if self.side == "onednn" and not self.facts["onednn"]:
            sys.exit("oneDNN is not used here; the log of a training says why. Try --path=plain.")
        seconds = self.facts.pop("seconds")
        if is_counted:
            self.seconds.setdefault(step, []).append(seconds)

    def summarise(self) -> Dict[str, Any]:
        """Statistics of each step's times, and the facts."""
        return {**{step: sum_up(times) for step, times in self.seconds.items()}, **self.facts}

    def close(self) -> None:
        """Ends the worker."""
        self.process.stdin.close()
        self.process.wait()


def sum_up(numbers: Sequence[float]) -> Dict[str, float]:
    """The median, the least and the largest number."""
    return {
        "median": statistics.median(numbers),
        "least": min(numbers),
        "most": max(numbers),
    }


def choose_sides(experiment: str, path: str, with_paddle: bool) -> List[str]:
    """The sides of a comparison; those whose packages are missing are left out."""
    needed = ["torch"]
    if experiment.startswith(common.INCEPTION):
        needed, with_paddle = ["torch", "torch_fidelity"], False
    has_torch = all(importlib.util.find_spec(name) for name in needed)
    return [*PATHS[path], *["paddle"] * with_paddle, *["torch"] * has_torch]


def compare(
    experiment: str, names: Sequence[str], products: Side, options: argparse.Namespace
) -> Dict[str, Any]:
    """Times the steps of all sides in turns; returns the figures of a row of the results.

    Args:
        experiment: "EXPERIMENT:WIDTH:BATCH".
        names: The sides.
        products: The side that multiplies matrices.
        options: The command line's.
    """
    name, *numbers = experiment.split(":")
    steps = ("features",) if name == common.INCEPTION else STEPS
    sides = {side: Side(side, experiment, options.pause) for side in names}
    products.seconds = {}
    turn, begin = 0, time.monotonic()
    while turn <= min(options.repeat, LEAST_ROUNDS) or (
        turn <= options.repeat and time.monotonic() - begin < options.seconds
    ):
        for step in steps:
            for side, worker in sides.items():
                if side != "paddle" or turn <= PADDLE_ROUNDS:
                    worker.time(step, turn > 0)
        for library in ("numpy", "onednn"):
            products.time(library, turn > 0)
        turn += 1
    for worker in sides.values():
        worker.close()
    if name == common.INCEPTION:  # the time of one picture
        for worker in sides.values():
            worker.seconds = {"features": [s / int(numbers[0]) for s in worker.seconds["features"]]}
        work = INCEPTION_GFLOP
    else:
        work = count_iteration(name, *map(int, numbers))
    work_of_product = 2 * PRODUCT_SIZE**3 / 1e9
    return {
        "rounds": turn - 1,
        "gflop": work,
        "sides": {side: worker.summarise() for side, worker in sides.items()},
        "gflop_per_second": {
            library: sum_up([work_of_product / seconds for seconds in times])
            for library, times in products.seconds.items()
        },
    }


def print_row(experiment: str, row: Dict[str, Any]) -> None:
    """Prints times, memory, and the rate of the suite next to that of matrix products."""
    print(f"\n{experiment} ({row['rounds']} rounds)")
    print(f"{'':11}{'side':25}{'median s':>10}{'least':>10}{'most':>10}{'the suite is':>18}")
    sides = row["sides"]
    ours, *_ = sides.values()
    steps = [step for step in (*STEPS, "features") if step in ours]
    for step in steps:
        for side, figures in sides.items():
            median, least, most = figures[step].values()
            ratio = f"{median / ours[step]['median']:.2f} x as fast" if figures is not ours else ""
            times = f"{median:10.4f}{least:10.4f}{most:10.4f}"
            print(f"{step:11}{NAMES[side]:25}{times}{ratio:>18}")
    for side, figures in sides.items():
        beyond = figures["peak_gib"] - figures["imports_gib"]
        whole = figures["peak_gib"]
        print(f"peak memory beyond the imports, GiB: {NAMES[side]} {beyond:.2f} (of {whole:.2f})")
    rate = row["gflop"] / ours[steps[-1]]["median"]
    print(f"{row['gflop']:.1f} GFLOP, as the suite computes: {rate:.0f} GFLOP/s")
    for library, limit in row["gflop_per_second"].items():
        median, least, most = limit.values()
        spread = f"{median:.0f} (least {least:.0f}, most {most:.0f})"
        print(f"{100 * rate / median:.0f}% of a matrix product by {library}: {spread}")


def sum_by_kind(operators: Dict[str, float]) -> Dict[str, float]:
    """Seconds by kind of operator, from seconds by operator."""
    sums = dict.fromkeys([*KINDS, OTHER_KIND], 0.0)
    for operator, seconds in operators.items():
        kinds = (kind for kind, beginnings in KINDS.items() if operator.startswith(beginnings))
        sums[next(kinds, OTHER_KIND)] += seconds
    return sums


def profile(experiment: str, names: Sequence[str], options: argparse.Namespace) -> None:
    """Prints seconds of an iteration by kind of operator, on one thread and on all."""
    count = str(processor.count_cores())
    sides = {
        (side, threads): Side(side, experiment, options.pause, **dict.fromkeys(THREADS, number))
        for side in names
        for threads, number in (("one", "1"), ("all", count))
    }
    step = "features" if experiment.startswith(common.INCEPTION) else "iteration"
    rows = {side: [] for side in sides}
    for turn in range(options.repeat + 1):
        for side, worker in sides.items():
            worker.time(step, turn > 0)
            if turn > 0:
                answer = worker.ask("profile")
                rows[side].append(
                    {
                        **sum_by_kind(answer["operators"]),
                        PROFILED: answer["seconds"],
                        WHOLE: worker.seconds[step][-1],
                    }
                )
    for worker in sides.values():
        worker.close()
    print(f"\n{experiment.replace(':', ', ')}: median seconds of an iteration")
    for side in names:
        print(f"| {NAMES[side]} | one thread | {count} threads | one / {count} |")
        print("| --- | --- | --- | --- |")
        for row in rows[side, "one"][0]:
            one, all_ = (
                statistics.median(turn[row] for turn in rows[side, threads])
                for threads in ("one", "all")
            )
            if all_:
                print(f"| {row} | {one:.4f} | {all_:.4f} | {one / all_:.2f} |")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiments", nargs="*", help="EXPERIMENT:WIDTH:BATCH, or inception:BATCH")
    parser.add_argument("--repeat", type=int, default=7, help="largest number of rounds that count")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help=f"after this time, an experiment gets no more than {LEAST_ROUNDS} rounds",
    )
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds between two steps")
    parser.add_argument("--path", choices=PATHS, default="onednn", help="the suite's ways to time")
    parser.add_argument(
        "--with-plain-paddle", action="store_true", help="add plain Paddle, which takes minutes"
    )
    parser.add_argument("--output", type=Path, help="write the figures into this file, as JSON")
    parser.add_argument("--profile", action="store_true", help="times by kind of operator instead")
    options = parser.parse_args(words)
    options.experiments = options.experiments or DEFAULTS
    known = rf"({'|'.join(common.SETUPS)}):[1-9]\d*:[1-9]\d*|{common.INCEPTION}:[1-9]\d*"
    for experiment in options.experiments:
        if not re.fullmatch(known, experiment):
            parser.error(f"{experiment!r} is not EXPERIMENT:WIDTH:BATCH, such as {DEFAULTS[0]}.")
    if options.repeat < 1:
        parser.error("--repeat must be at least 1.")
    return options


def compare_all(options: argparse.Namespace) -> None:
    """Compares the sides in all experiments; what is finished is written even if a side fails."""
    watch, rows = machine.Watch(), {}
    products = Side("products", f"products:{PRODUCT_SIZE}", options.pause)
    try:
        for experiment in options.experiments:
            names = choose_sides(experiment, options.path, options.with_plain_paddle)
            rows[experiment] = compare(experiment, names, products, options)
            print_row(experiment, rows[experiment])
            sys.stdout.flush()
    finally:
        products.close()
        load = watch.stop()
        if options.output and rows:
            machine.write_results(options.output, load, rows)
    print(f"\n{machine.describe_load(load)}")


def main() -> None:
    options = parse(sys.argv[1:])
    print(machine.describe_load(machine.look()), flush=True)
    if not options.profile:
        compare_all(options)
        return
    for experiment in options.experiments:
        profile(experiment, choose_sides(experiment, options.path, False), options)


if __name__ == "__main__":
    main()
