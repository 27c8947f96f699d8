# SPDX-License-Identifier: Apache-2.0
"""Output folders like those of runs, for the tests of pages."""

import json

import numpy as np
import yaml
from PIL import Image

from support import settings

ORIGIN = {
    "script": "wgangp_toy",
    "command": "python wgangp_toy.py TRAIN.epochs=4 'DATA.mode=<b>8gaussians</b>'",
    "date": "2026-01-02 03:04",
    "versions": {"python": "3.11.7", "paddlepaddle": "3.2.2"},
    "machine": {"processor": "Some <i>CPU</i>", "cores": 2, "device": "cpu", "processes": 1},
}
SHADES = {0: 10, 500: 90, 1000: 170, 1500: 250}  # of the pictures, by iteration


def make_training(folder, overrides=None, shift=0.0):
    """Makes the folder of a toy training of four epochs with two evaluations.

    Args:
        folder: The folder to make; its name may hold anything.
        overrides: Settings by key that differ from the defaults, in addition to TRAIN.epochs=3.
        shift: What is added to each curve.
    """
    (folder / "samples").mkdir(parents=True)
    for step, shade in SHADES.items():
        Image.new("RGB", (60, 40), (shade,) * 3).save(folder / "samples" / f"iteration_{step}.png")
    lines = []
    for step in range(100, 1501, 100):
        record = {"step": step, "seconds": step * 0.1, "critic_loss": -1.0 + shift}
        record |= {"generator_loss": shift, "wasserstein": 100 / step, "learning_rate": 1e-4}
        if step in (700, 1500):
            record |= {"modes": 7.0, "wasserstein_2": 0.123456 + shift, "evaluated": "average"}
        lines.append(json.dumps(record) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    real = {"real": 0.0987, "real_deviation": 0.011, "real_num_samples": 2500, "better": "lower"}
    figures = {"wasserstein_2": {**real, "num_samples": 2500, "measured_by": None}}
    (folder / "run.json").write_text(json.dumps({**ORIGIN, "figures": figures}))
    write_settings(folder / "config.yaml", {"TRAIN.epochs": 3, **(overrides or {})})
    return folder


def write_settings(path, overrides):
    """Writes the toy script's settings, with references resolved as far as tests need."""
    defaults = settings.load_defaults("wgangp_toy")
    nested = {**defaults, "output_dir": "/somewhere"}
    rate = overrides.get("TRAIN.learning_rate", defaults["TRAIN"]["learning_rate"])
    values = {"TRAIN.critic_learning_rate": rate, "TRAIN.critic_optimizer": "Adam", **overrides}
    for key, value in values.items():
        *sections, name = key.split(".")
        part = nested
        for section in sections:
            part = part[section]
        part[name] = value
    path.write_text(yaml.safe_dump(nested))


def make_evaluation(folder):
    """Makes the folder of mode=eval, or adds an evaluation to one of a training."""
    folder.mkdir(exist_ok=True)
    row = {"value": 7.874, "deviation": 0.1234, "num_samples": 50000, "better": "higher"}
    row |= {"real": 9.5, "real_deviation": None, "real_num_samples": 10000}
    row["measured_by"] = {"network": "Classifier <b>X</b>", "sha256": "ab" * 32}
    weights = {"pretrained_gen_model_path": {"source": "/w/<model>", "sha256": "cd" * 32}}
    content = {**ORIGIN, "command": "python wgangp_toy.py mode=eval", "weights": weights}
    content["metrics"] = {"classifier_score": row}
    (folder / "metrics.json").write_text(json.dumps(content))
    write_settings(folder / "config_eval.yaml", {"EVAL.num_samples": 50000})
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
    Image.fromarray(noise.repeat(2, 0).repeat(2, 1)).save(folder / "samples.png")
    return folder
