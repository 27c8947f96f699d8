# SPDX-License-Identifier: Apache-2.0
"""The tables of speed.py's and processes.py's figures."""

from __future__ import annotations

import statistics
from typing import Any
from typing import Dict
from typing import List

Results = Dict[str, Any]  # A file of results
Lines = List[List[str]]  # The cells of a table, with its head first

EXPERIMENTS = {
    "toy": "toy",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "dcgan64": "64x64, DCGAN",
    "resnet64": "64x64, residual",
    "inception": "Inception features, a picture",
}
SUITE = ("onednn", "plain")  # the suite's ways; a table shows the first as the suite's own
NO_VALUE = "–"


def _name(experiment: str) -> List[str]:
    """The first cells of "EXPERIMENT:WIDTH:BATCH" or "inception:BATCH"."""
    name, *width, batch = experiment.split(":")
    return [EXPERIMENTS[name], *(width or [NO_VALUE]), batch]


def _seconds(row: Results, side: str, step: str) -> str:
    """The median and the least time of a step."""
    if side not in row["sides"]:
        return NO_VALUE
    times = row["sides"][side][step]
    return f"{times['median']:.3g} ({times['least']:.3g})"


def _suite_of(row: Results) -> str:
    return next(side for side in SUITE if side in row["sides"])


def _ratio(row: Results, step: str) -> str:
    """PyTorch's median time of a step, as a multiple of the suite's."""
    sides = row["sides"]
    if "torch" not in sides:
        return NO_VALUE
    return f"{sides['torch'][step]['median'] / sides[_suite_of(row)][step]['median']:.2f}"


def _memory(row: Results, side: str) -> str:
    """GiB beyond those after the imports."""
    if side not in row["sides"]:
        return NO_VALUE
    figures = row["sides"][side]
    return f"{figures['peak_gib'] - figures['imports_gib']:.2f}"


def speed_table(results: Results) -> Lines:
    """A line for each experiment: an iteration of all sides, memory, the suite's rate."""
    rows = results["rows"]
    has_both = any({*SUITE} <= {*row["sides"]} for row in rows.values())
    lines = [
        [
            *("experiment", "width", "batch", "the suite, s"),
            *["without oneDNN, s"] * has_both,
            *("PyTorch, s", "PyTorch / the suite", "the suite, GiB", "PyTorch, GiB"),
            *("GFLOP/s", "relative to a product"),
        ]
    ]
    for experiment, row in rows.items():
        ours = _suite_of(row)
        figures = row["sides"][ours]
        step = "iteration" if "iteration" in figures else "features"
        rate = row["gflop"] / figures[step]["median"]
        lines.append(
            [
                *_name(experiment),
                _seconds(row, ours, step),
                *[_seconds(row, "plain", step)] * has_both,
                *(_seconds(row, "torch", step), _ratio(row, step)),
                *(_memory(row, ours), _memory(row, "torch"), f"{rate:.0f}"),
                f"{rate / row['gflop_per_second']['numpy']['median']:.0%}",
            ]
        )
    return lines


def speed_steps_table(results: Results) -> Lines:
    """Lines for the critic's and the generator's step of each experiment."""
    head = ["experiment", "width", "batch", "step", "the suite, s", "PyTorch, s"]
    lines = [[*head, "PyTorch / the suite"]]
    for experiment, row in results["rows"].items():
        ours = _suite_of(row)
        for step in ("critic", "generator"):
            if step in row["sides"][ours]:
                times = [_seconds(row, side, step) for side in (ours, "torch")]
                lines.append([*_name(experiment), step, *times, _ratio(row, step)])
    return lines


def speed_machine_table(results: Results) -> Lines:
    """What speed.py ran on, how busy that was, and how fast its matrix products are."""
    place, load, rows = results["machine"], results["load"], results["rows"]
    sides = [side for row in rows.values() for side in row["sides"].values()]
    threads = {side["threads"] for side in sides if "threads" in side}
    versions = dict(place["versions"])
    versions["oneDNN"] = next((side["onednn"] for side in sides if side.get("onednn")), NO_VALUE)
    lines = [
        ["property", "value"],
        ["processor", place["processor"]],
        ["cores", str(place["cores"])],
        ["threads", ", ".join(map(str, sorted(threads)))],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
        ["date", results["date"]],
        ["load average before", f"{load['before']:.2f}"],
        ["cores that others used", NO_VALUE if load["others"] is None else f"{load['others']:.2f}"],
    ]
    for library, name in {"numpy": "NumPy", "onednn": "oneDNN"}.items():
        rates = [row["gflop_per_second"][library]["median"] for row in rows.values()]
        text = f"{statistics.median(rates):.0f} ({min(rates):.0f} – {max(rates):.0f})"
        lines.append([f"GFLOP/s of {name}'s product", text])
    return lines


def processes_table(results: Results) -> Lines:
    """One process against two with half the batch each."""
    lines = [["experiment", "batch", "one process, s", "two processes, s", "one / two"]]
    for name, row in results["rows"].items():
        one, two = row["one"], row["two"]
        cells = [f"{one:.3g}", f"{two:.3g}", f"{one / two:.2f}"]
        lines.append([EXPERIMENTS[name], str(row["batch"]), *cells])
    return lines
