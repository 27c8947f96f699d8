# SPDX-License-Identifier: Apache-2.0
"""Compressed files and archives, read with limits on their size."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from os import path as osp
from typing import Dict
from typing import List
from typing import Sequence
from typing import Tuple

from support.errors import UserError

MAX_BYTES = 1 << 30  # the limit for an unpacked file; MNIST's has 220 MB
DAMAGE_ERRORS = (EOFError, zlib.error, OSError)  # what reading a damaged gzip file raises


def read_uncompressed_zip(archive: zipfile.ZipFile, size: int) -> Dict[str, bytes]:
    """Reads all members of a zip archive that stores them uncompressed.

    An uncompressed archive cannot unpack to more than its own size.

    Args:
        archive: The open archive.
        size: Its size in bytes.

    Returns:
        Contents by member name.

    Raises:
        zipfile.BadZipFile: If a member is compressed, or the members are larger than the archive.
    """
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise zipfile.BadZipFile("it is compressed; PyTorch and NumPy write uncompressed archives")
    if sum(member.file_size for member in members) > size:
        raise zipfile.BadZipFile("its members declare more bytes than the archive has")
    return {member.filename: archive.read(member) for member in members}


def read_tar(path: str, prefixes: Sequence[str]) -> List[Tuple[str, bytes]]:
    """Reads the members of a tar archive whose base names start with one of some prefixes.

    Nothing is written to disk.

    Args:
        path: The archive, compressed with gzip or not.
        prefixes: The prefixes of base names.

    Returns:
        Pairs (name, content), sorted by name.

    Raises:
        UserError: If the archive is damaged, or unpacks to more than `MAX_BYTES`.
    """
    # The whole file is unpacked first. The checksum of a gzip file follows the last member, where
    # tarfile does not look, and no member can be larger than the unpacked file.
    content = read_gzip(path)
    found: Dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if not osp.basename(member.name).startswith(tuple(prefixes)):
                    continue
                if not member.isfile() or member.size > len(content):
                    raise tarfile.TarError(
                        f"{member.name} is not a file, or is larger than the archive"
                    )
                if member.name in found:
                    raise tarfile.TarError(f"it contains {member.name} twice")
                found[member.name] = archive.extractfile(member).read()
    except (*DAMAGE_ERRORS, tarfile.TarError, ValueError, OverflowError) as error:
        raise UserError(damage_message(path, error)) from None
    return sorted(found.items())


def read_gzip(path: str) -> bytes:
    """Reads a file, and unpacks it if it is compressed with gzip.

    Raises:
        UserError: If the file is damaged, or unpacks to more than `MAX_BYTES`.
    """
    try:
        with open(path, "rb") as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
        with (gzip.open if is_compressed else open)(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OSError("it unpacks to more than 1 GiB")
        return content
    except DAMAGE_ERRORS as error:
        raise UserError(damage_message(path, error)) from None


def damage_message(path: str, error: Exception) -> str:
    """Makes the message for a file that cannot be read: which file, why, and what to do."""
    reason = str(error).split("\n")[0].rstrip(":")
    return (
        f"{path} can't be read ({reason}). If it was downloaded, it may be incomplete: "
        "remove it, and the program downloads it again."
    )
