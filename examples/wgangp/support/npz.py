# SPDX-License-Identifier: Apache-2.0
"""NumPy's `.npz` files that end in a checksum."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from typing import Dict

import numpy as np

from support.archives import read_stored
from support.errors import UserError
from support.storage import replacing

DIGEST = 64  # bytes of a SHA-256 in hexadecimal


def write_npz(path: str, arrays: Dict[str, np.ndarray]) -> None:
    """Writes NumPy's `.npz` format, so that it ends in the SHA-256 of all before it.

    It takes its place when it is complete, whatever happens on the way.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"0" * DIGEST  # which NumPy and unzip pass over
    content = buffer.getvalue()[:-DIGEST]
    with replacing(path) as file:
        file.write(content + hashlib.sha256(content).hexdigest().encode())


def read_npz(path: str) -> Dict[str, np.ndarray]:
    """Reads what `write_npz` wrote; nothing in it is executed.

    Args:
        path: The file.

    Raises:
        UserError: If it is damaged, or holds anything but arrays of numbers.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        if hashlib.sha256(content[:-DIGEST]).hexdigest().encode() != content[-DIGEST:]:
            raise ValueError("its checksum does not match its content")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = read_stored(archive, len(content))
        return {name[: -len(".npy")]: _read_npy(part) for name, part in members.items()}
    except Exception as error:  # NumPy and zipfile raise almost anything for what is damaged
        raise UserError(f"{path} is not intact ({error}).") from None


def _read_npy(content: bytes) -> np.ndarray:
    """A `.npy` file of numbers, whose size is what its head says."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds an array of {dtype}")
    start = file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("an array is not as large as it says")
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(shape, order="F" if fortran else "C")
