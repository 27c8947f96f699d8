# SPDX-License-Identifier: Apache-2.0
"""A user's own pictures, decoded once into an array that is stored for later runs."""

from __future__ import annotations

import errno
import hashlib
from os import path as osp
from typing import List
from typing import Optional
from typing import Tuple

import numpy as np
from ppsci.utils import logger

from data.augmentation import MARGIN
from data.augmentation import SIZE
from data.classes import TEST_DIVISOR
from data.classes import describe_classes
from data.classes import hold_out
from data.classes import number_classes
from data.decoding import MAX_PIXELS
from data.decoding import VERSION
from data.decoding import decode
from data.decoding import describe_decoders
from data.image_set import ImageSet
from data.picture_files import MAX_UNPACKED
from data.picture_files import Picture
from data.picture_files import collect
from support import storage
from support.errors import UserError
from support.errors import list_some
from support.errors import printable
from support.errors import require
from support.progress import Progress

SHOWN = 10  # largest number of damaged pictures that a message names
# The system has run short; the picture is not at fault.
SHORTAGES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def decode_all(
    pictures: List[Picture], size: int, max_pixels: int = MAX_PIXELS
) -> Tuple[np.ndarray, List[int], List[str], bool]:
    """Decodes pictures.

    Args:
        pictures: What `collect` found.
        size: Height and width of the result.
        max_pixels: Largest number of pixels of one picture.

    Returns:
        uint8 [N, 3, size, size], the numbers of the N pictures that it holds, what is wrong with
        each of the others, and whether all files could be read.

    Raises:
        UserError: For a damaged archive, and if there is too little memory.
    """
    images, kept = np.empty((len(pictures), 3, size, size), "uint8"), []
    problems, all_read = [], True
    progress = Progress("pictures decoded", len(pictures))
    # A compressed tar is read in its own order: going back means to unpack it from its start.
    order = sorted(range(len(pictures)), key=lambda number: pictures[number].offset)
    for number in order:
        picture = pictures[number]
        progress.add(1)
        try:
            try:
                content = picture.read()
            except OSError as error:
                if error.errno in SHORTAGES:
                    raise
                problems.append(f"{printable(picture.name)} can't be read ({printable(error)})")
                all_read = False  # A later run may be able to.
                continue
            images[number] = decode(content, size, max_pixels)
            kept.append(number)
        except UserError:  # the archive is damaged, and with it perhaps other pictures
            raise
        except MemoryError:
            raise UserError(
                f"{printable(picture.name)} needs more memory than there is: lower "
                f"DATA.max_pixels={max_pixels}, and set DATA.on_error=skip."
            ) from None
        except Exception as error:
            if getattr(error, "errno", None) in SHORTAGES:
                raise
            # Pillow raises almost anything for a damaged picture.
            problems.append(f"{printable(picture.name)} can't be decoded ({printable(error)})")
    kept.sort()
    images = images if len(kept) == len(pictures) else images[kept]
    return images, kept, problems, all_read


def read_pictures(
    path: str,
    crop: bool,
    skip: bool,
    max_pixels: int = MAX_PIXELS,
    max_unpacked: int = MAX_UNPACKED,
    class_level: Optional[int] = None,
) -> ImageSet:
    """Reads pictures as a training and a test set; a folder that a picture is in is its class.

    One picture in ten of each class is held out for tests; see `hold_out`. The decoded array is
    stored with a checksum. Pictures are decoded again if a picture, a name or a setting changes,
    or if the stored array is damaged.

    Args:
        path: A folder, zip or tar.
        crop: Whether pictures are decoded larger, for random crops.
        skip: Whether damaged pictures are left out.
        max_pixels: Largest number of pixels of one picture.
        max_unpacked: Bytes that an archive may unpack to; see `collect`.
        class_level: The level of the folders that are classes; see `collect`.

    Raises:
        UserError: If the place or a picture can't be read, or there are fewer than 10 pictures.
    """
    path, size = osp.abspath(osp.expanduser(path)), SIZE + (MARGIN if crop else 0)
    shown = printable(path)
    pictures, stack = collect(path, max_unpacked, class_level)
    with stack:
        stored = _name_store(f"{VERSION} {path} {size} {max_pixels}", pictures)
        images, kept = _load(stored, size, len(pictures))
        if images is None:
            logger.info(f"Decoding {len(pictures)} pictures of {shown}; they are kept in {stored}")
            images, kept, problems, all_read = decode_all(pictures, size, max_pixels)
            text = f"no picture in {shown} could be decoded: {list_some(problems, 3)}"
            require(bool(kept), f"DATA.data_path: {text}.")
            if all_read:  # Later runs may be able to read all files.
                _store(stored, images, kept)
        else:
            lost = sorted(set(range(len(pictures))) - set(kept))
            problems = [f"{printable(pictures[n].name)} can't be decoded" for n in lost]
            if lost and not skip:  # They are tried again for the reason, which is not kept.
                problems = decode_all([pictures[n] for n in lost], size, max_pixels)[2] or problems
        _report(problems, f"{len(problems)} of {len(pictures)} pictures of {shown}", skip)
    require(
        len(images) >= TEST_DIVISOR,
        f"DATA.data_path: {shown} has {len(images)} pictures, and at least {TEST_DIVISOR} are "
        "needed: add pictures, or name a larger set.",
    )
    return _split(images, [pictures[number].class_name for number in kept])


def _report(problems: List[str], count: str, skip: bool) -> None:
    """Logs which pictures are left out, or refuses them.

    Args:
        problems: What is wrong with each of them.
        count: How many they are, for messages.
        skip: Whether they are left out.

    Raises:
        UserError: If they are not.
    """
    if not problems:
        return
    text = list_some(problems, SHOWN)
    reason = text if len(problems) == 1 else f"{count} can't be used: {text}"
    require(skip, f"{reason}. DATA.on_error=skip leaves such pictures out.")
    logger.warning(f"{count} are left out: {text}.")


def _split(images: np.ndarray, folders: List[str]) -> ImageSet:
    """Numbers the classes of pictures, holds pictures out for tests, and logs both."""
    names, labels = number_classes(folders)
    train, test = hold_out(labels)
    line, warning = describe_classes(names, labels[train], labels[test])
    logger.info(line)
    if warning:
        logger.warning(warning)
    return ImageSet(images[train], labels[train], images[test], labels[test], names)


def _name_store(settings: str, pictures: List[Picture]) -> str:
    """Names the file of decoded pictures, by settings, decoders, names and versions."""
    digest = hashlib.sha256()
    named = (f"{picture.name}\0{picture.version}\0" for picture in pictures)
    for text in (settings, describe_decoders(), *named):
        digest.update(text.encode("utf-8", "surrogatepass"))  # a name need not be UTF-8
    name = f"{digest.hexdigest()[:32]}_pictures.npy"
    return osp.expanduser(f"{storage.CACHE}/datasets/wgangp/{name}")


def _load(path: str, size: int, count: int) -> Tuple[Optional[np.ndarray], List[int]]:
    """Loads what `_store` wrote of `count` pictures; None if the file is absent or damaged."""
    if not osp.exists(path):
        return None, []
    try:
        with open(path, "rb") as file:
            images, kept = (np.load(file, allow_pickle=False) for _ in range(2))
            digest = file.read()
        intact = images.dtype == np.uint8 and images.shape == (len(kept), 3, size, size)
        numbers = kept.astype("int64").tolist()
        if intact and digest == _checksum(images, kept) and set(numbers) <= set(range(count)):
            return images, numbers
        reason = "their checksum is another"
    except Exception as error:  # NumPy raises almost anything for a damaged file.
        reason = printable(error)
    logger.warning(f"The pictures kept in {path} are damaged ({reason}): they are decoded again.")
    return None, []


def _store(path: str, images: np.ndarray, kept: List[int]) -> None:
    """Stores decoded pictures, their numbers and a checksum, or warns that it can't."""
    numbers = np.array(kept, "int64")
    try:
        with storage.replacing(path) as file:
            np.save(file, images)
            np.save(file, numbers)
            file.write(_checksum(images, numbers))
    except OSError as error:
        logger.warning(f"The decoded pictures could not be kept: {printable(error)}")


def _checksum(images: np.ndarray, numbers: np.ndarray) -> bytes:
    """The SHA-256 of decoded pictures and their numbers, in hexadecimal."""
    digest = hashlib.sha256(f"{images.shape} {numbers.shape} {numbers.dtype}".encode())
    digest.update(np.ascontiguousarray(images))
    digest.update(np.ascontiguousarray(numbers))
    return digest.hexdigest().encode()
