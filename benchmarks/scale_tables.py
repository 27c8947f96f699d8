# SPDX-License-Identifier: Apache-2.0
"""The tables of scale.py's and agreement.py's figures."""

from __future__ import annotations

from typing import Any
from typing import Dict
from typing import List

from speed_tables import EXPERIMENTS
from speed_tables import NO_VALUE

Results = Dict[str, Any]  # A file of results
Lines = List[List[str]]  # The cells of a table, with its head first

GPU_COUNTS = (2, 4, 8, 16)
ONE_PROCESS = {
    "whole": "whole batch",
    "groups": "whole batch, N groups",
    "accumulated": "N accumulated batches",
}


def scale_table(results: Results, speed: Results) -> Lines:
    """What an iteration of each experiment computes, keeps in memory (if measured) and sends."""
    lines = [
        [
            *("experiment", "width", "batch", "GFLOP of an iteration", "the suite, GiB"),
            *("weights of the critic", "weights of the generator", "gradients, MB"),
        ]
    ]
    for case, row in results["rows"].items():
        experiment, width, batch = case.split(":")
        memory = NO_VALUE
        if case in speed["rows"]:
            figures = next(iter(speed["rows"][case]["sides"].values()))
            memory = f"{figures['peak_gib'] - figures['imports_gib']:.2f}"
        cells = [EXPERIMENTS[experiment], width, batch, f"{row['gflop']:,.0f}", memory]
        cells += [f"{row['weights'][key]:,}" for key in ("critic", "generator")]
        lines.append([*cells, f"{row['gradient_bytes'] / 1e6:.1f}"])
    return lines


def find_limit(row: Results) -> float:
    """The number of GPUs whose reductions take as long as their computations.

    With work W in operations, a rate R of a GPU, gradients of G bytes and a link of L bytes per
    second, W / (N R) = 2 (N - 1) / N G / L holds at N = 1 + W L / (2 G R).
    """
    computing = row["gflop"] / row["gpu_gflop_per_second"]
    sending = 2 * row["gradient_bytes"] / row["link_bytes_per_second"]
    return 1 + computing / sending


def find_speed_up(row: Results, count: int) -> float:
    """How many times as fast as one GPU a number of GPUs is, by the same assumptions."""
    return count / (1 + (count - 1) / (find_limit(row) - 1))


def scale_limits_table(results: Results) -> Lines:
    """What GPUs give by the formula, with the assumed rates."""
    gpus = [f"{count} GPUs" for count in GPU_COUNTS]
    lines = [["experiment", "width", "batch", "R, TFLOP/s", "L, GB/s", *gpus, "N*"]]
    for case, row in results["rows"].items():
        experiment, width, batch = case.split(":")
        rates = row["gpu_gflop_per_second"] / 1e3, row["link_bytes_per_second"] / 1e9
        cells = [f"{find_speed_up(row, count):.1f}" for count in GPU_COUNTS]
        limit = f"{find_limit(row):.1f}"
        names = [EXPERIMENTS[experiment], width, batch]
        lines.append([*names, *map("{:g}".format, rates), *cells, limit])
    return lines


def agreement_table(results: Results) -> Lines:
    """The largest differences of several processes from one."""
    losses = ["critic's loss", "generator's loss", "weights"]
    lines = [["experiment", "processes N", "one process", "iterations", *losses]]
    for name, row in results["rows"].items():
        experiment, count, kind = name.split(":")
        cells = [f"{row[key]:.0e}" for key in ("critic_loss", "generator_loss", "weights")]
        length = str(row["iterations"])
        lines.append([EXPERIMENTS[experiment], count, ONE_PROCESS[kind], length, *cells])
    return lines
