# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a generator: ppsci's Solver runs its measures."""

from __future__ import annotations

import contextlib
import logging
from typing import Dict
from typing import Iterator
from typing import Optional

import numpy as np
import ppsci

from measures.validators import Measure
from networks.base import Generator
from networks.base import evaluating
from support.errors import require


class Evaluator:
    """Evaluates a generator with measures; makes ppsci's Solver once.

    Args:
        generator: The generator G.
        measures: Measures by name. There may be none; then there are no figures.
        output_dir: The run's output folder.
        seed: The run's seed.
        device: Paddle's device, such as "cpu" or "gpu"; None for the current one.
    """

    def __init__(
        self,
        generator: Generator,
        measures: Dict[str, Measure],
        output_dir: str,
        seed: int,
        device: Optional[str] = None,
    ):
        self.generator, self.measures = generator, measures
        self.solver = None
        if measures:
            self.solver = ppsci.solver.Solver(
                generator,
                output_dir=output_dir,
                seed=seed,
                device=device,
                validator={name: measure.validator for name, measure in measures.items()},
                eval_with_no_grad=True,
            )

    def evaluate(self) -> Dict[str, float]:
        """Runs all measures.

        Returns:
            The figures of all measures by name.

        Raises:
            UserError: If samples or figures are not finite.
        """
        groups = self.evaluate_each().values()
        return {name: value for figures in groups for name, value in figures.items()}

    def evaluate_each(self) -> Dict[str, Dict[str, float]]:
        """Runs all measures.

        Returns:
            For each measure, by its name, the figures by name.

        Raises:
            UserError: If samples or figures are not finite.
        """
        if self.solver is None:
            return {}
        with evaluating(self.generator), _muted_solver():
            _, groups = self.solver.eval()  # The keys are the validators' names.
        groups = {name: groups[m.validator.name] for name, m in self.measures.items()}
        lost = [
            name
            for figures in groups.values()
            for name, value in figures.items()
            if not np.isfinite(value)
        ]
        require(not lost, f"{', '.join(lost)} is not finite. Did the training diverge?")
        return groups


@contextlib.contextmanager
def _muted_solver() -> Iterator[None]:
    """Drops ppsci's "[Eval]" lines: they repeat all figures next to a loss without meaning."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("[Eval]")

    log = logging.getLogger("ppsci")
    log.addFilter(is_wanted)
    try:
        yield
    finally:
        log.removeFilter(is_wanted)
