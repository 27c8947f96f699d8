# SPDX-License-Identifier: Apache-2.0
"""Runs a script's experiment in the mode that is asked for."""

from __future__ import annotations

from modes.evaluate import evaluate
from modes.experiment import Experiment
from modes.export import export
from modes.infer import infer
from modes.train import train

MODES = {"train": train, "eval": evaluate, "export": export, "infer": infer}


def run_mode(experiment: Experiment) -> None:
    """Runs the mode that the experiment's configuration names."""
    MODES[experiment.cfg.mode](experiment)
