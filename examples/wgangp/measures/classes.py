# SPDX-License-Identifier: Apache-2.0
"""Whether samples are of the classes that they were asked for, by an independent classifier."""

from __future__ import annotations

from typing import Optional

import numpy as np
import paddle

from data import streams
from measures import validators
from measures.features import FeatureNetwork
from measures.features import read_features
from measures.validators import Measure
from networks.base import Generator
from support import pictures


def make_class_measure(
    generator: Generator,
    network: FeatureNetwork,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    count: int,
    seed: int,
    batch_size: int,
    label_shares: Optional[np.ndarray] = None,
) -> Measure:
    """Makes the measure of `class_accuracy` (0..1), the share of samples taken for their label.

    Args:
        generator: The generator G, which takes labels.
        network: The classifier.
        test_images: Test pictures, uint8 [N, C, H, W], for the same figure in the report.
        test_labels: Their labels, int64 [N].
        count: Number of samples, and of test pictures if there are as many.
        seed: The run's seed.
        batch_size: Samples in a batch.
        label_shares: How likely each label is; None for equal shares.
    """

    def predict(features: paddle.Tensor) -> paddle.Tensor:
        return network.logits(features).argmax(1)

    def is_right(batch):
        levels = pictures.to_levels(batch["fake"], generator.low).floor()
        return (predict(network.features(levels)) == batch["labels"]).astype("float32")

    rng = np.random.default_rng((seed, streams.EVALUATION))
    rows = validators.draw_test_rows(len(test_images), count, seed)
    features = read_features(test_images[rows], network, "test pictures")
    real = predict(paddle.to_tensor(features)).numpy() == test_labels[rows]
    return validators.make_measure(
        "classes",
        validators.draw_inputs(generator, count, rng, label_shares),
        {"fake": is_right},
        lambda outputs: {"class_accuracy": outputs["fake"].mean()},
        batch_size,
        {"network": network.title, "sha256": network.sha256},
        {"class_accuracy": float(real.mean())},
        len(rows),
    )
