# SPDX-License-Identifier: Apache-2.0
"""NumPy's `.npz` files with a checksum at their end."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from typing import Dict

import numpy as np

from support.archives import read_uncompressed_zip
from support.errors import UserError
from support.storage import replacing

DIGEST_BYTES = 64  # the length of a SHA-256 in hexadecimal


def write_npz(path: str, arrays: Dict[str, np.ndarray]) -> None:
    """Writes arrays in NumPy's `.npz` format; the file ends in the SHA-256 of all bytes before it.

    The file appears at `path` only when it is complete.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        # The comment of a zip archive is its end. NumPy and unzip ignore it.
        archive.comment = b"0" * DIGEST_BYTES
    content = buffer.getvalue()[:-DIGEST_BYTES]
    with replacing(path) as file:
        file.write(content + hashlib.sha256(content).hexdigest().encode())


def read_npz(path: str) -> Dict[str, np.ndarray]:
    """Reads a file of `write_npz`; no code in it is run.

    Args:
        path: The file.

    Returns:
        Arrays by name.

    Raises:
        UserError: If the file is damaged, or contains anything but arrays of numbers.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        digest = hashlib.sha256(content[:-DIGEST_BYTES]).hexdigest().encode()
        if digest != content[-DIGEST_BYTES:]:
            raise ValueError("its checksum does not match its content")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = read_uncompressed_zip(archive, len(content))
        return {name[: -len(".npy")]: _read_npy(part) for name, part in members.items()}
    except Exception as error:  # NumPy and zipfile raise many types of errors for damaged files
        raise UserError(f"{path} is not intact ({error}).") from None


def _read_npy(content: bytes) -> np.ndarray:
    """Reads an array of numbers in `.npy` format, if its size is the size that its header says."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("it holds an array in another version of the .npy format than 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds an array of {dtype}")
    start = file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("the size of an array is not the size that its header says")
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(shape, order="F" if fortran else "C")
