# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""Trains each objective for equally many generator iterations, and tables their figures.

`python benchmarks/objectives.py toy --output FOLDER` (or `mnist --data mnist.pkl.gz`). A run that
was interrupted goes on when the command is given again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "examples" / "wgangp"
OBJECTIVES = ("wgan_gp", "wgan", "wgan_div", "gan")
SETTINGS = {
    "toy": ["DATA.mode=8gaussians", "TRAIN.epochs=4"],
    "mnist": [
        *("MODEL.gen_net.dim=16", "MODEL.dis_net.dim=16", "TRAIN.epochs=4"),
        *("TRAIN.iters_per_epoch=75", "TRAIN.eval_freq=4", "TRAIN.eval_num_samples=10000"),
    ],
}
FIGURES = {
    "toy": ("modes", "high_quality", "reverse_kl", "wasserstein_2"),
    "mnist": ("classifier_score", "frechet_distance", "digit_kl"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=SETTINGS)
    parser.add_argument("--output", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--data", help="mnist.pkl.gz")
    options = parser.parse_args()
    name, rows = options.experiment, []
    for objective in OBJECTIVES:
        folder = options.output.absolute() / objective
        command = [f"wgangp_{name}.py", f"LOSS={objective}", *SETTINGS[name], "device=cpu"]
        if options.data:
            command.append(f"DATA.data_path={Path(options.data).absolute()}")
        command += [f"hydra.run.dir={folder}", "TRAIN.resume=auto"]
        subprocess.run([sys.executable, *command], cwd=SCRIPTS, check=True)
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        rows.append([objective, *(f"{last[key]:.4g}" for key in FIGURES[name])])
        rows[-1].append(f"{last['seconds']:.0f}")
    head = ["objective", *FIGURES[name], "seconds"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    (options.output / f"{name}.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
