# SPDX-License-Identifier: Apache-2.0
"""Features of pictures, and the statistics of a training set."""

from __future__ import annotations

import hashlib
import sys
from os import path as osp
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


def classify(network, features: np.ndarray, seed: int, rows: int = 1000) -> np.ndarray:
    """Class probabilities, float64 [N, K], of features [N, D] in a random, seeded order.

    The order matters to the splits of a score: samples may have been drawn class by class.
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


def read_features(images: np.ndarray, network, what: str, batch_size: int = 100) -> np.ndarray:
    """Features [N, D] of uint8 pictures [N, C, H, W]."""
    progress = Progress(f"{what} through the {network.title}", len(images))
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].astype("float32")
        parts.append(network.features(paddle.to_tensor(batch)).numpy())
        progress.add(len(batch))
    return np.concatenate(parts)


def reference_statistics(images: np.ndarray, network) -> Tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the features of a training set, kept on disk once computed.

    The file's name is made of the pictures, the weights and the code that the features
    come from, so that a change of any makes a new one.
    """
    require(len(images) > 1, "there is 1 training picture: no statistics can be made of it.")
    digest = hashlib.sha256(network.sha256.encode())
    for module in (sys.modules[type(network).__module__], metrics):
        with open(module.__file__, "rb") as file:
            digest.update(file.read())
    digest.update(str(images.shape).encode())
    digest.update(np.ascontiguousarray(images))
    path = osp.expanduser(f"{storage.CACHE}/statistics/wgangp/{digest.hexdigest()[:32]}.npz")
    if osp.exists(path):
        try:
            kept = npz.read_npz(path)
            return kept["mean"], kept["covariance"]
        except (UserError, KeyError) as error:
            logger.warning(f"{error} It is made anew.")
    logger.info(f"Statistics of {len(images)} training pictures; they are kept in {path}")
    features = read_features(images, network, "training pictures")
    mean, covariance = metrics.mean_and_covariance(features)
    try:
        npz.write_npz(path, {"mean": mean, "covariance": covariance})
    except OSError as error:
        logger.warning(f"The statistics could not be kept ({error}): they are made anew each time.")
    return mean, covariance
