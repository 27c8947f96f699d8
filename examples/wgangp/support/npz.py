# SPDX-License-Identifier: Apache-2.0
"""NumPy's `.npz` files with a checksum at their end."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from typing import BinaryIO
from typing import Dict

import numpy as np

from support import archives
from support.errors import UserError
from support.errors import printable
from support.errors import require
from support.layouts import check_shape
from support.storage import replacing

DIGEST_BYTES = 64  # the length of a SHA-256 in hexadecimal
# A checkpoint holds two networks, each with two moments of its optimiser, and an average: its
# limit is that of weights, times this factor.
PARTS = 4
# The header that NumPy writes before the numbers of an array, and nothing else: NumPy would
# evaluate any literal of Python.
HEADER = re.compile(
    rb"\{'descr': '([^']{1,16})', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,700})\), \}"
    rb" *\n"
)


def write_npz(path: str, arrays: Dict[str, np.ndarray]) -> None:
    """Writes arrays in NumPy's `.npz` format; the file ends in the SHA-256 of all bytes before it.

    The file appears at `path` only when it is complete.

    Raises:
        UserError: If it would be larger than what `read_npz` reads.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        # The comment of a zip archive is its end. NumPy and unzip ignore it.
        archive.comment = b"0" * DIGEST_BYTES
    content = buffer.getvalue()[:-DIGEST_BYTES]
    limit = PARTS * archives.MAX_BYTES
    require(
        len(content) + DIGEST_BYTES <= limit,
        f"{printable(path)} would be larger than {archives.format_limit(limit)}, the limit for "
        "checkpoints. Make the networks smaller (MODEL.gen_net.dim, MODEL.dis_net.dim).",
    )
    with replacing(path) as file:
        file.write(content + hashlib.sha256(content).hexdigest().encode())


def read_npz(path: str) -> Dict[str, np.ndarray]:
    """Reads a file of `write_npz`; no code in it is run.

    Args:
        path: The file.

    Returns:
        Arrays by name.

    Raises:
        UserError: If the file is damaged, too large, or contains anything but arrays of numbers.
        MemoryError: If the file is intact, as far as it was read, but memory is too small.
    """
    try:
        with archives.open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            limit = PARTS * archives.MAX_BYTES
            if size > limit:
                raise ValueError(f"it is larger than {archives.format_limit(limit)}")
            _check_digest(file, size)
            members = archives.read_uncompressed_zip(file, size)
        return {name[: -len(".npy")]: parse_npy(part) for name, part in members.items()}
    except MemoryError:
        raise
    except Exception as error:  # NumPy and zipfile raise many types of errors for damaged files
        raise UserError(f"{printable(path)} is not intact ({printable(error)}).") from None


def _check_digest(file: BinaryIO, size: int) -> None:
    """Compares the checksum at a file's end, without keeping the file in memory.

    Raises:
        ValueError: If it differs.
    """
    file.seek(max(size - DIGEST_BYTES, 0))
    expected = file.read(DIGEST_BYTES)
    digest, left = hashlib.sha256(), size - DIGEST_BYTES
    # The file's end is looked at first: a file that only claims its size has zeros there.
    if re.fullmatch(rb"[0-9a-f]{64}", expected):
        file.seek(0)
        while left > 0:
            block = file.read(min(left, 1 << 20))
            if not block:
                break
            digest.update(block)
            left -= len(block)
    if digest.hexdigest().encode() != expected:
        raise ValueError("its checksum does not match its content")


def parse_npy(content: bytes) -> np.ndarray:
    """Reads an array of numbers in `.npy` format, if its size is the size that its header says."""
    if content[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("it holds an array in another version of the .npy format than 1.0")
    start = 10 + int.from_bytes(content[8:10], "little")
    match = HEADER.fullmatch(content[10:start])
    if not match:
        raise ValueError("it holds an array of something else than plain numbers")
    code, order, sizes = (group.decode("latin1") for group in match.groups())
    dtype = np.dtype(code) if re.fullmatch(r"[<>|=]?[a-zA-Z?][0-9]*", code) else None
    if dtype is None or dtype.kind not in "biuf":
        raise ValueError(f"it holds an array of {dtype or code}")
    shape = [int(size) for size in sizes.split(",") if size.strip()]
    numbers, rest = divmod(len(content) - start, dtype.itemsize)
    if rest:
        raise ValueError("the size of an array is not the size that its header says")
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(check_shape(shape, numbers), order="F" if order == "True" else "C")
