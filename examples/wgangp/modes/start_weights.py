# SPDX-License-Identifier: Apache-2.0
"""Weights that a training starts from, in place of random ones."""

from __future__ import annotations

from typing import Sequence

from ppsci.utils import logger

from data.classes import list_names
from modes.experiment import Experiment
from modes.recognition import KEYS
from modes.recognition import ROLES
from modes.recognition import Files
from modes.recognition import adopt_settings
from modes.recognition import load_all
from networks.base import Critic
from networks.base import Generator
from support import weight_files
from support.errors import printable
from support.settings import check_settings


def read(experiment: Experiment) -> Files:
    """Reads the weights that a training starts from, and sets the MODEL.* settings of theirs.

    Args:
        experiment: TRAIN.pretrained_gen_model_path names the generator's weights,
            TRAIN.pretrained_dis_model_path the critic's. Its networks do not exist yet.

    Returns:
        The weights by role; none for networks that start from random weights.

    Raises:
        UserError: If a file is absent or damaged, or a setting was given that is not that of the
            weights.
    """
    cfg, files = experiment.cfg, {}
    for role, key in KEYS.items():
        if cfg.TRAIN[key] is not None:
            source, setting = cfg.TRAIN[key], f"TRAIN.{key}"
            files[role] = weight_files.read_weights(source, setting, role, script=experiment.script)
    if files:
        adopt_settings(experiment, files, ("MODEL",))
        check_settings(cfg, experiment.script, experiment.choices)
    return files


def load(
    files: Files,
    generator: Generator,
    critic: Critic,
    classes: Sequence[str],
    is_resumed: bool,
) -> None:
    """Loads the weights that a training starts from; those of a checkpoint come first.

    Args:
        files: What `read` returned.
        generator: The generator. A moving average is not copied from it yet.
        critic: The critic.
        classes: The names of the data's classes. A warning says if the weights have others.
        is_resumed: Whether the training continues from a checkpoint.

    Raises:
        UserError: If arrays do not fit. The message names them.
    """
    if is_resumed:
        for role in files:
            logger.info(f"TRAIN.{KEYS[role]} has no effect: the training has a checkpoint.")
        return
    load_all(files, dict(zip(ROLES, (generator, critic))))
    for role, saved in files.items():
        source = printable(saved.source)
        logger.info(f"The {role} starts from {source} (TRAIN.{KEYS[role]}), SHA-256 {saved.sha256}")
        if saved.classes and classes and tuple(saved.classes) != tuple(classes):
            logger.warning(
                f"{saved.where} was trained with the classes {list_names(saved.classes)}; here "
                f"they are {list_names(classes)}."
            )
