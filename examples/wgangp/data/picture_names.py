# SPDX-License-Identifier: Apache-2.0
"""What the names of files say: which are pictures, which class they have, what is left out."""

from __future__ import annotations

import collections
import os
import stat
from os import path as osp
from typing import List
from typing import Optional
from typing import Sequence
from typing import Set
from typing import Tuple

from ppsci.utils import logger

from data.decoding import list_suffixes
from support.errors import printable
from support.errors import require

MAX_FILE_BYTES = 1 << 28  # bytes of one file; larger ones are left out
# What file managers and storage boxes keep next to pictures, in lower case. Names that begin with
# a dot, such as .DS_Store, ._1.png and .thumbnails, are hidden in any case.
SYSTEM_NAMES = {
    *("__macosx", "network trash folder", "temporary items", "icon\r"),  # macOS
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),  # Windows
    *("$recycle.bin", "recycler", "recycled", "system volume information"),  # Windows
    *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin"),  # Synology
    *("@recycle", "@recently-snapshot", "@transcode"),  # QNAP
    *("lost+found", "lost.dir", "__pycache__"),
}
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
# Of pictures that are not read here, so that their absence is a warning
FOREIGN_SUFFIXES = {
    *(".jp2", ".j2k", ".jxl", ".tga", ".psd", ".pcx", ".dds"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"),  # of cameras
}
# Folders of these names on top are parts of one set, if one of them holds training pictures.
TRAIN_NAMES = {"train", "training"}
PART_NAMES = TRAIN_NAMES | {"val", "valid", "validation", "dev", "test", "testing"}

# Why files are left out.
HIDDEN, OTHER = "hidden or system files", "other files"
FOREIGN = "pictures to be saved as PNG or JPEG first"
HEIF = "HEIF pictures, for which pillow-heif is not installed"
BROKEN_LINK, REPEATED = "links to nothing", "links to folders that are read already"
UNREADABLE, TOO_LARGE = (
    "folders that can't be read",
    f"files of more than {MAX_FILE_BYTES >> 20} MiB",
)
SPECIAL = ((stat.S_ISFIFO, "pipes"), (stat.S_ISSOCK, "sockets"), (stat.S_ISREG, ""))
DEVICE = "devices"
ROUTINE = {HIDDEN, OTHER, REPEATED}  # Nothing is lost if these are left out.
EXAMPLES = 3  # largest number of names for each reason


def split(name: str) -> List[str]:
    """Splits a path into its parts.

    A backslash separates them, too: some programs for Windows write it into archives, and other
    systems unpack such archives to names with backslashes. Nothing leads out of the place.
    """
    parts: List[str] = []
    for part in name.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def find_hidden(parts: Sequence[str]) -> int:
    """Returns the number of parts up to the first that is hidden or of a system; 0 for none."""
    for number, part in enumerate(parts, 1):
        if part.startswith(".") or part.lower() in SYSTEM_NAMES:
            return number
    return 0


class LeftOut:
    """Counts the files that are left out, by reason."""

    def __init__(self):
        self.counts, self.examples = collections.Counter(), collections.defaultdict(list)
        self.hidden: Set[Tuple[str, ...]] = set()

    def add(self, reason: str, example: str) -> None:
        """Counts a file.

        Args:
            reason: Why it is left out.
            example: Its name, or its suffix for `OTHER` and `FOREIGN`.
        """
        self.counts[reason] += 1
        examples = self.examples[reason]
        if len(examples) < EXAMPLES and example not in examples:
            examples.append(example)

    def hides(self, parts: Sequence[str]) -> bool:
        """Whether a file or folder is hidden or of a system, which is then counted once."""
        hidden = tuple(parts[: find_hidden(parts)])
        if hidden and hidden not in self.hidden:
            self.hidden.add(hidden)
            self.add(HIDDEN, hidden[-1])
        return bool(hidden)

    def keeps(self, name: str, mode: Optional[int], size: int) -> bool:
        """Whether a file is a picture that can be read; otherwise, it is counted.

        Args:
            name: Its path.
            mode: What it is, or what the link of this name points to; None for nothing.
            size: Its number of bytes.
        """
        parts = split(name)
        if self.hides(parts):
            return False
        suffix = osp.splitext(parts[-1])[1].lower() if parts else ""
        reason = BROKEN_LINK
        if mode is not None:
            reason = next((text for is_kind, text in SPECIAL if is_kind(mode)), DEVICE)
        if not reason and suffix not in list_suffixes():
            reason, name = (HEIF, name) if suffix in HEIF_SUFFIXES else (OTHER, suffix or name)
            reason = FOREIGN if suffix in FOREIGN_SUFFIXES else reason
        elif not reason and size > MAX_FILE_BYTES:
            reason = TOO_LARGE
        if reason:
            self.add(reason, name)
        return not reason

    def describe(self) -> str:
        """Writes what was left out: "links to nothing (2, such as a.png, b.png)"."""
        texts = []
        for reason, count in self.counts.items():
            examples = ", ".join(printable(example, 60) for example in self.examples[reason])
            texts.append(f"{reason} ({count}, such as {examples})")
        return "; ".join(texts)

    def log(self, shown: str) -> None:
        """Logs what was left out, as a warning if pictures may be missing."""
        if self.counts:
            log = logger.info if set(self.counts) <= ROUTINE else logger.warning
            log(f"Left out of {shown}: {self.describe()}.")


def find_classes(names: Sequence[str], level: Optional[int], shown: str) -> List[str]:
    """Finds the class of each picture: a folder that it is in. Logs which folders are classes.

    By default, these are the uppermost folders that differ. Folders such as train/ and val/ are
    parts of one set, and not classes.

    Args:
        names: Paths of the pictures.
        level: The level of the classes' folders: 1 for the top, -1 for the innermost, 0 for no
            classes; None for the default.
        shown: The place that messages name.

    Returns:
        The name of each picture's class; "" for a picture that has no folder at that level.

    Raises:
        UserError: If no picture is in a folder at that level.
    """
    folders = [split(name)[:-1] for name in names]
    deepest = max(map(len, folders))
    require(
        level is None or abs(level) <= deepest,
        f"DATA.class_level={level}: the pictures of {shown} are in folders of at most {deepest} "
        "levels. DATA.class_level=null finds the classes.",
    )
    distinct = {tuple(folder) for folder in folders}
    chosen, parts = _find_level(distinct) if level is None else (level, [])
    classes = [_pick(folder, chosen) for folder in folders]
    logger.info(_describe(chosen, parts, folders, classes, shown))
    return classes


def _pick(folder: Sequence[str], level: int) -> str:
    """The part of a folder's path at a level."""
    if level == 0 or len(folder) < abs(level):
        return ""
    part = folder[level - 1 if level > 0 else level]
    return part.encode("utf-8", "backslashreplace").decode()  # It may not be UTF-8.


def _find_level(folders: Set[Tuple[str, ...]]) -> Tuple[int, List[str]]:
    """Finds the level of the classes.

    Args:
        folders: The folders with pictures, as parts of their paths.

    Returns:
        The level, and the folders above it that are parts of one set.
    """
    deepest, parts = max(map(len, folders)), []
    top = len(os.path.commonprefix([list(folder) for folder in folders]))
    for level in range(top + 1, deepest + 1):
        names = {folder[level - 1] for folder in folders if len(folder) >= level}
        lowered = {name.lower() for name in names}
        if not parts and len(names) > 1 and lowered <= PART_NAMES and lowered & TRAIN_NAMES:
            parts, top = sorted(names), level
        elif len(names) > 1:
            return level, parts
    if parts:
        return (top + 1 if deepest > top else 0), parts
    return min(top + 1, deepest), parts


def _describe(
    level: int,
    parts: Sequence[str],
    folders: Sequence[Sequence[str]],
    classes: Sequence[str],
    shown: str,
) -> str:
    """Writes how the folders were understood."""
    texts = []
    if parts:
        names = " and ".join(f"{printable(name, 60)}/" for name in parts)
        texts.append(f"{names} are read as one set")
    example = next((number for number, name in enumerate(classes) if name), None)
    if example is None:
        texts.append("the pictures have no classes")
    else:
        path, name = printable("/".join(folders[example]), 120), printable(classes[example], 60)
        texts.append(f"the class of a picture in {path}/ is {name}")
        missing = classes.count("")
        if missing:
            texts.append(f"those without a folder at this level ({missing}) have the class ''")
    return f"Folders of {shown} (DATA.class_level={level}): {'; '.join(texts)}."
