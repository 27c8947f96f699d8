# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a training as it is at a moment, in one file, to resume from bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from os import path as osp
from typing import Any
from typing import Dict
from typing import List

import numpy as np
import paddle
import paddle.distributed as dist
import ppsci

from support import npz
from support import weight_files
from support.errors import UserError
from support.errors import require
from support.settings import RENAMED
from support.settings import flatten
from training.run import Run

BEST = "best.npz"
# What a checkpoint says besides its arrays, with the types that it may have.
CONTENTS = {
    "iteration": int,
    "rollbacks": int,
    "seconds": float,
    "best": (float, int, type(None)),
    "journal": str,
    "data": str,
    "settings": dict,
    "machine": dict,
    "scalers": dict,
}
# Settings on which the best figure depends: figures of other settings do not compare.
MEASURE_KEYS = (
    "TRAIN.best_metric",
    "TRAIN.eval_num_samples",
    "EVAL.batch_size",
    "EVAL.classifier_weights",
    "EVAL.inception_sha256",
    "MODEL.gen_net.batch_norm_statistics",
)


@dataclasses.dataclass
class Checkpoint:
    """What a checkpoint's file holds.

    Args:
        path: The file.
        contents: See `CONTENTS`; `best_iteration` is there as well, unless the file is old.
        arrays: Weights, the optimisers' tensors and figures that are not recorded yet, by name.
    """

    path: str
    contents: Dict[str, Any]
    arrays: Dict[str, np.ndarray]

    def part(self, prefix: str) -> Dict[str, np.ndarray]:
        """Arrays whose names begin with "PREFIX/", by the rest of their names."""
        start = f"{prefix}/"
        return {n[len(start) :]: a for n, a in self.arrays.items() if n.startswith(start)}

    def flat_settings(self) -> Dict[str, Any]:
        """The training's settings by full key; keys of old files have their present names."""
        return flatten_current(self.contents["settings"])


def flatten_current(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Nested settings by full key; keys that have moved since are under their present names."""
    return {RENAMED.get(key, key): value for key, value in flatten(settings).items()}


def write(run: Run, path: str) -> None:
    """Writes a checkpoint; with several processes, the first one does.

    Args:
        run: The training.
        path: The file, in the format of `npz.write_npz`.
    """
    if dist.get_rank() == 0:
        arrays = {**run.critic.arrays(), **run.generator.arrays()}
        if run.average.is_kept:
            for name, value in run.average.network.state_dict().items():
                arrays[f"{run.average.prefix}/{name}"] = value.numpy()
        scalers = {player.prefix: player.scaler_state() for player in run.players}
        contents = {
            "iteration": run.iteration,
            "rollbacks": run.rollbacks,
            "seconds": run.seconds,
            "best": run.best,
            "best_iteration": run.best_iteration,
            "journal": run.journal,
            "data": run.data,
            "settings": run.settings.whole,
            "machine": describe_machine(),
            "scalers": {prefix: state for prefix, state in scalers.items() if state},
        }
        arrays["contents"] = np.frombuffer(json.dumps(contents).encode(), "uint8")
        npz.write_npz(path, arrays)
    if dist.get_world_size() > 1:
        dist.barrier()  # From here on, each process may read the file.


def save(run: Run) -> None:
    """Writes the checkpoint of an interval, and removes those beyond TRAIN.keep."""
    folder = checkpoint_folder(run.settings.output_dir)
    width = len(str(run.settings.iterations))
    path = osp.join(folder, f"iteration_{run.iteration:0{width}d}.npz")
    write(run, path)
    run.checkpoint = path
    keep = run.settings.train.keep
    if dist.get_rank() == 0 and keep:
        for path in list_newest_first(folder)[keep:]:
            os.remove(path)


def save_best(run: Run) -> None:
    """Writes the checkpoint of the best generator; that of the interval exists already.

    So the best is never newer than the newest checkpoint, whatever interrupts the training.
    """
    write(run, osp.join(checkpoint_folder(run.settings.output_dir), BEST))


def set_later_aside(run: Run) -> None:
    """Renames checkpoints of later iterations: the run went back to before them."""
    for path in list_newest_first(checkpoint_folder(run.settings.output_dir)):
        if _iteration_of(path) > run.iteration:
            os.replace(path, f"{path}.abandoned")


def checkpoint_folder(output_dir: str) -> str:
    """Where a run's checkpoints are."""
    return osp.join(osp.abspath(output_dir), "checkpoints")


def list_newest_first(folder: str) -> List[str]:
    """Checkpoints of intervals in a folder, those of later iterations first."""
    names = os.listdir(folder) if osp.isdir(folder) else []
    found = [name for name in names if re.fullmatch(r"iteration_\d+\.npz", name)]
    return [osp.join(folder, name) for name in sorted(found, key=_iteration_of, reverse=True)]


def _iteration_of(path: str) -> int:
    return int(re.findall(r"\d+", osp.basename(path))[0])


def describe_machine() -> Dict[str, str]:
    """What the arithmetic of a run depends on besides its settings."""
    return {
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "ppsci": ppsci.__version__,
        "numpy": np.__version__,
        "device": paddle.get_device(),
        "threads": os.environ.get("MKL_NUM_THREADS", ""),
        "processes": str(dist.get_world_size()),
    }


def read(path: str) -> Checkpoint:
    """Reads and verifies a checkpoint; nothing in it is executed.

    Args:
        path: The file.

    Raises:
        UserError: If it is absent or damaged, or not a checkpoint.
    """
    require(osp.isfile(path), f"there is no checkpoint {path}.")
    arrays = npz.read_npz(path)
    try:
        contents = json.loads(arrays.pop("contents").tobytes())
        for key, kind in CONTENTS.items():
            if not isinstance(contents[key], kind):
                raise ValueError(f"its {key} is a {type(contents[key]).__name__}")
        if not isinstance(contents.get("best_iteration"), (int, type(None))):
            raise ValueError("its best_iteration is not a whole number")
        if min(contents["iteration"], contents["rollbacks"]) < 0:
            raise ValueError("it counts below 0")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a checkpoint of this suite ({error}).") from None
    return Checkpoint(path, contents, arrays)


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Makes a training what it was when a checkpoint was written.

    Args:
        run: The training, at its start or further on.
        checkpoint: What `read` returned.

    Raises:
        UserError: If it is of another data set or of other networks; then nothing has changed.
    """
    contents, where = checkpoint.contents, checkpoint.path
    require(
        contents["data"] == run.data,
        f"{where} is of a training on other data: {contents['data']}; this is {run.data}. "
        "Name the data that it was made with, or train in another folder.",
    )
    states = [player.read_state(checkpoint) for player in run.players]
    average = run.average
    if average.is_kept:
        weights = weight_files.match_weights(
            average.network, checkpoint.part(average.prefix), where
        )
        average.network.set_state_dict(weights)
    for player, state in zip(run.players, states):
        player.set_state(state, contents["iteration"])
    run.iteration, run.rollbacks = contents["iteration"], contents["rollbacks"]
    run.seconds, run.journal, run.checkpoint = contents["seconds"], contents["journal"], where
    run.best_iteration = contents.get("best_iteration")
    run.best = contents["best"] if _is_best_kept(run, checkpoint) else None
    if run.best is None:
        run.best_iteration = None


def _is_best_kept(run: Run, checkpoint: Checkpoint) -> bool:
    """Whether the folder's best weights are, or will be, those that a checkpoint knows of."""
    kept, now = checkpoint.flat_settings(), flatten_current(run.settings.whole)
    if any(kept.get(key) != now.get(key) for key in MEASURE_KEYS):
        return False
    if run.is_best:  # The run may have been killed before it wrote them; the loop writes them.
        return True
    try:
        best = read(osp.join(checkpoint_folder(run.settings.output_dir), BEST))
    except UserError:
        return False
    return best.contents["iteration"] <= checkpoint.contents["iteration"]
