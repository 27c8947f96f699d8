# SPDX-License-Identifier: Apache-2.0
"""The report of mode=eval: a table, metrics.json and a picture."""

from __future__ import annotations

import json
import shlex
import sys
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import Optional

import paddle.distributed as dist
from omegaconf import DictConfig
from omegaconf import OmegaConf
from ppsci.utils import logger

from measures.evaluation import BETTER
from measures.evaluation import Evaluator
from measures.evaluation import Measure
from support import storage


# --8<-- [start:report]
def report(
    evaluator: Evaluator,
    draw: Callable[[str], None],
    output_dir: str,
    seed: int,
    weights: Dict[str, Dict[str, str]],
    config: DictConfig,
) -> Dict[str, float]:
    """Evaluates a generator; logs a table, writes metrics.json, config_eval.yaml, samples.png.

    With several processes all evaluate, and the first one writes.

    Args:
        evaluator: Its measures may be none; then the table is left out.
        draw: Writes a picture of samples to a path.
        output_dir: The folder to write to.
        seed: The run's seed.
        weights: "source" (path or URL) and "sha256" of each file of weights that was loaded, by
            its key of EVAL.
        config: The whole configuration, to be saved.

    Returns:
        The figures by name, in the first process.
    """
    rows = {}
    for name, figures in evaluator.evaluate_each().items():
        rows.update(make_rows(figures, evaluator.measures[name]))
    if dist.get_rank() > 0:
        return {}
    draw(osp.join(output_dir, "samples.png"))
    content = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": seed,
        "weights": weights,
        "metrics": rows,
    }
    # The name differs from a training's config.yaml, which may lie in the same folder.
    OmegaConf.save(config, osp.join(output_dir, "config_eval.yaml"), resolve=True)
    path = osp.join(output_dir, "metrics.json")
    with storage.replacing(path) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    log_report(rows, seed, weights)
    logger.info(f"Wrote {path}")
    return {name: row["value"] for name, row in rows.items()}


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


def make_rows(figures: Dict[str, float], measure: Measure) -> Dict[str, Dict[str, Any]]:
    """Makes the rows of metrics.json, by figure: its value and what belongs to it."""
    real = measure.real
    return {
        name: {
            "value": value,
            "deviation": figures.get(f"{name}_deviation"),
            "num_samples": measure.num_samples,
            "better": BETTER.get(name),
            "real": real.get(name),
            "real_deviation": real.get(f"{name}_deviation"),
            "real_num_samples": measure.real_count if name in real else None,
            "measured_by": measure.measured_by,
        }
        for name, value in figures.items()
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
        lines.append(
            (
                *(name, number(row["value"]), number(row["deviation"]), number(row["real"])),
                *(row["better"] or "-", str(row["num_samples"])),
                by.get("network", "-") + checksum,
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


# --8<-- [end:report]
