# SPDX-License-Identifier: Apache-2.0
"""Names the format of a file or folder by its content, for messages about data."""

from __future__ import annotations

import os
import re
import zipfile
from os import path as osp
from typing import List
from typing import Optional

from support import archives
from support import tar_files
from support.errors import printable

START = 1 << 12  # bytes of a file that are looked at
MAX_LISTED = 1 << 26  # bytes of an archive that are unpacked to list its members
EXAMPLES = 5  # members that a message names
PICTURES = "it holds pictures, and wgangp_image64.py reads those"
CONVERT = "convert it to one of these"
UNPACK = "unpack it first"
EMPTY = "an empty file; download or copy it again"
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
ZSTANDARD = b"\x28\xb5\x2f\xfd"
# What stands in the place of a file: how it begins, what it is, and what to do.
FOREIGN = (
    (rb"version https://git-lfs", "a pointer of Git LFS", "`git lfs pull` fetches the file itself"),
    (rb"(?i)\s*(<!doctype html|<html|<\?xml)", "a web page", "it may be the error of a download"),
)
# How files begin, what they are, and what to do.
STARTS = (
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", CONVERT),
    (rb"MATLAB [\d.]+ MAT-file", "a MATLAB file", CONVERT),
    (rb"PAR1", "a Parquet table", CONVERT),
    (rb"ARROW1|FEA1", "an Arrow table", CONVERT),
    (rb"SQLite format 3\0", "an SQLite database", CONVERT),
    (rb"\x93NUMPY", "a single NumPy array", "put all four arrays into one npz"),
    (rb"\0\0[\x08-\x0e][\x01-\x04]", "a single idx file", "for MNIST, name the folder of all four"),
    (
        rb"\x89PNG|\xff\xd8\xff|GIF8|BM....\0\0\0\0|RIFF....WEBP",
        "a single picture",
        "wgangp_image64.py reads a folder of them",
    ),
    (rb"\x1f\x8b|BZh\d1AY|\xfd7zXZ\0", "compressed twice", UNPACK),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive", UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (rb"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (re.escape(ZSTANDARD), "compressed with Zstandard", UNPACK),
    (rb"\x04\x22\x4d\x18", "compressed with LZ4", UNPACK),
    (rb"\x1f\x9d|\x5d\0\0", "compressed with LZW or LZMA", UNPACK),
    *FOREIGN,
    (rb"\s*[\[{]", "a JSON file", CONVERT),
    (rb"\x80[\x02-\x05]", "a pickle", CONVERT),
)


def read_start(path: str, size: int = START) -> bytes:
    """Reads how a file begins, unpacked if it is compressed with gzip, bzip2 or xz.

    Raises:
        Exception: One of `archives.DAMAGE_ERRORS`, if it is damaged.
    """
    start = b""
    with archives.open_regular(path) as file:
        for chunk in archives.unpack(file):
            start += chunk
            if len(start) >= size:
                break
    return start[:size]


def is_pickle(start: bytes) -> bool:
    """Whether a file begins as a pickle does: with its protocol, or a tuple in the oldest one."""
    return start[:1] == b"\x80" or (start[:1] == b"(" and start[:4] != ZSTANDARD)


def find_foreign(start: bytes) -> str:
    """Says what stands in the place of a file, and what to do; "" if it may be the file itself."""
    if not start:
        return EMPTY
    found = (f"{name}; {advice}" for pattern, name, advice in FOREIGN if re.match(pattern, start))
    return next(found, "")


def describe(path: str) -> str:
    """Says what a file or folder is, and what to do: "a Parquet table; convert it to ..."."""
    if osp.isdir(path):
        return _describe_members("a folder", _list_folder(path))
    start = read_start(path)
    if not start:
        return EMPTY
    if tar_files.is_header(start[: tar_files.BLOCK]):
        return _describe_members("a tar", _list_tar(path))
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        names = _list_zip(path)
        is_npz = bool(names) and all(name.endswith(".npy") for name in names)
        return _describe_members("an npz" if is_npz else "a zip", names)
    for pattern, name, advice in STARTS:
        if re.match(pattern, start, re.DOTALL):
            return f"{name}; {advice}"
    if _is_table(start):
        return f"a table of text, such as CSV; {CONVERT}"
    return f"of a format that is not known here; {CONVERT}"


def _is_table(start: bytes) -> bool:
    """Whether a file begins with lines of text that have the same number of separators."""
    lines = start.split(b"\n")[:-1][:3]
    is_text = bool(lines) and not re.search(rb"[^\t\r\n\x20-\x7e\x80-\xff]", start)
    counts = [{line.count(sign) for line in lines} for sign in (b",", b";", b"\t", b" ")]
    return is_text and any(len(count) == 1 and count != {0} for count in counts)


def _describe_members(kind: str, names: Optional[List[str]]) -> str:
    """Describes a folder or an archive by the names in it."""
    if names is None:
        return f"{kind} that can't be listed; unpack it, and name the folder"
    if not names:
        return f"{kind} without files; name another place"
    bases = {osp.basename(name.replace("\\", "/")) for name in names}
    shown = ", ".join(printable(name, 60) for name in names[:EXAMPLES])
    text = f"{kind} with {shown}{' and others' if len(names) > EXAMPLES else ''}"
    pictures = sum(name.lower().endswith(PICTURE_SUFFIXES) for name in names)
    inner = [name for name in names if re.search(r"(?i)\.(zip|tgz|tar(\.\w+)?|npz|7z)$", name)]
    if bases >= {"train", "test", "meta"} or bases >= {"train.bin", "test.bin"}:
        advice = "it may be CIFAR-100, which is not read"
    elif any("ubyte" in base for base in bases) or any(b.startswith("mnist.pkl") for b in bases):
        advice = "it may be MNIST, and wgangp_mnist.py reads that"
    elif any(base.startswith(("data_batch_", "test_batch")) for base in bases):
        advice = "it may be CIFAR-10, and wgangp_cifar10.py reads that"
    elif pictures > len(names) // 2:
        advice = PICTURES
    elif inner:
        place = (
            "name the file in it" if kind == "a folder" else f"{UNPACK}, and name the file in it"
        )
        advice = f"{place}: {printable(inner[0])}"
    else:
        advice = CONVERT
    return f"{text}; {advice}"


def _list_folder(path: str) -> List[str]:
    names: List[str] = []
    for folder, _, files in os.walk(path):
        names += [osp.normpath(osp.relpath(osp.join(folder, name), path)) for name in sorted(files)]
        if len(names) > archives.MAX_PARTS:
            break
    return names


def _list_zip(path: str) -> Optional[List[str]]:
    if osp.getsize(path) > archives.MAX_BYTES:
        return None  # Its directory would be looked for in all of it.
    try:
        with archives.open_regular(path) as file:
            archives.check_directory(file)
            with zipfile.ZipFile(file) as archive:
                return [name for name in archive.namelist() if not name.endswith("/")]
    except Exception:  # zipfile raises many types of errors for a damaged archive.
        return None


def _list_tar(path: str) -> Optional[List[str]]:
    """Lists the first members of a tar."""
    names: List[str] = []
    try:
        with archives.open_regular(path) as file:
            chunks = tar_files.Chunks(archives.unpack(file, MAX_LISTED))
            for member in tar_files.walk(chunks, archives.MAX_BYTES):
                names += [member.name] if member.is_file else []
    except (*archives.DAMAGE_ERRORS, tar_files.TarError):
        pass  # What was listed until there is enough.
    return names or None
