# SPDX-License-Identifier: Apache-2.0
"""The files of an export: moved into place together, and checked before they are read."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import tempfile
from os import path as osp
from typing import Iterator
from typing import List
from typing import Optional
from typing import Sequence

from ppsci.utils import logger

from support import archives
from support import storage
from support.archives import format_limit
from support.errors import UserError
from support.errors import printable
from support.errors import require
from support.weight_files import SavedWeights
from support.weight_notes import from_json

SUFFIXES = {"native": (".json", ".pdiparams"), "onnx": (".onnx",)}  # files by engine
CHECKSUMS = ".sha256"  # the suffix of the file that `sha256sum --check` reads
# The suffix of the notes on the generator's training; Paddle takes any .json for a program.
NOTES = ".settings"
SMALL_BYTES = 1 << 20  # the limit for these two files
MAX_BYTES = 2 * archives.MAX_BYTES  # the limit for the others; ONNX has the same


def export_base(named: str, default: str) -> str:
    """Returns the path without suffix of an export.

    Args:
        named: INFER.export_path: this path, or one of the export's files, or a folder for them.
        default: The export's name in a folder.
    """
    path = osp.abspath(osp.expanduser(named))
    suffixes = [*itertools.chain(*SUFFIXES.values()), CHECKSUMS, NOTES]
    for suffix in suffixes:
        if path.endswith(suffix) and not osp.isdir(path):
            return path[: -len(suffix)]
    has_files = any(osp.isfile(path + suffix) for suffix in suffixes)
    if named.endswith(("/", os.sep)) or (osp.isdir(path) and not has_files):
        return osp.join(path, default)
    return path


@contextlib.contextmanager
def replacing_export(path: str) -> Iterator[str]:
    """Gives a path without suffix to export to; afterwards all files replace those of `path`.

    The files are written to a temporary folder next to them. When the block ends without an
    error, PATH.sha256 is written first: an export that is killed while its files move never
    agrees with its checksums. After an error in the block, all files are what they were before.

    Args:
        path: The export's path without suffix; its folder exists.

    Raises:
        UserError: If the disk is full, or a file can't be written for another reason.
    """
    folder, name = osp.split(path)
    _remove_leftovers(folder, name)
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{name}.", suffix=storage.PARTIAL, dir=folder
        ) as partial:
            yield osp.join(partial, name)
            _move_files(partial, path)
    except OSError as error:
        if error.errno is None:  # an error of CUDA
            raise
        raise UserError(
            f"{folder} can't be written to ({printable(error)}), and nothing was exported. Free "
            "space there, or choose another place with INFER.export_path=PATH."
        ) from None


def _remove_leftovers(folder: str, name: str) -> None:
    """Removes the temporary folders of exports that were killed."""
    pattern = rf"\.{re.escape(name)}\.\w{{8}}{re.escape(storage.PARTIAL)}"
    for entry in os.listdir(folder):
        if re.fullmatch(pattern, entry):
            shutil.rmtree(osp.join(folder, entry), ignore_errors=True)


def _move_files(partial: str, path: str) -> None:
    """Writes PATH.sha256, and moves all files of a folder to where `path` is."""
    moves, lines = {}, []
    for name in sorted(os.listdir(partial)):
        file, target = osp.join(partial, name), osp.join(osp.dirname(path), name)
        if osp.isdir(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
        moves[file] = target
        with open(file, "rb+") as written:
            os.fsync(written.fileno())  # some file systems notice only here that they are full
        lines.append(f"{storage.sha256(file)}  {name}\n")
    with storage.replacing(path + CHECKSUMS) as file:
        file.write(os.fsencode("".join(lines)))
    for file, target in moves.items():
        os.replace(file, target)


def read_export(path: str, engine: str) -> SavedWeights:
    """Checks the files of an export, and reads what it keeps of its generator's training.

    Args:
        path: The export's path without suffix.
        engine: A key of `SUFFIXES`.

    Returns:
        The export without arrays, since the engine reads those. An earlier version kept no notes.

    Raises:
        UserError: If a file is absent, damaged, too large, or of another export.
    """
    notes, file = None, path + NOTES
    if file in check_export(path, engine):
        require(osp.getsize(file) <= SMALL_BYTES, f"{file} is too large for notes on a training.")
        with open(file, "rb") as content:
            notes = from_json(content.read(), printable(file))
    return SavedWeights(path, f"INFER.export_path: {printable(path)}", "", None, notes)


def check_export(path: str, engine: str) -> List[str]:
    """Checks the files that an engine reads against PATH.sha256, and logs their checksums.

    An export by an earlier version has no checksums; then a warning says so.

    Args:
        path: The export's path without suffix.
        engine: A key of `SUFFIXES`.

    Returns:
        The files; the notes on the training are among them if the export has any.

    Raises:
        UserError: If a file is absent, damaged, too large, or of another export.
    """
    files = [path + suffix for suffix in SUFFIXES[engine]]
    try:
        checksums = _read_checksums(path)
        _require_files(path, files, checksums)
        if checksums is None and osp.isfile(path + NOTES):
            files.append(path + NOTES)
        elif _find_checksum(checksums, path + NOTES) is not None:
            files.append(path + NOTES)
            _require_files(path, files, checksums)
        digests = {file: storage.sha256(file) for file in files}
    except OSError as error:
        raise UserError(f"the export {path} can't be read ({printable(error)}).") from None
    if checksums is None:
        logger.warning(
            f"{path}{CHECKSUMS} is absent, as after an export by an earlier version, so damage to "
            f"{' or '.join(files)} can't be found. Export again to get checksums."
        )
    for file, digest in digests.items():
        if checksums is not None:
            _require_same(file, digest, checksums, path + CHECKSUMS)
        logger.info(f"Reading {file}, SHA-256 {digest}")
    return files


def _require_files(path: str, files: Sequence[str], checksums: Optional[bytes]) -> None:
    """Refuses an export that lacks a file, or has one that is too large."""
    for file in files:
        is_there = osp.isfile(file)
        is_part = any(map(osp.isfile, files)) or _find_checksum(checksums, file) is not None
        require(
            is_there or not is_part,
            f"the export {path} is not complete: there is no {file}. Export it again.",
        )
        require(
            is_there,
            f"there is no {file}. Write it with mode=export INFER.pretrained_model_path=PATH, name "
            "another with INFER.export_path=, or name weights with INFER.pretrained_model_path= "
            "(--help lists those that ship).",
        )
        require(
            osp.getsize(file) <= MAX_BYTES,
            f"{file} is larger than {format_limit(MAX_BYTES)}, the limit for exported files.",
        )


def _read_checksums(path: str) -> Optional[bytes]:
    """The content of PATH.sha256; None where there is no such file."""
    file = path + CHECKSUMS
    if not osp.lexists(file):
        return None
    require(
        osp.isfile(file) and osp.getsize(file) <= SMALL_BYTES,
        f"{file} is not a file of checksums. Export again.",
    )
    with open(file, "rb") as content:
        return content.read()


def _find_checksum(checksums: Optional[bytes], file: str) -> Optional[str]:
    """The checksum of a file, in hexadecimal; None where it has none."""
    name = re.escape(os.fsencode(osp.basename(file)))
    found = re.search(rb"^([0-9a-f]{64})  " + name + b"$", checksums or b"", re.MULTILINE)
    return found[1].decode() if found else None


def _require_same(file: str, digest: str, checksums: bytes, source: str) -> None:
    """Refuses a file whose checksum is not the one that `source` says."""
    expected = _find_checksum(checksums, file)
    require(
        expected is not None,
        f"{source} has no checksum of {file}: the file is of another export, or was renamed. "
        "Export it again.",
    )
    require(
        digest == expected,
        f"{file} has the SHA-256 {digest}, but {source} says {expected}: the file is damaged, or "
        "its export was interrupted and is not complete. Export it again.",
    )
