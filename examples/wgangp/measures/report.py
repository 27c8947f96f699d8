# SPDX-License-Identifier: Apache-2.0
"""The report of mode=eval."""

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
from omegaconf import OmegaConf
from ppsci.utils import logger

from measures.evaluation import BETTER
from measures.evaluation import evaluate
from measures.evaluation import make_solver
from support import storage
from support import weight_files
from support.errors import require


def load_networks(cfg, generator, critic):
    """Loads the weights that EVAL.* name.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        critic: The critic D.

    Returns:
        The critic, or None where EVAL.pretrained_dis_model_path is null: then what only a
        critic can tell is left out.

    Raises:
        UserError: If the generator's are not named, or a file is absent or does not fit.
    """
    require(
        cfg.EVAL.pretrained_gen_model_path is not None,
        "mode=eval evaluates trained weights: name them by EVAL.pretrained_gen_model_path="
        "PATH_OR_URL (and EVAL.pretrained_dis_model_path for what the critic can tell).",
    )
    key = "EVAL.pretrained_gen_model_path"
    weight_files.load_weights(generator, cfg.EVAL.pretrained_gen_model_path, key, "generator")
    if cfg.EVAL.pretrained_dis_model_path is None:
        logger.warning(
            "EVAL.pretrained_dis_model_path is null: what only the critic can tell is left out."
        )
        return None
    key = "EVAL.pretrained_dis_model_path"
    weight_files.load_weights(critic, cfg.EVAL.pretrained_dis_model_path, key, "discriminator")
    return critic


# --8<-- [start:report]
def report(cfg, generator, validators: Dict[str, Any], draw: Callable[[str], None]) -> None:
    """mode=eval: evaluates a generator; prints a table, writes metrics.json and a picture.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        validators: Evaluate it; none where there is nothing to measure.
        draw: Writes a picture of samples to a path.
    """
    weights = {
        key: {"source": source, "sha256": storage.sha256(weight_files.weights_path(source, key))}
        for key, source in cfg.EVAL.items()
        if key.startswith("pretrained_") and source is not None
    }
    rows = {}
    for name, validator in validators.items():
        rows.update(make_rows(evaluate(make_solver(cfg, generator, {name: validator})), validator))
    if dist.get_rank() > 0:
        return  # the first process writes
    draw(osp.join(cfg.output_dir, "samples.png"))
    content = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": cfg.seed,
        "weights": weights,
        "metrics": rows,
    }
    # a training's config.yaml in the same folder is left alone
    OmegaConf.save(cfg, osp.join(cfg.output_dir, "config_eval.yaml"), resolve=True)
    path = osp.join(cfg.output_dir, "metrics.json")
    with storage.replacing(path) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    for name, part in weights.items():
        logger.info(f"Evaluated {part['source']} (EVAL.{name}), SHA-256 {part['sha256'][:12]}")
    if rows:
        logger.info(f"Figures of seed {cfg.seed}:\n{make_table(rows)}")
    logger.info(f"Wrote {path}")


def make_rows(figures: Dict[str, float], validator) -> Dict[str, Dict[str, Any]]:
    """A validator's figures by name, with what belongs to each."""
    real = validator.real
    return {
        name: {
            "value": value,
            "deviation": figures.get(f"{name}_deviation"),
            "num_samples": len(validator.data_loader.dataset),
            "better": BETTER.get(name),
            "real": real.get(name),
            "real_deviation": real.get(f"{name}_deviation"),
            "real_num_samples": validator.real_count if name in real else None,
            "measured_by": validator.measured_by,
        }
        for name, value in figures.items()
        if not name.endswith("_deviation")
    }


def make_table(rows: Dict[str, Dict[str, Any]]) -> str:
    """Rows of `make_rows` as a table for people."""

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
