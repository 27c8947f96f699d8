# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Evaluation: validators, mode=eval with its report, and samples of fixed noise."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import sys
import time
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Tuple

import numpy as np
import paddle
import paddle.distributed as dist
import ppsci
from omegaconf import OmegaConf
from ppsci.utils import logger
from scipy.special import softmax

import files
import functions
import inception
import metrics
import pictures
import streams
from runtime import SILENCE
from runtime import UserError
from runtime import require

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
    path = files.fetch(
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
    path = osp.expanduser(f"{files.CACHE}/statistics/wgangp/{digest.hexdigest()[:32]}.npz")
    if osp.exists(path):
        try:
            kept = files.read_npz(path)
            return kept["mean"], kept["covariance"]
        except (UserError, KeyError) as error:
            logger.warning(f"{error} It is made anew.")
    logger.info(f"Statistics of {len(images)} training pictures; they are kept in {path}")
    features = read_features(images, network, "training pictures")
    mean, covariance = metrics.mean_and_covariance(features)
    try:
        files.write_npz(path, {"mean": mean, "covariance": covariance})
    except OSError as error:
        logger.warning(f"The statistics could not be kept ({error}): they are made anew each time.")
    return mean, covariance


class Progress:
    """Tells each half minute how far something slow has come.

    Args:
        what: What is counted.
        total: How many; the count begins anew behind it.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total, self.count = what, total, 0

    def add(self, count: int) -> None:
        now = time.perf_counter()
        if self.count == 0:
            self.start = self.told = now
        elif now - self.told >= SILENCE:
            self.told = now
            left = (now - self.start) / self.count * (self.total - self.count)
            logger.info(
                f"{self.count} of {self.total} {self.what}, "
                f"{time.strftime('%H:%M:%S', time.gmtime(left))} left"
            )
        self.count += count
        if self.count >= self.total:
            self.count = 0


# --8<-- [end:feature_validator]


def load_networks(cfg, generator, critic):
    """Loads the weights that EVAL.* name.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        critic: The critic D.

    Returns:
        The critic, or None where EVAL.pretrained_dis_model_path is null: then what only a
        critic can tell is left out.

    Raises:
        UserError: If the generator's are not named, or a file is absent or does not fit.
    """
    require(
        cfg.EVAL.pretrained_gen_model_path is not None,
        "mode=eval evaluates trained weights: name them by EVAL.pretrained_gen_model_path="
        "PATH_OR_URL (and EVAL.pretrained_dis_model_path for what the critic can tell).",
    )
    key = "EVAL.pretrained_gen_model_path"
    files.load_weights(generator, cfg.EVAL.pretrained_gen_model_path, key, "generator")
    if cfg.EVAL.pretrained_dis_model_path is None:
        logger.warning(
            "EVAL.pretrained_dis_model_path is null: what only the critic can tell is left out."
        )
        return None
    key = "EVAL.pretrained_dis_model_path"
    files.load_weights(critic, cfg.EVAL.pretrained_dis_model_path, key, "discriminator")
    return critic


# --8<-- [start:report]
def report(cfg, generator, validators: Dict[str, Any], draw: Callable[[str], None]) -> None:
    """mode=eval: evaluates a generator; prints a table, writes metrics.json and a picture.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        validators: Evaluate it; none where there is nothing to measure.
        draw: Writes a picture of samples to a path.
    """
    weights = {
        key: {"source": source, "sha256": files.sha256(files.weights_path(source, key))}
        for key, source in cfg.EVAL.items()
        if key.startswith("pretrained_") and source is not None
    }
    rows = {}
    for name, validator in validators.items():
        rows.update(make_rows(evaluate(make_solver(cfg, generator, {name: validator})), validator))
    if dist.get_rank() > 0:
        return  # the first process writes
    draw(osp.join(cfg.output_dir, "samples.png"))
    content = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": cfg.seed,
        "weights": weights,
        "metrics": rows,
    }
    # a training's config.yaml in the same folder is left alone
    OmegaConf.save(cfg, osp.join(cfg.output_dir, "config_eval.yaml"), resolve=True)
    path = osp.join(cfg.output_dir, "metrics.json")
    with files.replacing(path) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    for name, part in weights.items():
        logger.info(f"Evaluated {part['source']} (EVAL.{name}), SHA-256 {part['sha256'][:12]}")
    if rows:
        logger.info(f"Figures of seed {cfg.seed}:\n{make_table(rows)}")
    logger.info(f"Wrote {path}")


def make_rows(figures: Dict[str, float], validator) -> Dict[str, Dict[str, Any]]:
    """A validator's figures by name, with what belongs to each."""
    real = validator.real
    return {
        name: {
            "value": value,
            "deviation": figures.get(f"{name}_deviation"),
            "num_samples": len(validator.data_loader.dataset),
            "better": BETTER.get(name),
            "real": real.get(name),
            "real_deviation": real.get(f"{name}_deviation"),
            "real_num_samples": validator.real_count if name in real else None,
            "measured_by": validator.measured_by,
        }
        for name, value in figures.items()
        if not name.endswith("_deviation")
    }


def make_table(rows: Dict[str, Dict[str, Any]]) -> str:
    """Rows of `make_rows` as a table for people."""

    def number(value: Optional[float]) -> str:
        return "-" if value is None else f"{value:.5g}"

    lines = [("figure", "value", "deviation", "real", "better", "samples", "measured by")]
    for name, row in rows.items():
        by = row["measured_by"] or {}
        checksum = f" ({by['sha256'][:12]})" if "sha256" in by else ""
        lines.append(
            (
                *(name, number(row["value"]), number(row["deviation"]), number(row["real"])),
                *(row["better"] or "-", str(row["num_samples"])),
                by.get("network", "-") + checksum,
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


# --8<-- [end:report]


def grid_inputs(cfg, generator, rows: int, columns: int) -> Dict[str, paddle.Tensor]:
    """Fixed noise for a grid; with labels, a column holds one class, a row one noise."""
    rng = np.random.default_rng((cfg.seed, streams.GRID))
    if "labels" in generator.input_keys:
        noise = rng.standard_normal((rows, 1, generator.noise_dim), "float32")
        noise = noise.repeat(columns, 1).reshape(rows * columns, -1)
        labels = np.tile(np.arange(columns) % generator.num_classes, rows)
        return {"noise": paddle.to_tensor(noise), "labels": paddle.to_tensor(labels)}
    noise = rng.standard_normal((rows * columns, generator.noise_dim), "float32")
    return {"noise": paddle.to_tensor(noise)}


def sample(generator, inputs: Dict[str, paddle.Tensor]) -> np.ndarray:
    """Samples of given noise (and labels), without a graph."""
    was_training = generator.training
    generator.eval()  # running averages are of training's batches only
    with paddle.no_grad():
        fake = generator(inputs)["fake"].numpy()
    if was_training:
        generator.train()
    return fake


def make_grid_drawer(cfg, generator) -> Callable[[str], None]:
    """A function that writes a 10x10 grid of samples from fixed noise to a path."""
    inputs = grid_inputs(cfg, generator, 10, 10)
    return lambda path: pictures.save_grid(sample(generator, inputs), path, generator.low)
