# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run's samples/, thinned and made small enough for a page."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import os
import re
from os import path as osp
from typing import Dict
from typing import List
from typing import Tuple

import numpy as np
from PIL import Image

MAX_FRAMES = 40  # frames of a page
MAX_BYTES = 1_000_000  # of all pictures of a page; data URIs take a third more
WIDTH = 720  # largest width of a frame in pixels


@dataclasses.dataclass
class Frame:
    """A picture of a run.

    Args:
        step: The iteration.
        content: The picture as WebP.
        size: Width and height in pixels.
        is_reduced: Whether enlarged pixels became single ones.
    """

    step: int
    content: bytes
    size: Tuple[int, int]
    is_reduced: bool

    @property
    def uri(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(self.content).decode()}"


def find_pictures(folder: str) -> Dict[int, str]:
    """Paths of a run's pictures by iteration, in order."""
    samples = osp.join(folder, "samples")
    names = os.listdir(samples) if osp.isdir(samples) else []
    found = {name: re.fullmatch(r"iteration_(\d+)\.png", name) for name in names}
    steps = {int(match[1]): osp.join(samples, name) for name, match in found.items() if match}
    return dict(sorted(steps.items()))


def choose(paths: Dict[int, str], max_bytes: int = MAX_BYTES) -> List[Frame]:
    """Chooses at most MAX_FRAMES pictures at equal distances, the first and the last among them.

    Args:
        paths: Paths by iteration.
        max_bytes: How many bytes the frames may have together; two frames may have more.
    """
    steps, count = list(paths), min(MAX_FRAMES, len(paths))
    make = functools.cache(lambda step: make_frame(paths[step], step))
    while count:
        places = np.linspace(0, len(steps) - 1, count).round().astype(int)
        frames = [make(steps[place]) for place in places]
        size = sum(len(frame.content) for frame in frames)
        if size <= max_bytes or count <= 2:
            return frames
        count = max(min(count - 1, count * max_bytes // size), 2)
    return []


def make_frame(path: str, step: int = 0) -> Frame:
    """Makes a small WebP of a picture: pixels that were enlarged become single ones again."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    half = pixels[::2, ::2]
    is_reduced = np.array_equal(half.repeat(2, 0).repeat(2, 1), pixels)
    small = Image.fromarray(half if is_reduced else pixels)
    small.thumbnail((WIDTH, 4 * WIDTH))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=80)
    return Frame(step, file.getvalue(), small.size, is_reduced)


def save_animation(paths: Dict[int, str], path: str, width: int = 400, rate: int = 200) -> int:
    """Writes all pictures as a GIF; the last one stays ten times as long as the others.

    Args:
        paths: Paths by iteration; at least one.
        path: The GIF to write.
        width: Its width in pixels.
        rate: Milliseconds of a picture.

    Returns:
        The number of pictures.
    """
    frames = []
    for name in paths.values():
        with Image.open(name) as picture:
            size = width, max(1, width * picture.height // picture.width)
            # Each frame has its own palette. GIFs store dithered colours badly.
            small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            frames.append(small.quantize(64, dither=Image.Dither.NONE))
    durations = [rate] * (len(frames) - 1) + [10 * rate]
    more = {"save_all": True, "append_images": frames[1:], "loop": 0}
    frames[0].save(path, "GIF", duration=durations, **more)
    return len(frames)
