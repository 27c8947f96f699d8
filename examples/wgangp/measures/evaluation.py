# SPDX-License-Identifier: Apache-2.0
"""Validators: what an evaluation measures."""

from __future__ import annotations

import logging
from typing import Any
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Tuple

import numpy as np
import paddle
import ppsci
from ppsci.utils import logger

import functions
from data import streams
from measures import inception
from measures import metrics
from measures.features import classify
from measures.features import read_features
from measures.features import reference_statistics
from support import downloads
from support import pictures
from support.errors import require
from support.progress import Progress

NEVER = 10**12
SPLITS = 10  # of the Inception Score
# Which way a figure is better; the others only tell something.
BETTER = {
    **dict.fromkeys(("inception_score", "classifier_score", "modes", "high_quality"), "higher"),
    **dict.fromkeys(("fid", "frechet_distance", "digit_kl"), "lower"),
    **dict.fromkeys(("reverse_kl", "wasserstein_2"), "lower"),
}


# --8<-- [start:validator]
def make_validator(
    cfg,
    name: str,
    inputs: Dict[str, np.ndarray],
    output_expr: Dict[str, Callable],
    metric: Callable[[Dict[str, np.ndarray]], Dict[str, float]],
    measured_by: Optional[Dict[str, str]] = None,
    real: Optional[Dict[str, float]] = None,
    real_count: int = 0,
):
    """A SupervisedValidator that turns each batch of fakes into what its metric needs.

    Args:
        cfg: The script's configuration.
        name: The validator's name.
        inputs: Arrays by input key, "noise" among them.
        output_expr: Figures per sample, as functions of inputs and fakes; "fake" among them,
            which stands in for the samples themselves.
        metric: A function of the gathered outputs, which returns figures by name; `X_deviation`
            goes with figure X.
        measured_by: What the figures depend on, for the report.
        real: The same figures of real samples, for the report.
        real_count: How many real samples those are of.
    """
    if real:
        logger.info(f"Figures of {real_count} real samples: {describe(real)}")

    def tensors(outputs, _):
        arrays = {key: value.numpy() for key, value in outputs.items()}
        # not float32, Paddle's default: figures are computed in float64
        return {k: paddle.to_tensor(float(v), "float64") for k, v in metric(arrays).items()}

    validator = ppsci.validate.SupervisedValidator(
        {
            "dataset": {"name": "NamedArrayDataset", "input": inputs, "label": {}},
            "batch_size": cfg.EVAL.batch_size,
            "sampler": {"name": "BatchSampler", "shuffle": False, "drop_last": False},
        },
        # ppsci asks for a loss, too; what there is to know is in the metric
        ppsci.loss.FunctionalLoss(lambda *_: {"none": paddle.zeros([])}),
        {**output_expr, "fake": lambda data: output_expr["fake"](_finite(data))},
        metric={name: ppsci.metric.FunctionalMetric(tensors)},
        name=name,
    )
    validator.measured_by = measured_by
    validator.real, validator.real_count = real or {}, real_count
    return validator


def describe(figures: Dict[str, float]) -> str:
    """Figures in one line for people: those that have a better and a worse, and the critic's."""
    parts = [f"{name} {value:.5g}" for name, value in figures.items() if name in BETTER]
    parts += [f"{name} {v:.4f}" for name, v in figures.items() if name.startswith("test_")]
    return ", ".join(parts)


def _finite(data: Dict[str, paddle.Tensor]) -> Dict[str, paddle.Tensor]:
    require(
        bool(data["fake"].isfinite().all()),
        "the generator's samples hold NaN or infinity, of which there is nothing to measure. "
        "Did its training diverge? Take the weights of an earlier iteration.",
    )
    return data


def make_solver(cfg, generator, validators: Dict[str, Any]):
    """A Solver that evaluates a generator by its validators."""
    return ppsci.solver.Solver(
        generator,
        output_dir=cfg.output_dir,
        log_freq=NEVER,  # what takes long says so itself
        seed=cfg.seed,
        device=cfg.device,
        validator=validators,
        eval_with_no_grad=True,
    )


def evaluate(solver) -> Dict[str, float]:
    """Runs the validators of a Solver.

    Returns:
        Their figures by name.

    Raises:
        UserError: If samples or figures are not finite.
    """
    # ppsci's own lines repeat every figure, beside a loss that is none
    mute = _Mute()
    logger._logger.addFilter(mute)
    try:
        _, groups = solver.eval()
    finally:
        logger._logger.removeFilter(mute)
    figures = {name: value for group in groups.values() for name, value in group.items()}
    lost = [name for name, value in figures.items() if not np.isfinite(value)]
    require(
        not lost,
        f"{', '.join(lost)} is not finite. Did the training diverge?",
    )
    return figures


class _Mute(logging.Filter):
    def filter(self, record):
        return not record.getMessage().startswith("[Eval]")


def is_better(name: str, value: float, than: float) -> bool:
    """Whether a figure that has a direction is better than another of the same name."""
    return value > than if BETTER[name] == "higher" else value < than


# --8<-- [end:validator]


# --8<-- [start:critic_validator]
def make_critic_validator(cfg, generator, critic, images, labels: np.ndarray, count: int):
    """Evaluates pictures by the critic: how far it tells fakes from pictures it never saw.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        critic: The critic D.
        images: Test pictures as the critic's input, float32 [N, C, H, W].
        labels: Their labels, int64 [N]; given to the generator if it is conditional.
        count: How many are compared, if there are as many.
    """
    count = min(count, len(images))
    rng = np.random.default_rng((cfg.seed, streams.EVALUATION))
    inputs = {
        "noise": rng.standard_normal((count, generator.noise_dim), "float32"),
        "labels": labels[:count],
        "real": images[:count],
    }

    def figures(samples: str):
        def per_sample(data):
            critic.eval()  # else batch normalisation would take these into its running averages
            value, logits = critic.score(data[samples])
            critic.train()
            columns = [value]
            if logits is not None:
                columns.append(functions.correct(logits, data["labels"]))
            return paddle.stack(columns, 1)

        return per_sample

    def metric(outputs):
        real, fake = outputs["real"].mean(0), outputs["fake"].mean(0)
        result = {"test_wasserstein": real[0] - fake[0]}
        if len(real) > 1:
            result.update(test_accuracy_real=real[1], test_accuracy_fake=fake[1])
        return result

    # In the place of the pictures, which ppsci would else gather from all batches.
    output_expr = {"real": figures("real"), "fake": figures("fake")}
    return make_validator(cfg, "critic", inputs, output_expr, metric, {"network": "critic"})


# --8<-- [end:critic_validator]


# --8<-- [start:feature_validator]
def make_feature_validator(
    cfg,
    generator,
    network,
    images: np.ndarray,
    count: int,
    names: Tuple[str, str],
    extra: Callable[[np.ndarray], Dict[str, float]] = lambda _: {},
    test_images: Optional[np.ndarray] = None,
):
    """Evaluates pictures by a classifier: a score of its classes, a distance of its features.

    The features of each batch are kept, not its pictures: for the Inception and 50,000
    samples 0.4 GB.

    Args:
        cfg: The script's configuration.
        generator: The generator G; labels are drawn uniformly if it is conditional.
        network: Has `features(images)`, `logits(features)`, `title` and `sha256`.
        images: The training set that the distance is taken to, uint8 [N, C, H, W].
        count: Number of samples.
        names: Of the score and of the distance.
        extra: Further figures, of the predicted classes [count].
        test_images: Real pictures for the same figures beside, if wanted.

    Raises:
        UserError: If there are fewer samples than the score has splits.
    """
    require(
        count >= SPLITS,
        f"{count} samples are too few: the score is a mean over {SPLITS} splits of them. Raise "
        "EVAL.num_samples (in training, TRAIN.eval_num_samples).",
    )
    rng = np.random.default_rng((cfg.seed, streams.EVALUATION))
    inputs = {"noise": rng.standard_normal((count, generator.noise_dim), "float32")}
    if "labels" in generator.input_keys:
        inputs["labels"] = rng.integers(generator.num_classes, size=count)
    reference = reference_statistics(images, network)

    def metric(features):
        probabilities = classify(network, features, cfg.seed)
        score, deviation = functions.inception_score(probabilities, SPLITS)
        distance = metrics.frechet_distance(metrics.mean_and_covariance(features), reference)
        return {
            names[0]: score,
            f"{names[0]}_deviation": deviation,
            names[1]: distance,
            **extra(probabilities.argmax(1)),
        }

    real, real_count = {}, 0
    # as many as there are samples, since such distances fall with the number
    if test_images is not None and min(count, len(test_images)) >= SPLITS:
        real_count = min(count, len(test_images))
        rows = rng.permutation(len(test_images))[:real_count]
        real = metric(read_features(test_images[rows], network, "test pictures"))
    progress = Progress(f"samples through the {network.title}", count)

    def features(data):
        progress.add(len(data["fake"]))
        return network.features(pictures.to_levels(data["fake"], generator.low).floor())

    return make_validator(
        cfg,
        "generated",
        inputs,
        {"fake": features},
        lambda outputs: metric(outputs["fake"]),
        {
            "network": network.title,
            "sha256": network.sha256,
            "reference": f"{len(images)} training pictures",
        },
        real,
        real_count,
    )


def make_inception_validator(cfg, generator, images: np.ndarray, count: int):
    """Inception Score and FID by the Inception of 2015-12-05, which is downloaded if absent.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        images: The training set that FID is taken to, uint8 [N, 3, H, W].
        count: Number of samples.

    Raises:
        UserError: If the weights can't be had, or there are too few samples.
    """
    path = downloads.fetch(
        cfg.EVAL.inception_weights,
        inception.ADDRESSES,
        cfg.EVAL.inception_sha256,
        "EVAL.inception=false leaves Inception Score and FID out.",
        "EVAL.inception_weights",
    )
    network = inception.Inception(path, cfg.EVAL.inception_sha256)
    return make_feature_validator(
        cfg, generator, network, images, count, ("inception_score", "fid")
    )


# --8<-- [end:feature_validator]
