# SPDX-License-Identifier: Apache-2.0
"""Finds the checkpoint to resume from, and refuses one of another training."""

from __future__ import annotations

import json
from os import path as osp
from typing import List
from typing import Optional

import paddle
import paddle.distributed as dist
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from ppsci.utils import logger

from support import sweeps
from support.errors import UserError
from support.errors import printable
from support.errors import require
from support.settings import flatten_current
from support.weight_paths import FINAL
from support.weight_paths import RECORDS
from support.weight_paths import is_folder_of_checkpoints
from support.weight_paths import is_outdated
from training import checkpoints
from training.checkpoints import Checkpoint
from training.run import Run
from training.run_settings import RunSettings

# A checkpoint of other values of these keys is of other networks or optimisers.
NETWORK_KEYS = ("MODEL.", "LOSS.name", "TRAIN.ema.", "TRAIN.optimizer", "TRAIN.critic_optimizer")
# Neither the weights nor the records of a training that does not diverge depend on these keys.
HARMLESS_KEYS = (
    *("mode", "output_dir", "device", "use_tbd", "use_vdl", "DATA.data_path", "TRAIN.resume"),
    *("TRAIN.keep", "TRAIN.save_freq", "TRAIN.on_nan", "TRAIN.max_rollbacks"),
    *("EVAL.num_samples", "EVAL.inception_weights", "EVAL.pretrained", "INFER."),
    *("DATA.max_pixels", "DATA.max_unpacked"),  # If they leave pictures out, the data differ.
)
# These keys change what normalises, but not the networks' weights.
STATISTICS_KEYS = ("MODEL.gen_net.batch_norm_statistics", "MODEL.gen_net.batch_norm_groups")


def journal_path(output_dir: str) -> str:
    """The path of a run's metrics.jsonl."""
    return osp.join(osp.abspath(output_dir), RECORDS)


def find(settings: RunSettings) -> Optional[Checkpoint]:
    """Finds the checkpoint that TRAIN.resume asks for, before anything is read or measured.

    Args:
        settings: The run's settings.

    Returns:
        The checkpoint, or None for a training from the start.

    Raises:
        UserError: If the folder holds another training than the one to resume, or the
            checkpoint is absent, damaged, of other networks, or beyond the training's end.
    """
    resume = settings.train.resume
    if resume is None:
        require_free(settings.output_dir)
        return None
    path = osp.abspath(osp.expanduser(settings.output_dir if resume == "auto" else resume))
    if resume != "auto" and is_folder_of_checkpoints(path):
        path = osp.dirname(path)
    if osp.isdir(path):
        checkpoint = newest(path)
        if checkpoint is None:
            unread = checkpoints.list_newest_first(checkpoints.checkpoint_folder(path))
            require(
                not unread,
                f"{printable(path)} holds checkpoints, but none can be read; the warnings above "
                "say why. Try again, copy them again, or start a new training in another folder.",
            )
            require(
                resume == "auto" and not osp.exists(last_file(path)),
                f"{printable(path)} holds no checkpoint to resume from. Name another, or start a "
                "new training in another folder.",
            )
            logger.info(
                f"{printable(path)} holds no checkpoint: the training starts from the beginning."
            )
            return None
    else:
        checkpoint = _read_named(path)
    own_folder = osp.realpath(checkpoints.checkpoint_folder(settings.output_dir))
    if osp.realpath(osp.dirname(checkpoint.path)) != own_folder:
        require_free(settings.output_dir)
    check_settings(settings, checkpoint)
    iteration = checkpoint.contents["iteration"]
    require(
        iteration <= settings.iterations,
        f"{printable(checkpoint.path)} is of iteration {iteration}, and this training ends at "
        f"iteration {settings.iterations}. Raise TRAIN.epochs, or name an earlier checkpoint.",
    )
    return checkpoint


def _read_named(path: str) -> Checkpoint:
    """Reads the checkpoint that TRAIN.resume names, with or without its suffix."""
    require(
        not path.endswith(".pdparams"),
        f"TRAIN.resume={printable(path)} holds the weights of one network. A training resumes from "
        "its folder, or from a checkpoint (checkpoints/iteration_N.npz).",
    )
    return checkpoints.read(path if path.endswith(".npz") else f"{path}.npz")


def last_file(folder: str) -> str:
    """The file of a training's folder that a finished training has written last."""
    return osp.join(folder, FINAL["discriminator"][0])


def is_finished(settings: RunSettings) -> bool:
    """Whether the output folder holds this very training, and it is finished."""
    journal = journal_path(settings.output_dir)
    last = last_file(settings.output_dir)
    if not osp.isfile(last) or is_outdated(last, settings.output_dir):
        return False
    try:
        with open(journal, encoding="utf-8") as file:
            step = json.loads(file.read().splitlines()[-1])["step"]
        config = OmegaConf.load(osp.join(settings.output_dir, "config.yaml"))
        kept = flatten_current(OmegaConf.to_container(config))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    except (yaml.YAMLError, OmegaConfBaseException):
        return False
    now = flatten_current(settings.whole)
    keys = [key for key in now if key == "DATA.data_path" or not key.startswith(HARMLESS_KEYS)]
    return step == settings.iterations and all(kept.get(key) == now[key] for key in keys)


def require_free(output_dir: str) -> None:
    """Refuses an output folder whose training another one would overwrite.

    Raises:
        UserError: If it holds a training.
    """
    # Only the first process asks: it may have begun to write when the others do.
    require(
        dist.get_rank() > 0 or not osp.exists(journal_path(output_dir)),
        f"{printable(output_dir)} holds another training already. Continue it with "
        f"TRAIN.resume=auto, or name a new folder with {sweeps.folder_key()}=FOLDER.",
    )


def newest(folder: str) -> Optional[Checkpoint]:
    """Reads the newest intact checkpoint of a run's folder."""
    folder = checkpoints.checkpoint_folder(folder)
    for path in [*checkpoints.list_newest_first(folder), osp.join(folder, checkpoints.BEST)]:
        if osp.lexists(path):
            try:
                return checkpoints.read(path)
            except UserError as error:
                logger.warning(f"{error} Trying the previous checkpoint.")
    return None


def check_settings(settings: RunSettings, checkpoint: Checkpoint) -> None:
    """Refuses a checkpoint of other networks, and warns about other settings.

    In a sweep, a job's number is its folder's name. If the sweep's values have changed, the folder
    is another job's: TRAIN.resume=auto continues only what differs in TRAIN.epochs at most.

    Raises:
        UserError: Names what differs.
    """
    kept, now = checkpoint.flat_settings(), flatten_current(settings.whole)
    changes = {
        key: f"{printable(key)} was {printable(kept.get(key))} and is {printable(value)}"
        for key, value in now.items()
        if kept.get(key) != value
    }
    networks = [
        text
        for key, text in changes.items()
        if key.startswith(NETWORK_KEYS) and key not in STATISTICS_KEYS
    ]
    require(
        not networks,
        f"{printable(checkpoint.path)} is of another training: {', '.join(networks)}. Repeat its "
        "settings (its config.yaml holds them), or start a new training in another folder.",
    )
    changes = {k: text for k, text in changes.items() if not k.startswith(HARMLESS_KEYS)}
    others = list(changes.values())
    if sweeps.is_sweep() and settings.train.resume == "auto":
        require(
            changes.keys() <= {"TRAIN.epochs"},
            f"{printable(checkpoint.path)} is of another job: {', '.join(others)}. Give a sweep of "
            "other jobs a new folder: name it with hydra.sweep.dir=.",
        )
    others += _machine_changes(checkpoint)
    if others:
        logger.warning(
            f"The training continues with other settings than {printable(checkpoint.path)} was "
            f"made with, so it will differ from an uninterrupted one: {', '.join(others)}."
        )


def _machine_changes(checkpoint: Checkpoint) -> List[str]:
    kept = checkpoint.contents["machine"]
    return [
        f"{name} was {printable(kept[name])} and is {value}"
        for name, value in checkpoints.describe_machine().items()
        if kept.get(name) and kept[name] != value  # Earlier versions kept fewer facts.
    ]


def require_same(run: Run) -> None:
    """Refuses to go on if the processes have not found the same checkpoint.

    Raises:
        UserError: If they do not see the same folder.
    """
    if dist.get_world_size() > 1:
        found: List[paddle.Tensor] = []
        state = [run.iteration, run.rollbacks, len(run.journal)]
        dist.all_gather(found, paddle.to_tensor(state, "int64"))
        require(
            all(other.tolist() == state for other in found),
            "the processes have found checkpoints of the iterations "
            f"{', '.join(str(int(other[0])) for other in found)} (0 where there is none): all "
            f"processes must see the same folder. Name one with {sweeps.folder_key()}=FOLDER.",
        )
