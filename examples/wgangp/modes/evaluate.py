# SPDX-License-Identifier: Apache-2.0
"""mode=eval: evaluates trained weights."""

from __future__ import annotations

from typing import Optional

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
            EVAL.pretrained_dis_model_path the critic's.

    Raises:
        UserError: If no weights are named, or a file is absent or does not fit.
    """
    cfg = experiment.cfg
    generator, critic = experiment.make_networks()
    critic = load_networks(cfg.EVAL, generator, critic)
    measures = {}
    if experiment.has_measures(critic):
        data = experiment.read_data()
        measures = experiment.make_measures(data, generator, critic, cfg.EVAL.num_samples)
    evaluator = Evaluator(generator, measures, cfg.output_dir, cfg.seed, cfg.device)
    sources = {
        key: source
        for key, source in cfg.EVAL.items()
        if key.startswith("pretrained_") and source is not None
    }
    draw = experiment.make_drawer(generator, critic)
    report(evaluator, draw, cfg.output_dir, cfg.seed, sources, cfg)


def load_networks(settings: DictConfig, generator: Generator, critic: Critic) -> Optional[Critic]:
    """Loads the weights that the section EVAL names.

    Args:
        settings: The section EVAL.
        generator: The generator G.
        critic: The critic D.

    Returns:
        The critic, or None where its weights are not named: then figures that need a critic
        are left out.

    Raises:
        UserError: If the generator's weights are not named, or a file is absent or does not
            fit.
    """
    key = "EVAL.pretrained_gen_model_path"
    require(
        settings.pretrained_gen_model_path is not None,
        f"mode=eval evaluates trained weights: name them with {key}=PATH_OR_URL (and "
        "EVAL.pretrained_dis_model_path for the figures that need a critic).",
    )
    weight_files.load_weights(generator, settings.pretrained_gen_model_path, key, "generator")
    key = "EVAL.pretrained_dis_model_path"
    if settings.pretrained_dis_model_path is None:
        logger.warning(f"{key} is null: figures that need a critic are left out.")
        return None
    weight_files.load_weights(critic, settings.pretrained_dis_model_path, key, "discriminator")
    return critic


# --8<-- [end:evaluate]
