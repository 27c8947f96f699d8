# SPDX-License-Identifier: Apache-2.0
"""mode=eval: evaluates trained weights."""

from __future__ import annotations

from os import path as osp
from typing import Any
from typing import Dict

import paddle.distributed as dist
from omegaconf import DictConfig
from omegaconf import OmegaConf
from ppsci.utils import logger

from data import classes
from measures.evaluation import Evaluator
from measures.report import report
from modes.experiment import Experiment
from modes.recognition import KEYS
from modes.recognition import ROLES
from modes.recognition import adopt_settings
from modes.recognition import load_all
from networks.base import Generator
from pages import page
from support import storage
from support import sweeps
from support import weight_files
from support.errors import printable
from support.errors import require
from support.shipped_weights import advise
from support.weight_files import SavedWeights


def evaluate(experiment: Experiment) -> Dict[str, float]:
    """Evaluates trained weights; prints a table, writes metrics.json, a picture and a page.

    Args:
        experiment: EVAL.pretrained_gen_model_path names the generator's weights,
            EVAL.pretrained_dis_model_path the critic's. EVAL.pretrained_gen_sha256 and
            EVAL.pretrained_dis_sha256 may demand their checksums.

    Raises:
        UserError: If no weights are named, or a file is absent, has another SHA-256 or does
            not fit.
    """
    cfg = experiment.cfg
    # --8<-- [start:evaluate_steps]
    files = read_files(cfg.EVAL, experiment.script)
    adopt_settings(experiment, files)
    experiment.weights = files["generator"]
    networks = dict(zip(ROLES, experiment.make_networks()))
    load_all(files, networks)
    generator, critic = (networks[role] if role in files else None for role in ROLES)
    measures = {}
    if experiment.has_measures(critic):
        data = experiment.read_data()
        require_classes(experiment, data, generator)
        warn_of_other_data(experiment, data)
        measures = experiment.make_measures(data, generator, critic, cfg.EVAL.num_samples)
    # --8<-- [end:evaluate_steps]
    evaluator = Evaluator(generator, measures, cfg.output_dir, cfg.seed, cfg.device)
    draw = experiment.make_drawer(generator, critic)
    weights = {
        KEYS[role]: {"source": saved.source, "sha256": saved.sha256}
        for role, saved in files.items()
    }
    figures = report(evaluator, draw, cfg.output_dir, cfg.seed, weights, experiment.script)
    if dist.get_rank() == 0:
        # The name differs from a training's config.yaml, which may lie in the same folder.
        with storage.writing_to(cfg.output_dir, sweeps.folder_key()):
            OmegaConf.save(cfg, osp.join(cfg.output_dir, "config_eval.yaml"), resolve=True)
        page.write_or_warn(cfg.output_dir)
    return figures


def read_files(settings: DictConfig, script: str) -> Dict[str, SavedWeights]:
    """Reads the weights that the section EVAL names.

    Args:
        settings: The section EVAL.
        script: The script, whose weights may be named.

    Returns:
        The weights by role. Those of the critic are absent where they are not named: then figures
        that need a critic are left out.

    Raises:
        UserError: If the generator's weights are not named, or a file is absent or has another
            SHA-256 than EVAL demands.
    """
    generator, critic = (settings[KEYS[role]] for role in ROLES)
    require(
        generator is not None,
        f"mode=eval evaluates trained weights: name them with EVAL.{KEYS['generator']}=PATH_OR_URL "
        f"(and EVAL.{KEYS['discriminator']} for the figures that need a critic)." + advise(script),
    )
    roles = ROLES
    if critic is None:
        key = f"EVAL.{KEYS['discriminator']}"
        require(
            settings.pretrained_dis_sha256 is None,
            f"EVAL.pretrained_dis_sha256 needs {key}=PATH_OR_URL.",
        )
        logger.warning(f"{key} is null: figures that need a critic are left out.")
        roles = ("generator",)
    return {
        role: weight_files.read_weights(
            settings[KEYS[role]],
            f"EVAL.{KEYS[role]}",
            role,
            settings[KEYS[role].replace("_model_path", "_sha256")],
            script,
        )
        for role in roles
    }


def require_classes(experiment: Experiment, data: Any, generator: Generator) -> None:
    """Refuses data of other classes than those that a conditional generator was trained with.

    Raises:
        UserError: Names the classes.
    """
    names, kept = experiment.class_names(data), experiment.weights.classes
    where, count = experiment.weights.where, generator.num_classes
    if not names or not count:
        return
    if kept:
        classes.require_same(kept, names, where)
        return
    listed = classes.list_names(names)
    require(
        len(names) == count,
        f"{where} was trained with {count} classes, and the data have {len(names)} ({listed}). "
        "Name pictures of the same classes.",
    )
    logger.warning(
        f"{where} does not say which classes it was trained with; they are taken to be {listed}, "
        "in this order."
    )


def warn_of_other_data(experiment: Experiment, data: Any) -> None:
    """Warns if the data of an evaluation are not those of the generator's training."""
    notes, found = experiment.weights.notes, experiment.fingerprint(data)
    if notes is not None and notes.data != found:
        logger.warning(
            f"{experiment.weights.where} was trained on other data ({printable(notes.data)}) than "
            f"those that it is compared with here ({printable(found)})."
        )
