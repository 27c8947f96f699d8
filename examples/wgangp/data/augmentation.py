# SPDX-License-Identifier: Apache-2.0
"""Random crops, flips and colour jitter of 64x64 pictures, applied when they are read."""

from __future__ import annotations

from typing import Callable
from typing import Protocol

import numpy as np

SIZE = 64  # height and width of what a critic reads
MARGIN = 8  # Before a random crop, a picture is larger by this many pixels.


class Augmentation(Protocol):
    """The settings of the section DATA that `make_prepare` reads."""

    crop: bool  # a random 64x64 window of a larger picture
    flip: bool  # left and right, for half of the pictures
    jitter: float  # largest relative change of brightness, contrast and saturation


def make_prepare(
    settings: Augmentation,
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Makes the function that turns stored pictures into the critic's input.

    Args:
        settings: What to change at random.

    Returns:
        A function of uint8 pictures [N, 3, S, S] and a random generator. It returns float32
        [N, 3, 64, 64] in [-1, 1].
    """

    def prepare(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, _, size, _ = images.shape
        if settings.crop:
            top, left = rng.integers(size - SIZE + 1, size=(2, count, 1))
            rows, columns = top + np.arange(SIZE), left + np.arange(SIZE)
            number, channel = np.arange(count)[:, None, None, None], np.arange(3)[:, None, None]
            images = images[number, channel, rows[:, None, :, None], columns[:, None, None, :]]
        if settings.flip:
            flipped = rng.random(count) < 0.5
            images = np.where(flipped[:, None, None, None], images[..., ::-1], images)
        pictures = images.astype("float32") / 255
        if settings.jitter:
            factors = 1 + settings.jitter * rng.uniform(-1, 1, (3, count, 1, 1, 1))
            brightness, contrast, saturation = factors.astype("float32")
            pictures = pictures * brightness
            mean = pictures.mean((1, 2, 3), keepdims=True)
            pictures = mean + contrast * (pictures - mean)
            grey = pictures.mean(1, keepdims=True)
            pictures = (grey + saturation * (pictures - grey)).clip(0, 1)
        return pictures * 2 - 1

    return prepare


def middle(images: np.ndarray) -> np.ndarray:
    """The middle 64x64 pixels of pictures [N, 3, S, S]."""
    start = (images.shape[2] - SIZE) // 2
    return images[:, :, start : start + SIZE, start : start + SIZE]
