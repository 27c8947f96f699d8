# SPDX-License-Identifier: Apache-2.0
"""Runs a script's experiment in the mode that is asked for."""

from __future__ import annotations

from typing import Any
from typing import Dict
from typing import Optional

from modes.evaluate import evaluate
from modes.experiment import Experiment
from modes.export import export
from modes.infer import infer
from modes.train import train

MODES = {"train": train, "eval": evaluate, "export": export, "infer": infer}


def run_mode(experiment: Experiment) -> Optional[Dict[str, Any]]:
    """Runs the mode that the experiment's configuration names; returns its figures, if any."""
    return MODES[experiment.cfg.mode](experiment)
