# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole, their checksums, and the folder that caches downloads."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from os import path as osp
from typing import BinaryIO
from typing import Dict
from typing import Iterator

from support.errors import UserError
from support.errors import printable

CACHE = "~/.paddlesci"
PARTIAL = ".partial"  # the suffix of files that are not complete yet
MAX_CHECKSUMS = 1 << 28  # bytes of a list of checksums


def remove_partial(folder: str) -> None:
    """Removes the incomplete files that a killed process left in a folder; see `replacing`."""
    for name in os.listdir(folder) if osp.isdir(folder) else []:
        path = osp.join(folder, name)
        # Other names are a user's own, and so is a folder of such a name.
        is_ours = re.fullmatch(rf"tmp\w{{8}}{re.escape(PARTIAL)}", name)
        if is_ours and (osp.islink(path) or not osp.isdir(path)):
            os.remove(path)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when the block ends without an error.

    After an error, `path` is what it was before.

    Args:
        path: The file to write; its folder is created if it is absent.
    """
    os.makedirs(osp.dirname(path), exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=osp.dirname(path), suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)  # mkstemp creates the file for its owner alone
        os.replace(partial, path)
    finally:
        if osp.exists(partial):
            os.remove(partial)


@contextlib.contextmanager
def writing_to(folder: str, key: str) -> Iterator[None]:
    """Turns a failure to write in the block into one message.

    Args:
        folder: The folder that is written to.
        key: The setting that names it, for the message.

    Raises:
        UserError: Names the folder, the cause and the setting.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (None, errno.ENOMEM):  # CUDA's errors have no number.
            raise
        raise UserError(
            f"{printable(folder)} can't be written to ({printable(error)}). Free space there, or "
            f"choose another folder with {key}=FOLDER."
        ) from None


def read_checksums(path: str) -> Dict[str, str]:
    """Reads a file as `sha256sum` writes it: names with their SHA-256; none without the file."""
    if not osp.isfile(path) or osp.getsize(path) > MAX_CHECKSUMS:
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:
        return dict(line.rstrip("\n").split("  ", 1)[::-1] for line in file if "  " in line)


def sha256(path: str) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def check_writable(folder: str, hint: str) -> None:
    """Creates a folder if it is absent, and refuses a folder that cannot be written to.

    Args:
        folder: Its path.
        hint: What the user can do, for the message.

    Raises:
        UserError: If the folder cannot be created or written to; the message says why.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{printable(folder)} can't be written to ({printable(error)}). {hint}"
        ) from None
