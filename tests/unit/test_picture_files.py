# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder or an archive are pictures, which class they have, what is left out."""

import gzip
import io
import os
import struct
import sys
import tarfile
import types
import zipfile
import zlib

import pytest
from picture_folder import encode
from picture_folder import noise
from PIL import Image

from data import decoding
from data import image_folder
from data import picture_files
from data import picture_names
from support.errors import UserError

CONTENT = encode(noise(8, 8))
FILE, LINK, HARD_LINK = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture(autouse=True)
def lines(monkeypatch):
    """What is logged, with the level."""
    lines = []
    for level in ("info", "warning"):
        add = lambda text, level=level: lines.append((level, text))  # noqa: E731
        monkeypatch.setattr(picture_names.logger, level, add)
    return lines


def collect(path, **options):
    """The class of each picture, by its name; each can be read."""
    pictures, stack = picture_files.collect(os.fspath(path), **options)
    with stack:
        assert {picture.read() for picture in pictures} == {CONTENT}
    return {picture.name: picture.class_name for picture in pictures}


def refusal(path, **options):
    with pytest.raises(UserError) as error:
        collect(path, **options)
    assert str(error.value).isprintable()
    return str(error.value)


def find_left_out(lines):
    """The level and the text of the one line about files that are left out."""
    ((level, text),) = (line for line in lines if "Left out" in line[1])
    return level, text.partition(": ")[2]


def write_files(place, names):
    for name in names:
        path = os.path.join(os.fsencode(place), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(CONTENT)
    return place


def write_zip(path, members):
    """Writes a zip of pairs (member or name, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def write_tar(path, members, mode="w", form=tarfile.GNU_FORMAT):
    """Writes a tar of triples (name, content or target, kind)."""
    with tarfile.open(path, mode, format=form) as archive:
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == FILE:
                member.size = len(content)
            else:
                member.linkname = content
            archive.addfile(member, io.BytesIO(content) if kind == FILE else None)
    return path


# Classes

NESTED = ("cat/day/1.png", "cat/night/1.png", "dog/day/1.png")
PARTS = ("train/cat/1.png", "train/dog/1.png", "val/cat/2.png")
LAYOUTS = {
    "flat": (("1.png", "2.png"), None, ["", ""]),
    "one folder": (("a/b/1.png", "a/b/2.png"), None, ["b", "b"]),
    "in a folder": (("my/cat/1.png", "my/dog/1.png"), None, ["cat", "dog"]),
    "with a cover": (("cover.png", "my/cat/1.png", "my/dog/1.png"), None, ["", "cat", "dog"]),
    "next to folders": (("1.png", "cat/1.png"), None, ["", "cat"]),
    "nested": (NESTED, None, ["cat", "cat", "dog"]),
    "nested, level 1": (NESTED, 1, ["cat", "cat", "dog"]),
    "nested, level 2": (NESTED, 2, ["day", "night", "day"]),
    "nested, innermost": (NESTED, -1, ["day", "night", "day"]),
    "nested, the folder around": (NESTED, -2, ["cat", "cat", "dog"]),
    "nested, none": (NESTED, 0, ["", "", ""]),
    "parts": (PARTS, None, ["cat", "dog", "cat"]),
    "parts, level 1": (PARTS, 1, ["train", "train", "val"]),
    "parts in a folder": (tuple(f"my/{name}" for name in PARTS), None, ["cat", "dog", "cat"]),
    "parts in other case": (("Train/a/1.png", "VALID/b/1.png"), None, ["a", "b"]),
    "parts without classes": (("train/1.png", "val/1.png"), None, ["", ""]),
    "parts with one folder": (("test/x/1.png", "train/x/1.png"), None, ["x", "x"]),
    "classes named as parts": (("test/1.png", "val/1.png"), None, ["test", "val"]),
    "backslashes": (("cat\\day\\1.png", "dog\\1.png"), None, ["cat", "dog"]),
}


@pytest.mark.parametrize("how", LAYOUTS)
def test_the_class_is_the_uppermost_folder_that_differs_or_the_level_that_is_named(how):
    names, level, expected = LAYOUTS[how]
    assert picture_names.find_classes(names, level, "x") == expected


def test_what_was_understood_of_the_folders_is_logged(lines):
    for names, level in ((NESTED, None), (PARTS, None), (NESTED, 0), (("1.png", "a/1.png"), None)):
        picture_names.find_classes(names, level, "x")
    assert [text for _, text in lines] == [
        "Folders of x (DATA.class_level=1): the class of a picture in cat/day/ is cat.",
        "Folders of x (DATA.class_level=2): train/ and val/ are read as one set; the class of a "
        "picture in train/cat/ is cat.",
        "Folders of x (DATA.class_level=0): the pictures have no classes.",
        "Folders of x (DATA.class_level=1): the class of a picture in a/ is a; those without a "
        "folder at this level (1) have the class ''.",
    ]


@pytest.mark.parametrize("level", [3, -3])
def test_a_level_without_folders_is_refused(level, tmp_path):
    text = refusal(write_files(tmp_path, NESTED), class_level=level)
    assert (
        f"DATA.class_level={level}: the pictures of {tmp_path} are in folders of at most 2" in text
    )


# Folders


def test_links_to_folders_are_followed_and_each_folder_is_read_once(tmp_path, lines):
    outside, place = tmp_path / "outside", tmp_path / "place"
    write_files(outside, ("1.png", "in/2.png"))
    write_files(place, ("cat/1.png", "dog/1.png"))
    for target, link in (
        *(("../outside", "owl"), ("../outside/in", "zebra"), ("cat", "another cat")),
        *((".", "self"), ("..", "above"), ("../..", "dog/loop"), ("/", "root")),
    ):
        os.symlink(target, place / link)
    assert collect(place) == {
        **{"cat/1.png": "cat", "dog/1.png": "dog"},
        **{"owl/1.png": "owl", "owl/in/2.png": "owl"},
    }
    level, text = find_left_out(lines)
    assert level == "info" and text.startswith("links to folders that are read already (6, such as")


def test_what_is_left_out_is_counted_by_kind_in_one_line(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(picture_names, "MAX_FILE_BYTES", 10**5)
    names = ("a/1.png", "notes.txt", "a/README", "a/x.TXT", "a/x.md", "a/x.TGA", "b.dng")
    write_files(tmp_path, names)
    (tmp_path / "large.bmp").write_bytes(bytes(10**5 + 1))
    for name in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
    os.symlink("nowhere", tmp_path / "cats")
    assert collect(tmp_path) == {"a/1.png": "a"}
    level, text = find_left_out(lines)
    assert level == "warning"
    assert sorted(text.rstrip(".").split("; ")) == [
        "files of more than 256 MiB (1, such as large.bmp)",
        "links to nothing (1, such as cats)",
        "other files (4, such as .txt, a/README, .md)",
        "pictures to be saved as PNG or JPEG first (2, such as .dng, .tga)",
        "pipes (2, such as pipe, pipe.png)",
    ]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, lines, monkeypatch):
    write_files(tmp_path, ("a/1.png", "secret/1.png"))
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError("Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert collect(tmp_path) == {"a/1.png": "a"}
    assert find_left_out(lines) == ("warning", "folders that can't be read (1, such as secret).")
    assert f"{tmp_path}/secret can't be read (Permission denied)" in refusal(tmp_path / "secret")


SYSTEM = (
    *("__MACOSX/a/._1.png", "a/._1.png", "a/.DS_Store", "a/.thumbnails/1.png", ".hidden/1.png"),
    *("a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/1.png", "lost+found/1.png"),
    *("$RECYCLE.BIN/1.png", "System Volume Information/1.png", "a/Thumbs.db", "a/.@__thumb/1.png"),
)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_thumbnails_and_trash_are_not_pictures(kind, tmp_path, lines):
    names, path = (
        (*SYSTEM, "__MACOSX/._2.png", "a/1.png", "a/@.png", "thumbs/1.png"),
        tmp_path / "x",
    )
    if kind == "folder":
        write_files(path, names)
    elif kind == "zip":
        write_zip(path, [(name, CONTENT) for name in names])
    else:
        write_tar(path, [(f"./{name}", CONTENT, FILE) for name in names])
    assert collect(path) == {"a/1.png": "a", "a/@.png": "a", "thumbs/1.png": "thumbs"}
    level, text = find_left_out(lines)
    assert level == "info" and text.startswith("hidden or system files (12, such as ")


def test_the_second_run_names_what_is_left_out_too(tmp_path, lines):
    for number in range(11):
        noise(8, 8, seed=number).save(tmp_path / f"{number:02}.png")
    (tmp_path / "03.png").write_bytes(b"nonsense")
    os.mkfifo(tmp_path / "pipe")
    for _ in range(2):
        lines.clear()
        image_folder.read_pictures(str(tmp_path), False, True)
        warned = [text for level, text in lines if level == "warning"]
        assert len([text for text in warned if "pipes (1, such as pipe)" in text]) == 1
        assert len([text for text in warned if "03.png" in text]) == 1
    assert f"1 of 11 pictures of {tmp_path} are left out: 03.png can't be decoded." == warned[1]


def test_suffixes_of_all_formats_that_are_read(tmp_path):
    names = ["1.jfif", "1.JPE", "1.ppm", "1.pgm", "1.pbm", "1.apng", "1.webp", "1.tif"]
    names += ["1.avif"] if "AVIF" in Image.OPEN else []
    assert sorted(collect(write_files(tmp_path, names))) == sorted(names)


def test_heif_pictures_are_read_if_pillow_heif_is_installed(tmp_path, lines, monkeypatch):
    write_files(tmp_path, ("1.png", "2.heic"))
    caches = decoding._list_formats, decoding.list_suffixes
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # It is not installed.
    assert list(collect(tmp_path)) == ["1.png"]
    assert find_left_out(lines)[1].startswith("HEIF pictures, for which pillow-heif is not inst")
    package = types.ModuleType("pillow_heif")
    package.register_heif_opener = lambda: None
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    monkeypatch.setitem(Image.OPEN, "HEIF", None)
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    for cache in caches:
        cache.cache_clear()
    try:
        assert list(collect(tmp_path)) == ["1.png", "2.heic"]
    finally:
        for cache in caches:
            cache.cache_clear()


# Zips


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_other_methods_are_read(method, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/1.png", CONTENT)
        archive.writestr("b/1.png", CONTENT)
    assert collect(path) == {"a/1.png": "a", "b/1.png": "b"}
    content = bytearray(path.read_bytes())
    content[80] ^= 1
    path.write_bytes(content)
    assert f"{path} can't be read: a/1.png is damaged in the archive (" in refusal(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("declared", [1000, 10**7 - 1])
def test_a_zip_of_another_method_unpacks_to_what_it_declares(declared, method, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("1.png", bytes(10**7))
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, content.index(b"PK\1\2") + 24, declared)
    path.write_bytes(content)
    assert "1.png is damaged in the archive (its " in refusal(path)


@pytest.mark.parametrize(
    ("method", "name"),
    [(9, "Deflate64"), (93, "Zstandard"), (98, "PPMd"), (77, "an unknown method")],
)
def test_a_method_that_is_not_read_is_named(method, name, tmp_path):
    path = write_zip(tmp_path / "x.zip", [("a/1.png", CONTENT), ("notes.txt", b"x")])
    content = bytearray(path.read_bytes())
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    struct.pack_into("<H", content, second + 10, method)
    path.write_bytes(content)
    assert collect(path) == {"a/1.png": "a"}  # Another file's method does not matter.
    struct.pack_into("<H", content, content.index(b"PK\1\2") + 10, method)
    path.write_bytes(content)
    text = f"a/1.png is compressed with {name} (method {method}): unpack the archive, and name the"
    assert text in refusal(path)


def test_backslashes_in_a_zip_separate_folders(tmp_path):
    names = ("cat\\day\\1.png", "cat\\__MACOSX\\1.png", "dog\\1.png", "..\\..\\2.png", "cat\\")
    path = write_zip(tmp_path / "x.zip", [(name, CONTENT) for name in names])
    assert collect(path) == {"cat/day/1.png": "cat", "dog/1.png": "dog", "2.png": ""}


@pytest.mark.parametrize(
    ("encoding", "folder", "expected"),
    [
        ("utf-8", "猫", "猫"),  # macOS
        ("utf-8", "café", "café"),
        ("gb2312", "狗", "狗"),  # Windows, in Chinese
        ("cp437", "café", "café"),  # Windows, in English
        ("cp437", "Größe", "Größe"),
        ("latin-1", "é", "Θ"),  # The standard says code page 437.
    ],
)
def test_names_in_a_zip_that_are_not_marked_as_utf8(encoding, folder, expected, tmp_path):
    raw = folder.encode(encoding)
    path = write_zip(
        tmp_path / "x.zip", [("Q" * len(raw) + "/1.png", CONTENT), ("a/1.png", CONTENT)]
    )
    path.write_bytes(path.read_bytes().replace(b"Q" * len(raw), raw))
    assert collect(path) == {f"{expected}/1.png": expected, "a/1.png": "a"}


def test_the_field_of_a_zip_with_the_name_in_utf8_counts(tmp_path):
    members = []
    for name, place in (("?/1.png", "猫/1.png"), ("?/2.png", "狗/2.png"), ("b/1.png", "x/1.png")):
        member, raw, text = zipfile.ZipInfo(name), name.encode(), place.encode()
        checksum = zlib.crc32(raw) ^ name.startswith("b")  # The last is of another name.
        member.extra = struct.pack("<2HBL", 0x7075, 5 + len(text), 1, checksum) + text
        members.append((member, CONTENT))
    path = write_zip(tmp_path / "x.zip", members)
    assert collect(path) == {"猫/1.png": "猫", "狗/2.png": "狗", "b/1.png": "b"}


def zip_link(name):
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, 0o120777 << 16
    return member


def test_links_in_a_zip_lead_to_its_members(tmp_path, lines):
    targets = {"b/1.png": "../a/1.png", "b/2.png": "/etc/passwd", "b/3.png": "x" * 5000, "c": "a"}
    links = [(zip_link(name), target) for name, target in targets.items()]
    path = write_zip(tmp_path / "x.zip", [*links, ("a/1.png", CONTENT)])
    found = collect(path, class_level=1)
    assert found == {"a/1.png": "a", "b/1.png": "b"}
    assert "devices (1, such as b/3.png)" in find_left_out(lines)[1]
    assert "links to nothing (1, such as b/2.png)" in find_left_out(lines)[1]


# Tars

LINKS = {
    "b/hard.png": ("a/1.png", HARD_LINK),
    "b/soft.png": ("../a/1.png", LINK),
    "b/chain.png": ("soft.png", LINK),
    "b/absolute.png": ("/a/1.png", LINK),
    "b/without a suffix.png": ("../blobs/1234", LINK),
    f"b/{'long' * 60}.png": (f"{'deep/' * 40}1.png", HARD_LINK),
}
ASTRAY = {
    "b/outside.png": ("../../../../../etc/passwd", LINK),
    "b/device.png": ("/dev/zero", LINK),
    "b/absent.png": ("a/0.png", HARD_LINK),
    "b/loop.png": ("pool.png", LINK),
    "b/pool.png": ("loop.png", LINK),
}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_links_in_a_tar_lead_to_its_members(mode, form, tmp_path, lines):
    files = ("a/1.png", "blobs/1234", f"{'deep/' * 40}1.png")
    members = [(name, *link) for name, link in (*LINKS.items(), *ASTRAY.items())]
    members += [(name, CONTENT, FILE) for name in files]
    members += [
        ("c", "a", LINK),
        ("a/1.png", "a/1.png", HARD_LINK),
        ("p.png", "", tarfile.FIFOTYPE),
    ]
    path = write_tar(tmp_path / "x.tar", members, mode, form)
    expected = {**{name: "b" for name in LINKS}, "a/1.png": "a", files[2]: "deep"}
    assert collect(path) == expected
    _, text = find_left_out(lines)
    for part in ("links to nothing (5, such as ", "already (1, such as c)", "pipes (1, such as p."):
        assert part in text


def test_links_in_a_compressed_tar_take_no_more_time(tmp_path, monkeypatch):
    """Going back in one means to unpack it from its start."""
    members = [(f"{number}.png", "z.png", HARD_LINK) for number in range(100)]
    path = write_tar(tmp_path / "x", [*members, ("z.png", CONTENT, FILE)], "w:gz")
    pictures, stack = picture_files.collect(str(path))
    with stack:
        pictures[0].read()
        with monkeypatch.context() as patch:
            patch.setattr(gzip.GzipFile, "seek", None)
            assert all(picture.read() == CONTENT for picture in pictures) and len(pictures) == 101
    assert "unpacks to more than" in refusal(write_many_links(tmp_path / "y"), max_unpacked=10**6)


def write_many_links(path):
    """A small archive with links to a large picture, which count as much as their target."""
    members = [(f"{number}.png", "z.png", HARD_LINK) for number in range(100)]
    return write_tar(path, [*members, ("z.png", bytes(10**5), FILE)], "w:gz")


def test_a_later_member_replaces_an_earlier_one(tmp_path):
    members = [("1.png", b"old", FILE), ("2.png", b"old", FILE), ("1.png", CONTENT, FILE)]
    path = write_tar(tmp_path / "x.tar", [*members, ("./2.png", "1.png", LINK)])
    assert collect(path) == {"1.png": "", "2.png": ""}


@pytest.mark.parametrize("kind", [b"V", b"D", b"X"])
def test_members_of_other_kinds_are_passed_over(kind, tmp_path):
    """Such as the label of a volume."""
    path = write_tar(
        tmp_path / "x.tar", [("a/2.png", b"x" * 600, FILE), ("a/1.png", CONTENT, FILE)]
    )
    header, rest = bytearray(path.read_bytes()[:512]), path.read_bytes()[512:]
    header[156:157], header[148:156] = kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + rest)
    assert collect(path) == {"a/1.png": "a"}


@pytest.mark.parametrize("kind", ["folder", "tar", "tar of pax"])
def test_class_names_that_are_not_utf8_can_be_written(kind, tmp_path):
    names = [os.fsdecode(name) for name in (b"caf\xe9/1.png", b"a/\xff.png")]
    path = tmp_path / "x"
    if kind == "folder":
        write_files(path, names)
    else:
        form = tarfile.PAX_FORMAT if kind.endswith("pax") else tarfile.GNU_FORMAT
        write_tar(path, [(name, CONTENT, FILE) for name in names], form=form)
    assert collect(path) == {names[0]: "caf\\udce9", names[1]: "a"}


FOREIGN = {
    b"7z\xbc\xaf\x27\x1c" + bytes(900): "a 7z archive; unpack it first",
    b"Rar!\x1a\x07\0" + bytes(900): "a RAR archive; unpack it first",
    b"\x28\xb5\x2f\xfd" + bytes(900): "compressed with Zstandard; unpack it first",
    b"": "an empty file; ",
    CONTENT: "a single picture; ",
    b"<html>404</html>": "a web page; ",
}


@pytest.mark.parametrize("content", FOREIGN)
def test_other_formats_are_named(content, tmp_path):
    (tmp_path / "x").write_bytes(content)
    text = f"x can't be read (it is neither a zip nor a tar, but {FOREIGN[content]}"
    assert text in refusal(tmp_path / "x")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    buffer = io.BytesIO()
    write_zip(buffer, [("2.png", CONTENT)])
    members = [("1.png", CONTENT, FILE), ("more.zip", buffer.getvalue(), FILE)]
    assert collect(write_tar(tmp_path / "x.tar", members)) == {"1.png": ""}
