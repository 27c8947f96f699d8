# SPDX-License-Identifier: Apache-2.0
"""mode=infer: samples as pictures."""

from __future__ import annotations

import os
from os import path as osp
from typing import Callable
from typing import Dict
from typing import Optional

import numpy as np
from PIL import Image
from ppsci.utils import logger

from modes.samplers import Sampler
from modes.samplers import draw_inputs
from modes.samplers import exported_sampler
from modes.samplers import live_sampler
from modes.samplers import load
from support import pictures
from support.errors import require


# --8<-- [start:infer]
def infer(cfg, generator, save: Callable[[np.ndarray, str], None]) -> None:
    """Draws samples of trained weights, or of an exported generator, and writes them.

    Args:
        cfg: The script's configuration; see INFER.
        generator: The generator G; of an exported one only its kind is used.
        save: Writes samples [N, ...] to a folder.

    Raises:
        UserError: If there is nothing to draw from, or no such class.
    """
    settings = cfg.INFER
    label = settings.label
    require(
        label is None or (type(label) is int and 0 <= label < generator.num_classes),
        f"INFER.label={label}: the generator knows {generator.num_classes} classes, from 0 on."
        if generator.num_classes
        else f"INFER.label={label}: the generator is not conditional. Leave it out.",
    )
    if settings.pretrained_model_path is None:
        sample = exported_sampler(cfg, settings.engine)
    else:
        load(cfg, generator)
        sample = live_sampler(generator)
    save(draw(cfg, generator, sample, settings.num_samples, label), cfg.output_dir)
    if settings.frames:
        inputs = interpolate(draw_inputs(cfg, generator, 2, label), settings.frames)
        # A batch of frames alone, all alike, would be normalised by how little they differ.
        others = draw_inputs(cfg, generator, settings.batch_size, label)
        inputs = {name: np.concatenate([x, others[name]]) for name, x in inputs.items()}
        frames = pictures.to_uint8(sample(inputs)[: settings.frames], generator.low)
        save_frames(frames, cfg.output_dir)
    logger.info(f"Wrote {settings.num_samples} samples to {cfg.output_dir}")


def draw(cfg, generator, sample: Sampler, count: int, label: Optional[int]) -> np.ndarray:
    """Samples, in whole batches: so that none depends on how many are asked for."""
    size = cfg.INFER.batch_size
    inputs = draw_inputs(cfg, generator, -(-count // size) * size, label)
    parts = [{k: v[i : i + size] for k, v in inputs.items()} for i in range(0, count, size)]
    return np.concatenate([sample(part) for part in parts])[:count]


def interpolate(inputs: Dict[str, np.ndarray], frames: int) -> Dict[str, np.ndarray]:
    """From the first noise to the second along the sphere (arXiv 1609.04468, section 2.1).

    Normal noise of many dimensions lies near a sphere; on a straight line between two, the
    middle would be nearer to the origin than anything the generator has seen.

    Args:
        inputs: Two noises, and a label for both where there are labels.
        frames: How many steps, the ends included.
    """
    one, two = inputs["noise"]
    lengths = np.linalg.norm(one), np.linalg.norm(two)
    angle = np.arccos(np.clip((one / lengths[0]) @ (two / lengths[1]), -1, 1))
    share = np.linspace(0, 1, frames)[:, None]
    noise = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * two) / np.sin(angle)
    result = {"noise": noise.astype("float32")}
    if "labels" in inputs:
        result["labels"] = inputs["labels"][:1].repeat(frames)
    return result


def save_frames(images: np.ndarray, folder: str, enlarge: int = 4) -> None:
    """Writes pictures, uint8 [N, C, H, W], as a strip and as a GIF that goes there and back."""
    strip = pictures.make_grid(images, columns=len(images))
    Image.fromarray(strip).save(osp.join(folder, "interpolation.png"))
    frames = [
        Image.fromarray(image.transpose(1, 2, 0).repeat(3 // len(image), 2)).resize(
            (image.shape[2] * enlarge, image.shape[1] * enlarge), Image.Resampling.NEAREST
        )
        for image in images
    ]
    there_and_back = frames + frames[-2:0:-1]
    there_and_back[0].save(
        osp.join(folder, "interpolation.gif"),
        save_all=True,
        append_images=there_and_back[1:],
        duration=80,
        loop=0,
    )


def save_pictures(images: np.ndarray, folder: str, low: float) -> None:
    """Writes samples [N, C, H, W] as PNG files, and as a grid."""
    os.makedirs(osp.join(folder, "pictures"), exist_ok=True)
    width = len(str(len(images) - 1))
    for number, image in enumerate(pictures.to_uint8(images, low)):
        picture = Image.fromarray(image.transpose(1, 2, 0).squeeze())
        picture.save(osp.join(folder, "pictures", f"{number:0{width}d}.png"))
    pictures.save_grid(images, osp.join(folder, "samples.png"), low)


# --8<-- [end:infer]
