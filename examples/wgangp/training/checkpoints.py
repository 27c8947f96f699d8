# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a training as it is at a moment, in one file, to resume from bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Tuple

import numpy as np
import paddle
import paddle.distributed as dist
import ppsci
from ppsci.utils import logger

from data.classes import require_same
from kernels import availability
from support import npz
from support import weight_files
from support.errors import UserError
from support.errors import printable
from support.errors import require
from support.settings import flatten_current
from support.weight_paths import BEST
from support.weight_paths import CHECKPOINTS
from support.weight_paths import iteration_of
from support.weight_paths import list_newest_first
from training.run import Run

# What a checkpoint says in addition to its arrays, with the types that it may have.
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
# How the names of its arrays begin.
PARTS = (
    *("discriminator", "discriminator_optimizer", "discriminator_figures"),
    *("generator", "generator_optimizer", "generator_figures", "average"),
)
MAX_NUMBER = 10**12  # of whole numbers and of seconds; no training comes near it
MAX_DEPTH = 16  # levels of dictionaries and lists
FORMER_SPLIT = (
    " It is of an earlier version, which held out other test pictures of folders with several "
    "classes."
)
# Settings on which the best figure depends: figures of other settings do not compare.
MEASURE_KEYS = (
    "DATA.label_distribution",
    "TRAIN.best_metric",
    "TRAIN.eval_num_samples",
    "EVAL.batch_size",
    "EVAL.classifier_weights",
    "EVAL.inception_sha256",
    "EVAL.truncation",
    "MODEL.gen_net.batch_norm_statistics",
)


@dataclasses.dataclass
class Checkpoint:
    """What a checkpoint's file holds.

    Args:
        path: The file.
        contents: See `CONTENTS`, with `best_iteration` and `classes`, which old files lack.
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


def collect(run: Run, path: str = "") -> Checkpoint:
    """Collects what a checkpoint of a training holds.

    Args:
        run: The training.
        path: The file that the checkpoint is for.
    """
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
        "classes": list(run.settings.classes),
        "settings": run.settings.whole,
        "machine": describe_machine(),
        "scalers": {prefix: state for prefix, state in scalers.items() if state},
    }
    return Checkpoint(path, contents, arrays)


def write(run: Run, path: str) -> None:
    """Writes a checkpoint; with several processes, the first one does.

    Args:
        run: The training.
        path: The file, in the format of `npz.write_npz`.
    """
    if dist.get_rank() == 0:
        checkpoint = collect(run, path)
        contents = np.frombuffer(json.dumps(checkpoint.contents).encode(), "uint8")
        npz.write_npz(path, {**checkpoint.arrays, "contents": contents})
    if dist.get_world_size() > 1:
        dist.barrier()  # From here on, each process may read the file.


def keep_start(run: Run) -> None:
    """Keeps a training's start in memory while there is no checkpoint to roll back to."""
    if run.checkpoint is None and run.settings.train.on_nan == "roll_back":
        run.start = collect(run)
        # The arrays of a CPU may share the memory of the weights.
        run.start.arrays = {name: array.copy() for name, array in run.start.arrays.items()}


def save(run: Run) -> None:
    """Writes the checkpoint of an interval, and removes those beyond TRAIN.keep."""
    folder = checkpoint_folder(run.settings.output_dir)
    if dist.get_rank() == 0 and not osp.isdir(folder):
        logger.warning(
            f"{printable(folder)} was removed while the training ran, and is made again: former "
            "checkpoints and the best generator so far are lost."
        )
    width = len(str(run.settings.iterations))
    path = osp.join(folder, f"iteration_{run.iteration:0{width}d}.npz")
    write(run, path)
    run.checkpoint, run.start = path, None
    keep = run.settings.train.keep
    if dist.get_rank() == 0 and keep:
        kept = [path for path in list_newest_first(folder) if osp.isfile(path)]
        for path in kept[keep:]:
            os.remove(path)


def save_best(run: Run) -> None:
    """Writes the checkpoint of the best generator; that of the interval exists already.

    So the best is never newer than the newest checkpoint, whatever interrupts the training.
    """
    write(run, osp.join(checkpoint_folder(run.settings.output_dir), BEST))


def set_aside(run: Run) -> None:
    """Renames what this run would take for a checkpoint of its own, or could not replace.

    These are checkpoints of later iterations, since the run went back to before them, and
    folders and broken links with names of checkpoints.
    """
    folder = checkpoint_folder(run.settings.output_dir)
    for path in list_newest_first(folder):
        if not osp.isfile(path) or iteration_of(path) > run.iteration:
            _set_aside(path)
    best = osp.join(folder, BEST)
    if osp.lexists(best) and not osp.isfile(best):
        _set_aside(best)


def _set_aside(path: str) -> None:
    target = f"{path}.abandoned"
    # A folder can't replace anything, and a file can't replace a folder.
    while osp.isdir(target) or (osp.lexists(target) and osp.isdir(path)):
        target += ".abandoned"
    if not osp.isfile(path):
        logger.warning(
            f"{printable(path)} is not a file, so it is not a checkpoint: it is renamed to "
            f"{printable(osp.basename(target))}."
        )
    os.replace(path, target)


def checkpoint_folder(output_dir: str) -> str:
    """Where a run's checkpoints are."""
    return osp.join(osp.abspath(output_dir), CHECKPOINTS)


def describe_machine() -> Dict[str, str]:
    """What the arithmetic of a run depends on in addition to its settings."""
    return {
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "ppsci": ppsci.__version__,
        "numpy": np.__version__,
        "device": paddle.get_device(),
        "threads": os.environ.get("MKL_NUM_THREADS", ""),
        "processes": str(dist.get_world_size()),
        "operators": availability.describe()
        if paddle.get_device() == "cpu"
        else f"NVIDIA_TF32_OVERRIDE={os.environ.get('NVIDIA_TF32_OVERRIDE', '')}",
    }


def read(path: str) -> Checkpoint:
    """Reads and verifies a checkpoint; nothing in it is executed.

    Args:
        path: The file.

    Raises:
        UserError: If it is absent or damaged, or not a checkpoint, or of another iteration than
            its name says.
    """
    where = printable(path)
    require(osp.lexists(path), f"there is no checkpoint {where}.")
    require(osp.isfile(path), f"{where} is not a checkpoint: it is a folder or a broken link.")
    arrays = npz.read_npz(path)
    try:
        contents = json.loads(arrays.pop("contents", np.empty(0)).tobytes())
        _check(contents, arrays)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is not a checkpoint of this suite ({printable(error)})."
        ) from None
    if "best_iteration" not in contents:
        contents["best_iteration"] = _find_best(contents["journal"])
    contents.setdefault("classes", [])
    require(
        iteration_of(path) in (-1, contents["iteration"]),
        f"{where} is of iteration {contents['iteration']}, which is not that of its name.",
    )
    return Checkpoint(path, contents, arrays)


def _find_best(journal: str) -> Optional[int]:
    """The iteration of the best figure in a journal; checkpoints of former code lack it."""
    records = [json.loads(line) for line in journal.splitlines()]
    return next((record["step"] for record in reversed(records) if record.get("best")), None)


def _check(contents: Any, arrays: Dict[str, np.ndarray]) -> None:
    """Checks what a checkpoint says in addition to its arrays, and the arrays' names.

    Raises:
        ValueError: Says what is wrong.
    """
    if not isinstance(contents, dict):
        raise ValueError("its contents are not a dictionary")
    if not _is_shallow(contents, MAX_DEPTH):
        raise ValueError(f"its contents are nested in more than {MAX_DEPTH} levels")
    for key, kind in CONTENTS.items():
        if key not in contents:
            raise ValueError(f"it has no {key}")
        if not isinstance(contents[key], kind) or isinstance(contents[key], bool):
            raise ValueError(f"its {key} is a {type(contents[key]).__name__}")
    for key, expected, is_right in CHECKS:
        if not is_right(contents):
            raise ValueError(f"its {key} is not {expected}")
    for name in arrays:
        if name.partition("/")[0] not in PARTS:
            raise ValueError(f"it has an array {printable(name)}")


def _is_shallow(value: Any, levels: int) -> bool:
    """Whether dictionaries and lists are nested in no more than a number of levels."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_is_shallow(part, levels - 1) for part in parts)


def _is_finite(value: Any) -> bool:
    with contextlib.suppress(TypeError, OverflowError):
        return math.isfinite(value)
    return False


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_NUMBER


def _is_best_iteration(contents: Dict[str, Any]) -> bool:
    value = contents.get("best_iteration")
    return value is None or (_is_count(value) and value <= contents["iteration"])


def _is_journal(contents: Dict[str, Any]) -> bool:
    """Whether a journal is lines of records up to the iteration, as `records.add_record` writes."""
    *lines, rest = contents["journal"].split("\n")
    step = 0
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if not isinstance(record, dict) or not _is_count(record.get("step")):
            return False
        if not step < record["step"] <= contents["iteration"]:
            return False
        if not all(_is_finite(v) or (k, type(v)) == ("evaluated", str) for k, v in record.items()):
            return False
        step = record["step"]
    return not rest


def _is_scaler(state: Any) -> bool:
    """Whether a value can be the state of a loss scaler: numbers, or lists of one number."""

    def is_number(value: Any) -> bool:
        return _is_finite(value) and not (isinstance(value, int) and abs(value) >= 2**31)

    return isinstance(state, dict) and all(
        is_number(value[0] if isinstance(value, list) and len(value) == 1 else value)
        for value in state.values()
    )


def _are_classes(classes: Any) -> bool:
    return isinstance(classes, list) and all(isinstance(name, str) for name in classes)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell halves of characters
        return False
    return True


# What the values must be: key, description, check of all contents. The types are right already.
CHECKS: Tuple[Tuple[str, str, Callable[[Dict[str, Any]], bool]], ...] = (
    ("iteration", f"from 0 to {MAX_NUMBER}", lambda c: _is_count(c["iteration"])),
    ("rollbacks", f"from 0 to {MAX_NUMBER}", lambda c: _is_count(c["rollbacks"])),
    ("seconds", f"from 0 to {MAX_NUMBER}", lambda c: 0 <= c["seconds"] <= MAX_NUMBER),
    ("best", "finite", lambda c: c["best"] is None or _is_finite(c["best"])),
    ("best_iteration", "a whole number up to its iteration", _is_best_iteration),
    ("journal", "lines of JSON with finite numbers, in order, up to its iteration", _is_journal),
    ("journal", "a text in UTF-8", lambda c: _is_text(c["journal"])),
    ("classes", "a list of texts", lambda c: _are_classes(c.get("classes", []))),
    ("machine", "texts", lambda c: all(isinstance(v, str) for v in c["machine"].values())),
    ("scalers", "states of loss scalers", lambda c: all(map(_is_scaler, c["scalers"].values()))),
)


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Makes a training what it was when a checkpoint was written.

    Args:
        run: The training, at its start or further on.
        checkpoint: What `read` returned.

    Raises:
        UserError: If it is of another data set, of other classes or of other networks; then
            nothing has changed.
    """
    contents, where = checkpoint.contents, checkpoint.path
    if contents["classes"] and run.generator.network.num_classes:
        require_same(contents["classes"], run.settings.classes, printable(where))
    require(
        contents["data"] == run.data,
        f"{printable(where)} is of a training on other data: {printable(contents['data'])}; this "
        f"is {printable(run.data)}. "
        "Name the data that it was made with, or train in another folder."
        + (FORMER_SPLIT if len(run.settings.classes) > 1 and not contents["classes"] else ""),
    )
    # Everything is read before anything is set.
    states = [player.read_state(checkpoint) for player in run.players]
    average = run.average
    if average.is_kept:
        weights = checkpoint.part(average.prefix)
        weights = weight_files.match_weights(average.network, weights, where)
        average.network.set_state_dict(weights)
    for player, state in zip(run.players, states):
        player.set_state(state, contents["iteration"])
    run.iteration, run.rollbacks = contents["iteration"], contents["rollbacks"]
    run.seconds, run.journal, run.checkpoint = contents["seconds"], contents["journal"], where
    run.best_iteration = contents["best_iteration"]
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
