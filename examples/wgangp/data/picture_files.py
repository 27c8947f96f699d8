# SPDX-License-Identifier: Apache-2.0
"""Finds the pictures of a folder or an archive, with limits on what is unpacked."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
from os import path as osp
from typing import BinaryIO
from typing import Callable
from typing import Iterator
from typing import List
from typing import NamedTuple
from typing import Tuple

from ppsci.utils import logger

from support.archives import DAMAGE_ERRORS
from support.errors import UserError
from support.errors import printable
from support.errors import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LARGEST = 1 << 28  # bytes of one file; larger ones are left out
MAX_UNPACKED = 1 << 30  # bytes; the default of DATA.max_unpacked
MAX_RATIO = 10  # An archive may unpack to this many times its own size in any case.
MEMBER_COST = 1 << 11  # Each member counts so many bytes more than its content.
MAX_HEAD = 1 << 20  # bytes of a long name or other text in a tar's head
# What zipfile and tarfile raise for a damaged archive.
ARCHIVE_ERRORS = (
    *(*DAMAGE_ERRORS, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, struct.error),
    *(ValueError, RuntimeError, LookupError, ArithmeticError),
)
COMPRESSIONS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))


class Picture(NamedTuple):
    """A picture's file in a folder or an archive.

    Attributes:
        name: Its path in the folder or archive.
        version: Text that changes with the file's content.
        read: Returns the file's content. Raises `UserError` if the archive is damaged, and
            `OSError` if a file of a folder can't be read.
        offset: Where the content begins in a tar; 0 elsewhere.
    """

    name: str
    version: str
    read: Callable[[], bytes]
    offset: int = 0


def collect(
    path: str, max_unpacked: int = MAX_UNPACKED
) -> Tuple[List[Picture], contextlib.ExitStack]:
    """Finds the pictures of a folder or an archive; nothing is unpacked to disk.

    Hidden files and folders, such as .ipynb_checkpoints, are left out, and so are files of more
    than 256 MiB, pipes, sockets and devices. A compressed tar is read to its end, with its
    checksum.

    Args:
        path: The folder, zip or tar (compressed or not).
        max_unpacked: Bytes that an archive may unpack to; ten times its own size is always
            allowed.

    Returns:
        The pictures, sorted by name, and the stack that closes the archive.

    Raises:
        UserError: If there is no such place, if it is damaged, if it unpacks to too much, or if it
            has no pictures.
    """
    shown = printable(path)
    require(osp.exists(path), f"DATA.data_path: there is no folder or archive {shown}.")
    status = os.stat(path)
    is_folder = stat.S_ISDIR(status.st_mode)
    require(
        is_folder or stat.S_ISREG(status.st_mode),
        f"DATA.data_path: {shown} is neither a folder nor a file.",
    )
    stack = contextlib.ExitStack()
    try:
        budget = _Budget(max(max_unpacked, MAX_RATIO * status.st_size))
        if is_folder:
            files = _walk(path)
        elif zipfile.is_zipfile(path):
            files = _list_zip(stack.enter_context(zipfile.ZipFile(path)), budget)
        else:
            stream = _Unpacked(_open_unpacked(path, stack), budget.limit)
            files = _list_tar(stream, status.st_mtime_ns, budget)
        found = [_naming_damage(path, picture, is_folder) for picture in files]
        kinds = ", ".join(SUFFIXES)
        require(bool(found), f"DATA.data_path: there are no pictures ({kinds}) in {shown}.")
    except ARCHIVE_ERRORS as error:
        stack.close()
        raise UserError(f"DATA.data_path: {shown} can't be read ({printable(error)}).") from None
    except BaseException:
        stack.close()
        raise
    return sorted(found, key=lambda picture: picture.name), stack


class _Budget:
    """What an archive's members may have in all."""

    def __init__(self, limit: int):
        self.limit, self.used = limit, 0

    def spend(self, size: int) -> None:
        """Adds a member of some bytes.

        Raises:
            ValueError: If all members together are too large, or too many.
        """
        self.used += size + MEMBER_COST
        if self.used > self.limit:
            raise ValueError(_too_much(self.limit))


def _too_much(limit: int) -> str:
    return f"it unpacks to more than {limit} bytes; DATA.max_unpacked=BYTES allows more"


def _naming_damage(path: str, picture: Picture, is_folder: bool) -> Picture:
    """Lets a member that can't be read end in an error that names the archive and the member."""
    if is_folder:
        return picture

    def read() -> bytes:
        try:
            return picture.read()
        except ARCHIVE_ERRORS as error:
            place = f"{printable(path)} can't be read: {printable(picture.name)}"
            raise UserError(
                f"DATA.data_path: {place} is damaged in the archive ({printable(error)})."
            ) from None

    return picture._replace(read=read)


def _walk(path: str) -> Iterator[Picture]:
    """The pictures of a folder and of the folders in it."""
    omitted = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = osp.join(folder, name)
            relative = osp.relpath(file, path)
            if not _is_picture(relative):
                continue
            try:
                status = os.stat(file)  # a link counts as what it points to
                fits = stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST
            except OSError:  # a link that points to nothing
                fits = False
            if not fits:
                omitted.append(relative)
                continue
            version = f"{status.st_size} {status.st_mtime_ns}"
            yield Picture(relative, version, _make_reader(file))
    if omitted:
        logger.warning(
            f"{len(omitted)} of the files in {printable(path)} are left out: they are not regular "
            f"files, or have more than {LARGEST >> 20} MiB. The first is {printable(omitted[0])}."
        )


def _list_zip(archive: zipfile.ZipFile, budget: _Budget) -> Iterator[Picture]:
    """The pictures of a zip.

    Raises:
        zipfile.BadZipFile: If a member is encrypted, is compressed by another method than deflate,
            or overlaps with another.
        ValueError: If the pictures unpack to too much.
    """
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    starts = [member.header_offset for member in members[1:]] + [archive.start_dir]
    for member, next_start in zip(members, starts):
        name = printable(member.filename)
        if member.header_offset + member.compress_size > next_start:
            raise zipfile.BadZipFile(f"{name} overlaps with another member")
    for member in archive.infolist():
        name = printable(member.filename)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # For other methods, zipfile may unpack more than the size that a member declares.
            raise zipfile.BadZipFile(f"{name} is compressed by another method")
        is_picture = _is_picture(member.filename) and member.file_size <= LARGEST
        if not is_picture or member.is_dir():
            continue
        if member.flag_bits & 1:
            raise zipfile.BadZipFile(f"{name} is encrypted")
        budget.spend(member.file_size)
        version = f"{member.file_size} {member.CRC}"
        yield Picture(member.filename, version, lambda m=member: _read_member(archive, m))


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Reads a member to its end, where zipfile compares its checksum.

    Raises:
        zipfile.BadZipFile: If its size or checksum is another.
    """
    with archive.open(member) as file:
        # Without a size, zipfile unpacks all before it cuts off what is too much.
        content = file.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise zipfile.BadZipFile("its size is not the size that the archive declares")
    return content


class _Unpacked:
    """A tar's unpacked bytes, with limits on what is read.

    Attributes:
        is_listed: Whether all heads were read; until then, only short parts can be read.
    """

    def __init__(self, file: BinaryIO, limit: int):
        self.file, self.limit, self.is_listed = file, limit, False

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, position: int) -> int:
        if position < 0:
            raise tarfile.TarError("a member's head is damaged")
        if position > self.limit:
            raise ValueError(_too_much(self.limit))
        return self.file.seek(position)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= (LARGEST if self.is_listed else MAX_HEAD):
            raise tarfile.TarError("a member's head is damaged")
        content = self.file.read(size)
        if self.file.tell() > self.limit:
            raise ValueError(_too_much(self.limit))
        # tarfile's regular expressions take the square of the length of a row of digits.
        if not self.is_listed and size > tarfile.BLOCKSIZE and re.search(rb"\d{100}", content):
            raise tarfile.TarError("a member's head is damaged")
        return content

    def read_to_end(self) -> None:
        """Reads what follows: a compressed file's checksum is at its end."""
        while self.file.read(MAX_HEAD):
            if self.file.tell() > self.limit:
                raise ValueError(_too_much(self.limit))


def _open_unpacked(path: str, stack: contextlib.ExitStack) -> BinaryIO:
    """Opens a file, and unpacks it if it is compressed."""
    with open(path, "rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    is_tar = head[257:262] == b"ustar"
    for start, opener in () if is_tar else COMPRESSIONS:
        if head.startswith(start):
            return stack.enter_context(opener(path, "rb"))
    return stack.enter_context(open(path, "rb"))


def _list_tar(stream: _Unpacked, modified: int, budget: _Budget) -> Iterator[Picture]:
    """The pictures of a tar that was modified at some time, in ns.

    Raises:
        tarfile.TarError: If a member's head is damaged, or the archive has no end.
        ValueError: If it unpacks to too much.
    """
    archive = tarfile.open(fileobj=stream, mode="r:")
    for member in archive:
        if member.size < 0:  # tarfile would go back and never end
            raise tarfile.TarError("a member's head is damaged")
        is_picture = member.isfile() and _is_picture(member.name) and member.size <= LARGEST
        budget.spend(member.size if is_picture else 0)
        if is_picture:
            yield Picture(
                member.name,
                f"{modified} {member.size} {member.offset}",
                lambda m=member: archive.extractfile(m).read(),
                member.offset_data,
            )
    # At a damaged head, tarfile stops as it does at the archive's end.
    stream.seek(archive.offset)
    end = stream.read(tarfile.BLOCKSIZE)
    if end.strip(b"\0"):
        raise tarfile.TarError("a member's head is damaged")
    if len(end) < tarfile.BLOCKSIZE:
        raise tarfile.TarError("it has no end: it may be incomplete")
    stream.is_listed = True
    if not isinstance(stream.file, io.BufferedReader):
        stream.read_to_end()


def _is_picture(name: str) -> bool:
    """Whether a name has the suffix of a picture, and no part of it begins with a dot."""
    parts = name.replace(os.sep, "/").split("/")
    is_hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return name.lower().endswith(SUFFIXES) and not is_hidden


def _make_reader(path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        # Since it was found, a pipe can have taken a picture's place: opening must not wait.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError("it is not a regular file")
            return file.read(LARGEST)

    return read
