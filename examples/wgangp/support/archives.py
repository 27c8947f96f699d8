# SPDX-License-Identifier: Apache-2.0
"""Compressed files and archives, read with bounds on their size."""

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

LARGEST = 1 << 30  # bytes of an unpacked file: MNIST's has 220 MB
# what compressed files raise where they are damaged
DAMAGE = (EOFError, zlib.error, OSError)


def read_stored(archive: zipfile.ZipFile, size: int) -> Dict[str, bytes]:
    """The members of an archive of `size` bytes, none of them compressed."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise zipfile.BadZipFile("it is compressed, as neither PyTorch nor NumPy does it")
    if sum(member.file_size for member in members) > size:
        raise zipfile.BadZipFile("its parts are larger than the whole")
    return {member.filename: archive.read(member) for member in members}


def read_tar(path: str, prefixes: Sequence[str]) -> List[Tuple[str, bytes]]:
    """Contents of a tar's members whose base names start with one of some prefixes.

    Nothing is written to disk. Sorted by name.

    Args:
        path: The archive, compressed by gzip or not.
        prefixes: Of the members to read.

    Raises:
        UserError: If the archive is damaged.
    """
    # All of it first: the checksum of a compressed archive comes behind its last member, where
    # tarfile does not look; and what it then reads can't be larger than this.
    content, found = read_gzip(path), {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if not osp.basename(member.name).startswith(tuple(prefixes)):
                    continue
                if not member.isfile() or member.size > len(content):
                    raise tarfile.TarError(f"{member.name} is no file, or larger than the archive")
                if member.name in found:
                    raise tarfile.TarError(f"it holds {member.name} twice")
                found[member.name] = archive.extractfile(member).read()
    except (*DAMAGE, tarfile.TarError, ValueError, OverflowError) as error:
        raise UserError(damaged(path, error)) from None
    return sorted(found.items())


def read_gzip(path: str) -> bytes:
    """Content of a file, unpacked if it is compressed by gzip.

    Raises:
        UserError: If the file is damaged.
    """
    try:
        with open(path, "rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
        with (gzip.open if is_packed else open)(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise OSError("it unpacks to more than 1 GiB")
        return content
    except DAMAGE as error:
        raise UserError(damaged(path, error)) from None


def damaged(path: str, error: Exception) -> str:
    reason = str(error).split("\n")[0].rstrip(":")
    return (
        f"{path} can't be read ({reason}). If it was downloaded, it may be incomplete: "
        "remove it, and it is downloaded anew."
    )
