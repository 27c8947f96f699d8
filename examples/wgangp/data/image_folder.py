# SPDX-License-Identifier: Apache-2.0
"""A user's own pictures, decoded once into an array."""

from __future__ import annotations

import hashlib
import time
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
from support.progress import SILENCE

TEST_SHARE = 10  # one picture in so many is held out


def decode_all(pictures: List[Picture], size: int, skip: bool) -> Tuple[np.ndarray, List[int]]:
    """All pictures that can be decoded, uint8 [N, 3, size, size], and their numbers.

    Args:
        pictures: What `collect` found.
        size: Height and width.
        skip: Whether damaged ones are left out, with a warning, or refused.

    Raises:
        UserError: Names the first that is damaged, unless those are skipped.
    """
    images, kept, told = np.empty((len(pictures), 3, size, size), "uint8"), [], time.perf_counter()
    # in the order of the tar: to go back in a compressed one is to unpack it from its start
    order = sorted(range(len(pictures)), key=lambda number: pictures[number].place)
    for count, number in enumerate(order):
        picture = pictures[number]
        try:
            images[number] = decode(picture.read(), size)
            kept.append(number)
        except Exception as error:  # Pillow raises almost anything for what is damaged
            text = f"{picture.name} can't be decoded ({error})"
            require(skip, f"{text}. DATA.on_error=skip leaves such pictures out.")
            logger.warning(f"{text}: it is left out.")
        if time.perf_counter() - told >= SILENCE:
            told = time.perf_counter()
            logger.info(f"decoded {count + 1} of {len(pictures)} pictures")
    kept.sort()
    return images if len(kept) == len(pictures) else images[kept], kept


def read_pictures(path: str, crop: bool, skip: bool) -> ImageSet:
    """A collection as a training and a test set; the folder a picture is in is its class.

    One picture in ten is held out, by an order that depends on nothing else than their
    number. The decoded array is kept, and made anew where a picture, a name or a setting
    has changed.

    Args:
        path: A folder, zip or tar.
        crop: Whether pictures are decoded larger, to be cropped at random.
        skip: Whether damaged pictures are left out.

    Raises:
        UserError: If the place or a picture can't be read.
    """
    path, size = osp.abspath(osp.expanduser(path)), SIZE + (MARGIN if crop else 0)
    pictures, stack = collect(path)
    with stack:
        digest = hashlib.sha256(f"{path} {size} {skip}".encode())
        for picture in pictures:
            digest.update(f"{picture.name}\0{picture.mark}\0".encode())
        kept_in = osp.expanduser(f"{storage.CACHE}/datasets/wgangp/{digest.hexdigest()[:32]}.npy")
        images, kept = _read_kept(kept_in, size, len(pictures))
        if images is None:
            logger.info(f"Decoding {len(pictures)} pictures of {path}; they are kept in {kept_in}")
            images, kept = decode_all(pictures, size, skip)
            require(bool(kept), f"DATA.data_path: no picture in {path} could be decoded.")
            _keep(kept_in, images, kept)
    folders = [osp.basename(osp.dirname(pictures[number].name)) for number in kept]
    names = sorted(set(folders))
    labels = np.array([names.index(folder) for folder in folders], "int64")
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[: len(images) // TEST_SHARE], order[len(images) // TEST_SHARE :]
    require(len(test) > 0, f"{path} has {len(images)} pictures: at least {TEST_SHARE} are wanted.")
    data = ImageSet(images[train], labels[train], images[test], labels[test])
    data.class_names = names
    return data


def _read_kept(path: str, size: int, count: int) -> Tuple[Optional[np.ndarray], List[int]]:
    """What `_keep` wrote of `count` pictures, or None if it is absent or damaged."""
    try:
        images = np.load(path, allow_pickle=False)
        kept = np.load(f"{path[:-4]}_numbers.npy", allow_pickle=False)
        if images.dtype != np.uint8 or images.shape != (len(kept), 3, size, size):
            return None, []
        numbers = kept.astype("int64").tolist()
        return (images, numbers) if set(numbers) <= set(range(count)) else (None, [])
    except Exception:  # NumPy raises almost anything for what is damaged
        return None, []


def _keep(path: str, images: np.ndarray, kept: List[int]) -> None:
    try:
        with storage.replacing(path) as file:
            np.save(file, images)
        with storage.replacing(f"{path[:-4]}_numbers.npy") as file:
            np.save(file, np.array(kept, "int64"))
    except OSError as error:
        logger.warning(f"The decoded pictures could not be kept ({error}).")
