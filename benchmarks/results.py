# SPDX-License-Identifier: Apache-2.0
"""Trains and evaluates a group of results: `python benchmarks/results.py GROUP`.

Writes docs/results/GROUP.json and prints its table. The same command resumes a group after an
interruption. `python benchmarks/tables.py` then writes the tables into the pages.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from typing import Dict
from typing import List
from typing import Optional
from typing import Sequence

import common
import tables
from groups import GROUPS
from groups import Row

from pages import origin
from support import processor
from support.settings import flatten_current

# The sections that determine a training, together with the seed
TRAINING_SECTIONS = ("DATA", "MODEL", "LOSS", "TRAIN")


def run_group(group: str, output: Path, results: Path, settings: Sequence[str] = ()) -> None:
    """Trains and evaluates the rows of a group that its file lacks.

    Args:
        group: A key of GROUPS.
        output: The folder of the runs' folders.
        results: The folder of GROUP.json.
        settings: More settings of all trainings and evaluations, such as the path of the data.
    """
    path = results / f"{group}.json"
    records = common.read_results(path) if path.exists() else {}
    for name, row in GROUPS[group].items():
        train, evaluate = make_commands(row, settings)
        folder = output / group / (row.trained_by or name)
        evaluation = folder / (f"evaluation_{name}" if row.trained_by else "evaluation")
        if name in records:
            for key, command in (("train", train), ("evaluate", evaluate)):
                require_same_command(path, name, records[name][key], publish(command))
            print(f"{path} has {name} already: remove both it and {folder} to make it again.")
            continue
        require_same_settings(folder, train)
        records[name] = {
            "train": publish(train),
            "evaluate": publish(evaluate),
            **train_and_evaluate(train, evaluate, folder, evaluation),
        }
        ordered = {key: records[key] for key in GROUPS[group] if key in records}
        write_results(path, {**ordered, **records})  # other rows of the file come last


def make_commands(row: Row, settings: Sequence[str]) -> List[List[str]]:
    """The words of a row's training and of its evaluation, without their folders."""
    script = f"wgangp_{row.script}.py"
    return [
        [script, *row.model, *row.training, *settings],
        [script, "mode=eval", *row.model, *row.evaluation, *settings],
    ]


def publish(words: Sequence[str]) -> str:
    """A command as docs/results shows it, without the user's own paths."""
    shown = [word for word in words if not re.match(r"[\w.]*(path|weights)=", word)]
    return shlex.join(["python", *shown])


def train_and_evaluate(
    train: Sequence[str], evaluate: Sequence[str], folder: Path, evaluation: Path
) -> Dict[str, Any]:
    """Runs two commands, each in its folder; returns the figures and what they took."""
    run_script(*train, "TRAIN.resume=auto", f"hydra.run.dir={common.quote(folder)}")
    average = folder / "model_average_generator.pdparams"  # with TRAIN.ema.use_ema
    generator = average if average.exists() else folder / "model_generator.pdparams"
    run_script(
        *(*evaluate, f"hydra.run.dir={common.quote(evaluation)}"),
        f"EVAL.pretrained_gen_model_path={common.quote(generator)}",
        f"EVAL.pretrained_dis_model_path={common.quote(folder / 'model_discriminator.pdparams')}",
    )
    last = common.read_records(folder)[-1]
    written = json.loads((evaluation / "metrics.json").read_text())
    return {
        "evaluated": generator.stem,
        "seed": written["seed"],
        "iterations": last["step"],
        "seconds": round(last["seconds"]),
        "cores": processor.count_cores(),
        "machine": origin.name_processor(),
        "metrics": written["metrics"],
    }


def write_results(path: Path, records: Dict[str, Any]) -> None:
    """Writes a file of results: all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(records, indent=1) + "\n")
    new.replace(path)


def require_same_command(path: Path, name: str, kept: str, command: str) -> None:
    """Exits with a message if another command made a row of a file."""
    if kept != command:
        sys.exit(
            f"{path}: another command made {name}: {kept}. Name other folders with "
            "--results=FOLDER --output=FOLDER."
        )


def require_same_settings(folder: Path, train: Sequence[str]) -> None:
    """Exits with a message if a folder holds a training that other settings began.

    Its command may be the same where a default has changed since.

    Args:
        folder: The folder of the run; it may be absent.
        train: The words of the command that would train there.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    if not (folder / "config.yaml").exists():
        return
    script, *settings = train
    try:
        composed = common.compose(Path(script).stem, settings)
    except HydraException:
        return  # The script itself explains a setting that Hydra can't read.
    kept = training_settings(OmegaConf.load(folder / "config.yaml"))
    now = training_settings(composed)
    changes = [
        f"{key} was {kept[key]} and is {value}"
        for key, value in now.items()
        if key in kept and kept[key] != value and key not in ("DATA.data_path", "TRAIN.resume")
    ]
    if changes:
        sys.exit(
            f"{folder} holds a training that began with other settings: {', '.join(changes)}. "
            "Remove it, or name another folder with --output=FOLDER."
        )


def training_settings(config) -> Dict[str, Any]:
    """The settings that determine a training, flat, by the current names of their keys.

    Args:
        config: The DictConfig of a run; a run of earlier code has earlier names in it.
    """
    from omegaconf import OmegaConf

    nested: Dict[str, Any] = {"seed": config.seed}
    for section in (*TRAINING_SECTIONS, "EVAL"):  # A key of EVAL has moved to MODEL.
        nested[section] = OmegaConf.to_container(config[section], resolve=True)
    flat = flatten_current(nested)
    return {key: flat[key] for key in flat if key.split(".")[0] in ("seed", *TRAINING_SECTIONS)}


def run_script(*command: str, folder: Path = common.SUITE) -> None:
    """Runs a script as a user does; a signal lets it save its state before this program exits.

    Args:
        *command: The script and its settings.
        folder: The folder of the script.
    """
    process = subprocess.Popen([sys.executable, *command], cwd=folder)
    received = []

    def forward(number, frame):
        received.append(number)
        if number == signal.SIGTERM:  # A terminal sends SIGINT to both.
            process.send_signal(number)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, forward) for number in signals}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        sys.exit("Interrupted: the same command resumes here.")
    if status:
        sys.exit(f"{shlex.join(command)} failed with the error above. Finished rows are kept.")


def main(words: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--data", type=Path, help="DATA.data_path of all runs")
    parser.add_argument(
        "--output",
        type=Path,
        default=common.SUITE / "outputs_wgangp_results",
        help="the folder of the runs",
    )
    parser.add_argument(
        "--results", type=Path, default=common.RESULTS, help="the folder of GROUP.json"
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        help="more settings of all runs, KEY=VALUE; paths in them must be absolute",
    )
    options = parser.parse_args(words)
    settings = list(options.set)
    if options.data:
        data = options.data.expanduser().absolute()
        settings.append(f"DATA.data_path={common.quote(data)}")
    has_data = any("DATA.data_path=" in word for word in settings)
    if options.group.startswith("emoji") and not has_data:
        parser.error(f"{options.group} needs --data=ARCHIVE, the pictures of emoji.")
    results = options.results.absolute()
    run_group(options.group, options.output.absolute(), results, settings)
    print(tables.make_table(options.group, results))


if __name__ == "__main__":
    main()
