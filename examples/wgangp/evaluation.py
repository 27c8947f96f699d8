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

import json
import shlex
import sys
from os import path as osp
from typing import Callable
from typing import Dict

import numpy as np
import paddle
import ppsci
from omegaconf import OmegaConf
from ppsci.utils import logger

import files
import functions
import pictures
import streams
from runtime import require


# --8<-- [start:evaluate]
def make_validator(cfg, inputs: Dict[str, np.ndarray], labels, output_expr, metric):
    """A SupervisedValidator that turns each batch of fakes into the figures of its metric.

    Args:
        cfg: The script's configuration.
        inputs: Arrays by input key, "noise" among them.
        labels: Arrays that the metric sees beside the outputs.
        output_expr: Figures per sample, as functions of inputs and fakes.
        metric: A function of the gathered (outputs, labels), which returns named tensors.
    """
    return ppsci.validate.SupervisedValidator(
        {
            "dataset": {"name": "NamedArrayDataset", "input": inputs, "label": labels},
            "batch_size": cfg.EVAL.batch_size,
            "sampler": {"name": "BatchSampler", "shuffle": False, "drop_last": False},
        },
        # ppsci asks for a loss, too; what there is to know is in the metric
        ppsci.loss.FunctionalLoss(lambda *_: {"none": paddle.zeros([])}),
        output_expr,
        metric={"figures": ppsci.metric.FunctionalMetric(metric)},
        name="generated",
    )


def make_image_validator(cfg, generator, critic, images: np.ndarray, labels: np.ndarray):
    """Evaluates pictures by the critic: how far it tells fakes from pictures it never saw.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        critic: The critic D.
        images: Test pictures as the critic's input, float32 [N, C, H, W].
        labels: Their labels, int64 [N]; given to the generator if it is conditional.
    """
    count = min(cfg.EVAL.num_samples, len(images))
    rng = np.random.default_rng((cfg.seed, streams.EVALUATION))
    inputs = {
        "noise": rng.standard_normal((count, generator.noise_dim), "float32"),
        "labels": labels[:count],
        "real": images[:count],
    }

    def figures(samples: str):
        def per_sample(data):
            value, logits = critic.score(data[samples])
            columns = [value]
            if logits is not None:
                columns.append(functions.correct(logits, data["labels"]))
            return paddle.stack(columns, 1)

        return per_sample

    def metric(outputs, _):
        real, fake = outputs["real"].mean(0), outputs["fake"].mean(0)
        result = {"test_wasserstein": real[0] - fake[0]}
        if len(real) > 1:
            result.update(test_accuracy_real=real[1], test_accuracy_fake=fake[1])
        return result

    # In the place of the pictures, which ppsci would else gather from all batches.
    output_expr = {"real": figures("real"), "fake": figures("fake")}
    return make_validator(cfg, inputs, {}, output_expr, metric)


def evaluate(solver) -> Dict[str, float]:
    """Runs the validator of a Solver.

    Returns:
        The metric's figures by name.
    """
    _, groups = solver.eval()
    return {name: float(value) for name, value in groups["figures"].items()}


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
    files.load_weights(
        generator, cfg.EVAL.pretrained_gen_model_path, "EVAL.pretrained_gen_model_path"
    )
    if cfg.EVAL.pretrained_dis_model_path is None:
        logger.warning(
            "EVAL.pretrained_dis_model_path is null: what only the critic can tell is left out."
        )
        return None
    files.load_weights(critic, cfg.EVAL.pretrained_dis_model_path, "EVAL.pretrained_dis_model_path")
    return critic


def report(cfg, generator, validator, draw: Callable[[str], None]) -> None:
    """mode=eval: evaluates a generator; writes metrics.json and a picture.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        validator: Evaluates it; None where there is nothing to measure.
        draw: Writes a picture of samples to a path.
    """
    figures = {}
    if validator is not None:
        figures = evaluate(
            ppsci.solver.Solver(
                generator,
                output_dir=cfg.output_dir,
                log_freq=cfg.log_freq,
                seed=cfg.seed,
                device=cfg.device,
                validator={"generated": validator},
                eval_with_no_grad=True,
            )
        )
    draw(osp.join(cfg.output_dir, "samples.png"))
    weights = {
        key: {"source": source, "sha256": files.sha256(files.weights_path(source, key))}
        for key, source in cfg.EVAL.items()
        if key.startswith("pretrained_") and source is not None
    }
    content = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": cfg.seed,
        "num_samples": len(validator.data_loader.dataset) if validator else 0,
        "weights": weights,
        "metrics": figures,
    }
    # a training's config.yaml in the same folder is left alone
    OmegaConf.save(cfg, osp.join(cfg.output_dir, "config_eval.yaml"), resolve=True)
    path = osp.join(cfg.output_dir, "metrics.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    for name, value in figures.items():
        logger.info(f"{name}: {value:.6g}")
    logger.info(f"Wrote {path}")


# --8<-- [end:evaluate]


def grid_inputs(cfg, generator, rows: int, columns: int) -> Dict[str, paddle.Tensor]:
    """Fixed noise for a grid; with labels, a column holds one class, a row one noise."""
    rng = np.random.default_rng((cfg.seed, streams.GRID))
    if "labels" in generator.input_keys:
        noise = rng.standard_normal((rows, 1, generator.noise_dim), "float32")
        noise = noise.repeat(columns, 1).reshape(rows * columns, -1)
        labels = np.tile(np.arange(columns), rows)
        return {"noise": paddle.to_tensor(noise), "labels": paddle.to_tensor(labels)}
    noise = rng.standard_normal((rows * columns, generator.noise_dim), "float32")
    return {"noise": paddle.to_tensor(noise)}


def sample(generator, inputs: Dict[str, paddle.Tensor]) -> np.ndarray:
    """Samples of given noise (and labels), without a graph."""
    with paddle.no_grad():
        return generator(inputs)["fake"].numpy()


def make_grid_drawer(cfg, generator, low: float) -> Callable[[str], None]:
    """A function that writes a 10x10 grid of samples from fixed noise to a path.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        low: What black is in the generator's output; white is 1.
    """
    inputs = grid_inputs(cfg, generator, 10, 10)
    return lambda path: pictures.save_grid(sample(generator, inputs), path, low)
