# SPDX-License-Identifier: Apache-2.0
"""Measures of a generator, as ppsci validators."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Sequence

import numpy as np
import paddle
import ppsci
from omegaconf import DictConfig
from ppsci.utils import logger

import functions
from data import streams
from measures import inception
from measures import sampling
from measures.features import FeatureNetwork
from measures.figures import CHEAP
from measures.figures import SPLITS
from measures.figures import FeatureFigures
from measures.figures import format_figures
from measures.memorisation import Memorisation
from networks.base import Critic
from networks.base import Generator
from networks.base import evaluating
from support import downloads
from support import pictures
from support.errors import require
from support.progress import Progress


@dataclass
class Measure:
    """A validator, and what the report says about its figures.

    Attributes:
        validator: Turns generated samples into figures.
        num_samples: Number of generated samples behind the figures.
        measured_by: What the figures depend on, such as a network's title and checksum.
        real: The same figures of real samples, by name; empty where there are none.
        real_count: Number of real samples behind `real`.
        draw_neighbours: Writes a picture of samples and their nearest training pictures to a
            path; None if that was not chosen.
    """

    validator: ppsci.validate.SupervisedValidator
    num_samples: int
    measured_by: Optional[Dict[str, str]] = None
    real: Dict[str, float] = field(default_factory=dict)
    real_count: int = 0
    draw_neighbours: Optional[Callable[[str], None]] = None


def make_measure(
    name: str,
    inputs: Dict[str, np.ndarray],
    output_expr: Dict[str, Callable],
    metric: Callable[[Dict[str, np.ndarray]], Dict[str, float]],
    batch_size: int,
    measured_by: Optional[Dict[str, str]] = None,
    real: Optional[Dict[str, float]] = None,
    real_count: int = 0,
) -> Measure:
    """Makes a measure of generated samples; logs the figures of real samples if given.

    Args:
        name: The validator's name.
        inputs: The generator's input arrays by key, "noise" among them, one row a sample.
        output_expr: Functions of a batch (inputs and "fake", the samples) that return what
            the metric needs, one row a sample. The key "fake" is required: its result
            replaces the samples, which ppsci would otherwise gather.
        metric: A function of the gathered outputs that returns figures by name. The figure
            `X_deviation` is the deviation of the figure `X`.
        batch_size: Samples in a batch.
        measured_by: What the figures depend on, for the report.
        real: The same figures of real samples, for the report.
        real_count: Number of real samples behind `real`.
    """
    if real:
        logger.info(f"Figures of {real_count} real samples: {format_figures(real)}")

    def as_tensors(outputs, _):
        arrays = {key: value.numpy() for key, value in outputs.items()}
        # Figures stay in float64; Paddle's default is float32.
        return {k: paddle.to_tensor(float(v), "float64") for k, v in metric(arrays).items()}

    # --8<-- [start:make_validator]
    validator = ppsci.validate.SupervisedValidator(
        {
            "dataset": {"name": "NamedArrayDataset", "input": inputs, "label": {}},
            "batch_size": batch_size,
            "sampler": {"name": "BatchSampler", "shuffle": False, "drop_last": False},
        },
        # ppsci requires a loss; this one is constant, the figures are in the metric.
        ppsci.loss.FunctionalLoss(lambda *_: {"none": paddle.zeros([])}),
        {**output_expr, "fake": lambda batch: output_expr["fake"](_require_finite(batch))},
        metric={name: ppsci.metric.FunctionalMetric(as_tensors)},
        name=name,
    )
    return Measure(validator, len(inputs["noise"]), measured_by, real or {}, real_count)
    # --8<-- [end:make_validator]


def _require_finite(batch: Dict[str, paddle.Tensor]) -> Dict[str, paddle.Tensor]:
    """Returns the batch; refuses samples that hold NaN or infinity."""
    require(
        bool(batch["fake"].isfinite().all()),
        "the generator's samples hold NaN or infinity and cannot be measured. Did its training "
        "diverge? Take the weights of an earlier iteration.",
    )
    return batch


def make_critic_measure(
    generator: Generator,
    critic: Critic,
    images: np.ndarray,
    labels: np.ndarray,
    count: int,
    seed: int,
    batch_size: int,
) -> Measure:
    """Makes a measure with the critic: how well it separates samples from unseen pictures.

    The figures are `test_wasserstein`, the critic's mean on test pictures minus that on
    samples, and for a critic with an AC-GAN head the shares of labels that it gets right:
    `test_accuracy_real` and `test_accuracy_fake` (0..1).

    Args:
        generator: The generator G.
        critic: The critic D.
        images: Test pictures as the critic's input, float32 [N, C, H, W].
        labels: Their labels, int64 [N]; a conditional generator gets them too.
        count: Number of pictures to compare, drawn at random; at most N are used.
        seed: The run's seed.
        batch_size: Samples in a batch.
    """
    rows = draw_test_rows(len(images), count, seed)
    rng = np.random.default_rng((seed, streams.EVALUATION))
    inputs = {
        "noise": rng.standard_normal((len(rows), generator.noise_dim), "float32"),
        "labels": labels[rows],
        "real": images[rows],
    }

    # The scores replace the pictures, which ppsci would otherwise gather from all batches.
    output_expr = {key: _make_critic_expression(critic, key) for key in ("real", "fake")}
    return make_measure(
        "critic", inputs, output_expr, _critic_figures, batch_size, {"network": "critic"}
    )


def draw_test_rows(size: int, count: int, seed: int) -> np.ndarray:
    """Draws rows of a test set without repetition, in ascending order; all if there are too few.

    The first rows would not do: the pictures of an archive may be sorted by class.
    """
    return np.sort(np.random.default_rng((seed, streams.TEST_ROWS)).permutation(size)[:count])


def _make_critic_expression(critic: Critic, key: str) -> Callable:
    """Makes the function from a batch to value and correctness of its pictures, [N, 1 or 2]."""

    def score(batch):
        # In training mode, batch normalisation would add these to its running averages.
        with evaluating(critic):
            value, logits = critic.judge(batch[key], batch["labels"])
        columns = [value]
        if logits is not None:
            columns.append(functions.correct(logits, batch["labels"]))
        return paddle.stack(columns, 1)

    return score


def _critic_figures(outputs: Dict[str, np.ndarray]) -> Dict[str, float]:
    real, fake = outputs["real"].mean(0), outputs["fake"].mean(0)
    figures = {"test_wasserstein": real[0] - fake[0]}
    if len(real) > 1:
        figures.update(test_accuracy_real=real[1], test_accuracy_fake=fake[1])
    return figures


def make_feature_measure(
    generator: Generator,
    network: FeatureNetwork,
    images: np.ndarray,
    count: int,
    names: Sequence[str],
    seed: int,
    batch_size: int,
    extra: Callable[[np.ndarray], Dict[str, float]] = lambda _: {},
    test_images: Optional[np.ndarray] = None,
    label_shares: Optional[np.ndarray] = None,
    chosen: Sequence[str] = ("score", "frechet"),
) -> Measure:
    """Makes a measure with a classifier: figures of its classes and of its features.

    It keeps the features of all samples: 0.4 GB for the Inception and 50,000 samples.

    Args:
        generator: The generator G.
        network: The classifier.
        images: The training set that samples are compared with, uint8 [N, C, H, W].
        count: Number of samples.
        names: Names of the score, of the Fréchet distance and of the kernel distance.
        seed: The run's seed.
        batch_size: Samples in a batch.
        extra: Further figures of the score, from the predicted classes [count].
        test_images: Real pictures, uint8 [M, C, H, W], for the same figures in the report.
        label_shares: How likely each class of a conditional generator is; None for equal shares.
        chosen: The measures to compute, see `support.settings.MEASURES`.

    Raises:
        UserError: If there are fewer samples than the score has splits, or fewer test pictures
            where "memorisation" needs them.
    """
    require(
        count >= SPLITS,
        f"{count} samples are too few: the score is a mean over {SPLITS} splits of them. Raise "
        "EVAL.num_samples (in training, TRAIN.eval_num_samples).",
    )
    rng = np.random.default_rng((seed, streams.EVALUATION))
    inputs = draw_inputs(generator, count, rng, label_shares)
    if test_images is not None:
        # As many as there are samples: the Fréchet distance falls with the number.
        test_images = test_images[rng.permutation(len(test_images))[:count]]
    figures = FeatureFigures(chosen, network, images, count, names, seed, extra, test_images)
    measured_by = {"network": network.title, "sha256": network.sha256}
    measured_by["reference"] = f"{len(images)} training pictures"
    if "labels" in inputs:
        measured_by["labels"] = "uniform" if label_shares is None else "as in the training set"
    return _make_generated_measure(generator, figures, inputs, seed, batch_size, measured_by)


def _make_generated_measure(
    generator: Generator,
    figures: FeatureFigures,
    inputs: Dict[str, np.ndarray],
    seed: int,
    batch_size: int,
    measured_by: Dict[str, str],
) -> Measure:
    """Makes the measure of `make_feature_measure` from its figures and its inputs."""
    expression = _make_feature_expression(generator, figures.network, len(inputs["noise"]))
    output_expr = {"fake": expression}
    if figures.memorisation is not None:
        output_expr["levels"] = lambda batch: _levels(batch, generator).astype("uint8")
    measure = make_measure(
        "generated",
        inputs,
        output_expr,
        lambda outputs: figures(outputs["fake"], outputs.get("levels")),
        batch_size,
        measured_by,
        figures.real,
        figures.real_count,
    )
    if figures.memorisation is not None:
        measure.draw_neighbours = _make_neighbours_drawer(generator, figures.memorisation, seed)
    return measure


def _make_neighbours_drawer(
    generator: Generator, memorisation: Memorisation, seed: int
) -> Callable[[str], None]:
    """Makes the function that draws the first row of samples.png with nearest pictures."""

    def draw(path):
        samples = sampling.sample(generator, sampling.shown_inputs(generator, seed))[:10]
        memorisation.draw(pictures.to_uint8(samples, generator.low), path)

    return draw


def draw_inputs(
    generator: Generator,
    count: int,
    rng: np.random.Generator,
    shares: Optional[np.ndarray] = None,
) -> Dict[str, np.ndarray]:
    """Draws "noise" [count, noise_dim], and for a conditional generator "labels" [count]."""
    inputs = {"noise": rng.standard_normal((count, generator.noise_dim), "float32")}
    if "labels" in generator.input_keys:
        inputs["labels"] = streams.draw_labels(rng, count, generator.num_classes, shares)
    return inputs


def _make_feature_expression(generator: Generator, network: FeatureNetwork, count: int) -> Callable:
    """Makes the function from a batch to the features [N, D] of its samples' bytes."""
    progress = Progress(f"samples through the {network.title}", count)

    def features_of(batch):
        progress.add(len(batch["fake"]))
        return network.features(_levels(batch, generator))

    return features_of


def _levels(batch: Dict[str, paddle.Tensor], generator: Generator) -> paddle.Tensor:
    """The bytes of a batch's samples, as whole numbers in float32."""
    return pictures.to_levels(batch["fake"], generator.low).floor()


def make_inception_measure(
    generator: Generator,
    images: np.ndarray,
    test_images: np.ndarray,
    count: int,
    seed: int,
    settings: DictConfig,
    label_shares: Optional[np.ndarray] = None,
) -> Measure:
    """Makes a measure with the Inception of 2015-12-05: Inception Score, FID, KID and others.

    Test pictures are measured, too, if more is chosen than Inception Score and FID: those alone
    are the common practice, and the Inception takes long on a CPU.

    Args:
        generator: The generator G.
        images: The training set that samples are compared with, uint8 [N, 3, H, W].
        test_images: Test pictures, uint8 [M, 3, H, W].
        count: Number of samples.
        seed: The run's seed.
        settings: The section EVAL: `measures`, `inception_weights` (a path; the file is
            downloaded if it is absent), `inception_sha256` and `batch_size`.
        label_shares: How likely each class of a conditional generator is; None for equal shares.

    Raises:
        UserError: If the weights are not available, or there are too few pictures.
    """
    has_more = bool(set(settings.measures) - CHEAP)
    path = downloads.fetch(
        settings.inception_weights,
        inception.ADDRESSES,
        settings.inception_sha256,
        "EVAL.inception=false leaves Inception Score, FID and the like out.",
        "EVAL.inception_weights",
    )
    network = inception.Inception(path, settings.inception_sha256)
    names = ("inception_score", "fid", "kid")
    return make_feature_measure(
        *(generator, network, images, count, names, seed, settings.batch_size),
        test_images=test_images if has_more else None,
        label_shares=label_shares,
        chosen=settings.measures,
    )
