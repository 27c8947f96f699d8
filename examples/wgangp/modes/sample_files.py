# SPDX-License-Identifier: Apache-2.0
"""Files of samples: PNG pictures with a grid, and a strip with a GIF between two noises."""

from __future__ import annotations

import os
from os import path as osp

import numpy as np
from PIL import Image

from support import pictures


def save_pictures(images: np.ndarray, folder: str, low: float) -> None:
    """Writes samples as PNG files and as a grid.

    Args:
        images: Generator output in [low, 1], [N, C, H, W].
        folder: An existing folder; gets pictures/ and samples.png.
        low: What black is; white is 1.
    """
    os.makedirs(osp.join(folder, "pictures"), exist_ok=True)
    width = len(str(len(images) - 1))
    for number, image in enumerate(pictures.to_uint8(images, low)):
        picture = Image.fromarray(image.transpose(1, 2, 0).squeeze())
        picture.save(osp.join(folder, "pictures", f"{number:0{width}d}.png"))
    pictures.save_grid(images, osp.join(folder, "samples.png"), low)


def save_frames(images: np.ndarray, folder: str, enlarge: int = 4) -> None:
    """Writes pictures as a strip, and as a GIF that plays them forwards and backwards.

    Args:
        images: uint8 [N, C, H, W].
        folder: An existing folder; gets interpolation.png and interpolation.gif.
        enlarge: Screen pixels for each pixel of a picture.
    """
    strip = pictures.make_grid(images, columns=len(images))
    Image.fromarray(strip).save(osp.join(folder, "interpolation.png"))
    frames = [
        Image.fromarray(image.transpose(1, 2, 0).repeat(3 // len(image), 2)).resize(
            (image.shape[2] * enlarge, image.shape[1] * enlarge), Image.Resampling.NEAREST
        )
        for image in images
    ]
    forwards_and_backwards = frames + frames[-2:0:-1]
    forwards_and_backwards[0].save(
        osp.join(folder, "interpolation.gif"),
        save_all=True,
        append_images=forwards_and_backwards[1:],
        duration=80,
        loop=0,
    )
