# SPDX-License-Identifier: Apache-2.0
"""A user's own pictures, decoded once into an array that is stored for later runs."""

from __future__ import annotations

import hashlib
from os import path as osp
from typing import List
from typing import Optional
from typing import Tuple

import numpy as np
from ppsci.utils import logger

from data.augmentation import MARGIN
from data.augmentation import SIZE
from data.image_set import ImageSet
from data.picture_files import Picture
from data.picture_files import collect
from data.picture_files import decode
from support import storage
from support.errors import require
from support.progress import Progress

TEST_DIVISOR = 10  # one picture in ten is held out for tests


def decode_all(pictures: List[Picture], size: int, skip: bool) -> Tuple[np.ndarray, List[int]]:
    """Decodes pictures.

    Args:
        pictures: What `collect` found.
        size: Height and width of the result.
        skip: Whether damaged pictures are left out, with a warning, or refused.

    Returns:
        uint8 [N, 3, size, size], and the numbers of the N pictures that it holds.

    Raises:
        UserError: For a damaged picture, unless those are left out.
    """
    images, kept = np.empty((len(pictures), 3, size, size), "uint8"), []
    progress = Progress("pictures decoded", len(pictures))
    # A compressed tar is read in its own order: going back means to unpack it from its start.
    order = sorted(range(len(pictures)), key=lambda number: pictures[number].offset)
    for number in order:
        picture = pictures[number]
        progress.add(1)
        try:
            images[number] = decode(picture.read(), size)
            kept.append(number)
        except Exception as error:  # Pillow raises almost anything for a damaged picture.
            text = f"{picture.name} can't be decoded ({error})"
            require(skip, f"{text}. DATA.on_error=skip leaves such pictures out.")
            logger.warning(f"{text}: it is left out.")
    kept.sort()
    return images if len(kept) == len(pictures) else images[kept], kept


def read_pictures(path: str, crop: bool, skip: bool) -> ImageSet:
    """Reads pictures as a training and a test set; a picture's class is the folder it is in.

    One picture in ten is held out for tests. Which ones depends only on the number of pictures.
    The decoded array is stored, and pictures are decoded again if a picture, a name or a setting
    changes.

    Args:
        path: A folder, zip or tar.
        crop: Whether pictures are decoded larger, for random crops.
        skip: Whether damaged pictures are left out.

    Raises:
        UserError: If the place or a picture can't be read, or there are fewer than 10 pictures.
    """
    path, size = osp.abspath(osp.expanduser(path)), SIZE + (MARGIN if crop else 0)
    pictures, stack = collect(path)
    with stack:
        digest = hashlib.sha256(f"{path} {size} {skip}".encode())
        for picture in pictures:
            digest.update(f"{picture.name}\0{picture.version}\0".encode())
        stored = osp.expanduser(f"{storage.CACHE}/datasets/wgangp/{digest.hexdigest()[:32]}.npy")
        images, kept = _load(stored, size, len(pictures))
        if images is None:
            logger.info(f"Decoding {len(pictures)} pictures of {path}; they are kept in {stored}")
            images, kept = decode_all(pictures, size, skip)
            require(bool(kept), f"DATA.data_path: no picture in {path} could be decoded.")
            _store(stored, images, kept)
    require(
        len(images) >= TEST_DIVISOR,
        f"DATA.data_path: {path} has {len(images)} pictures, and at least {TEST_DIVISOR} are "
        "needed: add pictures, or name a larger set.",
    )
    folders = [osp.basename(osp.dirname(pictures[number].name)) for number in kept]
    names = sorted(set(folders))
    labels = np.array([names.index(folder) for folder in folders], "int64")
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[: len(images) // TEST_DIVISOR], order[len(images) // TEST_DIVISOR :]
    return ImageSet(images[train], labels[train], images[test], labels[test], names)


def _load(path: str, size: int, count: int) -> Tuple[Optional[np.ndarray], List[int]]:
    """Loads what `_store` wrote of `count` pictures; None if the file is absent or damaged."""
    try:
        images = np.load(path, allow_pickle=False)
        kept = np.load(f"{path[:-4]}_numbers.npy", allow_pickle=False)
        if images.dtype != np.uint8 or images.shape != (len(kept), 3, size, size):
            return None, []
        numbers = kept.astype("int64").tolist()
        return (images, numbers) if set(numbers) <= set(range(count)) else (None, [])
    except Exception:  # NumPy raises almost anything for a damaged file.
        return None, []


def _store(path: str, images: np.ndarray, kept: List[int]) -> None:
    """Stores decoded pictures and their numbers, or warns that it can't."""
    try:
        with storage.replacing(path) as file:
            np.save(file, images)
        with storage.replacing(f"{path[:-4]}_numbers.npy") as file:
            np.save(file, np.array(kept, "int64"))
    except OSError as error:
        logger.warning(f"The decoded pictures could not be kept: {error}")
