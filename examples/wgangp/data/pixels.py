# SPDX-License-Identifier: Apache-2.0
"""Turns a decoded picture of any kind into 8 bits of red, green and blue: upright, on white."""

from __future__ import annotations

import functools
import io
import struct
from typing import Any
from typing import Optional
from typing import Tuple

import numpy as np
from PIL import Image
from PIL import ImageOps

try:
    from PIL import ImageCms
except ImportError:  # a Pillow that was built without colour management
    ImageCms = None

ORIENTATION = 0x0112  # the tag of EXIF data
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Tags of TIFF
BITS, PHOTOMETRIC, SAMPLE_FORMAT, SMALLEST, LARGEST = 258, 262, 339, 340, 341
SIGNED = 2  # a value of SAMPLE_FORMAT
FEW_BITS = {"L;2": 85, "L;4": 17}  # factors by which Pillow scales grey of 2 and 4 bits
MAX_EXIF = 1 << 20  # bytes
STEP = 1 << 20  # numbers that are scaled at a time
DARK = 1 << 12  # A picture of 16 bits whose numbers are all smaller would be black.
MAX_PROFILE = 1 << 22  # bytes of an ICC profile; a larger one is not applied
SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # modes and their names in ICC profiles
ADVICE = "save it with 8 or 16 bits"


def to_rgb(picture: Image.Image, content: bytes, size: int) -> np.ndarray:
    """Decodes the pixels of an open picture, scales them, and crops the square at the middle.

    Rotations in EXIF data and XMP are applied, and colours with an ICC profile become sRGB; where
    these are damaged, they count as absent. Transparent pixels become white.

    Args:
        picture: The picture; of several frames, the first.
        content: Its file.
        size: Height and width of the result.

    Returns:
        uint8 [3, size, size].

    Raises:
        ValueError: If its file doesn't say which numbers are black and white.
        Exception: Of many types, if it is damaged.
    """
    packing, box = _read_tile(picture)
    picture.load()
    profile, turn = picture.info.get("icc_profile"), _find_turn(picture)
    picture = _to_8_bits(picture, packing, content)
    space = "L" if picture.mode in ("1", "L", "LA", "La") else picture.mode
    if picture.mode != "LAB" and not (picture.mode == "CMYK" and profile):
        picture = _compose(picture, box)
    picture = picture if turn is None else picture.transpose(turn)
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    if space == "LAB" or profile:
        picture = _to_srgb(picture.convert("L") if space == "L" else picture, profile)
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def _read_tile(picture: Image.Image) -> Tuple[str, Optional[Tuple[int, ...]]]:
    """Returns Pillow's name for how pixels are packed, and the box of a frame that is a part."""
    if not picture.tile:
        return picture.mode, None
    box, packing = picture.tile[0][1], picture.tile[0][3]
    packing = packing[0] if isinstance(packing, (tuple, list)) else packing
    is_part = picture.format == "GIF" and tuple(box) != (0, 0, *picture.size)
    return str(packing), tuple(box) if is_part else None


def _find_turn(picture: Image.Image) -> Optional[Image.Transpose]:
    """Finds the rotation that EXIF data or XMP demand; Pillow itself has turned a TIFF."""
    exif = picture.info.get("exif") or b""
    if len(exif) > MAX_EXIF:  # In a PNG, it can follow the pixels.
        raise ValueError("it has too much EXIF data")
    try:
        return TURNS.get(picture.getexif().get(ORIENTATION))
    except Exception:  # Pillow raises many types of errors for damaged EXIF data.
        return None


def _compose(picture: Image.Image, box: Optional[Tuple[int, ...]]) -> Image.Image:
    """Converts a picture of 8 bits to RGB; transparent pixels become white.

    Args:
        picture: The picture.
        box: The part of it that has content; None for all of it.
    """
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture  # without a copy
    picture = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
    if box is not None or picture.getextrema()[3] != (255, 255):
        part = picture if box is None else picture.crop(box)
        picture = Image.new("RGBA", picture.size, "white")
        picture.alpha_composite(part, (0, 0) if box is None else box[:2])
    return picture.convert("RGB")


def _to_8_bits(picture: Image.Image, packing: str, content: bytes) -> Image.Image:
    """Scales numbers of more than 8 bits, and what is said about transparency with them.

    Raises:
        ValueError: If the file doesn't say which numbers are black and white.
    """
    tags = getattr(picture, "tag_v2", {})
    if picture.mode.startswith(("I", "F")):
        return _scale(picture, packing, content, tags)
    check(_first(tags, SAMPLE_FORMAT) != SIGNED, f"it has numbers below 0; {ADVICE} from 0")
    is_16_bit, key = ";16" in packing, picture.info.get("transparency")
    if is_16_bit:  # Pillow keeps the upper 8.
        colours = 1 if packing.startswith("L") else 4 if picture.mode == "CMYK" else 3
        _check_dark(max(high for _, high in picture.getextrema()[:colours]) << 8)
    if is_16_bit and isinstance(key, tuple):
        picture.info["transparency"] = tuple(part >> 8 for part in key)
    elif packing in FEW_BITS and isinstance(key, int):
        picture.info["transparency"] = key * FEW_BITS[packing]
    return picture


def _scale(picture: Image.Image, packing: str, content: bytes, tags: Any) -> Image.Image:
    """Scales grey of 16 or 32 bits, or of floating-point numbers, to 8 bits."""
    numbers = np.asarray(picture)
    if packing == "I;32N":  # Pillow's own numbers have a sign.
        numbers = numbers.view("uint32")
    check(bool(np.isfinite(numbers).all()), "it has numbers that are not finite")
    low, high = _find_range(picture, packing, content, tags, float(numbers.max()))
    grey, rows = np.empty(numbers.shape, "uint8"), max(1, STEP // picture.width)
    for start in range(0, len(grey), rows):
        part = numbers[start : start + rows]
        if (low, high) == (0, 65535):
            scaled = part >> 8
        else:
            scaled = np.rint(255 * ((part.astype("float64") - low) / (high - low)).clip(0, 1))
        grey[start : start + rows] = scaled
    if tags.get(PHOTOMETRIC) == 0:  # 0 is white
        np.subtract(255, grey, out=grey)
    result, key = Image.fromarray(grey), picture.info.get("transparency")
    if isinstance(key, int):
        alpha = np.where(numbers == key, 0, 255).astype("uint8")
        result = Image.merge("LA", (result, Image.fromarray(alpha)))
    return result


def _find_range(
    picture: Image.Image, packing: str, content: bytes, tags: Any, largest: float
) -> Tuple[float, float]:
    """Finds the numbers of black and white, by what the file says about itself.

    Raises:
        ValueError: If it doesn't say, or seems to use only few of 16 bits.
    """
    is_signed = _first(tags, SAMPLE_FORMAT) == SIGNED
    low, high = _first(tags, SMALLEST), _first(tags, LARGEST)
    low = 0 if low is None and not is_signed else low
    if low is not None and high is not None and low < high:
        return float(low), float(high)
    check(not is_signed, f"it has numbers below 0; {ADVICE} from 0")
    if _first(tags, BITS) == 12:
        return 0.0, 4095.0
    if picture.mode == "F" or "32" in packing:
        kind = "floating-point" if picture.mode == "F" else "32-bit"
        raise ValueError(
            f"it has {kind} numbers, and its file doesn't say which are black and white; {ADVICE}, "
            "or as TIFF with SMinSampleValue and SMaxSampleValue"
        )
    bits = _read_significant_bits(content) if picture.format == "PNG" else 16
    if bits < 16 and largest < 1 << bits:
        return 0.0, float((1 << bits) - 1)
    _check_dark(largest)
    return 0.0, 65535.0


def _check_dark(largest: float) -> None:
    """Refuses a picture of 16 bits that seems to use at most 12."""
    check(
        largest >= DARK or largest == 0,  # Black is black in either range.
        f"its numbers have 16 bits, but all are below {DARK}; scale them to 0 to 65535, or save it "
        "with 8 bits",
    )


def _read_significant_bits(content: bytes) -> int:
    """Reads the chunk sBIT of a grey PNG: how many bits of its numbers were in use."""
    place = 8
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">L4s", content, place)
        if kind == b"sBIT" and length == 1:
            return content[place + 8] or 16
        if kind == b"IDAT":
            break
        place += 12 + length
    return 16


def _first(tags: Any, tag: int) -> Any:
    """Returns the number of a TIFF's tag, or its first; None if it is absent."""
    value = tags.get(tag)
    return value[0] if isinstance(value, tuple) and value else value


def _to_srgb(picture: Image.Image, profile: Optional[bytes]) -> Image.Image:
    """Converts a picture to sRGB by its ICC profile; one that is damaged changes nothing.

    Args:
        picture: RGB, L, CMYK, or LAB, which needs no profile.
        profile: The profile.
    """
    is_lab = picture.mode == "LAB"
    check(not is_lab or ImageCms is not None, "it has CIELAB colours; save it in RGB")
    if ImageCms is None or not (is_lab or len(profile) <= MAX_PROFILE):
        return picture
    transform = _make_transform(picture.mode, None if is_lab else profile)
    return picture if transform is None else ImageCms.applyTransform(picture, transform)


@functools.lru_cache(maxsize=8)
def _make_transform(mode: str, profile: Optional[bytes]) -> Any:
    """Makes the transform of a profile to sRGB; None if it is sRGB, damaged, or of another mode."""
    try:
        if profile is None:
            source = ImageCms.createProfile("LAB")
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            is_srgb = ImageCms.getProfileDescription(source).startswith("sRGB")
            if source.profile.xcolor_space != SPACES[mode] or is_srgb:
                return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # ImageCms raises many types of errors for a damaged profile.
        return None


def check(condition: bool, reason: str) -> None:
    """Raises `ValueError` with the reason why a picture can't be read, unless all is well."""
    if not condition:
        raise ValueError(reason)
