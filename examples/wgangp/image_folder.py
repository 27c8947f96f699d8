# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""A user's own pictures: a folder, a zip or a tar of them, decoded once into an array."""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import os
import tarfile
import time
import warnings
import zipfile
from os import path as osp
from typing import Callable
from typing import Dict
from typing import List
from typing import NamedTuple
from typing import Optional
from typing import Tuple

import numpy as np
from PIL import Image
from PIL import ImageOps
from ppsci.utils import logger

import files
import functions
from runtime import SILENCE
from runtime import UserError
from runtime import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SIZE = 64
MARGIN = 8  # how much larger a picture is that is to be cropped at random
LARGEST = 1 << 28  # bytes of one file
# what damaged archives raise
DAMAGE = (*files.DAMAGE, lzma.LZMAError, tarfile.TarError, ValueError)
DAMAGE += (zipfile.BadZipFile, RuntimeError)
TEST_SHARE = 10  # one picture in so many is held out


class Picture(NamedTuple):
    """A file of a collection: its name, what tells its content from others, how to read it."""

    name: str
    mark: str
    read: Callable[[], bytes]
    place: int = 0  # where it begins in a tar


def collect(path: str) -> Tuple[List[Picture], contextlib.ExitStack]:
    """The pictures of a folder or an archive, sorted by name; nothing is unpacked to disk.

    Args:
        path: The folder, zip or tar (compressed or not).

    Returns:
        The pictures, and what is to be closed when they are read.

    Raises:
        UserError: If there is no such place, it is damaged, or has no pictures.
    """
    require(osp.exists(path), f"DATA.data_path: there is no folder or archive {path}.")
    stack, found = contextlib.ExitStack(), []
    try:
        if osp.isdir(path):
            for folder, _, names in os.walk(path):
                for name in names:
                    file = osp.join(folder, name)
                    stat = os.stat(file)
                    mark = f"{stat.st_size} {stat.st_mtime_ns}"
                    found.append(Picture(osp.relpath(file, path), mark, _reader(file)))
        elif zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            for member in archive.infolist():
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # zipfile does not keep those to the size that they declare
                    raise zipfile.BadZipFile(f"{member.filename} is compressed by another method")
                mark = f"{member.file_size} {member.CRC}"
                if member.file_size <= LARGEST and not member.is_dir():
                    found.append(Picture(member.filename, mark, lambda m=member: archive.read(m)))
        else:
            tar = stack.enter_context(tarfile.open(path))
            mark = str(os.stat(path).st_mtime_ns)
            for member in tar:
                if member.isfile() and member.size <= LARGEST:
                    found.append(
                        Picture(
                            member.name,
                            f"{mark} {member.size} {member.offset}",
                            lambda m=member: tar.extractfile(m).read(),
                            member.offset_data,
                        )
                    )
            # at a member's head that is damaged, tarfile ends as it does behind the last member
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.TarError("a member's head is damaged")
    except DAMAGE as error:
        reason = str(error).split("\n")[0].rstrip(":")
        raise UserError(f"DATA.data_path: {path} can't be read ({reason}).") from None
    found = [
        picture
        for picture in found
        if picture.name.lower().endswith(SUFFIXES) and not _is_hidden(picture.name)
    ]
    require(
        bool(found), f"DATA.data_path: there are no pictures ({', '.join(SUFFIXES)}) in {path}."
    )
    return sorted(found, key=lambda picture: picture.name), stack


def _is_hidden(name: str) -> bool:
    """Whether a file or a folder that it is in is, such as .ipynb_checkpoints."""
    parts = name.replace(os.sep, "/").split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


def _reader(path: str) -> Callable[[], bytes]:
    def read():
        with open(path, "rb") as file:
            return file.read(LARGEST)

    return read


def decode(content: bytes, size: int) -> np.ndarray:
    """A picture, scaled and cropped at its middle: uint8 [3, size, size].

    What is transparent becomes white.

    Raises:
        Exception: Of many kinds, if it is damaged or far too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(io.BytesIO(content))
        if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
            grey = np.asarray(picture).clip(0, 65535) >> 8
            picture = Image.fromarray(grey.astype("uint8"))
        picture = ImageOps.exif_transpose(picture).convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(ground, picture).convert("RGB")
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture).transpose(2, 0, 1)


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


def read_pictures(path: str, crop: bool, skip: bool) -> functions.ImageSet:
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
        kept_in = osp.expanduser(f"{files.CACHE}/datasets/wgangp/{digest.hexdigest()[:32]}.npy")
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
    data = functions.ImageSet(images[train], labels[train], images[test], labels[test])
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
        with files.replacing(path) as file:
            np.save(file, images)
        with files.replacing(f"{path[:-4]}_numbers.npy") as file:
            np.save(file, np.array(kept, "int64"))
    except OSError as error:
        logger.warning(f"The decoded pictures could not be kept ({error}).")


def make_prepare(settings: Dict) -> Callable:
    """A function of uint8 pictures [N, 3, S, S] and a generator, to [N, 3, 64, 64] in [-1, 1].

    Args:
        settings: DATA, of which `flip` (left and right), `crop` (64x64 of a larger picture)
            and `jitter` (brightness, contrast and saturation by up to this share).
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
