# SPDX-License-Identifier: Apache-2.0
"""Figures: their directions, and those that EVAL.measures chooses, all from the same features."""

from __future__ import annotations

from typing import Callable
from typing import Dict
from typing import Optional
from typing import Sequence

import numpy as np

import functions
from data import streams
from measures import metrics
from measures import neighbours
from measures.features import FeatureNetwork
from measures.features import classify
from measures.features import read_features
from measures.features import reference_features
from measures.features import reference_statistics
from measures.features import require_several
from measures.memorisation import Memorisation
from support.errors import require

SPLITS = 10  # number of splits of a score
CHEAP = {"score", "frechet"}  # these measures need no features of single real pictures
# The direction in which a figure is better. A figure without an entry has no direction.
BETTER = {
    **dict.fromkeys(("inception_score", "classifier_score", "modes", "high_quality"), "higher"),
    **dict.fromkeys(("precision", "recall", "density", "coverage"), "higher"),
    **dict.fromkeys(("class_accuracy", "hue_entropy", "hue_entropy_min"), "higher"),
    "class_frechet_distance": "lower",
    **dict.fromkeys(("fid", "frechet_distance", "kid", "kernel_distance", "digit_kl"), "lower"),
    **dict.fromkeys(("reverse_kl", "wasserstein_1", "wasserstein_2"), "lower"),
}


def is_better(name: str, value: float, than: float) -> bool:
    """Says whether a figure that has a direction is better than another value of it."""
    return value > than if BETTER[name] == "higher" else value < than


def format_figures(figures: Dict[str, float]) -> str:
    """Formats figures as one line: those with a direction, then the critic's."""
    parts = [f"{name} {value:.5g}" for name, value in figures.items() if name in BETTER]
    parts += [f"{name} {v:.4f}" for name, v in figures.items() if name.startswith("test_")]
    return ", ".join(parts)


class FeatureFigures:
    """Computes the chosen figures of samples from their features.

    Args:
        chosen: Names of measures, of `support.settings.MEASURES`.
        network: The classifier that gives features and classes.
        images: The training set that samples are compared with, uint8 [N, C, H, W].
        count: Number of samples.
        names: Names of the score, of the Fréchet distance and of the kernel distance.
        seed: The run's seed.
        extra: Further figures of the measure "score", from the predicted classes [count].
        test_images: Real pictures that are measured like samples, uint8 [M, C, H, W]; None, or
            fewer than SPLITS, for no figures of real pictures.

    Attributes:
        real: The same figures of the test pictures.
        real_count: Their number.
        memorisation: Compares samples with their nearest training pictures; None if not chosen.

    Raises:
        UserError: If "memorisation" is chosen, and there are no test pictures.
    """

    def __init__(
        self,
        chosen: Sequence[str],
        network: FeatureNetwork,
        images: np.ndarray,
        count: int,
        names: Sequence[str],
        seed: int,
        extra: Callable[[np.ndarray], Dict[str, float]],
        test_images: Optional[np.ndarray] = None,
    ):
        self.chosen, self.network, self.names = chosen, network, names
        self.seed, self.extra = seed, extra
        self.training: Optional[np.ndarray] = None
        self.memorisation: Optional[Memorisation] = None
        self.real: Dict[str, float] = {}
        self.real_count = 0
        if set(chosen) - CHEAP:
            require_several(images)
            self.training = reference_features(images, network)
        if "frechet" in chosen:
            self.statistics = reference_statistics(images, network, self.training)
        if "prdc" in chosen:
            order = np.random.default_rng((seed, streams.EVALUATION, 3)).permutation(len(images))
            self.compared = self.training[np.sort(order[:count])]
            self.radii = neighbours.squared_radii(self.compared)
        has_test = test_images is not None and len(test_images) >= SPLITS
        require(
            has_test or "memorisation" not in chosen,
            f"memorisation needs at least {SPLITS} test pictures, and there are "
            "fewer: leave memorisation out of EVAL.measures.",
        )
        if has_test:
            features = read_features(test_images, network, "test pictures")
            if "memorisation" in chosen:
                self.memorisation = Memorisation(
                    network, images, self.training, test_images, features
                )
            self.real, self.real_count = self(features, test_images), len(test_images)

    def __call__(
        self, features: np.ndarray, levels: Optional[np.ndarray] = None
    ) -> Dict[str, float]:
        """Computes the figures of samples, or of real pictures.

        Args:
            features: Their features, float32 [N, D].
            levels: Their pixels, 0..255, uint8 [N, ...]; for "memorisation".
        """
        figures: Dict[str, float] = {}
        if "score" in self.chosen:
            probabilities = classify(self.network, features, self.seed)
            score, deviation = functions.inception_score(probabilities, SPLITS)
            figures.update({self.names[0]: score, f"{self.names[0]}_deviation": deviation})
        if "frechet" in self.chosen:
            own = metrics.mean_and_covariance(features)
            figures[self.names[1]] = metrics.frechet_distance(own, self.statistics)
        if "kid" in self.chosen:
            rng = np.random.default_rng((self.seed, streams.EVALUATION, 4))
            distance, deviation = metrics.kernel_distance(features, self.training, rng)
            figures.update({self.names[2]: distance, f"{self.names[2]}_deviation": deviation})
        if "prdc" in self.chosen:
            radii = neighbours.squared_radii(features)
            figures.update(
                neighbours.compare_neighbourhoods(features, self.compared, radii, self.radii)
            )
        if "memorisation" in self.chosen:
            figures.update(self.memorisation.figures(features, levels))
        if "score" in self.chosen:
            figures.update(self.extra(probabilities.argmax(1)))
        return figures
