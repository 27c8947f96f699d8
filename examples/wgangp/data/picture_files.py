# SPDX-License-Identifier: Apache-2.0
"""The pictures of a folder or an archive, found and decoded."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import tarfile
import warnings
import zipfile
from os import path as osp
from typing import Callable
from typing import List
from typing import NamedTuple
from typing import Tuple

import numpy as np
from PIL import Image
from PIL import ImageOps

from support.archives import DAMAGE
from support.errors import UserError
from support.errors import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LARGEST = 1 << 28  # bytes of one file
# what damaged archives raise
DAMAGE = (*DAMAGE, lzma.LZMAError, tarfile.TarError, ValueError)
DAMAGE += (zipfile.BadZipFile, RuntimeError)


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
