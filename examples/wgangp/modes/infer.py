# SPDX-License-Identifier: Apache-2.0
"""mode=infer: samples of trained weights or of an exported generator."""

from __future__ import annotations

import numpy as np
import paddle
from omegaconf import DictConfig
from ppsci.utils import logger

from data.classes import find_label
from measures.truncation import count_drawn
from measures.truncation import sample_flattest
from modes.experiment import Experiment
from modes.exported_files import export_base
from modes.exported_files import read_export
from modes.recognition import adopt_settings
from modes.sample_files import replacing_samples
from modes.sample_files import save_frames
from modes.samplers import Inputs
from modes.samplers import Sampler
from modes.samplers import draw_inputs
from modes.samplers import exported_sampler
from modes.samplers import live_sampler
from modes.samplers import load_generator
from networks.base import Generator
from pages import origin
from support import pictures
from support import sweeps
from support.errors import require


def infer(experiment: Experiment) -> None:
    """Draws samples of trained weights or of an exported generator, and writes them.

    Args:
        experiment: Its section INFER says what to draw from and how much.

    Raises:
        UserError: If there is nothing to draw from, a file is damaged, or there is no such class.
    """
    cfg, settings = experiment.cfg, experiment.cfg.INFER
    require(
        experiment.has_pictures or not settings.frames,
        f"INFER.frames={settings.frames} is for pictures; points have no strip. Leave it out.",
    )
    if settings.pretrained_model_path is None:
        require(
            settings.pretrained_sha256 is None,
            "INFER.pretrained_sha256 needs INFER.pretrained_model_path=PATH_OR_URL: exported files "
            "have their checksums in a file next to them.",
        )
        path = export_base(settings.export_path, experiment.script)
        experiment.weights = read_export(path, settings.engine)
        adopt_settings(experiment, {"generator": experiment.weights})
        _require_statistics(experiment)
        generator, _ = experiment.make_networks()
        sample = exported_sampler(path, settings.engine)
    else:
        generator = load_generator(experiment)
        sample = live_sampler(generator)
    classes = experiment.weights.classes
    settings.label = find_label(settings.label, classes, generator.num_classes, "INFER.label")
    with replacing_samples(cfg.output_dir, sweeps.folder_key()) as folder:
        samples = draw_samples(generator, sample, settings, cfg.seed)
        experiment.save_samples(samples, generator, folder)
        if settings.frames:
            frames = draw_frames(generator, sample, settings, cfg.seed)
            save_frames(pictures.to_uint8(frames, generator.low), folder)
    content = origin.describe(experiment.script, paddle.get_device(), processes=1)
    kept = experiment.weights
    content["weights"] = {"source": kept.source, "sha256": kept.sha256}
    origin.save(cfg.output_dir, origin.INFER_NAME, content)
    logger.info(f"Wrote {settings.num_samples} samples to {cfg.output_dir}")


def _require_statistics(experiment: Experiment) -> None:
    """Refuses other statistics of batch normalisation than those in an exported program."""
    key, notes = "MODEL.gen_net.batch_norm_statistics", experiment.weights.notes
    exported = None if notes is None else notes.settings.get(key)
    given = experiment.cfg.MODEL.gen_net.get("batch_norm_statistics")
    require(
        exported in (None, given),
        f"{key}={given} was given, but the program was exported with {exported}: leave it out, or "
        "export the weights again with it.",
    )


def draw_samples(
    generator: Generator, sample: Sampler, settings: DictConfig, seed: int
) -> np.ndarray:
    """Draws samples in whole batches, so that none depends on how many are asked for.

    Truncation is an exception: it compares all samples.

    Args:
        generator: The generator, for the inputs' shapes.
        sample: Draws a batch.
        settings: The section INFER (num_samples, batch_size, label, truncation).
        seed: Seed of the noise.

    Returns:
        Samples, [num_samples, ...].
    """
    count, size = settings.num_samples, settings.batch_size
    drawn = count_drawn(count, settings.get("truncation", 0))  # Only points have this key.
    inputs = draw_inputs(generator, -(-drawn // size) * size, seed, settings.label)
    if drawn == count:
        return draw_batches(sample, inputs, size)[:count]

    def sample_points(noise):
        return draw_batches(sample, {"noise": noise}, size)

    return sample_flattest(sample_points, inputs["noise"][:drawn], count)


def draw_batches(sample: Sampler, inputs: Inputs, size: int) -> np.ndarray:
    """Draws the samples of inputs, `size` at a time."""
    starts = range(0, len(inputs["noise"]), size)
    parts = [{name: x[start : start + size] for name, x in inputs.items()} for start in starts]
    return np.concatenate([sample(part) for part in parts])


def draw_frames(
    generator: Generator, sample: Sampler, settings: DictConfig, seed: int
) -> np.ndarray:
    """Draws samples between two noises.

    Args:
        generator: The generator, for the inputs' shapes.
        sample: Draws a batch.
        settings: The section INFER (frames, batch_size, label).
        seed: Seed of the noise.

    Returns:
        Samples, [frames, ...].
    """
    ends = draw_inputs(generator, 2, seed, settings.label)
    inputs = interpolate(ends, settings.frames)
    # Frames are alike, so batch normalisation of a batch of frames alone would blow up their
    # small differences. Other samples fill the batch.
    others = draw_inputs(generator, settings.batch_size, seed, settings.label)
    inputs = {name: np.concatenate([x, others[name]]) for name, x in inputs.items()}
    return sample(inputs)[: settings.frames]


def interpolate(inputs: Inputs, frames: int) -> Inputs:
    """Goes from the first noise to the second along the sphere (arXiv 1609.04468, section 2.1).

    Normal noise of many dimensions lies near a sphere. The middle of a straight line between
    two noises would lie nearer to the origin than anything the generator has seen. Parallel and
    opposite noises, as all of one dimension are, have no such arc: these take the straight line.

    Args:
        inputs: Two noises, and a label for each where there are labels.
        frames: Number of noises, the ends included.
    """
    one, two = inputs["noise"].astype("float64")
    lengths = np.linalg.norm(one), np.linalg.norm(two)
    angle = np.arccos(np.clip((one / lengths[0]) @ (two / lengths[1]), -1, 1))
    share = np.linspace(0, 1, frames)[:, None]
    if np.sin(angle) > 1e-6:
        noise = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * two) / np.sin(angle)
    else:
        noise = (1 - share) * one + share * two
    result = {"noise": noise.astype("float32")}
    if "labels" in inputs:
        result["labels"] = inputs["labels"][:1].repeat(frames)
    return result
