# SPDX-License-Identifier: Apache-2.0
"""The report of mode=eval: a table, metrics.json and a picture."""

from __future__ import annotations

import functools
import json
import os
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import Optional

import paddle
import paddle.distributed as dist
from ppsci.utils import logger

from measures.evaluation import Evaluator
from measures.figures import BETTER
from measures.validators import Measure
from pages import origin
from pages.run_folder import make_rows
from support import storage
from support import sweeps


def report(
    evaluator: Evaluator,
    draw: Callable[[str], None],
    output_dir: str,
    seed: int,
    weights: Dict[str, Dict[str, str]],
    script: str,
) -> Dict[str, float]:
    """Evaluates a generator; logs a table, writes metrics.json and samples.png.

    It also writes neighbours.png where a measure draws it, and removes that of an earlier
    evaluation otherwise. The figures come first, so that a full disk does not cost them.
    With several processes all evaluate, and the first one writes.

    Args:
        evaluator: Its measures may be none; then the table is left out.
        draw: Writes a picture of samples to a path.
        output_dir: The folder to write to.
        seed: The run's seed.
        weights: "source" (path or URL) and "sha256" of each file of weights that was loaded, by
            its key of EVAL.
        script: Name of the script's file in conf/, without the suffix.

    Returns:
        The figures by name, in the first process.

    Raises:
        UserError: If the folder can't be written to; the table is logged by then.
    """
    rows = {}
    for name, figures in evaluator.evaluate_each().items():
        describe = functools.partial(describe_figure, measure=evaluator.measures[name])
        rows.update(make_rows(figures, describe))
    if dist.get_rank() > 0:
        return {}
    log_report(rows, seed, weights)
    content = {
        **origin.describe(script, paddle.get_device(), dist.get_world_size()),
        "seed": seed,
        "weights": weights,
        "metrics": rows,
    }
    with storage.writing_to(output_dir, sweeps.folder_key()):
        path = osp.join(output_dir, "metrics.json")
        with storage.replacing(path) as file:
            file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
        logger.info(f"Wrote {path}")
        draw(osp.join(output_dir, "samples.png"))
        draw_neighbours(evaluator, osp.join(output_dir, "neighbours.png"))
    return {name: row["value"] for name, row in rows.items()}


def draw_neighbours(evaluator: Evaluator, path: str) -> None:
    """Writes the picture that a measure draws, or removes that of an earlier evaluation."""
    drawers = [m.draw_neighbours for m in evaluator.measures.values() if m.draw_neighbours]
    for drawer in drawers:
        drawer(path)
    if not drawers and osp.isfile(path):
        os.remove(path)


def log_report(
    rows: Dict[str, Dict[str, Any]], seed: int, weights: Dict[str, Dict[str, str]]
) -> None:
    """Logs what was evaluated, what measured it, and the table of figures."""
    for key, part in weights.items():
        logger.info(f"Evaluated {part['source']} (EVAL.{key}), SHA-256 {part['sha256']}")
    networks = [row["measured_by"] or {} for row in rows.values()]
    for title, digest in dict.fromkeys(
        (by["network"], by["sha256"]) for by in networks if "sha256" in by
    ):
        logger.info(f"Measured by {title}, SHA-256 {digest}")
    if rows:
        logger.info(f"Figures of seed {seed}:\n{make_table(rows)}")


def describe_figure(name: str, measure: Measure) -> Dict[str, Any]:
    """Describes a figure: its direction, what measures it, and its value of real samples."""
    real = measure.real
    return {
        "num_samples": measure.num_samples,
        "better": BETTER.get(name),
        "real": real.get(name),
        "real_deviation": real.get(f"{name}_deviation"),
        "real_num_samples": measure.real_count if name in real else None,
        "measured_by": measure.measured_by,
    }


def describe_figures(measures: Dict[str, Measure]) -> Dict[str, Dict[str, Any]]:
    """Describes the figures that measures have of real samples, by name."""
    return {
        name: describe_figure(name, measure)
        for measure in measures.values()
        for name in measure.real
        if not name.endswith("_deviation")
    }


def make_table(rows: Dict[str, Dict[str, Any]]) -> str:
    """Formats the rows of `make_rows` as a text table."""

    def number(value: Optional[float]) -> str:
        return "-" if value is None else f"{value:.5g}"

    lines = [("figure", "value", "deviation", "real", "better", "samples", "measured by")]
    for name, row in rows.items():
        by = row["measured_by"] or {}
        checksum = f" ({by['sha256'][:12]})" if "sha256" in by else ""
        samples, real = row["num_samples"], row["real_num_samples"]
        fewer = f" ({real} real)" if real and real < samples else ""
        lines.append(
            (
                *(name, number(row["value"]), number(row["deviation"]), number(row["real"])),
                *(row["better"] or "-", f"{samples}{fewer}"),
                by.get("network", "-") + checksum,
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )
