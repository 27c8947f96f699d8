# SPDX-License-Identifier: Apache-2.0
"""Does a generator copy its training set? Nearest training pictures, as figures and a picture."""

from __future__ import annotations

from typing import Dict

import numpy as np

from measures import neighbours
from measures.features import FeatureNetwork
from measures.features import read_features
from support import pictures

SHOWN = 5  # nearest training pictures of a sample in the picture


class Memorisation:
    """Compares distances to the nearest training picture: samples' with test pictures'.

    Distances are Euclidean, between pixels and between features.

    Args:
        network: The classifier that gives features.
        images: The training set, uint8 [N, C, H, W].
        features: Its features, [N, D].
        test_images: Test pictures, uint8 [M, C, H, W].
        test_features: Their features, [M, D].
    """

    def __init__(
        self,
        network: FeatureNetwork,
        images: np.ndarray,
        features: np.ndarray,
        test_images: np.ndarray,
        test_features: np.ndarray,
    ):
        self.network, self.images, self.features = network, images, features
        self.pixels = images.reshape(len(images), -1)
        self.test = self._distances(test_features, test_images)

    def _distances(self, features: np.ndarray, levels: np.ndarray) -> Dict[str, np.ndarray]:
        pixels = levels.reshape(len(levels), -1)
        return {
            "pixels": neighbours.find_nearest(pixels, self.pixels)[1][:, 0],
            "features": neighbours.find_nearest(features, self.features)[1][:, 0],
        }

    def figures(self, features: np.ndarray, levels: np.ndarray) -> Dict[str, float]:
        """Computes `memorisation_pixels` and `memorisation_features`, see `share_nearer`.

        Args:
            features: Features of samples, [N, D].
            levels: Their pixels, 0..255, [N, ...].
        """
        distances = self._distances(features, levels)
        return {
            f"memorisation_{space}": neighbours.share_nearer(own, self.test[space])
            for space, own in distances.items()
        }

    def draw(self, samples: np.ndarray, path: str) -> None:
        """Draws samples, and next to each its nearest training pictures, the nearest first.

        Args:
            samples: Their pixels, uint8 [N, C, H, W].
            path: The PNG file to write.
        """
        k = min(SHOWN, len(self.images))
        features = read_features(samples, self.network, "samples")
        flat = samples.reshape(len(samples), -1)
        blocks = {"samples": samples}
        for space, own, training in (
            ("pixels", flat, self.pixels),
            ("features", features, self.features),
        ):
            numbers, _ = neighbours.find_nearest(own, training, k)
            blocks[f"nearest by {space}"] = self.images[numbers.ravel()]
        pictures.save_rows(blocks, len(samples), path)
