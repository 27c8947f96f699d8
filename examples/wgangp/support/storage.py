# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole, their checksums, and the folder that caches downloads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from os import path as osp
from typing import BinaryIO
from typing import Iterator

from support.errors import UserError

CACHE = "~/.paddlesci"
PARTIAL = ".partial"  # how names of files end that are not complete yet


def remove_partial(folder: str) -> None:
    """Removes what `replacing` left in a folder when it was killed."""
    for name in os.listdir(folder) if osp.isdir(folder) else []:
        if name.endswith(PARTIAL):
            os.remove(osp.join(folder, name))


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when it is complete, and never before.

    Args:
        path: Where the file is to be; its folder is made if need be.
    """
    os.makedirs(osp.dirname(path), exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=osp.dirname(path), suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)  # mkstemp's is for its owner alone
        os.replace(partial, path)
    finally:
        if osp.exists(partial):
            os.remove(partial)


def sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def check_writable(folder: str, hint: str) -> None:
    """Makes a folder, unless it is there, and refuses one that can't be written to.

    Args:
        folder: Its path.
        hint: What to do, for the message.

    Raises:
        UserError: Says what stands in the way.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder} can't be written to ({error}). {hint}") from None
