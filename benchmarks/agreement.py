# SPDX-License-Identifier: Apache-2.0
"""Compares several processes with one that gets their whole batch.

    python benchmarks/agreement.py                 # all cases, with two and four processes
    python benchmarks/agreement.py toy:4           # CASE:PROCESSES
    python benchmarks/agreement.py --iterations 100

Tiny networks train a few iterations from the same weights on the same draws. A process draws by
the position of its batch, so the one process joins the draws of the others' batches.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import re
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any
from typing import Callable
from typing import Dict
from typing import List
from typing import Sequence
from unittest import mock

import common
import machine
import scale_tables

Arrays = Dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """A training in small.

    Args:
        script: The script, without `wgangp_` and `.py`.
        settings: Settings of the script.
        batch: The critic's batch of all processes.
        has_batch_norm: Whether the generator normalises over batches.
    """

    script: str
    settings: str
    batch: int
    has_batch_norm: bool = False


_GROUPS = "MODEL.gen_net.batch_norm_groups=1"
CASES = {
    "toy": Case("toy", "preset=authors MODEL.gen_net.dim=16 MODEL.dis_net.dim=16", 64),
    "mnist": Case("mnist", "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4", 16),
    "cifar10": Case("cifar10", f"MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 {_GROUPS}", 16, True),
    "resnet64": Case(
        "image64", f"MODEL.arch=resnet MODEL.gen_net.dim=2 MODEL.dis_net.dim=2 {_GROUPS}", 8, True
    ),
}
DEFAULTS = tuple(f"{case}:{count}" for case in CASES for count in (2, 4))
LOSSES = ("critic_loss", "generator_loss")


def find_ports(count: int) -> List[int]:
    """Ports of this machine that are free."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def launcher_variables(count: int) -> List[Dict[str, str]]:
    """The variables that Paddle's launcher sets in each of several processes of this machine."""
    master, *ports = find_ports(count + 1)
    ends = [f"127.0.0.1:{port}" for port in ports]
    shared = {
        "PADDLE_MASTER": f"127.0.0.1:{master}",
        "PADDLE_TRAINERS_NUM": str(count),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(ends),
        "PADDLE_DISTRI_BACKEND": "gloo",
    }
    return [
        {**shared, "PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": end}
        for rank, end in enumerate(ends)
    ]


def run_processes(count: int, work: Callable[[int], None]) -> None:
    """Runs `work(rank)` in each of `count` processes, with the variables of Paddle's launcher.

    The processes are copies of this one, so Paddle is imported once. This process must not have
    computed anything with Paddle before. Exits with the log of the processes if one fails.
    """
    children = set()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        for rank, variables in enumerate(launcher_variables(count)):
            child = os.fork()
            if child == 0:
                _work_and_exit(work, rank, variables if count > 1 else {}, log.fileno())
            children.add(child)
        while children:
            child, status = os.wait()
            children.discard(child)
            if status:
                for other in children:  # They would wait for the one that failed.
                    os.kill(other, signal.SIGKILL)
                    os.waitpid(other, 0)
                log.seek(0)
                sys.exit(f"{log.read()}\nA process of {count} failed.")


def _work_and_exit(
    work: Callable[[int], None], rank: int, variables: Dict[str, str], log: int
) -> None:
    """What a copy of the process does; its output goes into a log."""
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(variables)
        work(rank)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def import_suite() -> None:
    """Imports what the processes need, without computing anything."""
    from support.processes import connect_once
    from support.processor import prepare

    prepare()
    connect_once()
    for name in ("paddle", "training.build", *(f"wgangp_{case.script}" for case in CASES.values())):
        importlib.import_module(name)


def join_batches(count: int) -> Callable:
    """A reader of streams that joins `count` batches, each with the draws that it has alone.

    Rows take turns, as those of the groups of a batch normalisation do.
    """
    import numpy as np

    from data import streams

    read = streams.Stream.__getitem__

    def read_joined(stream, positions):
        parts = np.split(np.asarray(positions), count)
        rows = np.stack([read(stream, part) for part in parts], axis=1)
        return rows.reshape(len(positions), *rows.shape[2:])

    return read_joined


def make_run(script: str, settings: Sequence[str]) -> Any:
    """A run of a script at its start, on random pictures."""
    import numpy as np

    from data.image_set import ImageSet
    from training import build
    from training.run_settings import RunSettings

    cfg = common.compose(f"wgangp_{script}", ["device=cpu", "output_dir=none", *settings])
    experiment = getattr(importlib.import_module(f"wgangp_{script}"), script.capitalize())(cfg)
    rng = np.random.default_rng(0)
    shape = next(setup.shape for setup in common.SETUPS.values() if setup.script == script)
    images = rng.integers(256, size=(100, *shape), dtype="uint8")
    labels = rng.integers(10, size=len(images))
    data = None if script == "toy" else ImageSet(images, labels, images, labels)
    generator, critic = experiment.make_networks()
    return build.make_run(
        RunSettings.of(cfg),
        generator,
        critic,
        lambda length, seed: experiment.make_real_streams(data, generator, length, seed),
        "random pictures",
    )


def train(script: str, settings: Sequence[str], iterations: int, joined: int = 1) -> Arrays:
    """Trains; returns losses by step and weights by name.

    Args:
        script: The script, without `wgangp_` and `.py`.
        settings: Its settings.
        iterations: Generator iterations.
        joined: How many batches of draws each batch joins.
    """
    import paddle
    import paddle.distributed as dist

    from data import streams

    paddle.set_device("cpu")
    # Each process starts with its own weights, and all get the first one's.
    paddle.seed(dist.get_rank())
    settings = [*settings, f"TRAIN.iters_per_epoch={iterations}"]
    with mock.patch.object(streams.Stream, "__getitem__", join_batches(joined)):
        run = make_run(script, settings)
        run.seek()
        for _ in range(iterations):
            run.step()
    arrays = {}
    for player in run.players:
        for name, value in player.network.named_parameters():
            arrays[f"{player.name}/{name}"] = value.numpy()
        losses = paddle.stack(player.loss.figures[f"{player.name}_loss"]).numpy()
        steps = iterations * player.steps
        arrays[f"{player.name}_loss"] = losses.reshape(steps, -1).mean(1)  # of accumulated batches
    return arrays


def train_processes(
    count: int, case: Case, words: str, iterations: int, joined: int = 1
) -> List[Arrays]:
    """Trains in a number of processes; returns what `train` does of each."""
    import numpy as np

    settings = [*case.settings.split(), *words.split()]
    with tempfile.TemporaryDirectory() as folder:

        def work(rank):
            np.savez(f"{folder}/{rank}.npz", **train(case.script, settings, iterations, joined))

        run_processes(count, work)
        return [dict(np.load(f"{folder}/{rank}.npz")) for rank in range(count)]


def measure_differences(several: Sequence[Arrays], one: Arrays) -> Dict[str, float]:
    """The largest differences of losses and weights.

    The loss of several processes is the mean of theirs. Differences of losses are shares of the
    largest loss; "weights" is the largest difference of a weight.
    """
    import numpy as np

    found = {}
    for loss in LOSSES:
        mean = np.mean([arrays[loss] for arrays in several], axis=0, dtype="float64")
        found[loss] = float(np.abs(mean - one[loss]).max() / np.abs(one[loss]).max())
    names = [name for name in one if name not in LOSSES]
    for arrays in several[1:]:
        if any((arrays[name] != several[0][name]).any() for name in names):
            sys.exit("The processes have different weights.")
    found["weights"] = max(float(np.abs(several[0][name] - one[name]).max()) for name in names)
    return found


def compare(name: str, count: int, iterations: int) -> Dict[str, Dict[str, float]]:
    """Differences by what the one process does: rows of the results."""
    case = CASES[name]
    share = f"TRAIN.batch_size={case.batch // count}"
    whole = f"TRAIN.batch_size={case.batch}"
    ones = {"whole": (whole, count), "accumulated": (f"{share} TRAIN.update_freq={count}", 1)}
    if case.has_batch_norm:
        ones["groups"] = (f"{whole} MODEL.gen_net.batch_norm_groups={count}", count)
    several = train_processes(count, case, share, iterations)
    return {
        f"{name}:{count}:{kind}": measure_differences(
            several, *train_processes(1, case, words, iterations, joined)
        )
        for kind, (words, joined) in ones.items()
    }


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", help="CASE:PROCESSES")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the figures into this file, as JSON")
    options = parser.parse_args(words)
    for case in options.cases:
        if not re.fullmatch(rf"({'|'.join(CASES)}):[248]", case):
            parser.error(f"{case!r} is not CASE:PROCESSES, such as {DEFAULTS[0]}.")
    if options.iterations < 1:
        parser.error("--iterations must be at least 1.")
    import_suite()
    watch, rows = machine.Watch(), {}
    for case in options.cases or DEFAULTS:
        name, count = case.split(":")
        rows.update(compare(name, int(count), options.iterations))
    for row in rows.values():
        row["iterations"] = options.iterations
    for line in scale_tables.agreement_table({"rows": rows}):
        print(" | ".join(line))
    if options.output:
        machine.write_results(options.output, watch.stop(), rows)


if __name__ == "__main__":
    main(sys.argv[1:])
