# SPDX-License-Identifier: Apache-2.0
"""Members of zip archives: their names, what they are compressed with, and their contents."""

from __future__ import annotations

import bz2
import copy
import lzma
import stat
import struct
import zipfile
import zlib
from typing import List
from typing import Optional
from typing import Sequence

from support.errors import printable

ENCRYPTED, WITH_END_MARK, UTF8 = 1 << 0, 1 << 1, 1 << 11  # bits of a member's flags
UNIX = 3  # the system of an archive whose members have a mode
UNICODE_PATH = 0x7075  # the extra field that holds a name in UTF-8
MAX_LZMA_MEMORY = 1 << 28  # bytes
# What zipfile raises for a damaged archive.
ERRORS = (zipfile.BadZipFile, struct.error, ValueError, RuntimeError, LookupError, ArithmeticError)
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
OTHER_METHODS = {
    **{1: "Shrink", 6: "Implode", 9: "Deflate64", 10: "PKWARE DCL", 93: "Zstandard"},
    **{94: "MP3", 95: "XZ", 96: "JPEG", 97: "WavPack", 98: "PPMd"},
}


def check_overlap(members: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuses members that share bytes.

    Args:
        members: What the archive's directory lists.
        end: Where the directory begins.

    Raises:
        zipfile.BadZipFile: Names the member.
    """
    members = sorted(members, key=lambda member: member.header_offset)
    starts = [member.header_offset for member in members[1:]] + [end]
    for member, next_start in zip(members, starts):
        if member.header_offset + member.compress_size > next_start:
            raise zipfile.BadZipFile(f"{printable(member.filename)} overlaps with another member")


def decode_names(members: Sequence[zipfile.ZipInfo]) -> List[str]:
    """Returns the names of members.

    Names that are not marked as UTF-8 should be in code page 437. But macOS writes UTF-8 without
    the mark, and Windows writes the code page of its language. UTF-8 and GB2312 (Chinese) have
    patterns of their own: if all unmarked names fit one, they are read so.
    """
    raw = [_raw_name(member) for member in members]
    unmarked = [name for name in raw if name is not None]
    encoding = next(
        encoding for encoding in ("utf-8", "gb2312", "cp437") if _fits(unmarked, encoding)
    )
    names = []
    for member, content in zip(members, raw):
        if content is None:
            name = member.orig_filename
        else:
            name = _find_unicode_path(member, content) or content.decode(encoding)
        names.append(name.split("\0")[0])
    return names


def _raw_name(member: zipfile.ZipInfo) -> Optional[bytes]:
    """The bytes of a name that zipfile took for code page 437; None if it is marked as UTF-8."""
    return None if member.flag_bits & UTF8 else member.orig_filename.encode("cp437")


def _fits(names: Sequence[bytes], encoding: str) -> bool:
    try:
        return all(name.decode(encoding) is not None for name in names)
    except UnicodeDecodeError:
        return False


def _find_unicode_path(member: zipfile.ZipInfo, raw: bytes) -> str:
    """The name that a member's extra field holds; "" if there is none, or it is another's."""
    place, extra = 0, member.extra
    while place + 9 <= len(extra):
        kind, size, version, checksum = struct.unpack_from("<2HBL", extra, place)
        if kind == UNICODE_PATH and version == 1 and checksum == zlib.crc32(raw):
            return extra[place + 9 : place + 4 + size].decode("utf-8", "replace")
        place += 4 + size
    return ""


def is_folder(name: str) -> bool:
    """Whether a member is a folder, by its name."""
    return name.endswith(("/", "\\"))


def find_kind(member: zipfile.ZipInfo) -> int:
    """Returns what a member is: `stat.S_IFREG`, `stat.S_IFLNK` and so on."""
    kind = stat.S_IFMT(member.external_attr >> 16) if member.create_system == UNIX else 0
    return kind or stat.S_IFREG


def find_refusal(member: zipfile.ZipInfo) -> str:
    """Says why the content of a member can't be read, and what to do; "" if it can."""
    advice = "unpack the archive, and name the folder"
    if member.flag_bits & ENCRYPTED:
        return f"is encrypted: {advice}"
    if member.compress_type not in READABLE:
        number = member.compress_type
        name = OTHER_METHODS.get(number, "an unknown method")
        return f"is compressed with {name} (method {number}): {advice}"
    return ""


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Reads a member to its end, within the size that it declares.

    Raises:
        zipfile.BadZipFile: If its size or checksum is another.
    """
    size = member.file_size
    if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with archive.open(member) as file:  # compares the checksum at the end
            # Without a size, zipfile unpacks all before it cuts off what is too much.
            content = file.read(size + 1)
    else:  # zipfile would unpack more than the size that is declared
        packed = copy.copy(member)
        packed.compress_type, packed.file_size = zipfile.ZIP_STORED, packed.compress_size
        packed.CRC = None  # zipfile does not compare it
        with archive.open(packed) as file:
            content = _unpack(member, file.read(packed.file_size + 1))
        if zlib.crc32(content) != member.CRC:
            raise zipfile.BadZipFile("its checksum is another")
    if len(content) != size:
        raise zipfile.BadZipFile("its size is not the size that the archive declares")
    return content


def _unpack(member: zipfile.ZipInfo, packed: bytes) -> bytes:
    """Unpacks what is compressed with bzip2 or LZMA, to at most one byte more than declared."""
    size = member.file_size
    if member.compress_type == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(packed, size + 1)
    # A zip has its own header for LZMA: a version, and the size of the properties that follow.
    (length,) = struct.unpack_from("<2xH", packed)
    total = b"\xff" * 8 if member.flag_bits & WITH_END_MARK else struct.pack("<Q", size)
    header = packed[4 : 4 + length] + total
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, MAX_LZMA_MEMORY)
    return unpacker.decompress(header + packed[4 + length :], size + 1)
