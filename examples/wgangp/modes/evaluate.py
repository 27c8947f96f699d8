# SPDX-License-Identifier: Apache-2.0
"""mode=eval: evaluates trained weights."""

from __future__ import annotations

from typing import Dict
from typing import Optional
from typing import Tuple

from omegaconf import DictConfig
from ppsci.utils import logger

from measures.evaluation import Evaluator
from measures.report import report
from modes.experiment import Experiment
from networks.base import Critic
from networks.base import Generator
from support import weight_files
from support.errors import require


# --8<-- [start:evaluate]
def evaluate(experiment: Experiment) -> None:
    """Evaluates trained weights; prints a table, writes metrics.json and a picture.

    Args:
        experiment: EVAL.pretrained_gen_model_path names the generator's weights,
            EVAL.pretrained_dis_model_path the critic's. EVAL.pretrained_gen_sha256 and
            EVAL.pretrained_dis_sha256 may demand their checksums.

    Raises:
        UserError: If no weights are named, or a file is absent, has another SHA-256 or does
            not fit.
    """
    cfg = experiment.cfg
    generator, critic = experiment.make_networks()
    critic, weights = load_networks(cfg.EVAL, generator, critic)
    measures = {}
    if experiment.has_measures(critic):
        data = experiment.read_data()
        measures = experiment.make_measures(data, generator, critic, cfg.EVAL.num_samples)
    evaluator = Evaluator(generator, measures, cfg.output_dir, cfg.seed, cfg.device)
    draw = experiment.make_drawer(generator, critic)
    report(evaluator, draw, cfg.output_dir, cfg.seed, weights, cfg)


def load_networks(
    settings: DictConfig, generator: Generator, critic: Critic
) -> Tuple[Optional[Critic], Dict[str, Dict[str, str]]]:
    """Loads the weights that the section EVAL names.

    Args:
        settings: The section EVAL.
        generator: The generator G.
        critic: The critic D.

    Returns:
        The critic, or None where its weights are not named: then figures that need a critic
        are left out. And for each key of EVAL that names weights: their source and SHA-256.

    Raises:
        UserError: If the generator's weights are not named, or a file is absent, has another
            SHA-256 than EVAL demands, or does not fit.
    """
    key = "pretrained_gen_model_path"
    require(
        settings[key] is not None,
        f"mode=eval evaluates trained weights: name them with EVAL.{key}=PATH_OR_URL (and "
        "EVAL.pretrained_dis_model_path for the figures that need a critic).",
    )
    parts = {key: (generator, "generator", settings.pretrained_gen_sha256)}
    key = "pretrained_dis_model_path"
    if settings[key] is None:
        require(
            settings.pretrained_dis_sha256 is None,
            f"EVAL.pretrained_dis_sha256 needs EVAL.{key}=PATH_OR_URL.",
        )
        logger.warning(f"EVAL.{key} is null: figures that need a critic are left out.")
        critic = None
    else:
        parts[key] = (critic, "discriminator", settings.pretrained_dis_sha256)
    weights = {}
    for key, (network, role, sha256) in parts.items():
        digest = weight_files.load_weights(network, settings[key], f"EVAL.{key}", role, sha256)
        weights[key] = {"source": settings[key], "sha256": digest}
    return critic, weights


# --8<-- [end:evaluate]
