# SPDX-License-Identifier: Apache-2.0
"""Makes weights of a run part of the suite: `python benchmarks/ship_weights.py NAME RUN`.

RUN is the folder of a finished training. Evaluate its weights first, into the same folder or into
RUN/evaluation. The files that were evaluated are copied to examples/wgangp/weights, but for the
path of their data, and their entry in weights.json says how they were made. `make tables` then
writes the table in docs/*/export.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from typing import Dict
from typing import List
from typing import Optional
from typing import Sequence
from typing import Tuple

import common

from modes.recognition import KEYS
from support import storage
from support import weight_files
from support import weight_notes
from support.settings import CHOICES
from support.settings import flatten_current
from support.shipped_weights import FOLDER
from support.shipped_weights import TABLE

MAX_BYTES = 4_000_000  # of all weights that ship
# Settings that a command need not repeat, or that are the user's own
LEFT_OUT = (
    *("mode", "output_dir", "device", "log_freq", "use_tbd", "use_vdl", "DATA.data_path"),
    *("TRAIN.resume", "TRAIN.keep", "TRAIN.save_freq", "TRAIN.eval_", "EVAL.", "INFER."),
)


def ship(name: str, run: Path, folder: Path) -> Dict[str, Any]:
    """Copies the evaluated weights of a run, and writes their entry; returns the entry.

    Args:
        name: The name that users give.
        run: The folder of the training.
        folder: The folder of weights.json.
    """
    if not re.fullmatch(r"\w+", name):
        sys.exit(f"{name}: a name has letters, digits and underscores only.")
    written = read_evaluation(run)
    files = find_files(run, written["weights"])
    entry = describe(run, written, files["generator"])
    contents = {role: drop_data_path(path.read_bytes()) for role, path in files.items()}
    entry["files"] = {
        role: {
            "file": f"{name}_{role}.pdparams",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
        for role, content in contents.items()
    }
    own = {part["file"] for part in entry["files"].values()}
    others = [path for path in folder.glob("*.pdparams") if path.name not in own]
    total = sum(path.stat().st_size for path in others) + sum(map(len, contents.values()))
    if total > MAX_BYTES:
        sys.exit(
            f"{folder} would have {total / 1e6:.1f} MB of weights, and at most "
            f"{MAX_BYTES / 1e6:.0f} MB ship. Train narrower networks, or leave the critic out."
        )
    for role, content in contents.items():
        (folder / entry["files"][role]["file"]).write_bytes(content)
    path = folder / TABLE
    table = common.read_results(path) if path.exists() else {}
    table[name] = entry
    text = json.dumps(dict(sorted(table.items())), indent=1)
    with storage.replacing(str(path)) as file:
        file.write(f"{text}\n".encode())
    return entry


def drop_data_path(content: bytes) -> bytes:
    """Takes the path of the data out of a file of weights: nobody else has the data there."""
    content, mark, _ = content.rpartition(weight_files.CHECKSUM_MARK)
    body, notes = weight_notes.split(content, "the weights")
    settings = {key: value for key, value in notes.settings.items() if key != "DATA.data_path"}
    notes = dataclasses.replace(notes, settings=settings)
    content = body + weight_notes.MARK + weight_notes.to_json(notes)
    return content + mark + hashlib.sha256(content).hexdigest().encode()


def read_evaluation(run: Path) -> Dict[str, Any]:
    """Reads the metrics.json of a run's evaluation, or exits with the command that makes it."""
    for path in (run / "metrics.json", run / "evaluation" / "metrics.json"):
        if path.exists():
            return common.read_results(path)
    sys.exit(
        f"{run} has no metrics.json: evaluate its weights by mode=eval "
        f"EVAL.{KEYS['generator']}={run} EVAL.{KEYS['discriminator']}={run} hydra.run.dir={run}"
    )


def find_files(run: Path, evaluated: Dict[str, Dict[str, str]]) -> Dict[str, Path]:
    """Finds the files of a run that were evaluated, by their checksums.

    Args:
        run: The folder of the training.
        evaluated: The sources and checksums of metrics.json, by setting.
    """
    found = {}
    paths = {storage.sha256(str(path)): path for path in sorted(run.glob("**/*.pdparams"))}
    for role, key in KEYS.items():
        if key in evaluated:
            digest = evaluated[key]["sha256"]
            if digest not in paths:
                sys.exit(f"{run} has no .pdparams with the evaluated SHA-256 {digest} ({role}).")
            found[role] = paths[digest]
    return found


def describe(run: Path, written: Dict[str, Any], generator: Path) -> Dict[str, Any]:
    """Describes how weights were made, and their figures.

    Args:
        run: The folder of the training.
        written: The content of metrics.json.
        generator: The generator's file in the run's folder.
    """
    from omegaconf import OmegaConf

    script = written.get("script") or re.search(r"(wgangp_\w+)\.py", written["command"])[1]
    config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"), resolve=True)
    records = common.read_records(run)
    if generator.parent.name == "checkpoints":  # the best generator
        records = [record for record in records if record.get("best")]
    keys = ("value", "deviation", "real", "num_samples")
    return {
        "script": script,
        "command": find_command(script, flatten_current(config)),
        "seed": config["seed"],
        "commit": describe_commit(),
        "weights": str(generator.relative_to(run)),
        "iterations": records[-1]["step"],
        "seconds": round(records[-1]["seconds"]),
        "paddlepaddle": written["versions"]["paddlepaddle"],
        "figures": {
            name: {key: figure[key] for key in keys} for name, figure in written["metrics"].items()
        },
    }


def find_command(script: str, config: Dict[str, Any]) -> str:
    """Finds the shortest command that trains with the settings of a run.

    Args:
        script: The script without its suffix.
        config: The settings, by full key.
    """
    candidates: List[Tuple[int, List[str]]] = []
    choices = {**CHOICES, **importlib.import_module(script).CHOICES}
    objective = config["LOSS.name"]
    for preset in (None, *choices["preset"]):
        for loss in (None, objective if objective in CHOICES["LOSS.name"] else None):
            words = [] if preset is None else [f"preset={preset}"]
            words += [] if loss is None else [f"LOSS={loss}"]
            changes = list_changes(script, words, config)
            candidates.append((len(words + changes), words + changes))
    words = min(candidates)[1]
    for word in words:
        rest = [other for other in words if other != word]
        if not list_changes(script, rest, config):  # Another word implies it.
            words = rest
    return shlex.join(["python", f"{script}.py", *words])


def list_changes(script: str, words: Sequence[str], config: Dict[str, Any]) -> List[str]:
    """Lists the settings of a run that a command with some options does not have yet."""
    from omegaconf import OmegaConf

    composed = common.compose(script, words)
    composed.output_dir = "."
    flat = flatten_current(OmegaConf.to_container(composed, resolve=True))
    return [
        f"{key}={json.dumps(value).strip(chr(34))}"
        for key, value in config.items()
        if not key.startswith(LEFT_OUT) and flat[key] != value
    ]


def describe_commit() -> Optional[str]:
    """Names the commit of the code, with `-dirty` if files differ; None outside of git."""
    command = ["git", "-C", str(common.ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def main(words: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="the name that users give, such as mnist")
    parser.add_argument("run", type=Path, help="the folder of the training")
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), help="where weights.json is")
    options = parser.parse_args(words)
    print(json.dumps(ship(options.name, options.run.absolute(), options.folder), indent=1))


if __name__ == "__main__":
    main()
