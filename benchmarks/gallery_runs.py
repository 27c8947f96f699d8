# SPDX-License-Identifier: Apache-2.0
"""Trains the runs of the gallery on the page "Reading a run".

`python benchmarks/gallery_runs.py --mnist mnist.pkl.gz --output FOLDER` makes one folder for each
run, with the names of RUNS. All runs train the same narrow networks on MNIST, and each differs from
the first one in one respect. Then `python docs/figures/gallery.py FOLDER` draws the gallery. With
`--mistake`, the program is wgangp_mnist.py with one mistake: the penalty takes the gradient norm
over one axis.
"""

from __future__ import annotations

import argparse
import gzip
import pickle
import runpy
import subprocess
import sys
from pathlib import Path
from typing import List

import common

from support.errors import UserError
from support.errors import fail

LENGTH = ("TRAIN.epochs=10", "TRAIN.iters_per_epoch=120", "TRAIN.lr_schedule=linear")
RECORDS = ("log_freq=20", "TRAIN.eval_num_samples=1000", "TRAIN.save_freq=0")
BASE = ("MODEL.gen_net.dim=16", "MODEL.dis_net.dim=16", *LENGTH, *RECORDS)
RATE, TWO_STEPS = "TRAIN.learning_rate=3e-3", "TRAIN.n_critic=2"
RUNS = {  # settings that BASE lacks
    "healthy": (RATE, TWO_STEPS),
    "weak_critic": (RATE, "TRAIN.n_critic=1", "TRAIN.critic_learning_rate=1e-4"),
    "leading_critic": ("TRAIN.learning_rate=1e-4", "TRAIN.critic_learning_rate=3e-3", TWO_STEPS),
    "one_axis": (RATE, TWO_STEPS, "LOSS.penalty_gradient=double_backward"),
    "gan_collapse": ("LOSS=gan", "TRAIN.optimizer=Adam", "TRAIN.learning_rate=1e-3"),
    "memorising_critic": (RATE, TWO_STEPS),
}
MISTAKE, FEW_DIGITS = "one_axis", "memorising_critic"
COUNT = 100  # training digits of the run FEW_DIGITS


def make_command(name: str, mnist: Path, output: Path) -> List[str]:
    """The command that trains a run; it starts in examples/wgangp.

    Args:
        name: A key of RUNS.
        mnist: The data of this run.
        output: The folder of all runs.
    """
    program = "wgangp_mnist.py"
    settings = [f"DATA.data_path={common.quote(mnist)}", *BASE, *RUNS[name]]
    settings.append(f"hydra.run.dir={common.quote(output / name)}")
    words = [str(Path(__file__).resolve()), "--mistake"] if name == MISTAKE else [program]
    return [sys.executable, *words, *settings]


def write_few(mnist: Path, path: Path) -> None:
    """Writes the first training digits and all test digits of MNIST, in the layout of mnist.pkl.gz.

    Raises:
        UserError: If MNIST can't be read.
    """
    import functions

    data = functions.read_mnist(str(mnist))
    pairs = [
        (images.reshape(len(images), -1).astype("float32") / 256, labels)
        for images, labels in (
            (data.train_images[:COUNT], data.train_labels[:COUNT]),
            (data.test_images, data.test_labels),
        )
    ]
    with gzip.open(path, "wb", compresslevel=1) as file:
        pickle.dump((pairs[0], pairs[1], pairs[1]), file)  # The second pair is not read.


def train_with_mistake(settings: List[str]) -> None:
    """Runs wgangp_mnist.py, but with `mistakes.norm_over_one_axis` in the penalty."""
    import mistakes  # It prepares the process, before Paddle is imported.

    import functions

    functions.gradient_norm = mistakes.norm_over_one_axis
    sys.argv = ["wgangp_mnist.py", *settings]
    runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    if sys.argv[1:2] == ["--mistake"]:
        train_with_mistake(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", help=f"runs to train; all by default: {', '.join(RUNS)}"
    )
    parser.add_argument("--mnist", required=True, type=Path, help="mnist.pkl.gz")
    parser.add_argument("--output", required=True, type=Path, help="folder of all runs")
    parser.add_argument("--dry", action="store_true", help="print the commands only")
    options = parser.parse_args()
    unknown = set(options.names) - set(RUNS)
    if unknown:
        fail(f"There is no run {', '.join(sorted(unknown))}: choose from {', '.join(RUNS)}.")
    mnist, output = options.mnist.expanduser().resolve(), options.output.resolve()
    few = output / f"mnist_{COUNT}.pkl.gz"
    for name in options.names or RUNS:
        command = make_command(name, few if name == FEW_DIGITS else mnist, output)
        print(*command, flush=True)
        if options.dry:
            continue
        try:
            output.mkdir(parents=True, exist_ok=True)
            if name == FEW_DIGITS and not few.exists():
                write_few(mnist, few)
        except (OSError, UserError) as error:
            fail(str(error))
        code = subprocess.run(command, cwd=common.SUITE, check=False).returncode
        if code:
            fail(f"The run {name} failed (exit status {code}); its messages are above.")


if __name__ == "__main__":
    main()
