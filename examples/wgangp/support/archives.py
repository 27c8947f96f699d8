# SPDX-License-Identifier: Apache-2.0
"""Files, compressed files and archives, read with limits on their size and on the work.

No limit trusts what a file says about itself: the bytes that are really unpacked are counted.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import struct
import zipfile
import zlib
from os import path as osp
from typing import BinaryIO
from typing import Callable
from typing import Dict
from typing import Iterator
from typing import List
from typing import Optional
from typing import Sequence
from typing import Tuple

from support import tar_files
from support.errors import UserError
from support.errors import printable

# The limit for a file and for all that it unpacks to; MNIST's unpacks to 220 MB. The key
# DATA.max_unpacked replaces it for data.
MAX_BYTES = 1 << 30
MAX_PARTS = 10**5  # members of an archive, and compressed parts of a file
CHUNK = 1 << 16  # bytes that are unpacked at a time
MAX_XZ_MEMORY = 1 << 28  # bytes; a file that was compressed with `xz -9` needs a quarter
DAMAGE_ERRORS = (EOFError, zlib.error, lzma.LZMAError, OSError)  # what a damaged file raises
# How compressed files begin, and what unpacks them.
UNPACKERS = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_XZ_MEMORY)),
)
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # the header before a member of a zip archive


def open_regular(path: str) -> BinaryIO:
    """Opens a file to read; a pipe or a device, which may have no end, is refused.

    Raises:
        OSError: If it can't be opened, or is not a regular file.
    """
    os.stat(path)  # An absent file has a message of its own.
    if not osp.isfile(path):
        raise OSError("it is not a regular file")
    return open(path, "rb")


def read_file(path: str, max_bytes: Optional[int] = None) -> bytes:
    """Reads a file whose size is within a limit; a file that is larger is not read at all.

    Args:
        path: The file.
        max_bytes: The limit; None for `MAX_BYTES`.

    Raises:
        OSError: If it can't be read, or is larger.
    """
    limit = MAX_BYTES if max_bytes is None else max_bytes
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if max(size, len(content)) > limit:
        raise OSError(f"it is larger than {format_limit(limit)}")
    return content


def read_unpacked(path: str, max_bytes: Optional[int] = None) -> bytes:
    """Reads a file, and unpacks it if it is compressed with gzip, bzip2 or xz.

    Args:
        path: The file.
        max_bytes: The limit for the result; None for `MAX_BYTES`.

    Raises:
        UserError: If the file is damaged, or unpacks to more.
    """
    content = io.BytesIO()  # It grows in place: the chunks are not in memory a second time.
    try:
        with open_regular(path) as file:
            content.writelines(unpack(file, max_bytes))
        return content.getvalue()
    except DAMAGE_ERRORS as error:
        raise UserError(damage_message(path, error)) from None


def unpack(file: BinaryIO, max_bytes: Optional[int] = None) -> Iterator[bytes]:
    """Reads a file in chunks, and unpacks it if it is compressed with gzip, bzip2 or xz.

    Checksums are compared at the end of each compressed part. Python's own modules have no bound
    on the number of parts, and that for gzip reads the header of a part byte by byte.

    Args:
        file: The file, at its start.
        max_bytes: The limit for all chunks; None for `MAX_BYTES`.

    Raises:
        Exception: One of `DAMAGE_ERRORS`, if the file is damaged, or unpacks to more.
    """
    limit = MAX_BYTES if max_bytes is None else max_bytes
    start = file.read(len(UNPACKERS[-1][0]))
    file.seek(0)
    make = next((make for magic, make in UNPACKERS if start.startswith(magic)), None)
    chunks = iter(lambda: file.read(CHUNK), b"") if make is None else _unpack_parts(file, make)
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            shown = format_limit(limit)
            raise OSError(f"it unpacks to more than {shown}; DATA.max_unpacked=BYTES allows more")
        yield chunk


def _unpack_parts(file: BinaryIO, make: Callable) -> Iterator[bytes]:
    """Unpacks the parts of a compressed file, in chunks; `make` makes what unpacks a part."""
    unpacker, pending, parts = make(), b"", 1
    while True:
        # Those of bzip2 and xz keep what they have not unpacked yet.
        is_full = not unpacker.eof and not getattr(unpacker, "needs_input", True)
        block = b"" if is_full else pending or file.read(CHUNK)
        if unpacker.eof:  # There may be another part; zeros fill the file up.
            block = block.lstrip(b"\0")
            if not block:
                if file.peek(1):
                    pending = b""
                    continue
                return
            parts += 1
            if parts > MAX_PARTS:
                raise OSError(f"it has more than {MAX_PARTS} compressed parts")
            unpacker = make()
        chunk = unpacker.decompress(block, 16 * CHUNK)
        if not (block or chunk or is_full or unpacker.eof):
            raise EOFError("it ends before its compressed content does")
        pending = getattr(unpacker, "unconsumed_tail", b"") or unpacker.unused_data
        yield chunk


def read_tar(
    path: str, prefixes: Sequence[str], max_bytes: Optional[int] = None
) -> List[Tuple[str, bytes]]:
    """Reads the members of a tar archive whose base names start with one of some prefixes.

    Nothing is written to disk, and only these members are kept in memory.

    Args:
        path: The archive, compressed with gzip, bzip2 or xz, or not.
        prefixes: The prefixes of base names.
        max_bytes: The limit for the unpacked archive; None for `MAX_BYTES`.

    Returns:
        Pairs (name, content), sorted by name.

    Raises:
        UserError: If the archive is damaged, or unpacks to more than the limit.
    """
    limit = MAX_BYTES if max_bytes is None else max_bytes
    found: Dict[str, bytes] = {}
    try:
        with open_regular(path) as file:
            chunks = tar_files.Chunks(unpack(file, limit))
            for member in tar_files.walk(chunks, limit):
                if not osp.basename(member.name).startswith(tuple(prefixes)):
                    continue
                if not member.is_file:
                    raise tar_files.TarError(f"{printable(member.name)} is not a file")
                if member.name in found:
                    raise tar_files.TarError(f"it contains {printable(member.name)} twice")
                found[member.name] = chunks.read(member.size)
    except (*DAMAGE_ERRORS, tar_files.TarError) as error:
        raise UserError(damage_message(path, error)) from None
    return sorted(found.items())


def read_uncompressed_zip(file: BinaryIO, size: int) -> Dict[str, bytes]:
    """Reads all members of a zip archive that stores them uncompressed.

    An uncompressed archive whose members do not overlap cannot unpack to more than its own size.

    Args:
        file: The archive, open.
        size: Its size in bytes.

    Returns:
        Contents by member name.

    Raises:
        zipfile.BadZipFile: If a member is compressed or there twice, if members overlap, or if
            the two headers of a member disagree.
    """
    check_directory(file)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise zipfile.BadZipFile(
                "it is compressed; PyTorch and NumPy write uncompressed archives"
            )
        if any(member.file_size != member.compress_size for member in members):
            raise zipfile.BadZipFile("the sizes of a member disagree")
        if sum(member.file_size for member in members) > size:
            raise zipfile.BadZipFile("its members declare more bytes than the archive has")
        check_places(file, members, archive.start_dir)
        return {member.filename: archive.read(member) for member in members}


def check_places(file: BinaryIO, members: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuses members of a zip archive that share a name or bytes, or whose headers disagree.

    Args:
        file: The archive, open.
        members: What its directory lists.
        end: Where the directory begins.

    Raises:
        zipfile.BadZipFile: Names the member.
    """
    names, last = set(), 0
    for member in sorted(members, key=lambda member: member.header_offset):
        name = printable(member.filename)
        if member.filename in names:
            raise zipfile.BadZipFile(f"it contains {name} twice")
        names.add(member.filename)
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"the header of {name} is damaged")
        fields = LOCAL_HEADER.unpack(header)
        flags, method, (packed, unpacked, name_size, extra_size) = fields[2], fields[3], fields[7:]
        start = member.header_offset + len(header) + name_size + extra_size
        if member.header_offset < last or start + member.compress_size > end:
            raise zipfile.BadZipFile(f"{name} overlaps with another member")
        last = start + member.compress_size
        # Sizes that follow the content, or are of 64 bits, are not in the header.
        sizes = {(member.compress_size, member.file_size), (0xFFFFFFFF, 0xFFFFFFFF)}
        sizes |= {(0, 0)} if flags & 8 else set()
        if flags & 1:
            raise zipfile.BadZipFile(f"{name} is encrypted")
        if method != member.compress_type or (packed, unpacked) not in sizes:
            raise zipfile.BadZipFile(f"the two headers of {name} disagree")


def check_directory(file: BinaryIO) -> None:
    """Refuses a zip archive with very many members, before objects for them are made."""
    count, tail = 0, b""
    file.seek(0)
    for block in iter(lambda: file.read(1 << 20), b""):
        count += (tail + block).count(b"PK\x01\x02")
        tail = block[-3:]
    if count > MAX_PARTS:
        raise zipfile.BadZipFile(f"it has more than {MAX_PARTS} members")


def format_limit(limit: int) -> str:
    """Writes a limit on bytes in the largest unit that suits it."""
    units = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
    unit, name = next((pair for pair in units if limit >= pair[0]), (1, "bytes"))
    return f"{limit / unit:.4g} {name}"


def damage_message(path: str, error: Exception) -> str:
    """Makes the message for a file that cannot be read: which file, why, and what to do."""
    return (
        f"{printable(path)} can't be read ({printable(error)}). It may be incomplete: download "
        "or copy it again. If this program downloaded it, move it away, and the next run downloads "
        "it again."
    )
