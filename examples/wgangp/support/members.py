# SPDX-License-Identifier: Apache-2.0
"""The files of a data set, read from a folder, a zip, a tar, or a single file."""

from __future__ import annotations

import io
import os
import zipfile
from os import path as osp
from typing import Dict
from typing import Iterator
from typing import List
from typing import Optional
from typing import Sequence
from typing import Tuple

from support import archives
from support import formats
from support import tar_files
from support import zip_files
from support.errors import UserError
from support.errors import printable

COMPRESSED = (".gz", ".bz2", ".xz")  # suffixes that don't belong to the name of the content
MAX_DEPTH = 3  # levels of folders that are searched
Members = List[Tuple[str, bytes]]


def read_members(path: str, prefixes: Sequence[str], max_bytes: Optional[int] = None) -> Members:
    """Reads those files of a data set whose base names start with one of some prefixes.

    Args:
        path: A folder, a zip, a tar (compressed or not), or a pickle, which counts as the only
            member whatever its name is. Members may be compressed with gzip, bzip2 or xz.
        prefixes: The prefixes of base names.
        max_bytes: The limit for all that is unpacked; None for `archives.MAX_BYTES`.

    Returns:
        Pairs (name, unpacked content), sorted by name. Of two files with the same base name and
        the same content, one is left out.

    Raises:
        UserError: If the place is damaged, unpacks to more than the limit, or holds two different
            files of the same base name.
    """
    limit = archives.MAX_BYTES if max_bytes is None else max_bytes
    try:
        if osp.isdir(path):
            found = _read_folder(path, prefixes, limit)
        elif _is_zip(path):
            found = _read_zip(path, prefixes, limit)
        else:
            start = formats.read_start(path)
            if formats.is_pickle(start):
                return [(osp.basename(path), archives.read_unpacked(path, limit))]
            is_tar = tar_files.is_header(start[: tar_files.BLOCK])
            found = archives.read_tar(path, prefixes, limit) if is_tar else []
        return _unpack_members(found, path, limit)
    except (*archives.DAMAGE_ERRORS, *zip_files.ERRORS) as error:
        raise UserError(archives.damage_message(path, error)) from None


def strip_compressed(name: str) -> str:
    """Returns the base name of a member without the suffix of a compressed file."""
    name = osp.basename(name.replace("\\", "/"))
    return name[: -len(osp.splitext(name)[1])] if name.endswith(COMPRESSED) else name


def _read_folder(path: str, prefixes: Sequence[str], limit: int) -> Members:
    """Reads files of a folder and of the folders in it."""
    found, left = [], limit
    for name in list_folder(path):
        if osp.basename(name).startswith(tuple(prefixes)):
            found.append((name, archives.read_file(osp.join(path, name), left)))
            left -= len(found[-1][1])
    return found


def list_folder(path: str) -> Iterator[str]:
    """Yields the paths of the files in a folder, relative to it, down to `MAX_DEPTH` levels."""
    count = 0
    for folder, folders, names in os.walk(path):
        relative = osp.relpath(folder, path)
        depth = 0 if relative == os.curdir else relative.count(os.sep) + 1
        # Hidden folders hold copies, such as those of notebooks.
        folders[:] = sorted(f for f in folders if depth < MAX_DEPTH and not f.startswith("."))
        for name in sorted(names):
            count += 1
            if count > archives.MAX_PARTS:
                return
            yield osp.normpath(osp.join(relative, name))


def _is_zip(path: str) -> bool:
    with archives.open_regular(path) as file:
        return file.read(4) in (b"PK\3\4", b"PK\5\6")


def _read_zip(path: str, prefixes: Sequence[str], limit: int) -> Members:
    """Reads members of a zip.

    Raises:
        zipfile.BadZipFile: If a member is damaged, encrypted, overlaps with another, or is
            compressed by a method that is not read.
    """
    found: Members = []
    if osp.getsize(path) > limit:  # Its directory would be looked for in all of it.
        raise OSError(f"it is larger than {archives.format_limit(limit)}; see DATA.max_unpacked")
    with archives.open_regular(path) as file:
        archives.check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            zip_files.check_overlap(members, archive.start_dir)
            for member, name in zip(members, zip_files.decode_names(members)):
                base = osp.basename(name.replace("\\", "/"))
                if not base.startswith(tuple(prefixes)) or zip_files.is_folder(name):
                    continue
                refusal = zip_files.find_refusal(member)
                if refusal:
                    raise zipfile.BadZipFile(f"{printable(name)} {refusal}")
                limit -= member.file_size
                if limit < 0:
                    raise zipfile.BadZipFile("it unpacks to too much; see DATA.max_unpacked")
                found.append((name, zip_files.read_member(archive, member)))
    return found


def _unpack_members(found: Members, path: str, limit: int) -> Members:
    """Unpacks members that are compressed, and leaves out copies.

    Raises:
        UserError: For two different files of the same base name.
    """
    names: Dict[str, str] = {}
    result: Dict[str, bytes] = {}
    for name, content in sorted(found):
        file = io.BufferedReader(io.BytesIO(content))
        content = b"".join(archives.unpack(file, limit))
        base = strip_compressed(name)
        if base not in result:
            limit -= len(content)
            names[base], result[base] = name, content
        elif result[base] != content:
            raise UserError(
                f"{printable(path)} holds two different files {printable(base)}: "
                f"{printable(names[base])} and {printable(name)}. Name the folder or the archive "
                "that has the right one alone."
            )
    return sorted((names[base], content) for base, content in result.items())
