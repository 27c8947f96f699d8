# SPDX-License-Identifier: Apache-2.0
"""Decodes pictures from outside, with limits on their size and on the work that they cause."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import warnings
from typing import Iterator
from typing import List
from typing import Tuple

import numpy as np
import PIL
from PIL import Image

from data.pixels import MAX_EXIF
from data.pixels import check
from data.pixels import to_rgb

MAX_PIXELS = 1 << 26  # the default of DATA.max_pixels: 67,108,864, such as 8192x8192
# Pillow decodes these itself; HEIF needs pillow-heif. Pillow has other formats that start programs
# (EPS), or that other code has to decode (WMF, HDF5, GRIB, BUFR).
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SCALES = (2, 4, 8)  # A large JPEG can be reduced by these factors while it is decoded.
PIXEL_BYTES = 12  # memory that a pixel takes at most
MIN_SIDE = 16  # pixels as which a shorter side counts
MAX_OPEN_READS = 1 << 14  # parts of a file before its pixels
MAX_LOAD_READS = 1 << 22  # parts of a file with its pixels
MAX_TAG_VALUES = 1 << 18  # numbers of a TIFF's tag; each becomes an object of Python
MAX_AVIF = 1 << 25  # bytes; Pillow interprets such a file's EXIF data when it opens it
MAX_SLOW = 1 << 20  # pixels of a PPM file that Python code decodes: text, or an odd largest value
MAX_SCANS = 32  # of a progressive JPEG with DATA.max_pixels pixels; a smaller one may have more
JPEG_START, JPEG_SCAN, EXIF_START = b"\xff\xd8", b"\xff\xda", b"Exif\0\0"
VERSION = 2  # It changes whenever the same file gives other pixels: stored pictures depend on it.


def decode(content: bytes, size: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a picture, scales it, and crops it to the square at its middle.

    The content decides the format, not the file's name. No program is started and no other file
    is opened. `data.pixels.to_rgb` says what becomes of rotations, colours and transparency.

    Args:
        content: The picture's file.
        size: Height and width of the result.
        max_pixels: Largest number of pixels. JPEG files may have 64 times as many if they can be
            reduced while they are decoded; WebP files may have half as many.

    Returns:
        uint8 [3, size, size].

    Raises:
        MemoryError: If there is too little memory.
        Exception: Of many types, if the picture is damaged, or exceeds a limit.
    """
    with _limit_pixels(max_pixels, content.startswith(JPEG_START)):
        return to_rgb(_open(content, max_pixels), content, size)


@contextlib.contextmanager
def _limit_pixels(max_pixels: int, is_jpeg: bool) -> Iterator[None]:
    """Sets Pillow's own limit, which Pillow applies before it allocates memory."""
    before, factor = Image.MAX_IMAGE_PIXELS, SCALES[-1] ** 2 if is_jpeg else 1
    Image.MAX_IMAGE_PIXELS = max_pixels * factor
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they can quote what the file contains
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        pixels = int(re.search(r"\d+", str(error))[0])
        raise ValueError(_too_large(-(-pixels // factor), max_pixels)) from None
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _too_large(pixels: int, max_pixels: int) -> str:
    memory = f"{PIXEL_BYTES * pixels / (1 << 30):.1f} GiB"
    return (
        f"it has more pixels than DATA.max_pixels={max_pixels}: make it smaller, or set "
        f"DATA.max_pixels={pixels}, which takes up to {memory} of memory"
    )


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """Opens a picture and checks what its header says; pixels are decoded later.

    Raises:
        ValueError: If it has another format than `FORMATS`, or exceeds a limit.
    """
    _check_tags(content)
    is_jpeg = content.startswith(JPEG_START)
    # Pillow joins all EXIF segments of a JPEG file; a segment has at most 64 KiB.
    check(not is_jpeg or content.count(EXIF_START) <= MAX_EXIF >> 16, "it has too much EXIF data")
    check(content[4:8] != b"ftyp" or len(content) <= MAX_AVIF, "it is too large for AVIF")
    file = _LimitedReads(content, MAX_OPEN_READS)
    try:
        picture = Image.open(file, formats=_list_formats())
    except Image.UnidentifiedImageError:
        raise ValueError(_unknown(content)) from None
    check(len(picture.info.get("exif") or b"") <= MAX_EXIF, "it has too much EXIF data")
    if is_jpeg:
        _check_scans(picture, content, max_pixels)
        _reduce(picture, content, max_pixels)
    # Pillow keeps a pointer for each row; and rows can become columns. WebP has two canvases.
    pixels = max(picture.width, MIN_SIDE) * max(picture.height, MIN_SIDE)
    pixels *= 2 if picture.format == "WEBP" else 1
    check(pixels <= max_pixels, _too_large(pixels, max_pixels))
    is_slow = picture.format == "PPM" and picture.tile[0][0] != "raw"
    check(not is_slow or pixels <= MAX_SLOW, f"it has more than {MAX_SLOW} pixels; save it as PNG")
    file.left = MAX_LOAD_READS
    return picture


@functools.cache
def _list_formats() -> List[str]:
    """Lists those of `FORMATS` that this Pillow can decode."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]


def describe_decoders() -> str:
    """Names what decodes pictures here: another version may read more of them, or others."""
    return f"Pillow {PIL.__version__}: {', '.join(_list_formats())}"


@functools.cache
def list_suffixes() -> Tuple[str, ...]:
    """Lists the suffixes of the files that this Pillow can decode, such as ".png"."""
    formats = _list_formats()
    suffixes = Image.registered_extensions().items()
    return tuple(sorted(suffix for suffix, kind in suffixes if kind in formats))


def _unknown(content: bytes) -> str:
    """Says why a file is none of the pictures that are read."""
    is_heif = content[4:8] == b"ftyp" and content[8:11] in (b"hei", b"hev", b"mif")
    if is_heif and "HEIF" not in _list_formats():
        return "it is a HEIC picture, which needs a package: pip install pillow-heif"
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "it is a damaged TIFF, or one of a kind that is not read; save it with 8 bits"
    return f"it is damaged, or none of {', '.join(_list_formats())}"


class _LimitedReads(io.BytesIO):
    """A file that can be read from a limited number of times: its parts can be many and empty."""

    def __init__(self, content: bytes, left: int):
        super().__init__(content)
        self.left = left

    def read(self, size: int = -1) -> bytes:
        self.left -= 1
        check(self.left >= 0, "it has too many parts")
        return super().read(size)


def _check_tags(content: bytes) -> None:
    """Refuses a TIFF file with a tag of far more numbers than a picture has strips or tiles."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or not {42, 43} & set(content[2:4]):
        return
    is_big = content[2] == 43  # as Pillow has it
    head, count, entry = ("Q", "Q", "HHQ8x") if is_big else ("L", "H", "HHL4x")
    try:
        (start,) = struct.unpack_from(order + head, content, 8 if is_big else 4)
        (entries,) = struct.unpack_from(order + count, content, start)
        check(entries < 1 << 16, "it has too many tags")
        start += struct.calcsize(order + count)
        for number in range(entries):
            place = start + number * struct.calcsize(order + entry)
            _, kind, values = struct.unpack_from(order + entry, content, place)
            is_bytes = kind in (1, 2, 7)  # bytes, text and data of applications stay bytes
            check(is_bytes or values <= MAX_TAG_VALUES, "a tag has too many values")
    except struct.error:
        raise ValueError("its tags are damaged") from None


def _check_scans(picture: Image.Image, content: bytes, max_pixels: int) -> None:
    """Refuses a progressive JPEG with far too many scans: each changes all pixels."""
    if picture.info.get("progressive"):
        work = content.count(JPEG_SCAN) * picture.width * picture.height
        check(work <= MAX_SCANS * max_pixels, "it has too many scans for its size")


def _reduce(picture: Image.Image, content: bytes, max_pixels: int) -> None:
    """Lets a JPEG with too many pixels be decoded at a half, a quarter or an eighth of its size.

    That saves memory only if one scan holds all colours; otherwise libjpeg keeps the whole
    picture.

    Args:
        picture: The open picture; no pixel is decoded yet.
        content: Its file.
        max_pixels: Largest number of pixels.
    """
    width, height = picture.size
    is_whole = _count_colours(content) == len(picture.getbands())
    if picture.info.get("progressive") or not is_whole:
        return
    for scale in SCALES:
        if max_pixels < width * height <= max_pixels * scale**2:
            picture.draft(picture.mode, (max(1, width // scale), max(1, height // scale)))
            break


def _count_colours(content: bytes) -> int:
    """Returns the number of colours in the first scan of a JPEG; 0 if there is no scan."""
    place = len(JPEG_START)
    while place + 4 < len(content):
        if content[place : place + 2] == JPEG_SCAN:
            return content[place + 4]
        if content[place] == 0xFF and content[place + 1] not in (0x01, 0xFF):
            place += int.from_bytes(content[place + 2 : place + 4], "big") + 1
        place += 1  # what fills the space between two segments
    return 0
