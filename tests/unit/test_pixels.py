# SPDX-License-Identifier: Apache-2.0
"""Rotations, ranges of numbers, transparency and colours, in each format that can hold them."""

import struct
import zlib

import numpy as np
import pytest
from picture_folder import encode
from picture_folder import noise
from PIL import Image
from PIL import ImageCms

from data import decoding

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def decode(content):
    return decoding.decode(content, 64)


def check(found, grey, tolerance=0):
    """Compares a decoded picture with the grey levels that it must have."""
    assert np.abs(found.astype(int) - np.asarray(grey).astype(int)).max() <= tolerance


def png(numbers, depth, kind, *chunks):
    """A PNG whose rows are given as bytes, with chunks before its pixels."""
    height, width = numbers.shape[:2]
    head = struct.pack(">2I5B", width, height, depth, kind, 0, 0, 0)
    if numbers.dtype.itemsize > 1:
        numbers = numbers.astype(">u2")
    elif depth < 8:
        bits = np.unpackbits(numbers[..., None], axis=-1)[..., 8 - depth :]
        numbers = np.packbits(bits.reshape(height, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in numbers)
    parts = ((b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def tiff(numbers, bits, order="<", kind=1, photometric=1, **more):
    """A TIFF of one strip with the numbers as they are; `more` has tags as t341=(type, value)."""
    height, width = numbers.shape[:2]
    samples = 1 if numbers.ndim == 2 else numbers.shape[2]
    content = numbers.astype(numbers.dtype.newbyteorder(order)).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: samples}
    tags |= {278: height, 279: len(content), 339: kind}
    tags = {tag: ("L", value) for tag, value in tags.items()}
    tags |= {int(name[1:]): value for name, value in more.items()}
    types = {"H": 3, "L": 4, "l": 9, "f": 11}
    start = 8 + len(content) + len(content) % 2
    entries = [
        struct.pack(f"{order}HHL{form}", tag, types[form], 1, value).ljust(12, b"\0")
        for tag, (form, value) in sorted(tags.items())
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", start)
    content = content.ljust(start - 8, b"\0")
    return head + content + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


# Ranges of numbers

WIDE = (RAMP * 65535).astype("uint16")
TWELVE = (RAMP * 4095).astype("uint16")


def packed_12_bits():
    first, second = TWELVE[:, ::2].astype(int), TWELVE[:, 1::2].astype(int)
    parts = (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
    return np.stack(parts, 2).reshape(64, 96).astype("uint8")


def tiff_12_bits():
    content = tiff(packed_12_bits(), 12)
    return content.replace(struct.pack("<HHLL", 256, 4, 1, 96), struct.pack("<HHLL", 256, 4, 1, 64))


STATED = {
    "png": lambda: png(WIDE, 16, 0),
    "tiff": lambda: tiff(WIDE, 16),
    "tiff of the other order": lambda: tiff(WIDE, 16, ">"),
    "tiff, white is 0": lambda: tiff(65535 - WIDE, 16, photometric=0),
    "tiff of 12 bits": tiff_12_bits,
    "12 of 16 bits in tiff": lambda: tiff(TWELVE, 16, t341=("H", 4095)),
    "12 of 16 bits in png": lambda: png(TWELVE, 16, 0, (b"sBIT", b"\x0c")),
    "scaled 12 bits in png": lambda: png(TWELVE * 16, 16, 0, (b"sBIT", b"\x0c")),
    "signed tiff": lambda: tiff(
        (RAMP * 2000 - 1000).astype("int16"), 16, kind=2, t340=("l", -1000), t341=("l", 1000)
    ),
    "32 bits": lambda: tiff((RAMP * 3e9).astype("uint32"), 32, t341=("L", 3_000_000_000)),
    "signed 32 bits": lambda: tiff(
        (RAMP * 2e6 - 1e6).astype("int32"), 32, kind=2, t340=("l", -(10**6)), t341=("l", 10**6)
    ),
    "float": lambda: tiff(RAMP.astype("float32"), 32, kind=3, t341=("f", 1.0)),
    "float, white is 0": lambda: tiff(
        (1 - RAMP).astype("float32"), 32, kind=3, photometric=0, t341=("f", 1.0)
    ),
    "float of the other order": lambda: tiff(
        (RAMP * 4 - 2).astype("float32"), 32, ">", kind=3, t340=("f", -2.0), t341=("f", 2.0)
    ),
    "pgm of 12 bits": lambda: b"P5 64 64 4095\n" + TWELVE.astype(">u2").tobytes(),
    "pgm of 16 bits": lambda: b"P5 64 64 65535\n" + WIDE.astype(">u2").tobytes(),
    "pgm of text": lambda: b"P2 64 64 4095\n" + " ".join(map(str, TWELVE.ravel())).encode(),
    "ppm": lambda: encode(Image.fromarray((RAMP * 255).astype("uint8")).convert("RGB"), "PPM"),
    "rgb of 16 bits": lambda: png(np.stack([WIDE] * 3, 2), 16, 2),
}


@pytest.mark.parametrize("how", STATED)
def test_numbers_are_scaled_by_the_range_that_the_file_states(how):
    check(decode(STATED[how]()), np.broadcast_to(RAMP * 255, (3, 64, 64)), 1)


def test_16_bits_lose_their_lower_half():
    check(decode(png(WIDE, 16, 0)), WIDE >> 8)
    check(decode(png(np.stack([WIDE] * 3, 2), 16, 2)), WIDE >> 8)


NAN = RAMP.astype("float32")
NAN[3, 3] = np.nan
FLOAT = RAMP.astype("float32")
UNSTATED = {
    "12 of 16 bits in tiff": (tiff(TWELVE, 16), "all are below 4096"),
    "12 of 16 bits in png": (png(TWELVE, 16, 0), "all are below 4096"),
    "8 of 16 bits": (png(TWELVE >> 4, 16, 0), "all are below 4096"),
    "12 of 16 bits of rgb": (png(np.stack([TWELVE] * 3, 2), 16, 2), "all are below 4096"),
    "12 of 16 bits with alpha": (
        png(np.stack([TWELVE, TWELVE | 0xFFFF], 2), 16, 4),
        "all are below 4096",
    ),
    "12 of 16 bits of cmyk": (
        tiff(np.stack([TWELVE] * 4, 2), 16, photometric=5, t258=("H", 16)),
        "all are below 4096",
    ),
    "32 bits": (tiff((RAMP * 3e9).astype("uint32"), 32), "32-bit numbers, and its file doesn't"),
    "float": (tiff(FLOAT, 32, kind=3), "floating-point numbers, and its file doesn't say"),
    "float of pfm": (encode(Image.fromarray(FLOAT), "PPM"), "floating-point numbers, and its"),
    "nan": (tiff(NAN, 32, kind=3, t341=("f", 1.0)), "numbers that are not finite"),
    "signed 16 bits": (tiff((WIDE // 2).astype("int16"), 16, kind=2), "numbers below 0"),
    "signed 8 bits": (tiff((TWELVE >> 5).astype("int8"), 8, kind=2), "numbers below 0"),
    "float colours": (tiff(np.stack([FLOAT] * 3, 2), 32, kind=3, photometric=2), "TIFF, or one"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(99), "pip install pillow-heif|damaged"),
    "long text": (b"P2 2000 2000 255\n" + b"1 " * 4_000_000, "more than 1048576 pixels"),
}


@pytest.mark.parametrize("how", UNSTATED)
def test_numbers_without_a_range_are_refused(how):
    content, reason = UNSTATED[how]
    with pytest.raises(ValueError, match=reason):
        decode(content)


# Transparency

HALF = np.arange(64) < 32  # columns that are transparent
LEVELS = np.where(HALF, 1, 2).astype("uint8")[None].repeat(64, 0)
KEYED = {
    "1 bit": (LEVELS - 1, 1, 0, b"\0\0", [255, 255]),
    "1 bit of white": (2 - LEVELS, 1, 0, b"\0\1", [255, 0]),
    "2 bits": (LEVELS, 2, 0, b"\0\1", [255, 170]),
    "4 bits": (LEVELS, 4, 0, b"\0\1", [255, 34]),
    "8 bits": (LEVELS, 8, 0, b"\0\1", [255, 2]),
    "16 bits": (LEVELS.astype("uint16") * 9999, 16, 0, b"\x27\x0f", [255, 19998 >> 8]),
    "rgb": (np.stack([LEVELS] * 3, 2), 8, 2, b"\0\1\0\1\0\1", [255, 2]),
    "rgb of 16 bits": (
        np.stack([LEVELS.astype("uint16") * 9999] * 3, 2),
        *(16, 2, b"\x27\x0f" * 3, [255, 19998 >> 8]),
    ),
}


@pytest.mark.parametrize("how", KEYED)
def test_a_transparent_level_of_png_becomes_white(how):
    numbers, depth, kind, key, (left, right) = KEYED[how]
    check(decode(png(numbers, depth, kind, (b"tRNS", key))), np.where(HALF, left, right))


def test_a_palette_of_several_transparencies():
    palette = bytes([0, 0, 0, 0, 0, 0, 90, 90, 90])
    content = png(LEVELS, 8, 3, (b"PLTE", palette), (b"tRNS", b"\xff\x80"))
    check(decode(content), np.where(HALF, 127, 90), 1)


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
def test_alpha_of_other_modes(mode):
    grey = Image.new("L", (64, 64), 40)
    picture = Image.merge(
        "LA", (grey, Image.fromarray(np.where(LEVELS == 1, 0, 255).astype("uint8")))
    )
    content = encode(picture.convert("RGBA").convert(mode) if mode != "LA" else picture, "TIFF")
    check(decode(content), np.where(HALF, 255, 40))
    check(decode(encode(picture)), np.where(HALF, 255, 40))


@pytest.mark.parametrize("extra", [1, 2])
def test_alpha_of_grey_tiff_premultiplied_or_not(extra):
    alpha = np.where(LEVELS == 1, 128, 255)
    grey = 100 * alpha // 255 if extra == 1 else np.full((64, 64), 100)
    content = tiff(np.stack([grey, alpha], 2).astype("uint8"), 8, t338=("H", extra))
    check(decode(content), np.where(HALF, 255 - 128 * 155 / 255, 100), 2)


# Several frames


def frames():
    return noise(64, 64, seed=1), noise(64, 64, seed=2)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_the_first_frame_counts(kind):
    if kind not in (*decoding._list_formats(), "MPO"):
        pytest.skip(f"this Pillow does not write {kind}")
    first, second = frames()
    options = {"quality": 95} if kind == "MPO" else {"lossless": True} if kind == "WEBP" else {}
    found = decode(encode(first, kind, save_all=True, append_images=[second], **options))
    expected = np.asarray(first).transpose(2, 0, 1).astype(int)
    limit = 60 if kind in ("MPO", "AVIF") else 0
    assert np.abs(found - expected).mean() <= limit
    assert np.abs(found - np.asarray(second).transpose(2, 0, 1).astype(int)).mean() > 70


def test_what_the_first_frame_of_a_gif_leaves_open_becomes_white():
    picture = Image.new("P", (32, 64), 0)
    picture.putpalette([9, 9, 9])
    content = bytearray(encode(picture, "GIF"))
    struct.pack_into("<2H", content, 6, 64, 64)  # the canvas is wider
    check(decode(bytes(content)), np.where(np.arange(64) < 32, 9, 255))


# Rotations


def turned(array, orientation):
    """The picture that a viewer must show, by the table of the EXIF standard."""
    array = {1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1]}.get(
        orientation, array.swapaxes(0, 1)
    )
    return {6: array[:, ::-1], 7: array[::-1, ::-1], 8: array[::-1]}.get(orientation, array)


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def late_exif(picture, exif):
    content = encode(picture)
    data = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data
    return content[:-12] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + content[-12:]


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
CONTAINERS = {
    "png": lambda p, e: encode(p, exif=e),
    "png of 16 bits": lambda p, e: encode(
        Image.fromarray(np.asarray(p.convert("L")).astype("uint16") << 8), exif=e
    ),
    "png, behind the pixels": late_exif,
    "webp": lambda p, e: encode(p, "WEBP", lossless=True, exif=e),
    "tiff": lambda p, e: encode(p, "TIFF", exif=e),
    "compressed tiff": lambda p, e: encode(p, "TIFF", exif=e, compression="tiff_lzw"),
    "tiff of 16 bits": lambda p, e: encode(
        Image.fromarray(np.asarray(p.convert("L")).astype("uint16") << 8), "TIFF", exif=e
    ),
    "jpeg": lambda p, e: encode(p, "JPEG", quality=95, exif=e),
    "mpo": lambda p, e: encode(p, "MPO", quality=95, exif=e, save_all=True, append_images=[p]),
    "cmyk jpeg": lambda p, e: encode(p.convert("CMYK"), "JPEG", quality=95, exif=e),
    "xmp of webp": lambda p, e: encode(p, "WEBP", lossless=True, xmp=(XMP % e[0x0112]).encode()),
    "xmp of jpeg": lambda p, e: encode(p, "JPEG", quality=95, xmp=(XMP % e[0x0112]).encode()),
    "avif": lambda p, e: encode(p, "AVIF", quality=95, exif=e),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("how", CONTAINERS)
def test_a_rotation_counts_in_each_container(how, orientation):
    if "avif" in how and "AVIF" not in decoding._list_formats():
        pytest.skip("this Pillow does not know AVIF")
    small = noise(4, 4, 1, seed=5).resize((64, 64), Image.NEAREST).convert("RGB")
    found = decode(CONTAINERS[how](small, exif_of(orientation)))
    check(found, turned(np.asarray(small)[..., 0], orientation), 30 if "ng" not in how else 0)


def test_damaged_exif_data_turn_nothing():
    picture = noise(64, 64)
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"x"):
        check(decode(encode(picture, exif=exif)), np.asarray(picture).transpose(2, 0, 1))


# Colours


def swapped_profile():
    """A profile whose red is what sRGB calls blue, and the other way round."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(struct.unpack_from(">L", content, 128)[0]):
        place = 132 + 12 * number
        name = bytes(content[place : place + 4])
        content[place : place + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    return (
        bytes(content)
        .replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
        .replace(b"sRGB built", b"test built")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colours_of_a_profile_become_srgb(kind):
    picture = Image.new("RGB", (64, 64), (250, 10, 60))
    content = encode(picture, kind, icc_profile=swapped_profile())
    check(decode(content).transpose(1, 2, 0), np.array([60, 10, 250]), 8)


def test_profiles_that_change_nothing():
    picture = noise(64, 64)
    expected = np.asarray(picture).transpose(2, 0, 1)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    swapped = swapped_profile()
    for profile in (own, lab, b"nonsense", bytes(400), swapped[:200], swapped[:-300] + bytes(300)):
        content = encode(picture, icc_profile=profile)
        if profile is not swapped:
            check(decode(content), expected)
    grey = Image.fromarray(np.asarray(picture)[..., 0])
    check(decode(encode(grey, icc_profile=own)), np.asarray(grey))


def make_profile(space, connection, tags):
    """An ICC profile of version 2 with some tags."""
    tags = {b"wtpt": b"XYZ " + struct.pack(">4l", 0, 63190, 65536, 54061), **tags}
    table, content, place = struct.pack(">L", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">2L", place + len(content), len(data))
        content += data.ljust(len(data) + -len(data) % 4, b"\0")
    head = struct.pack(">L4xL4s4s4s", place + len(content), 0x02400000, b"prtr", space, connection)
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">3l", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + content


def test_linear_grey_becomes_srgb():
    """A gamma of 1: half of the light is level 188 of sRGB."""
    profile = make_profile(b"GRAY", b"XYZ ", {b"kTRC": b"curv" + struct.pack(">2L", 0, 0)})
    grey = Image.new("L", (64, 64), 128)
    check(decode(encode(grey, icc_profile=profile)), 188, 2)
    alpha = Image.merge(
        "LA", (grey, Image.fromarray(np.where(LEVELS == 1, 0, 255).astype("uint8")))
    )
    check(decode(encode(alpha, icc_profile=profile)), np.where(HALF, 255, 188), 2)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_profile_of_cmyk_counts(kind):
    """In this one, any ink makes paper black: half of the cyan is a grey of lightness 50."""
    curve = bytes(range(256))
    table = b"mft1" + struct.pack(">4x4B9l", 4, 3, 2, 0, *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    table += curve * 4 + bytes([255, 128, 128]) + bytes([0, 128, 128]) * 15 + curve * 3
    profile = make_profile(b"CMYK", b"Lab ", {b"A2B0": table})
    picture = Image.new("CMYK", (64, 64), (128, 0, 0, 0))
    check(decode(encode(picture, kind, icc_profile=profile)), 119, 4)


def test_lab_becomes_srgb():
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    picture = Image.new("RGB", (64, 64), (200, 90, 30))
    content = encode(ImageCms.applyTransform(picture, transform), "TIFF")
    check(decode(content).transpose(1, 2, 0), np.array([200, 90, 30]), 4)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind):
    """Adobe's JPEG files hold CMYK inverted, and say so."""
    picture = Image.new("RGB", (64, 64), (200, 90, 30)).convert("CMYK")
    check(decode(encode(picture, kind)).transpose(1, 2, 0), np.array([200, 90, 30]), 3)
