# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: paths, experiments, configurations, records, processor, environments.

Importing it makes the suite's modules importable. It loads nothing but the standard library, so
that worker.py can measure what the imports of each side take.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import Any
from typing import Dict
from typing import List
from typing import Sequence
from typing import Tuple

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
SUITE = ROOT / "examples" / "wgangp"
RESULTS = ROOT / "docs" / "results"
sys.path.insert(0, str(SUITE))


@dataclasses.dataclass(frozen=True)
class Setup:
    """The settings of an experiment with the paper's objective, for the reference sides.

    Args:
        script: The script, without `wgangp_` and `.py`.
        settings: Settings of the script.
        shape: Shape of a sample.
        noise_dim: Size of the noise vector.
        penalty_weight: The lambda of the gradient penalty.
        betas: Adam's beta1 and beta2.
        is_conditional: Whether there are labels, of ten classes.
        generator_batch_factor: The generator's batch, as a multiple of the critic's.
        batch_norm_groups: Parts of a batch that the generator normalises one by one.
    """

    script: str
    settings: Tuple[str, ...]
    shape: Tuple[int, ...]
    noise_dim: int
    penalty_weight: float
    betas: Tuple[float, float]
    is_conditional: bool = False
    generator_batch_factor: int = 1
    batch_norm_groups: int = 1


COLOR_64 = ((3, 64, 64), 128, 10.0, (0.0, 0.9))
SETUPS = {
    # preset=authors has five critic steps and equal batches.
    "toy": Setup("toy", ("preset=authors",), (2,), 2, 0.1, (0.5, 0.9)),
    "mnist": Setup("mnist", (), (1, 28, 28), 128, 10.0, (0.5, 0.9)),
    "cifar10": Setup("cifar10", (), (3, 32, 32), 128, 10.0, (0.0, 0.9), True, 2, 2),
    "dcgan64": Setup("image64", ("MODEL.arch=dcgan",), *COLOR_64),
    "resnet64": Setup("image64", ("MODEL.arch=resnet",), *COLOR_64),
}
INCEPTION = "inception"  # has no training steps, and a batch alone
CRITIC_STEPS = 5  # in an iteration of every side


class Reference:
    """Steps of a reference side on random data; a subclass makes networks and takes the steps.

    Args:
        name: A key of SETUPS.
        batch: The critic's batch.
    """

    def __init__(self, name: str, batch: int):
        self.setup = SETUPS[name]
        self.batch, self.generator_batch = batch, batch * self.setup.generator_batch_factor

    def critic_step(self) -> None:
        raise NotImplementedError

    def generator_step(self) -> None:
        raise NotImplementedError

    def iteration(self) -> None:
        """Takes the critic's steps and one of the generator."""
        for _ in range(CRITIC_STEPS):
            self.critic_step()
        self.generator_step()


def quote(value: Any) -> str:
    """Quotes a value for Hydra's command line, so that any character in it is itself."""
    text = str(value)
    # Hydra reads backslashes as such, but for those before a quote.
    text = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + (match[2] and "\\'"), text)
    return f"'{text}'"


def compose(script: str, settings: Sequence[str]) -> Any:
    """Composes the configuration of a script, as Hydra does for its command line.

    Args:
        script: Name of the script without its suffix, such as "wgangp_toy".
        settings: Settings, each "KEY=VALUE".

    Raises:
        HydraException: If Hydra can't read the settings.
    """
    import hydra

    with hydra.initialize_config_dir(str(SUITE / "conf"), version_base=None):
        return hydra.compose(script, list(settings))


def read_records(folder: Path) -> List[Dict[str, Any]]:
    """The records of a run, from its metrics.jsonl; a line that is being written is left out."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def read_results(path: Path) -> Dict[str, Any]:
    """A file of results; exits with a message if it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"{path} can't be read ({error}): restore it, or remove it to make it again.")


def import_inception_reference() -> Any:
    """tests/inception_reference.py, which makes random weights of the Inception."""
    sys.path.append(str(ROOT / "tests"))
    import inception_reference

    return inception_reference


def side_environment(side: str, **variables: str) -> Dict[str, str]:
    """The environment of one side of a comparison, which prints no warnings.

    Args:
        side: "onednn" or "plain" (the suite with and without oneDNN), "paddle" or "torch". Plain
            Paddle runs with its own defaults: on one thread, with the matrix path that its
            library chooses.
        **variables: More environment variables.
    """
    from support.processor import PROCESSOR_VARIABLES

    way = {"WGANGP_ONEDNN": "0" if side in ("plain", "paddle") else "1"}
    quiet = {"GLOG_minloglevel": "3", "PYTHONWARNINGS": "ignore"}
    environment = {**os.environ, **quiet, **way, **variables}
    unset = PROCESSOR_VARIABLES if side == "paddle" else ()
    return {name: value for name, value in environment.items() if name not in unset}
