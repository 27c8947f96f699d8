# SPDX-License-Identifier: Apache-2.0
"""Files and archives within limits: sizes, parts, members and their headers."""

import gzip
import io
import os
import re
import struct
import tarfile
import zipfile

import fuzz_cases
import pytest

from support import archives
from support import tar_files
from support.errors import UserError


@pytest.mark.parametrize("compress", [True, False])
def test_read_unpacked_reads_up_to_the_limit(tmp_path, compress):
    path, content = tmp_path / "x.gz", bytes(range(256)) * 1000 + b"x"
    path.write_bytes(gzip.compress(content) if compress else content)
    assert archives.read_unpacked(str(path)) == content
    assert archives.read_unpacked(str(path), len(content)) == content
    with pytest.raises(UserError, match="x.gz can't be read .it unpacks to more than 250 KiB"):
        archives.read_unpacked(str(path), len(content) - 1)


def test_read_unpacked_reads_parts_and_padding(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"one ") + bytes(100) + gzip.compress(b"two") + bytes(10**5))
    assert archives.read_unpacked(str(path)) == b"one two"
    path.write_bytes(gzip.compress(b"one ") + b"garbage")
    with pytest.raises(UserError, match="incorrect header check"):
        archives.read_unpacked(str(path))


@pytest.mark.parametrize("place", [-1, -5, -12])
def test_read_unpacked_finds_damage_at_the_end(tmp_path, place):
    path, content = tmp_path / "x.gz", bytearray(gzip.compress(os.urandom(100000)))
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="can't be read"):
        archives.read_unpacked(str(path))
    path.write_bytes(content[:place])
    with pytest.raises(UserError, match="it ends before its compressed content"):
        archives.read_unpacked(str(path))


def test_read_unpacked_limits_the_number_of_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_PARTS", 10)
    (tmp_path / "x.gz").write_bytes(fuzz_cases.pack_gzip() * 10)
    assert archives.read_unpacked(str(tmp_path / "x.gz")) == b""
    (tmp_path / "x.gz").write_bytes(fuzz_cases.pack_gzip(b"name") * 11)
    with pytest.raises(UserError, match="more than 10 compressed parts"):
        archives.read_unpacked(str(tmp_path / "x.gz"))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_files_without_an_end_are_refused(tmp_path, make):
    path = str(tmp_path / "x")
    make(path)
    for read in (archives.read_unpacked, lambda path: archives.read_tar(path, ("x",))):
        with pytest.raises(UserError, match="it is not a regular file"):
            read(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        archives.read_file(path)


def test_read_file_does_not_read_a_file_that_is_too_large(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="it is larger than 1 GiB"):
        archives.read_file(str(path))
    path.write_bytes(b"abc")
    assert archives.read_file(str(path), 3) == b"abc"
    with pytest.raises(OSError, match="it is larger than 2 bytes"):
        archives.read_file(str(path), 2)


LONG = "folder/" * 40 + "data_batch_1"
NAMES = ("data_batch_1", "f/" * 60 + "data_batch_1", LONG, "图/data_batch")


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, name) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT) for name in NAMES),
        # This format has no names as long as LONG.
        *((tarfile.USTAR_FORMAT, name) for name in NAMES if name != LONG),
    ],
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_read_tar_reads_what_tarfile_writes(tmp_path, form, mode, name):
    path, contents = tmp_path / "x.tar", {name: os.urandom(1000), f"{name}0": b"", "other": b"x"}
    with tarfile.open(path, mode, format=form) as archive:
        for key, content in contents.items():
            info = tarfile.TarInfo(key)
            info.size, info.mtime = len(content), 1.5  # a time that only pax headers can hold
            archive.addfile(info, io.BytesIO(content))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    del contents["other"]
    assert dict(archives.read_tar(str(path), ("data_batch",))) == contents


LARGE_TAR = "unpacks to more than"
# Why crafted tars are refused, in their order; None for long chains of headers, which are read.
CRAFTED_TARS = [
    *("a header has more", None, "a header has more", LARGE_TAR, "is sparse", "is sparse"),
    *(LARGE_TAR, LARGE_TAR, LARGE_TAR, LARGE_TAR, "is not a file", "data_batch_1 twice"),
    *(LARGE_TAR, None, "a header has more", "it has no end", "a header has more"),
    *(LARGE_TAR, "is sparse", "is sparse", LARGE_TAR, LARGE_TAR),
]


def test_crafted_tars_have_reasons():
    assert len(CRAFTED_TARS) == len(fuzz_cases.crafted_tars())


@pytest.mark.parametrize("number", range(len(CRAFTED_TARS)))
def test_read_tar_refuses_crafted_archives(tmp_path, number):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(fuzz_cases.crafted_tars()[number])
    if CRAFTED_TARS[number] is None:
        assert archives.read_tar(str(path), ("data_batch_",), fuzz_cases.SMALL) == []
        return
    with pytest.raises(UserError, match=re.escape(str(path)) + ".*" + CRAFTED_TARS[number]):
        archives.read_tar(str(path), ("data_batch_",), fuzz_cases.SMALL)


def test_read_tar_finds_damage_without_compression(tmp_path):
    path = tmp_path / "x.tar"
    one = fuzz_cases.tar_header(b"data_batch_1", 512) + bytes(512)
    for damaged in (one[:700], one, one + bytes(512) + one, b"x" * 1024, one + b"x" * 512):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="incomplete|is damaged|after its end"):
            archives.read_tar(str(path), ("data_batch_",))
    path.write_bytes(one + bytes(1024))
    assert archives.read_tar(str(path), ("data_batch_",)) == [("data_batch_1", bytes(512))]


def test_read_tar_limits_the_number_of_members(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_files, "MAX_MEMBERS", 10)
    (tmp_path / "x.tar").write_bytes(fuzz_cases.tar_header(b"a", 0) * 11 + bytes(1024))
    with pytest.raises(UserError, match="it has more than 10 members"):
        archives.read_tar(str(tmp_path / "x.tar"), ("data_batch_",))


def read_zip(content):
    return archives.read_uncompressed_zip(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0, "contains x/data.pkl twice"),
        (1, "overlaps with another member"),
        (2, "more than 100000 members"),
        (3, "the two headers of x/data.pkl disagree"),
        (4, "is damaged"),
    ],
)
def test_zips_whose_members_overlap_or_disagree_are_refused(number, message):
    with pytest.raises(zipfile.BadZipFile, match=message):
        read_zip(fuzz_cases.crafted_zips()[number])


class Pipe:
    """A file that can be written to, and nothing else."""

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush


@pytest.mark.parametrize("is_seekable", [True, False])
def test_zips_with_sizes_after_the_content_are_read(is_seekable):
    """PyTorch, and whoever writes to a pipe, puts a member's sizes behind it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer if is_seekable else Pipe(buffer), "w") as archive:
        archive.writestr("a", b"abc")
        with archive.open("b", "w", force_zip64=True) as member:
            member.write(b"defg")
    assert read_zip(buffer.getvalue()) == {"a": b"abc", "b": b"defg"}


def test_encrypted_zips_are_refused():
    content = bytearray(fuzz_cases.pack_zip([("a", b"abc")]))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.index(signature) + place
        content[start : start + 2] = struct.pack("<H", 1)
    with pytest.raises(zipfile.BadZipFile, match="a is encrypted"):
        read_zip(bytes(content))


def test_format_limit_names_the_largest_unit():
    sizes = {1 << 30: "1 GiB", 3 << 29: "1.5 GiB", 1 << 24: "16 MiB", 1000: "1000 bytes"}
    assert {size: archives.format_limit(size) for size in sizes} == sizes
