# SPDX-License-Identifier: Apache-2.0
"""Finds the pictures of a folder or an archive, and decodes them."""

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
from typing import Iterator
from typing import List
from typing import NamedTuple
from typing import Tuple

import numpy as np
from PIL import Image
from PIL import ImageOps

from support.archives import DAMAGE_ERRORS
from support.errors import UserError
from support.errors import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LARGEST = 1 << 28  # bytes of one file; larger ones are left out
# What zipfile and tarfile raise for a damaged archive.
ARCHIVE_ERRORS = (
    *(*DAMAGE_ERRORS, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile),
    *(ValueError, RuntimeError),
)


class Picture(NamedTuple):
    """A picture's file in a folder or an archive.

    Attributes:
        name: Its path in the folder or archive.
        version: Text that changes with the file's content.
        read: Returns the file's content.
        offset: Where the content begins in a tar; 0 elsewhere.
    """

    name: str
    version: str
    read: Callable[[], bytes]
    offset: int = 0


def collect(path: str) -> Tuple[List[Picture], contextlib.ExitStack]:
    """Finds the pictures of a folder or an archive; nothing is unpacked to disk.

    Hidden files and folders, such as .ipynb_checkpoints, are left out, and so are files of more
    than 256 MiB.

    Args:
        path: The folder, zip or tar (compressed or not).

    Returns:
        The pictures, sorted by name, and the stack that closes the archive.

    Raises:
        UserError: If there is no such place, if it is damaged, or if it has no pictures.
    """
    require(osp.exists(path), f"DATA.data_path: there is no folder or archive {path}.")
    stack = contextlib.ExitStack()
    try:
        if osp.isdir(path):
            files = _walk(path)
        elif zipfile.is_zipfile(path):
            files = _list_zip(stack.enter_context(zipfile.ZipFile(path)))
        else:
            files = _list_tar(stack.enter_context(tarfile.open(path)), os.stat(path).st_mtime_ns)
        found = [
            file
            for file in files
            if file.name.lower().endswith(SUFFIXES) and not _is_hidden(file.name)
        ]
    except ARCHIVE_ERRORS as error:
        stack.close()
        reason = str(error).split("\n")[0].rstrip(":")
        raise UserError(f"DATA.data_path: {path} can't be read ({reason}).") from None
    require(
        bool(found), f"DATA.data_path: there are no pictures ({', '.join(SUFFIXES)}) in {path}."
    )
    return sorted(found, key=lambda picture: picture.name), stack


def _walk(path: str) -> Iterator[Picture]:
    """The files of a folder and of the folders in it."""
    for folder, _, names in os.walk(path):
        for name in names:
            file = osp.join(folder, name)
            stat = os.stat(file)
            if stat.st_size <= LARGEST:
                version = f"{stat.st_size} {stat.st_mtime_ns}"
                yield Picture(osp.relpath(file, path), version, _make_reader(file))


def _list_zip(archive: zipfile.ZipFile) -> Iterator[Picture]:
    """The files of a zip.

    Raises:
        zipfile.BadZipFile: If a member is compressed by another method than deflate.
    """
    for member in archive.infolist():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # For other methods, zipfile may unpack more than the size that a member declares.
            raise zipfile.BadZipFile(f"{member.filename} is compressed by another method")
        if member.file_size <= LARGEST and not member.is_dir():
            version = f"{member.file_size} {member.CRC}"
            yield Picture(member.filename, version, lambda m=member: archive.read(m))


def _list_tar(archive: tarfile.TarFile, modified: int) -> Iterator[Picture]:
    """The files of a tar that was modified at some time, in ns.

    Raises:
        tarfile.TarError: If a member's head is damaged.
    """
    for member in archive:
        if member.isfile() and member.size <= LARGEST:
            yield Picture(
                member.name,
                f"{modified} {member.size} {member.offset}",
                lambda m=member: archive.extractfile(m).read(),
                member.offset_data,
            )
    # At a damaged head, tarfile stops as it does at the archive's end.
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.TarError("a member's head is damaged")


def _is_hidden(name: str) -> bool:
    """Whether a file, or a folder above it, begins with a dot."""
    parts = name.replace(os.sep, "/").split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


def _make_reader(path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(path, "rb") as file:
            return file.read(LARGEST)

    return read


def decode(content: bytes, size: int) -> np.ndarray:
    """Decodes a picture, scales it, and crops it to the square at its middle.

    Transparent pixels become white.

    Args:
        content: The picture's file.
        size: Height and width of the result.

    Returns:
        uint8 [3, size, size].

    Raises:
        Exception: Of many types, if the picture is damaged or far too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(io.BytesIO(content))
        if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255.
            grey = np.asarray(picture).clip(0, 65535) >> 8
            picture = Image.fromarray(grey.astype("uint8"))
        picture = ImageOps.exif_transpose(picture).convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(ground, picture).convert("RGB")
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture).transpose(2, 0, 1)
