# SPDX-License-Identifier: Apache-2.0
"""Counts what an iteration computes and sends: `python benchmarks/scale.py`.

The rates of a GPU and of a link are assumptions, for the formula of scale_tables.find_limit.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any
from typing import Dict

import common
import scale_tables
from operations import count_iteration

# EXPERIMENT:WIDTH:BATCH: speed.py's, and the authors' widths of the 64x64 networks
CASES = (
    *("toy:512:256", "mnist:64:50", "cifar10:128:64", "dcgan64:32:64", "dcgan64:64:64"),
    *("resnet64:32:16", "resnet64:64:64"),
)
FLOAT_BYTES = 4


def count_weights(experiment: str, width: int) -> Dict[str, int]:
    """Numbers of trained weights of an experiment's critic and generator."""
    setup = common.SETUPS[experiment]
    widths = [f"MODEL.gen_net.dim={width}", f"MODEL.dis_net.dim={width}"]
    settings = ["device=cpu", "output_dir=none", *setup.settings, *widths]
    cfg = common.compose(f"wgangp_{setup.script}", settings)
    script = importlib.import_module(f"wgangp_{setup.script}")
    networks = getattr(script, setup.script.capitalize())(cfg).make_networks()
    return {
        name: sum(weight.size for weight in network.parameters() if not weight.stop_gradient)
        for name, network in zip(("generator", "critic"), networks)
    }


def count_row(case: str, tflops: float, gigabytes: float) -> Dict[str, Any]:
    """A row of the results, of EXPERIMENT:WIDTH:BATCH and the assumed rates."""
    experiment, width, batch = case.split(":")
    weights = count_weights(experiment, int(width))
    sent = common.CRITIC_STEPS * weights["critic"] + weights["generator"]
    return {
        "gflop": count_iteration(experiment, int(width), int(batch)),
        "weights": weights,
        "gradient_bytes": FLOAT_BYTES * sent,
        "gpu_gflop_per_second": tflops * 1e3,
        "link_bytes_per_second": gigabytes * 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tflops", type=float, default=10, help="assumed TFLOP/s of a GPU")
    parser.add_argument("--gigabytes", type=float, default=12.5, help="assumed GB/s of a link")
    parser.add_argument("--output", type=Path, help="write the figures into this file, as JSON")
    options = parser.parse_args()
    rows = {case: count_row(case, options.tflops, options.gigabytes) for case in CASES}
    for line in scale_tables.scale_limits_table({"rows": rows}):
        print(" | ".join(line))
    if options.output:
        text = json.dumps({"rows": rows}, indent=1) + "\n"
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
