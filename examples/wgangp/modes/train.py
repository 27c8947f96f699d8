# SPDX-License-Identifier: Apache-2.0
"""mode=train: trains both networks of an experiment."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import Dict

import paddle
import paddle.distributed as dist
from ppsci.utils import logger

from measures.evaluation import Evaluator
from measures.report import describe_figures
from modes import start_weights
from modes.experiment import Experiment
from pages import origin
from support import sweeps
from support.errors import printable
from training import build
from training import checkpoints
from training import loop
from training import records
from training import resume
from training.run_settings import RunSettings


def train(experiment: Experiment) -> Dict[str, Any]:
    """Trains both networks, from the start, from weights or from the checkpoint of TRAIN.resume.

    A job of a sweep that is finished already is skipped.

    Args:
        experiment: What the script defines.

    Returns:
        The newest figures, by name.

    Raises:
        UserError: If settings, data, weights or the checkpoint are invalid, or the training
            diverges.
    """
    cfg = experiment.cfg
    start = start_weights.read(experiment)
    settings = RunSettings.of(cfg)
    if sweeps.is_sweep() and resume.is_finished(settings):
        logger.info(f"{printable(settings.output_dir)} holds this training, finished: skipped.")
        with open(resume.journal_path(settings.output_dir), encoding="utf-8") as file:
            return records.final_figures(file.read())
    checkpoint = resume.find(settings)
    generator, critic = experiment.make_networks()
    data = experiment.read_data()
    settings = dataclasses.replace(settings, classes=experiment.class_names(data))
    start_weights.load(start, generator, critic, settings.classes, checkpoint is not None)
    run = build.make_run(
        settings,
        generator,
        critic,
        lambda length, seed: experiment.make_real_streams(data, generator, length, seed),
        experiment.fingerprint(data),
        experiment.label_shares(data, generator),
    )
    network, evaluator, measures = run.average.network, None, {}
    if cfg.TRAIN.eval_during_train:
        measures = experiment.make_measures(data, network, critic, cfg.TRAIN.eval_num_samples)
        evaluator = Evaluator(network, measures, cfg.output_dir, cfg.seed, cfg.device)
    draw = experiment.make_drawer(network, critic)
    if checkpoint is not None:
        checkpoints.restore(run, checkpoint)
        logger.info(f"Resuming from {printable(checkpoint.path)}, after iteration {run.iteration}.")
    if cfg.TRAIN.resume is not None:
        resume.require_same(run)
    if dist.get_rank() == 0:
        content = origin.describe(experiment.script, paddle.get_device(), dist.get_world_size())
        content["figures"] = describe_figures(measures)
        origin.save(cfg.output_dir, origin.NAME, content)
    loop.train(run, evaluator, draw)
    return records.final_figures(run.journal)
