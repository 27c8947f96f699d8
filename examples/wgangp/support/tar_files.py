# SPDX-License-Identifier: Apache-2.0
"""Tar archives, read in one pass with limits (POSIX.1-2001 "pax" and GNU formats).

Python's tarfile reads headers of any size and number, and one of them with a regular expression
whose time grows with the square of that size. This reader knows what archives of data contain.
"""

from __future__ import annotations

import io
from typing import BinaryIO
from typing import Dict
from typing import Iterator
from typing import NamedTuple
from typing import Optional
from typing import Union

from support.errors import printable

BLOCK = 512  # bytes; headers and contents begin at multiples of it
MAX_MEMBERS = 10**5
MAX_HEADER = 1 << 16  # bytes of an extended header: names and attributes
MAX_PADDING = 1 << 24  # zeros after the end
FILE, LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL = (b"0", b"\0", b"7"), b"L", b"K", b"x", b"g"
HARD_LINK, LINK, FOLDER, SPARSE = b"1", b"2", b"5", b"S"
WITHOUT_CONTENT = (HARD_LINK, LINK, b"3", b"4", FOLDER, b"6")  # also devices and pipes


class TarError(Exception):
    """The archive is damaged, or uses a part of the format that is not read."""


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
        name: Its path.
        size: Bytes of its content.
        kind: The byte in its header that says what it is, such as `LINK`; `FILE[0]` for all files.
        target: What a link points to.
    """

    name: str
    size: int
    kind: bytes
    target: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind in FILE


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


class Seekable:
    """A file that is not compressed, with the interface of `Chunks`.

    Args:
        file: The file, at its start.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.size = file, file.seek(0, io.SEEK_END)
        file.seek(0)

    @property
    def position(self) -> int:
        return self.file.tell()

    def read(self, size: int, keep: bool = True) -> bytes:
        """Reads `size` bytes, or fewer at the end; without `keep`, it passes over them."""
        if keep:
            return self.file.read(size)
        self.file.seek(min(self.position + size, self.size))
        return b""

    def is_at_end(self) -> bool:
        """Whether no byte is left."""
        return self.position >= self.size


def too_much(limit: int) -> str:
    """Writes that an archive exceeds the limit for what it unpacks to."""
    return f"it unpacks to more than {limit} bytes; DATA.max_unpacked=BYTES allows more"


def is_header(header: bytes) -> bool:
    """Whether a block has the checksum of a member's header, or is the end of an archive."""
    try:
        checksum = _parse_number(header[148:156])
    except (TarError, IndexError):
        return False
    return header == bytes(BLOCK) or checksum == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def walk(
    chunks: Union[Chunks, Seekable], limit: int, max_members: Optional[int] = None
) -> Iterator[Member]:
    """Yields the members of an archive; the content of each may be read before the next is asked.

    At the end, all chunks have been read, so that the checksum of a compressed file was compared.

    Args:
        chunks: The unpacked archive.
        limit: Largest size of a member.
        max_members: Largest number of members and extended headers; None for `MAX_MEMBERS`.

    Raises:
        TarError: If the archive is damaged, incomplete or too large.
    """
    extended: Dict[str, str] = {}
    header_bytes = 0
    max_members = MAX_MEMBERS if max_members is None else max_members
    for _ in range(max_members):
        header = chunks.read(BLOCK)
        if header == bytes(BLOCK):  # the end
            _require_end(chunks)
            return
        member = _parse_header(header)
        kind = member.kind
        if member.size > limit:
            raise TarError(too_much(limit))
        if kind in (LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL):
            header_bytes += member.size
            if header_bytes > MAX_HEADER:
                raise TarError(f"a header has more than {MAX_HEADER} bytes")
            text = chunks.read(member.size)
            if kind in (LONG_NAME, LONG_LINK):
                key = "path" if kind == LONG_NAME else "linkpath"
                extended[key] = _decode(text.rstrip(b"\0"))
            elif kind == PAX:
                extended.update(_parse_pax(text))
        else:
            member, extended, header_bytes = _extend(member, extended, limit), {}, 0
            start = chunks.position
            yield member
            chunks.read(start + member.size - chunks.position, keep=False)
            if chunks.position != start + member.size:
                raise TarError("it is incomplete")
        chunks.read(-chunks.position % BLOCK, keep=False)
    raise TarError(f"it has more than {max_members} members")


def _parse_header(header: bytes) -> Member:
    """Returns the member of a header, once its checksum is verified."""
    if len(header) < BLOCK:
        raise TarError("it has no end: it may be incomplete")
    if not is_header(header):
        raise TarError("a member's header is damaged")
    kind, name = header[156:157], _decode(header[:100].split(b"\0")[0])
    # The beginning of a long name is elsewhere.
    if header[257:263] == b"ustar\0" and header[345]:
        name = f"{_decode(header[345:500].split(bytes(1))[0])}/{name}"
    size = 0 if kind in WITHOUT_CONTENT else _parse_number(header[124:136])
    if kind == SPARSE:
        raise TarError(f"{printable(name)} is sparse: pack it without the option --sparse")
    kind = FILE[0] if kind in FILE else kind
    return Member(name, size, kind, _decode(header[157:257].split(b"\0")[0]))


def _parse_number(field: bytes) -> int:
    """Reads a number: octal digits, or a set bit and a binary number (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    if not all(digit in b"01234567" for digit in digits):
        raise TarError("a member's header is damaged")
    return int(digits or b"0", 8)


def _parse_pax(text: bytes) -> Dict[str, str]:
    """Reads the records "LENGTH KEY=VALUE\\n" of an extended header."""
    records, place = {}, 0
    while place < len(text):
        length = text[place : place + 10].split(b" ")[0]
        if not length.isdigit() or not int(length):
            raise TarError("an extended header is damaged")
        record = text[place + len(length) + 1 : place + int(length) - 1]
        key, sign, value = record.partition(b"=")
        if not sign or text[place + int(length) - 1 : place + int(length)] != b"\n":
            raise TarError("an extended header is damaged")
        records[_decode(key)] = _decode(value)
        place += int(length)
    return records


def _extend(member: Member, extended: Dict[str, str], limit: int) -> Member:
    """Applies the extended headers that come before a member."""
    if any(key.startswith("GNU.sparse") for key in extended):
        raise TarError(f"{printable(member.name)} is sparse: pack it without the option --sparse")
    size: Optional[str] = extended.get("size")
    name = extended.get("path", member.name)
    member = member._replace(name=name, target=extended.get("linkpath", member.target))
    if size is None or not member.is_file:
        return member
    if not (size.isascii() and size.isdigit()):
        raise TarError("an extended header is damaged")
    if len(size) > 20 or int(size) > limit:
        raise TarError(too_much(limit))
    return member._replace(size=int(size))


def _require_end(chunks: Chunks) -> None:
    """Reads to the end of the file; after the end of an archive, there are only zeros."""
    start = chunks.position
    while not chunks.is_at_end():
        if chunks.read(1 << 20).strip(b"\0") or chunks.position - start > MAX_PADDING:
            raise TarError("it has bytes after its end")


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
