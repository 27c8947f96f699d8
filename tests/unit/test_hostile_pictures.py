# SPDX-License-Identifier: Apache-2.0
"""Pictures and archives made to do harm: programs, memory, time, silent damage and odd names."""

import copy
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from helpers import SCRIPTS
from picture_folder import encode
from picture_folder import noise
from PIL import Image

from data import decoding
from data import image_folder
from data import picture_files
from data import pixels
from support.errors import UserError


def read(path, skip=False, **limits):
    return image_folder.read_pictures(os.fspath(path), False, skip, **limits)


def refusal(path, **options):
    """The message of the error."""
    with pytest.raises(UserError) as error:
        read(path, **options)
    return str(error.value)


@pytest.fixture(autouse=True)
def deadline():
    """Ends a test that waits: a test that fails must not hang."""

    def stop(number, frame):
        raise TimeoutError("the reader does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(image_folder.logger, "warning", lines.append)
    return lines


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(12):
        noise(64, 64, seed=number).save(place / f"{number:02}.png")
    return place


def write_tar(path, contents, mode="w:gz", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path, contents, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


WRITERS = {"zip": write_zip, "tar": lambda *a: write_tar(*a, "w:"), "tar.gz": write_tar}


def make_pictures(kind="BMP", count=12):
    suffix = {"JPEG": "jpg"}.get(kind, kind.lower())
    return {f"{n:02}.{suffix}": encode(noise(64, 64, seed=n), kind) for n in range(count)}


def png(width, height, *chunks, pixels=b""):
    """A PNG file of 8 bits of grey with some chunks before its pixels."""
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


# Programs, sockets and other files

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000)
OTHERS = {
    "eps": POSTSCRIPT,
    "eps in a file for DOS": b"\xc5\xd0\xd3\xc6"
    + struct.pack("<7I", 32, 99, 0, 0, 0, 0, 0)
    + POSTSCRIPT,
    "wmf": b"\xd7\xcd\xc6\x9a\x00\x00" + struct.pack("<4hH", 0, 0, 64, 64, 72) + bytes(99),
    "emf": b"\x01\x00\x00\x00" + bytes(36) + b" EMF" + bytes(99),
    "fpx, mic": OLE,
    "grib": b"GRIB\0\0\0\1" + bytes(99),
    "bufr": b"BUFR" + bytes(99),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(99),
    "iptc": b"\x1c\x03\x00\x00\x00" + bytes(99),
    "im": b"Image type: L image\r\nFile name: /etc/passwd\r\n" + bytes(999),
    "xpm": b'/* XPM */\nstatic char *x[] = {\n"1 1 1 1",\n"a c #000000",\n"a"\n};\n',
    "icns": encode(noise(64, 64), "ICNS"),
    "text": b"/etc/passwd http://127.0.0.1/x.png | touch x",
}

WATCH = """
import json, os, sys
sys.path[:0] = [suite]
from support import storage
storage.CACHE = cache
from data import image_folder
good = image_folder.read_pictures(good, False, False)  # what Pillow and Python import lazily
seen = []
def watch(event, arguments):
    kind = event.partition(".")[0]
    if event in ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system",
                 "os.startfile", "os.remove", "os.rename", "pty.spawn", "webbrowser.open"):
        seen.append([event, repr(arguments)])
    elif kind in ("subprocess", "socket", "urllib", "http", "ctypes", "shutil", "tempfile"):
        seen.append([event, repr(arguments)])
    elif event == "open" and not isinstance(arguments[0], int):
        seen.append([event, os.path.realpath(os.fsdecode(arguments[0]))])
sys.addaudithook(watch)
image_folder.logger.warning = lambda text: None
kept = [image_folder.read_pictures(place, False, True).fingerprint() for place in places]
print(json.dumps([seen, kept, good.fingerprint()]))
"""


def test_no_picture_starts_a_program_or_opens_another_file(folder, tmp_path):
    """Pillow starts Ghostscript (gs) on the content of an EPS file, whatever its name is."""
    programs, hostile = tmp_path / "programs", tmp_path / "hostile"
    programs.mkdir()
    for name in ("gs", "gswin32c", "djpeg", "xdg-open"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (programs / name).chmod(0o755)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    for number, content in enumerate(OTHERS.values()):
        for suffix in decoding.list_suffixes()[::4]:
            contents[f"x{number}{suffix}"] = content
    hostile.mkdir()
    for name, content in contents.items():
        (hostile / name).write_bytes(content)
    places = [hostile, *(make(tmp_path / f"x.{kind}", contents) for kind, make in WRITERS.items())]
    names = {"suite": SCRIPTS, "cache": tmp_path / "cache", "good": folder}
    values = [f"{name} = {os.fspath(value)!r}\n" for name, value in names.items()]
    program = f"{''.join(values)}places = {[os.fspath(place) for place in places]!r}\n{WATCH}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    seen, kept, good = json.loads(done.stdout.splitlines()[-1])
    allowed = [tmp_path / "cache", sys.prefix, sys.base_prefix, SCRIPTS, *places]
    allowed = tuple(os.path.realpath(place) for place in allowed)
    cached = os.path.realpath(tmp_path / "cache")
    for event, text in seen:
        is_own = event in ("tempfile.mkstemp", "os.rename", "os.chmod") and cached in text
        assert is_own or (event == "open" and text.startswith(allowed)), (event, text)
    assert {text for event, text in seen if text.startswith(os.path.realpath(hostile))}
    assert kept == [good] * len(places)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_the_content_decides_the_format(kind):
    picture = Image.new("RGB", (64, 64), (255, 0, 0))
    found = decoding.decode(encode(picture, kind), 64).astype(int)
    assert (found[0] > 250).all() and (found[1:] < 5).all()


# Silent damage


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["BMP", "JPEG"])
@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("skip", [False, True])
def test_a_flipped_bit_in_a_compressed_tar_is_noticed(skip, compression, kind, tmp_path):
    """A gzip file's checksum is at its end, where tarfile does not look."""
    options = {"gz": {"compresslevel": 0}, "bz2": {}, "xz": {}}[compression]
    path, contents = tmp_path / "x.tar", make_pictures(kind)
    write_tar(path, contents, f"w:{compression}", **options)
    expected = read(path)
    assert len(expected.train_images) == 11
    if compression == "gz":
        # Without compression, the pixels are in the file as they are.
        places = [path.read_bytes().index(contents[name][-600:]) + 300 for name in list(contents)]
    else:
        places = [path.stat().st_size * n // 10 for n in range(2, 9, 2)]
    for place in places:
        flip(path, place)
        assert f"{path} can't be read (" in refusal(path, skip=skip)
        flip(path, place)
    assert read(path).fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("skip", [False, True])
def test_a_flipped_bit_of_the_gzip_checksum_is_noticed(skip, tmp_path):
    path = write_tar(tmp_path / "x.tar.gz", make_pictures())
    for place in (-1, -8):
        flip(path, place)
        assert f"{path} can't be read (" in refusal(path, skip=skip)
        flip(path, place)
    path.write_bytes(path.read_bytes()[:-8])
    assert f"{path} can't be read (" in refusal(path, skip=skip)


@pytest.mark.parametrize("skip", [False, True])
def test_a_flipped_bit_in_a_zip_is_noticed(skip, tmp_path):
    contents = make_pictures()
    path = write_zip(tmp_path / "x.zip", contents, zipfile.ZIP_STORED)
    flip(path, path.read_bytes().index(contents["03.bmp"]) + 5000)
    text = refusal(path, skip=skip)
    assert f"{path} can't be read: 03.bmp is damaged in the archive (Bad CRC-32" in text


def test_a_tar_without_an_end_is_refused(tmp_path):
    """It was cut between two members: each of those that are left is intact."""
    path = write_tar(tmp_path / "x.tar", make_pictures(), "w:")
    with tarfile.open(path) as archive:
        start = archive.getmembers()[11].offset
    path.write_bytes(path.read_bytes()[:start])
    assert "it has no end: it may be incomplete" in refusal(path, skip=True)


# Memory and time


@pytest.mark.parametrize("shape", [(1, 88_000_000), (88_000_000, 1), (30_000, 30_000)])
@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "tif", "webp"])
def test_the_size_is_checked_before_a_picture_is_decoded(kind, shape):
    small = encode(Image.new("L", (16, 16)), {"tif": "TIFF"}.get(kind, kind))
    width, height = shape
    if kind == "png":
        content = png(width, height)
    elif kind == "bmp":
        content = small[:18] + struct.pack("<2i", width, height) + small[26:]
    elif kind == "gif":
        shape = struct.pack("<2H", 60_000, 60_000)
        content = small[:6] + shape + small[10:]
    elif kind == "tif":
        content = bytearray(small)
        (start,) = struct.unpack_from("<L", content, 4)
        for number in range(struct.unpack_from("<H", content, start)[0]):
            place = start + 2 + 12 * number
            value = {256: width, 257: height}.get(struct.unpack_from("<H", content, place)[0])
            if value:
                struct.pack_into("<HLL", content, place + 2, 4, 1, value)
    else:
        content = small[:26] + struct.pack("<2H", 16_000, 16_000) + small[30:]
    with pytest.raises(ValueError, match="more pixels than DATA.max_pixels=67108864"):
        decoding.decode(bytes(content), 64)


def test_long_rows_columns_and_webp_count_more():
    """Their memory for each pixel is larger."""
    for picture, kind, limit in (
        (noise(1, 1000), "PNG", 16_000),
        (noise(1000, 1), "PNG", 16_000),
        (noise(80, 100), "WEBP", 16_000),
        (noise(160, 100), "TIFF", 16_000),
    ):
        content = encode(picture, kind)
        assert decoding.decode(content, 64, limit).shape == (3, 64, 64)
        with pytest.raises(ValueError, match=f"more pixels than DATA.max_pixels={limit - 1}"):
            decoding.decode(content, 64, limit - 1)


def test_a_bound_on_pixels_reaches_the_reader(folder):
    (folder / "long.png").write_bytes(png(1, 88_000_000))
    assert "long.png can't be decoded (it has more pixels than DATA.max" in refusal(folder)
    assert len(read(folder, skip=True).train_images) == 11


def smooth(width, height, mode="RGB"):
    picture = noise(width // 20, height // 20, seed=3).resize((width, height), Image.BICUBIC)
    return picture.convert(mode)


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_large_jpeg_is_reduced_while_it_is_decoded(scale, mode, kind, monkeypatch):
    picture = smooth(800, 600, mode)
    more = {"save_all": True, "append_images": [picture]} if kind == "MPO" else {}
    content = encode(picture, kind, quality=95, **more)
    sizes, fit = [], pixels.ImageOps.fit
    monkeypatch.setattr(
        pixels.ImageOps, "fit", lambda p, *rest: (sizes.append(p.size), fit(p, *rest))[1]
    )
    full = decoding.decode(content, 64, 800 * 600).astype(int)
    found = decoding.decode(content, 64, 800 * 600 // scale**2)
    assert sizes == [(800, 600), (800 // scale, 600 // scale)]
    assert np.abs(found - full).max() < (12 if scale < 8 else 40)
    with pytest.raises(ValueError, match="smaller, or set DATA.max_pixels=7500, which takes"):
        decoding.decode(content, 64, 800 * 600 // 64 - 1)


def split_scans(content):
    """A JPEG whose scan claims to hold one of three colours, as if others followed."""
    start = content.rindex(b"\xff\xda")
    return content[: start + 4] + b"\1" + content[start + 5 :]


@pytest.mark.parametrize("how", ["progressive", "split"])
def test_a_jpeg_of_several_scans_is_not_reduced(how):
    """libjpeg keeps such a picture as a whole, whatever the size of the result is."""
    content = encode(smooth(400, 300), "JPEG", progressive=how == "progressive")
    content = split_scans(content) if how == "split" else content
    with pytest.raises(ValueError, match="more pixels than DATA.max_pixels=60000"):
        decoding.decode(content, 64, 60_000)
    if how == "progressive":
        assert decoding.decode(content, 64).shape == (3, 64, 64)


def test_a_progressive_jpeg_of_many_scans_is_refused():
    content = encode(smooth(400, 300), "JPEG", progressive=True)
    assert decoding.decode(content, 64, 120_000).shape == (3, 64, 64)
    with pytest.raises(ValueError, match="too many scans for its size"):
        decoding.decode(content + b"\xff\xda" * 30, 64, 120_000)


def tiff_of_strips(count):
    """A TIFF that claims an offset for each of many strips."""
    tags = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (278, 1), (279, 64)]
    entries = [struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags]
    place = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries.insert(5, struct.pack("<HHLL", 273, 4, count, place))
    header = b"II*\0" + struct.pack("<LH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return header + bytes(4 * count)


def segment(data):
    return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data


JPEG = encode(noise(64, 64), "JPEG")
EXIF = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\x7f\0\0\0\0\0\0\x20"
LADEN = {
    "strips": (tiff_of_strips(300_000), "a tag has too many values"),
    "tags": (b"II*\0\xff\xff\xff\x7f" + bytes(99), "its tags are damaged"),
    "large tags": (b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\xff" * 99, "it has too many tags"),
    "exif of png": (
        png(64, 64, (b"eXIf", EXIF + bytes(1 << 20)), pixels=bytes(65 * 64)),
        "too much EXIF data",
    ),
    "exif of jpeg": (
        JPEG[:2] + segment(b"Exif\0\0" + EXIF + bytes(60_000)) * 17 + JPEG[2:],
        "too much EXIF data",
    ),
    "chunks": (png(64, 64, *[(b"tEXt", b"a\0b")] * 20_000, pixels=bytes(65 * 64)), "many parts"),
    "comments": (
        encode(noise(64, 64), "GIF").replace(b",", b"!\xfe" + b"\x01x" * 20_000 + b"\0,", 1),
        "many parts",
    ),
    "avif": (b"\0\0\0\x1cftypavif" + bytes(decoding.MAX_AVIF), "too large for AVIF"),
}


@pytest.mark.parametrize("how", LADEN)
def test_pictures_that_consist_of_their_metadata_are_refused(how):
    content, reason = LADEN[how]
    with pytest.raises(ValueError, match=reason):
        decoding.decode(content, 64)


def test_usual_metadata_is_read():
    for chunks in (20, 2000):
        content = png(64, 64, *[(b"tEXt", b"a\0b")] * chunks, pixels=bytes(65 * 64))
        assert not decoding.decode(content, 64).any()
    noisy = noise(64, 64)
    expected = np.asarray(noisy).transpose(2, 0, 1)
    for options in ({"tiffinfo": {270: "x" * 400_000}}, {"icc_profile": bytes(400_000)}):
        found = decoding.decode(encode(noisy, "TIFF", **options), 64)
        np.testing.assert_array_equal(found, expected)
    content = JPEG[:2] + segment(b"Exif\0\0" + EXIF) + JPEG[2:]
    np.testing.assert_array_equal(decoding.decode(content, 64), decoding.decode(JPEG, 64))


def test_opaque_pictures_are_composed_with_nothing():
    """Composing with white is left out where all is opaque: it would change no value."""
    levels = np.arange(256, dtype="uint8").reshape(16, 16)
    opaque = np.dstack([levels, levels.T, levels[::-1], np.full_like(levels, 255)])
    picture = Image.fromarray(opaque.copy())
    ground = Image.new("RGBA", picture.size, "white")
    assert Image.alpha_composite(ground, picture).tobytes() == picture.tobytes()
    opaque[3, 5, 3] = 0  # and one pixel of white
    for levels, expected in ((picture, picture), (Image.fromarray(opaque), ground)):
        found = decoding.decode(encode(levels), 16)
        np.testing.assert_array_equal(found[:, 3, 5], np.asarray(expected)[3, 5, :3])
        np.testing.assert_array_equal(found[:, 4:], opaque[4:, :, :3].transpose(2, 0, 1))


@pytest.mark.parametrize("kind", WRITERS)
def test_too_little_memory_is_not_a_damaged_picture(kind, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(image_folder, "decode", fail)
    path = WRITERS[kind](tmp_path / f"x.{kind}", make_pictures())
    text = refusal(path, skip=True)
    assert "00.bmp needs more memory" in text and "DATA.max_pixels=" in text


BOMBS = {
    "a picture": {"x.png": bytes(300_000)},
    "many pictures": {f"x{n}.png": bytes(9_000) for n in range(40)},
    "many empty pictures": {f"x{n}.png": b"" for n in range(200)},
}
SMALL = {"max_unpacked": 200_000}


@pytest.mark.parametrize("how", BOMBS)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_what_an_archive_unpacks_to_has_a_bound(kind, how, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "MAX_RATIO", 0)
    path = WRITERS[kind](tmp_path / f"x.{kind}", {**make_pictures("PNG"), **BOMBS[how]})
    text = refusal(path, skip=True, **SMALL)
    assert re.search("unpacks to more than .*; DATA.max_unpacked=BYTES allows more", text)
    assert len(read(path, skip=True).train_images) == 11


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_other_files_in_a_compressed_tar_count(compression, tmp_path):
    contents = {**make_pictures("PNG"), "video.mp4": bytes(10_000_000)}
    path = write_tar(tmp_path / "x", contents, f"w:{compression}")
    assert "unpacks to more than" in refusal(path, max_unpacked=5_000_000)
    assert len(read(path).train_images) == 11
    contents = {**make_pictures("PNG"), "video.mp4": bytes(10_000_000)}
    assert len(read(write_zip(tmp_path / "y", contents), **SMALL).train_images) == 11


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_may_always_unpack_to_ten_times_its_size(kind, tmp_path):
    path = WRITERS[kind](tmp_path / f"x.{kind}", make_pictures("BMP"))
    assert len(read(path, max_unpacked=1).train_images) == 11


def test_a_sparse_member_is_refused(tmp_path):
    """It may unpack to far more than it has."""
    header = (
        b"x.png".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2
        + b"00000001000\0" + b"0" * 12 + b" " * 8 + b"S" + bytes(100)
        + b"ustar  \0" + bytes(121)
        + b"0" * 12 + b"00000001000\0" + bytes(72) + b"\0" + b"00700000000\0" + bytes(17)
    )  # fmt: skip
    header = header.ljust(512, b"\0")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    path = tmp_path / "x.tar"
    path.write_bytes(header + bytes(512) + bytes(1024))
    assert "x.png is sparse: pack it without the option --sparse" in refusal(path)


def test_members_of_a_zip_that_overlap_are_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(100_000))
        for number in range(1, 20):
            member = copy.copy(archive.filelist[0])
            member.filename = f"{number}.png"
            archive.filelist.append(member)
    assert "overlap" in refusal(path, skip=True)


@pytest.mark.parametrize("declared", [50, 200_000])
def test_a_member_of_another_size_than_declared_is_refused(declared, tmp_path):
    path = write_zip(tmp_path / "x.zip", {"0.png": bytes(100_000)})
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        struct.pack_into("<L", content, content.index(signature) + place, declared)
    path.write_bytes(content)
    assert "0.png is damaged in the archive" in refusal(path, skip=True)


def test_an_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"0.png": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert "0.png is encrypted" in refusal(path, skip=True)


def tar_header(name, kind, size):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


DIGITS = b"1" * 20_000
HEADER, TOO_MUCH = "a member's header is damaged", "it unpacks to more than"
TOO_LONG = "a header has more than 65536 bytes"
HEADERS = {
    "a negative size": (tar_header("x.png", tarfile.REGTYPE, -512), HEADER),
    "a negative size of a text": (tar_header("x", tarfile.XHDTYPE, -512), HEADER),
    "a long name of 1 GB": (tar_header("x", tarfile.GNUTYPE_LONGNAME, 1 << 30), TOO_LONG),
    "a text of 1 GB": (tar_header("x", tarfile.XHDTYPE, 1 << 30), TOO_LONG),
    "digits": (
        tar_header("x", tarfile.XHDTYPE, len(DIGITS)) + DIGITS.ljust(20_480, b"\0"),
        "an extended header is damaged",
    ),
    "a picture of 2**60 bytes": (tar_header("x.png", tarfile.REGTYPE, 1 << 60), TOO_MUCH),
    "headers without end": (
        tar_header("x", tarfile.GNUTYPE_LONGNAME, 1) * 4000,
        "it has bytes after its end",
    ),
}


@pytest.mark.parametrize("compression", ["", "gz"])
@pytest.mark.parametrize("how", HEADERS)
def test_crafted_heads_of_a_tar_are_refused(how, compression, tmp_path):
    good = write_tar(tmp_path / "good.tar", make_pictures(), "w:").read_bytes()
    header, reason = HEADERS[how]
    content = header + bytes(512) + good
    path = tmp_path / "x.tar"
    path.write_bytes(content if not compression else zlib.compress(content, wbits=31))
    assert f"{path} can't be read ({reason}" in refusal(path, skip=True)


# What is not a file


def test_pipes_sockets_and_devices_are_left_out(folder, warned, tmp_path, monkeypatch):
    expected = read(folder)
    os.mkfifo(folder / "pipe.png")
    os.symlink(folder / "pipe.png", folder / "link to a pipe.png")
    os.symlink("/dev/zero", folder / "device.png")
    os.symlink("nowhere", folder / "broken.png")
    os.symlink("loop.png", folder / "loop.png")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert read(folder).fingerprint() == expected.fingerprint()
        assert read(folder).fingerprint() == expected.fingerprint()  # the stored array
    lines = set(text for text in warned if "Left out" in text)
    assert len(warned) == 2 and lines == {
        f"Left out of {folder}: links to nothing (2, such as broken.png, loop.png); "
        "devices (1, such as device.png); pipes (2, such as link to a pipe.png, pipe.png); "
        "sockets (1, such as socket.png)."
    }


def test_a_picture_that_becomes_a_pipe_is_not_opened_for_good(folder):
    (picture, *_), _ = picture_files.collect(str(folder))
    (folder / "00.png").unlink()
    os.mkfifo(folder / "00.png")
    with pytest.raises(OSError, match="not a regular file"):
        picture.read()


def test_links_to_pictures_are_read(folder, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    for path in folder.iterdir():
        os.symlink(path, links / path.name)
    assert read(links).fingerprint() == read(folder).fingerprint()


def test_a_path_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is neither a folder nor a file" in refusal(tmp_path / "pipe")
    assert "/dev/zero is neither a folder nor a file" in refusal("/dev/zero")


# Names

NAMES = {
    "not UTF-8": b"\xff\xfe",
    "line break": b"a\nError: b",
    "escape sequence": b"\x1b[31mred\x07",
    "long": b"x" * 200,
    "surrogate": b"\xed\xa0\x80",
}


@pytest.mark.parametrize("how", NAMES)
@pytest.mark.parametrize("kind", [None, *WRITERS])
def test_names_of_any_bytes(kind, how, tmp_path, warned):
    """In the names of pictures, of their folder, and of the place itself."""
    odd = os.fsdecode(NAMES[how])
    place = tmp_path / odd / odd
    contents = {f"{odd}/{odd}{n:02}.png": encode(noise(64, 64, seed=n)) for n in range(12)}
    contents[f"{odd}/{odd}damaged.png"] = b"nonsense"
    if kind is None:
        (place / odd).mkdir(parents=True)
        for name, content in contents.items():
            (place / name).write_bytes(content)
    else:
        place.parent.mkdir()
        if kind == "zip":  # zipfile writes such names only as bytes that it takes for CP437
            contents = {os.fsencode(n).decode("cp437"): c for n, c in contents.items()}
        WRITERS[kind](place, contents)
    text = refusal(place)
    assert "damaged.png can't be decoded" in text
    if how == "long":
        assert len(text) < 400
    data = read(place, skip=True)
    assert len(data.train_images) == 11 and len(data.class_names) == 1
    assert read(place, skip=True).fingerprint() == data.fingerprint()  # the stored array
    assert warned and all(line.isprintable() for line in warned)


def test_a_name_in_a_zip_that_claims_to_be_utf8(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"caf\u00e9.png": b"x"})
    path.write_bytes(path.read_bytes().replace("caf\u00e9".encode(), b"caf\xff\xff"))
    assert f"{path} can't be read (" in refusal(path, skip=True)
