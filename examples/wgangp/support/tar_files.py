# SPDX-License-Identifier: Apache-2.0
"""Tar archives, read in one pass with limits (POSIX.1-2001 "pax" and GNU formats).

Python's tarfile reads heads of any size and number, and one of them with a regular expression
whose time grows with the square of that size. This reader knows what archives of data contain.
"""

from __future__ import annotations

import io
from typing import Dict
from typing import Iterator
from typing import NamedTuple
from typing import Optional

from support.errors import printable

BLOCK = 512  # bytes; heads and contents begin at multiples of it
MAX_MEMBERS = 10**5
MAX_HEAD = 1 << 16  # bytes of an extended head: names and attributes
FILE, LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL = (b"0", b"\0", b"7"), b"L", b"K", b"x", b"g"
WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes


class TarError(Exception):
    """The archive is damaged, or uses a part of the format that is not read."""


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
        name: Its path.
        size: Bytes of its content.
        is_file: Whether it is a regular file.
    """

    name: str
    size: int
    is_file: bool


class Chunks:
    """Bytes that arrive in chunks, read like a file.

    Args:
        chunks: The chunks.

    Attributes:
        position: Number of bytes that were read.
    """

    def __init__(self, chunks: Iterator[bytes]):
        self.chunks, self.chunk, self.offset, self.position = chunks, b"", 0, 0

    def read(self, size: int, keep: bool = True) -> bytes:
        """Reads `size` bytes, or fewer at the end; without `keep`, they are dropped."""
        content, left = io.BytesIO(), size
        while left and not self.is_at_end():
            part = self.chunk[self.offset : self.offset + left]
            self.offset += len(part)
            left -= len(part)
            if keep:
                content.write(part)
        self.position += size - left
        return content.getvalue()

    def is_at_end(self) -> bool:
        """Whether no byte is left."""
        while self.offset == len(self.chunk):
            chunk = next(self.chunks, None)
            if chunk is None:
                return True
            self.chunk, self.offset = chunk, 0
        return False


def walk(chunks: Chunks, limit: int) -> Iterator[Member]:
    """Yields the members of an archive; the content of each may be read before the next is asked.

    At the end, all chunks have been read, so that the checksum of a compressed file was compared.

    Args:
        chunks: The unpacked archive.
        limit: Largest size of a member.

    Raises:
        TarError: If the archive is damaged, incomplete or too large.
    """
    extended: Dict[str, str] = {}
    for _ in range(MAX_MEMBERS):
        head = chunks.read(BLOCK)
        if head == bytes(BLOCK):
            _require_end(chunks)
            return
        kind, member = _parse_head(head)
        if member.size > limit:
            raise TarError(f"{printable(member.name)} is larger than the limit")
        if kind in (LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL):
            if member.size > MAX_HEAD:
                raise TarError(f"a head has more than {MAX_HEAD} bytes")
            text = chunks.read(member.size)
            if kind == LONG_NAME:
                extended["path"] = _decode(text.rstrip(b"\0"))
            elif kind == PAX:
                extended.update(_parse_pax(text))
        else:
            member, extended = _extend(member, extended, limit), {}
            start = chunks.position
            yield member
            chunks.read(start + member.size - chunks.position, keep=False)
            if chunks.position != start + member.size:
                raise TarError("it is incomplete")
        chunks.read(-chunks.position % BLOCK, keep=False)
    raise TarError(f"it has more than {MAX_MEMBERS} members")


def _parse_head(head: bytes):
    """Returns the kind and the member of a head, once its checksum is verified."""
    if len(head) < BLOCK:
        raise TarError("it is incomplete")
    checksum = _parse_number(head[148:156])
    if checksum != sum(head) - sum(head[148:156]) + 8 * ord(" "):
        raise TarError("a member's head is damaged")
    kind, name = head[156:157], _decode(head[:100].split(b"\0")[0])
    if head[257:263] == b"ustar\0" and head[345]:  # The name is long: its beginning is elsewhere.
        name = f"{_decode(head[345:500].split(bytes(1))[0])}/{name}"
    size = 0 if kind in WITHOUT_CONTENT else _parse_number(head[124:136])
    known = (*FILE, *WITHOUT_CONTENT, LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL)
    if kind not in known:
        raise TarError(f"{printable(name)} is of the kind {printable(kind)}")
    return kind, Member(name, size, kind in FILE)


def _parse_number(field: bytes) -> int:
    """Reads a number: octal digits, or a set bit and a binary number (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    if not all(digit in b"01234567" for digit in digits):
        raise TarError("a member's head is damaged")
    return int(digits or b"0", 8)


def _parse_pax(text: bytes) -> Dict[str, str]:
    """Reads the records "LENGTH KEY=VALUE\\n" of an extended head."""
    records, place = {}, 0
    while place < len(text):
        length = text[place : place + 10].split(b" ")[0]
        if not length.isdigit() or not int(length):
            raise TarError("an extended head is damaged")
        record = text[place + len(length) + 1 : place + int(length) - 1]
        key, sign, value = record.partition(b"=")
        if not sign or text[place + int(length) - 1 : place + int(length)] != b"\n":
            raise TarError("an extended head is damaged")
        records[_decode(key)] = _decode(value)
        place += int(length)
    return records


def _extend(member: Member, extended: Dict[str, str], limit: int) -> Member:
    """Applies the extended heads that come before a member."""
    if any(key.startswith("GNU.sparse") for key in extended):
        raise TarError(f"{printable(member.name)} is sparse")
    size: Optional[str] = extended.get("size")
    name = extended.get("path", member.name)
    if size is None or not member.is_file:
        return member._replace(name=name)
    if not (size.isascii() and size.isdigit()) or len(size) > 20 or int(size) > limit:
        raise TarError(f"{printable(name)} is larger than the limit, or its size is damaged")
    return Member(name, int(size), True)


def _require_end(chunks: Chunks) -> None:
    """Reads to the end of the file; after the end of an archive, there are only zeros."""
    while not chunks.is_at_end():
        if chunks.read(1 << 20).strip(b"\0"):
            raise TarError("it has bytes after its end")


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
