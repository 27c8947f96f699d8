# SPDX-License-Identifier: Apache-2.0
"""Where weights are: a path or URL with or without its suffix, a checkpoint, a run's folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.parse
from os import path as osp
from typing import List
from typing import Optional

import yaml
from ppsci.utils import logger

from support import storage
from support.downloads import download
from support.errors import UserError
from support.errors import printable

SUFFIXES = (".pdparams", ".npz")  # of weights and of checkpoints
# What a finished training leaves, by the network that is asked for; the first one is taken.
FINAL = {
    "generator": ("model_average_generator.pdparams", "model_generator.pdparams"),
    "discriminator": ("model_discriminator.pdparams",),
}
CHECKPOINTS = "checkpoints"  # the folder of checkpoints in that of a run
BEST = "best.npz"
RECORDS = "metrics.jsonl"  # of a training, which writes to it until its end
CHECKPOINT = re.compile(r"iteration_([0-9]+)\.npz")  # the others


def is_url(source: str) -> bool:
    """Whether weights are downloaded."""
    return source.startswith(("http://", "https://"))


def weights_path(source: str, setting: str, role: Optional[str] = None) -> str:
    """Returns the local path of weights, and downloads them if `source` is a URL.

    A download is cached by its address. The folder of a run stands for its final weights, or for
    its newest checkpoint while there are none, or none of a training that was made longer; its
    folder checkpoints/ for the newest checkpoint.

    Args:
        source: A path or a URL, with or without its suffix, or the folder of a run.
        setting: The configuration key that names the source, for messages.
        role: "generator" or "discriminator": which weights of a folder to take.

    Raises:
        UserError: If the file does not exist, or cannot be downloaded.
    """
    if is_url(source):
        return _fetch_weights(source, setting)
    path = osp.abspath(osp.expanduser(source))
    names = [path] if path.endswith(SUFFIXES) else [path + s for s in ("", *SUFFIXES)]
    for name in names[1:] + names[:1]:  # A file with a suffix comes first.
        if osp.isfile(name):
            return name
    if osp.isdir(path):
        return _find_in_folder(path, setting, role)
    raise UserError(
        f"{setting}: there is no file {printable(' or '.join(names[1:] or names))}. A finished "
        "training writes model_generator.pdparams and model_discriminator.pdparams to its output "
        "folder, and with TRAIN.ema.use_ema also model_average_generator.pdparams."
    )


def _find_in_folder(folder: str, setting: str, role: Optional[str]) -> str:
    """Finds the weights in a run's folder."""
    inner = folder if is_folder_of_checkpoints(folder) else osp.join(folder, CHECKPOINTS)
    paths = [osp.join(folder, name) for name in FINAL.get(role, ())]
    if role in FINAL:
        newest = list_newest_first(inner)
        is_longer = any(is_outdated(path, folder) for path in paths)
        paths = [*newest, *paths] if is_longer else [*paths, *newest]
        paths.append(osp.join(inner, BEST))
    for path in paths:
        if osp.isfile(path):
            logger.info(f"{setting}: reading {osp.relpath(path, folder)} of {printable(folder)}.")
            return path
    found = sorted(name for name in _list_names(folder) if name.endswith(SUFFIXES))
    raise UserError(
        f"{setting}: {printable(folder)} is a folder. Name a file of weights or a checkpoint"
        + (f" in it, such as {', '.join(map(printable, found[:4]))}." if found else ".")
    )


def is_outdated(path: str, folder: str) -> bool:
    """Whether final weights in a run's folder are from before the training was made longer.

    Times alone do not say so: a copy of the folder has the times of copying. So weights that are
    older than the records are outdated only if the training is incomplete, or has a checkpoint
    of its last iteration. That checkpoint holds the final weights, too.
    """
    records = osp.join(folder, RECORDS)
    try:
        if osp.getmtime(path) >= osp.getmtime(records):
            return False
    except OSError:
        return False
    try:
        with open(records, encoding="utf-8") as file:
            step = json.loads(file.read().splitlines()[-1])["step"]
        with open(osp.join(folder, "config.yaml"), encoding="utf-8") as file:
            train = yaml.safe_load(file)["TRAIN"]
        is_complete = step >= train["epochs"] * train["iters_per_epoch"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError):
        return True
    newest = list_newest_first(osp.join(folder, CHECKPOINTS))
    return not is_complete or (bool(newest) and iteration_of(newest[0]) == step)


def is_folder_of_checkpoints(path: str) -> bool:
    """Whether a path is the checkpoints/ of a run, which stands for the run."""
    return osp.basename(path) == CHECKPOINTS and not osp.isdir(osp.join(path, CHECKPOINTS))


def list_newest_first(folder: str) -> List[str]:
    """Paths in a folder with names of checkpoints of intervals, those of later iterations first.

    Folders and broken links may be among them.

    Raises:
        UserError: If the folder can't be read.
    """
    found = [name for name in _list_names(folder) if CHECKPOINT.fullmatch(name)]
    return [osp.join(folder, name) for name in sorted(found, key=iteration_of, reverse=True)]


def iteration_of(path: str) -> int:
    """The iteration in the name of a checkpoint of an interval; -1 for other names."""
    match = CHECKPOINT.fullmatch(osp.basename(path))
    return -1 if match is None else int(match[1])


def _list_names(folder: str) -> List[str]:
    try:
        return os.listdir(folder) if osp.isdir(folder) else []
    except OSError as error:
        raise UserError(f"{printable(folder)} can't be read ({printable(error)}).") from None


def _fetch_weights(url: str, setting: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if not parts.path.endswith(SUFFIXES):
        parts = parts._replace(path=f"{parts.path}.pdparams")
    address = urllib.parse.urlunsplit(parts)
    # The names of cached files begin with a key, since files at different addresses share names.
    key = hashlib.sha256(address.encode()).hexdigest()[:12]
    folder = osp.expanduser(f"{storage.CACHE}/weights/wgangp")
    path = osp.join(folder, f"{key}_{osp.basename(parts.path)}")
    if not osp.exists(path):
        logger.info(f"Downloading {printable(address)}")
        try:
            download(address, path)
        except OSError as error:
            raise UserError(
                f"{setting}: {printable(address)} could not be downloaded ({printable(error)}). "
                f"Download it elsewhere and name its path, or put it at {printable(path)}."
            ) from None
    return path
