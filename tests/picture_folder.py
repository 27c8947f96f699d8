# SPDX-License-Identifier: Apache-2.0
"""Pictures of random pixels, and a folder of them in several formats."""

import io

import numpy as np
from PIL import Image

CLASSES = ("cats", "dogs", "owls")


def noise(width, height, channels=3, seed=0):
    """A picture of random pixels: any error of place or order shows in it."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=shape, dtype="uint8"))


def encode(picture, kind="PNG", **options):
    """The content of a picture's file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(place):
    """Writes 24 pictures of three classes, in odd sizes and several formats; and other files."""
    contents = {
        f"{CLASSES[n % 3]}/{n:02}.png": encode(noise(41 + 7 * n, 120 - 3 * n, seed=n))
        for n in range(19)
    }
    contents |= {
        "cats/transparent.png": encode(noise(64, 64, 4, seed=20)),
        "dogs/grey.png": encode(noise(50, 80, 1, seed=19)),
        "owls/SHOUTED.JPG": encode(noise(90, 70, seed=21), "JPEG"),
        "owls/more/deeper.png": encode(noise(64, 64, seed=22)),  # the top folder counts
        "dogs/zz.webp": encode(noise(64, 65, seed=23), "WEBP", lossless=True),
    }
    for name in (
        *("cats/notes.txt", "cats/.hidden.png", "__MACOSX/cats/._00.png"),
        *("cats/.ipynb_checkpoints/copy.png", "README"),
    ):
        contents[name] = b"none of this is to be read"
    for name, content in contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place
