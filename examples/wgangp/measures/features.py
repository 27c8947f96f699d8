# SPDX-License-Identifier: Apache-2.0
"""Features of pictures, and the statistics of a training set's features."""

from __future__ import annotations

import hashlib
from os import path as osp
from typing import Optional
from typing import Protocol
from typing import Tuple

import numpy as np
import paddle
from ppsci.utils import logger
from scipy.special import softmax

from data import streams
from measures import metrics
from support import npz
from support import storage
from support.errors import UserError
from support.errors import require
from support.progress import Progress

# Raise this number when the computation of statistics changes: kept statistics are then
# computed again. A change of a network's features raises the network's own `version`.
STATISTICS_VERSION = 1


class FeatureNetwork(Protocol):
    """A classifier of pictures that also gives features.

    Attributes:
        title: Its name in the report.
        sha256: Checksum of its weights.
        version: Number of its computation; raised when the same weights give other features.
    """

    title: str
    sha256: str
    version: int

    def features(self, images: paddle.Tensor) -> paddle.Tensor:
        """Pictures [N, C, H, W], whole numbers 0..255 in float32, to features [N, D]."""

    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """Features [N, D] to logits [N, K]."""


def classify(
    network: FeatureNetwork, features: np.ndarray, seed: int, rows: int = 1000
) -> np.ndarray:
    """Class probabilities of features, in a random order.

    The order matters to the splits of a score, since samples may be sorted by class.

    Args:
        network: The classifier.
        features: Float32 [N, D].
        seed: The run's seed; it sets the order.
        rows: Features in a batch.

    Returns:
        Float64 [N, K].
    """
    order = np.random.default_rng((seed, streams.EVALUATION, 1)).permutation(len(features))
    probabilities = None
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        logits = network.logits(paddle.to_tensor(features[part])).numpy()
        if probabilities is None:
            probabilities = np.empty((len(order), logits.shape[1]))
        probabilities[start : start + rows] = softmax(logits.astype("float64"), 1)
    return probabilities


def read_features(
    images: np.ndarray, network: FeatureNetwork, what: str, batch_size: int = 100
) -> np.ndarray:
    """Features of pictures; logs the progress.

    Args:
        images: Pictures, uint8 [N, C, H, W].
        network: The classifier.
        what: A plural noun for the pictures, for the log.
        batch_size: Pictures in a batch.

    Returns:
        Float32 [N, D].
    """
    progress = Progress(f"{what} through the {network.title}", len(images))
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].astype("float32")
        parts.append(network.features(paddle.to_tensor(batch)).numpy())
        progress.add(len(batch))
    return np.concatenate(parts)


def statistics_path(images: np.ndarray, network: FeatureNetwork, suffix: str = ".npz") -> str:
    """The file that keeps the statistics of a training set.

    Its name depends on the pictures, the network's weights and the two version numbers. With the
    suffix ".npy", it is the file that keeps the features.
    """
    versions = f"{STATISTICS_VERSION} {network.version}"
    digest = hashlib.sha256(f"{versions} {network.sha256} {images.shape}".encode())
    digest.update(np.ascontiguousarray(images))
    return osp.expanduser(f"{storage.CACHE}/statistics/wgangp/{digest.hexdigest()[:32]}{suffix}")


def reference_features(images: np.ndarray, network: FeatureNetwork) -> np.ndarray:
    """Features of all pictures of a training set, float32 [N, D].

    They are computed once and kept on disk, see `statistics_path`: 0.4 GB for the Inception and
    50,000 pictures.

    Args:
        images: The training set, uint8 [N, C, H, W].
        network: The classifier.
    """
    path = statistics_path(images, network, ".npy")
    if osp.exists(path):
        try:
            with open(path, "rb") as file:
                features = npz.parse_npy(file.read())
            require(len(features) == len(images), f"{path} holds {len(features)} features.")
            return features
        except (UserError, OSError, ValueError) as error:
            logger.warning(f"{path} is not intact ({error}). The features are computed again.")
    logger.info(f"Computing features of {len(images)} training pictures, to keep in {path}")
    features = read_features(images, network, "training pictures")
    try:
        with storage.replacing(path) as file:
            np.save(file, features)
    except OSError as error:
        logger.warning(
            f"{path} can't be written ({error}). The next evaluation computes the features again."
        )
    return features


def require_several(images: np.ndarray) -> None:
    """Refuses a training set that samples can't be compared with, since it has no spread."""
    require(
        len(images) > 1,
        f"a training set of {len(images)} is too small: measures compare samples with at least 2 "
        "pictures. Choose a larger set with DATA.data_path=PATH.",
    )


def reference_statistics(
    images: np.ndarray, network: FeatureNetwork, features: Optional[np.ndarray] = None
) -> Tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] of a training set's features, float64.

    They are computed once and kept on disk, see `statistics_path`.

    Args:
        images: The training set, uint8 [N, C, H, W].
        network: The classifier.
        features: Its features, [N, D], if they are known already.

    Raises:
        UserError: If there are fewer than two pictures.
    """
    require_several(images)
    path = statistics_path(images, network)
    if osp.exists(path):
        try:
            kept = npz.read_npz(path)
            return kept["mean"], kept["covariance"]
        except (UserError, KeyError) as error:
            logger.warning(f"{error} The statistics are computed again.")
    logger.info(f"Computing statistics of {len(images)} training pictures, to keep in {path}")
    if features is None:
        features = read_features(images, network, "training pictures")
    mean, covariance = metrics.mean_and_covariance(features)
    try:
        npz.write_npz(path, {"mean": mean, "covariance": covariance})
    except OSError as error:
        logger.warning(
            f"{path} can't be written ({error}). The next evaluation computes the statistics again."
        )
    return mean, covariance
