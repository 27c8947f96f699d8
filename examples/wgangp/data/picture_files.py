# SPDX-License-Identifier: Apache-2.0
"""Finds the pictures of a folder or an archive, with limits on what is unpacked."""

from __future__ import annotations

import bisect
import bz2
import contextlib
import functools
import gzip
import io
import lzma
import os
import stat
import zipfile
from os import path as osp
from typing import BinaryIO
from typing import Callable
from typing import Dict
from typing import Iterator
from typing import List
from typing import NamedTuple
from typing import Optional
from typing import Tuple

from data import picture_names
from data.decoding import list_suffixes
from data.picture_names import LeftOut
from support import tar_files
from support import zip_files
from support.archives import DAMAGE_ERRORS
from support.archives import unpack
from support.errors import UserError
from support.errors import printable
from support.errors import require
from support.formats import describe

MAX_UNPACKED = 1 << 30  # bytes; the default of DATA.max_unpacked
MAX_RATIO = 10  # An archive may unpack to this many times its own size in any case.
MEMBER_COST = 1 << 11  # Each member counts this many bytes more than its content.
MAX_LINKS = 40  # links that lead from one to the next, as in Linux
MAX_TARGET = 1 << 12  # bytes of what a link points to
# What a damaged archive raises.
ARCHIVE_ERRORS = (*DAMAGE_ERRORS, *zip_files.ERRORS, tar_files.TarError)
ARCHIVE_SUFFIXES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz"}  # for a hint only
COMPRESSIONS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
MODES = {  # of the members of a tar that are not links or folders
    **{kind: stat.S_IFREG for kind in tar_files.FILE},
    **{b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO},
}


class Picture(NamedTuple):
    """A picture's file in a folder or an archive.

    Attributes:
        name: Its path in the folder or archive.
        version: Text that changes with the file's content.
        read: Returns the file's content. Raises `UserError` if the archive is damaged, and
            `OSError` if a file of a folder can't be read.
        offset: Where the content begins in a tar; 0 elsewhere.
        class_name: The folder that is its class; "" if it is in none.
    """

    name: str
    version: str
    read: Callable[[], bytes]
    offset: int = 0
    class_name: str = ""


def collect(
    path: str, max_unpacked: int = MAX_UNPACKED, class_level: Optional[int] = None
) -> Tuple[List[Picture], contextlib.ExitStack]:
    """Finds the pictures of a folder or an archive; nothing is unpacked to disk.

    A file is a picture if Pillow reads files of its suffix. Hidden files, what file managers and
    storage boxes keep, pipes, sockets, devices, links to nothing and files of more than 256 MiB
    are left out; one line logs their numbers. Links in a folder are followed, but each folder is
    read once. Links in an archive lead to its other members only. A compressed tar is read to its
    end, with its checksum.

    Args:
        path: The folder, zip or tar (compressed or not).
        max_unpacked: Bytes that an archive may unpack to; ten times its own size is always
            allowed.
        class_level: The level of the folders that are classes; see `picture_names.find_classes`.

    Returns:
        The pictures, sorted by name, and the stack that closes the archive.

    Raises:
        UserError: If there is no such place, if it is damaged, if it unpacks to too much, or if it
            has no pictures.
    """
    shown, left_out = printable(path), LeftOut()
    require(osp.exists(path), f"DATA.data_path: there is no folder or archive {shown}.")
    status = os.stat(path)
    is_folder = stat.S_ISDIR(status.st_mode)
    require(
        is_folder or stat.S_ISREG(status.st_mode),
        f"DATA.data_path: {shown} is neither a folder nor a file.",
    )
    with contextlib.ExitStack() as stack:
        try:
            if is_folder:
                found = list(_walk(path, left_out))
            else:
                budget = _Budget(max(max_unpacked, MAX_RATIO * status.st_size))
                members = _open_archive(path, stack, budget)
                found = [_naming_damage(path, p) for p in members.select(budget, left_out)]
        except ARCHIVE_ERRORS as error:
            text = f"DATA.data_path: {shown} can't be read ({printable(error)})."
            raise UserError(text) from None
        omitted = f" Left out: {left_out.describe()}." if left_out.counts else ""
        kinds = ", ".join(list_suffixes())
        if ARCHIVE_SUFFIXES & set(left_out.examples[picture_names.OTHER]):
            omitted += " An archive in it is not opened: name the archive itself."
        text = f"DATA.data_path: there are no pictures ({kinds}) in {shown}.{omitted}"
        require(bool(found), text)
        left_out.log(shown)
        found.sort(key=lambda picture: picture.name)
        classes = picture_names.find_classes([p.name for p in found], class_level, shown)
        found = [p._replace(class_name=name) for p, name in zip(found, classes)]
        return found, stack.pop_all()


# Folders


def _walk(root: str, left_out: LeftOut) -> Iterator[Picture]:
    """The pictures of a folder and of the folders in it; links to folders come last."""
    seen, folders, links = set(), [(root, "")], []
    while folders or links:
        is_link = not folders
        folder, relative = links.pop(0) if is_link else folders.pop()
        try:
            status = os.stat(folder)
            # Some network drives give all folders the number 0.
            identity = (status.st_dev, status.st_ino) if status.st_ino else osp.realpath(folder)
            if identity in seen or (is_link and _contains(folder, root)):
                left_out.add(picture_names.REPEATED, relative)
                continue
            seen.add(identity)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            if not relative:
                raise
            left_out.add(picture_names.UNREADABLE, relative)
            continue
        for entry in entries:
            name = f"{relative}/{entry.name}" if relative else entry.name  # on Windows, too
            try:
                status = os.stat(entry.path)  # a link counts as what it points to
            except OSError:
                left_out.keeps(name, None, 0)
                continue
            if stat.S_ISDIR(status.st_mode):
                if not left_out.hides(picture_names.split(name)):
                    (links if entry.is_symlink() else folders).append((entry.path, name))
            elif left_out.keeps(name, status.st_mode, status.st_size):
                version = f"{status.st_size} {status.st_mtime_ns}"
                yield Picture(name, version, _make_reader(entry.path))


def _contains(folder: str, root: str) -> bool:
    """Whether the root is in a folder: a link to it leads to all that lies next to the root."""
    folder, root = osp.realpath(folder), osp.realpath(root)
    return root.startswith(osp.join(folder, ""))


def _make_reader(path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        # Since it was found, a pipe can have taken a picture's place: opening must not wait.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError("it is not a regular file")
            return file.read(picture_names.MAX_FILE_BYTES)

    return read


# Archives


class _Budget:
    """What an archive's members may have in all."""

    def __init__(self, limit: int):
        self.limit, self.used = limit, 0

    def spend(self, size: int) -> None:
        """Adds some bytes.

        Raises:
            ValueError: If all members together are too large, or too many.
        """
        self.used += size
        if self.used > self.limit:
            raise ValueError(tar_files.too_much(self.limit))


class _Entry(NamedTuple):
    """A member of an archive that is not a link.

    Attributes:
        size: Bytes of its content.
        version: Text that changes with it.
        read: Returns it.
        offset: Where it begins in a tar.
        mode: What it is, as in `os.stat`.
        refusal: Why it can't be read, if it can't.
    """

    size: int
    version: str
    read: Callable[[], bytes]
    offset: int = 0
    mode: int = stat.S_IFREG
    refusal: str = ""


class _Members:
    """The members of an archive by name; a later member replaces an earlier one of its name."""

    def __init__(self):
        self.entries: Dict[str, _Entry] = {}
        self.links: Dict[str, str] = {}

    def add(self, name: str, entry: _Entry) -> None:
        name = "/".join(picture_names.split(name))
        self.links.pop(name, None)
        self.entries[name] = entry

    def link(self, name: str, target: str, is_hard: bool = False) -> None:
        """Adds a link; the target of one that is not hard starts at the link's folder."""
        parts = picture_names.split(name)
        if not is_hard and not target.startswith("/"):
            target = "/".join((*parts[:-1], target))
        name, target = "/".join(parts), "/".join(picture_names.split(target[:MAX_TARGET]))
        if name != target:  # tar writes a link to itself for a file that it packs twice
            self.entries.pop(name, None)
            self.links[name] = target

    def select(self, budget: _Budget, left_out: LeftOut) -> Iterator[Picture]:
        """The pictures among the members.

        Raises:
            ValueError: If they unpack to too much, or one can't be read.
        """
        names = sorted({*self.entries, *self.links})
        for name in names:
            target = self._follow(name)
            entry = self.entries.get(target)
            if entry is None:
                self._explain(name, target, names, left_out)
            elif left_out.keeps(name, entry.mode, entry.size):
                if entry.refusal:
                    raise ValueError(f"{printable(name)} {entry.refusal}")
                budget.spend(entry.size)
                yield Picture(name, entry.version, entry.read, entry.offset)

    def _follow(self, name: str) -> str:
        for _ in range(MAX_LINKS):
            if name not in self.links:
                break
            name = self.links[name]
        return name

    def _explain(self, name: str, target: str, names: List[str], left_out: LeftOut) -> None:
        """Counts a link that does not lead to a file: to a folder of the archive, or to nothing."""
        folder = f"{target}/" if target else ""
        place = bisect.bisect(names, folder)
        if any(other.startswith(folder) for other in names[place : place + 1]):
            left_out.add(picture_names.REPEATED, name)
        else:
            left_out.keeps(name, None, 0)


def _naming_damage(path: str, picture: Picture) -> Picture:
    """Lets a member that can't be read end in an error that names the archive and the member."""

    def read() -> bytes:
        try:
            return picture.read()
        except ARCHIVE_ERRORS as error:
            place = f"{printable(path)} can't be read: {printable(picture.name)}"
            raise UserError(
                f"DATA.data_path: {place} is damaged in the archive ({printable(error)})."
            ) from None

    return picture._replace(read=read)


def _open_archive(path: str, stack: contextlib.ExitStack, budget: _Budget) -> _Members:
    """Lists the members of an archive, and lets a stack close it.

    Raises:
        Exception: One of `ARCHIVE_ERRORS` if the archive is damaged, or of another format.
    """
    file = stack.enter_context(open(path, "rb"))
    header = file.read(tar_files.BLOCK)
    if not tar_files.is_header(header) and zipfile.is_zipfile(file):
        return _list_zip(stack.enter_context(zipfile.ZipFile(path)), budget)
    if header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile("it has no directory at its end: it may be incomplete")
    opener = next((opener for start, opener in COMPRESSIONS if header.startswith(start)), None)
    if opener and not tar_files.is_header(header):
        file = stack.enter_context(opener(path, "rb"))
        file.seek(0)
        header = file.read(tar_files.BLOCK)
    if not tar_files.is_header(header) and header[257:262] != b"ustar":
        raise ValueError(f"it is neither a zip nor a tar, but {describe(path)}")
    return _list_tar(file, path, budget)


def _list_zip(archive: zipfile.ZipFile, budget: _Budget) -> _Members:
    """Lists the members of a zip.

    Raises:
        zipfile.BadZipFile: If members overlap.
        ValueError: If they are too many.
    """
    members, listed = _Members(), archive.infolist()
    zip_files.check_overlap(listed, archive.start_dir)
    for member, name in zip(listed, zip_files.decode_names(listed)):
        budget.spend(MEMBER_COST)
        mode = zip_files.find_kind(member)
        read = functools.partial(zip_files.read_member, archive, member)
        if zip_files.is_folder(name) or stat.S_ISDIR(mode):
            continue
        refusal = zip_files.find_refusal(member)
        if stat.S_ISLNK(mode) and not refusal and member.file_size <= MAX_TARGET:
            members.link(name, os.fsdecode(read()))
        else:
            version = f"{member.file_size} {member.CRC}"
            members.add(name, _Entry(member.file_size, version, read, 0, mode, refusal))
    return members


def _list_tar(file: BinaryIO, path: str, budget: _Budget) -> _Members:
    """Lists the members of a tar.

    Args:
        file: The unpacked archive, from which contents are read later.
        path: The archive.
        budget: What the members may have.

    Raises:
        tar_files.TarError: If a member's header is damaged, or the archive has no end.
        ValueError: If it unpacks to too much.
    """
    members, contents, modified = _Members(), _Contents(file), os.stat(path).st_mtime_ns
    with open(path, "rb") as packed:
        is_packed = not isinstance(file, io.BufferedReader)
        unpacked = tar_files.Chunks(unpack(packed, budget.limit))
        chunks = unpacked if is_packed else tar_files.Seekable(file)
        for member in tar_files.walk(chunks, budget.limit, 2 * budget.limit // MEMBER_COST):
            budget.spend(MEMBER_COST)
            if member.kind in (tar_files.LINK, tar_files.HARD_LINK):
                members.link(member.name, member.target, member.kind == tar_files.HARD_LINK)
            elif member.kind in MODES:
                start, mode = chunks.position, MODES[member.kind]
                read = functools.partial(contents.read, start, member.size)
                version = f"{modified} {member.size} {start}"
                members.add(member.name, _Entry(member.size, version, read, start, mode))
    return members


class _Contents:
    """Contents in an unpacked file; the last is kept, since links to it are read after it."""

    def __init__(self, file: BinaryIO):
        self.file, self.start, self.content = file, -1, b""

    def read(self, start: int, size: int) -> bytes:
        """Returns what begins at a place.

        Raises:
            EOFError: If the file ends before.
        """
        if start != self.start:
            self.file.seek(start)
            self.start, self.content = start, self.file.read(size)
        if len(self.content) != size:
            raise EOFError("the archive is incomplete")
        return self.content
