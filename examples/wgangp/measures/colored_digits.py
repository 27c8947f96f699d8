# SPDX-License-Identifier: Apache-2.0
"""Measures of coloured digits: are classes right, and does a class keep all of its variety?"""

from __future__ import annotations

from typing import Dict
from typing import Optional
from typing import Sequence
from typing import Tuple

import numpy as np
import paddle

from data import streams
from data.image_set import NUM_CLASSES
from data.image_set import ImageSet
from measures import digit_classifier
from measures import metrics
from measures import validators
from measures.features import read_features
from measures.features import reference_statistics
from measures.validators import Measure
from networks.base import Generator
from support import pictures
from support.errors import require

HUE_BINS = 12  # intervals of 30 degrees


class ColoredDigitClassifier:
    """The classifier of digits for coloured ones, as a `measures.features.FeatureNetwork`.

    It sees the largest channel of the inner 28x28 pixels. For a real digit of
    `data.synthetic.color_digits` that is the digit before it was coloured.
    """

    title = "MNIST classifier on coloured digits"
    version = 1

    def __init__(self):
        self.classifier = digit_classifier.load()
        self.sha256 = self.classifier.sha256

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Fits the classifier's last layer to coloured digits, uint8 [N, 3, 32, 32]."""
        features = read_features(images, self, "training digits")
        digit_classifier.fit_last_layer(self.classifier, features, labels)
        self.title += digit_classifier.FITTED

    def features(self, images: paddle.Tensor) -> paddle.Tensor:
        """Pictures [N, 3, 32, 32], whole numbers 0..255 in float32, to features [N, 96]."""
        return self.classifier.features(images.amax(axis=1, keepdim=True)[:, :, 2:30, 2:30])

    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """Features [N, 96] to logits [N, 10]."""
        return self.classifier.logits(features)


def hues(colors: np.ndarray) -> np.ndarray:
    """Hues in HSV of colours [N, 3], as shares of the circle, [0, 1); a grey has hue 0."""
    colors = colors.astype("float64")
    top = colors.argmax(1)
    rows = np.arange(len(colors))
    chroma = colors.max(1) - colors.min(1)
    difference = colors[rows, (top + 1) % 3] - colors[rows, (top + 2) % 3]
    return (2 * top + difference / np.where(chroma > 0, chroma, 1)) / 6 % 1


def hue_entropy(hue: np.ndarray) -> float:
    """Entropy of a histogram of hues over its maximum: 1 for all hues alike, 0 for one hue.

    Args:
        hue: Shares of the circle, [N]; the histogram has HUE_BINS intervals.
    """
    shares, _ = metrics.class_shares((hue * HUE_BINS).astype("int64") % HUE_BINS, HUE_BINS)
    shares = shares[shares > 0]
    return float((shares * np.log(1 / shares)).sum() / np.log(HUE_BINS))


def class_figures(
    features: np.ndarray,
    hue: np.ndarray,
    labels: np.ndarray,
    reference: Sequence[Tuple[np.ndarray, np.ndarray]],
) -> Dict[str, float]:
    """Variety within classes; a class with fewer than two samples has none, and no distance.

    Args:
        features: The classifier's features, [N, D].
        hue: Hues, [N].
        labels: Classes, [N].
        reference: For each class, mean [D] and covariance [D, D] of the training set's features.

    Returns:
        `hue_entropy` and `class_frechet_distance`, each a mean over classes, and
        `hue_entropy_min`, the least entropy of a class (both entropies 0..1).
    """
    entropies, distances = [], []
    for label, statistics in enumerate(reference):
        rows = labels == label
        if rows.sum() < 2:
            entropies.append(0.0)
            continue
        entropies.append(hue_entropy(hue[rows]))
        own = metrics.mean_and_covariance(features[rows])
        distances.append(metrics.frechet_distance(own, statistics))
    figures = {"hue_entropy": float(np.mean(entropies)), "hue_entropy_min": min(entropies)}
    if distances:
        figures["class_frechet_distance"] = float(np.mean(distances))
    return figures


def make_measures(
    generator: Generator,
    data: ImageSet,
    count: int,
    seed: int,
    batch_size: int,
    label_shares: Optional[np.ndarray] = None,
    chosen: Sequence[str] = ("score", "frechet"),
    is_fitted: bool = False,
) -> Dict[str, Measure]:
    """Makes the measures of coloured digits, each with the same figures of test digits.

    "generated" has the classifier's score and distance. "classes" has `class_accuracy` (0..1), the
    share of samples whose recognised digit is their label, and `class_figures`. Samples without
    labels have no accuracy; their classes are the recognised digits.

    Args:
        generator: The generator G.
        data: Coloured digits.
        count: Number of samples.
        seed: The run's seed.
        batch_size: Samples in a batch.
        label_shares: How likely each class of a conditional generator is; None for equal shares.
        chosen: The measures in "generated", see `support.settings.MEASURES`.
        is_fitted: Whether the classifier's last layer is fitted to the training set, since the
            digits are not MNIST's.
    """
    network = ColoredDigitClassifier()
    if is_fitted:
        network.fit(data.train_images, data.train_labels)
    return {
        "generated": validators.make_feature_measure(
            *(generator, network, data.train_images, count),
            ("classifier_score", "frechet_distance", "kernel_distance"),
            *(seed, batch_size),
            test_images=data.test_images,
            label_shares=label_shares,
            chosen=chosen,
        ),
        "classes": _make_class_measure(
            generator, network, data, count, seed, batch_size, label_shares
        ),
    }


def _make_class_measure(
    generator: Generator,
    network: ColoredDigitClassifier,
    data: ImageSet,
    count: int,
    seed: int,
    batch_size: int,
    label_shares: Optional[np.ndarray],
) -> Measure:
    images, labels = data.train_images, data.train_labels
    counts = np.bincount(labels, minlength=NUM_CLASSES)
    require(
        counts.min() > 1,
        f"the training set has {counts.min()} pictures of the digit {counts.argmin()}; measures "
        "of classes need at least 2 of each. Choose a larger set with DATA.data_path=PATH.",
    )
    reference = [reference_statistics(images[labels == k], network) for k in range(NUM_CLASSES)]
    rng = np.random.default_rng((seed, streams.EVALUATION))
    inputs = validators.draw_inputs(generator, count, rng, label_shares)

    def describe(batch):
        """Features and mean colours, [N, D + 3]."""
        levels = pictures.to_levels(batch["fake"], generator.low).floor()
        return paddle.concat([network.features(levels), levels.mean([2, 3])], 1)

    def metric(outputs):
        features, colors = np.split(outputs["fake"], [-3], 1)
        predicted = network.logits(paddle.to_tensor(features)).numpy().argmax(1)
        if "labels" not in outputs:
            return class_figures(features, hues(colors), predicted, reference)
        accuracy = {"class_accuracy": float((predicted == outputs["labels"]).mean())}
        return {**accuracy, **class_figures(features, hues(colors), outputs["labels"], reference)}

    rows = validators.draw_test_rows(len(data.test_images), count, seed)
    shown = data.test_images[rows]
    features = read_features(shown, network, "test pictures")
    real = np.concatenate([features, shown.mean((2, 3), dtype="float32")], 1)
    output_expr, shown_outputs = {"fake": describe}, {"fake": real}
    if "labels" in inputs:
        output_expr["labels"] = lambda batch: batch["labels"]
        shown_outputs["labels"] = data.test_labels[rows]
    return validators.make_measure(
        "classes",
        inputs,
        output_expr,
        metric,
        batch_size,
        {"network": network.title, "sha256": network.sha256},
        metric(shown_outputs),
        len(rows),
    )
