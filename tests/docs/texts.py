# SPDX-License-Identifier: Apache-2.0
"""The README and the pages of the site, taken apart: headings, code, tables, links, commands."""

import re
import unicodedata
from pathlib import Path
from typing import List
from typing import Set
from typing import Tuple

from helpers import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
LANGUAGES = ("en", "zh")
# Settings whose names follow a group, as texts write them: TRAIN.epochs, MODEL.gen_net.dim.
KEY = re.compile(r"\b(?:TRAIN|MODEL|EVAL|DATA|LOSS|INFER)\.[a-zA-Z]\w*(?:\.\w+)*")
FENCE = re.compile(r"^( *)``` ?(.*)\n((?:.*\n)*?)\1```[ ]*$", re.M)
LAUNCHER = r"(?:-m paddle\.distributed\.launch [^`\n]*?)?"
END = r"[^`\n|(#]*"  # a command ends where prose, a cell or a comment begins


def pages(language: str) -> List[str]:
    """Paths of a language's pages below docs/LANGUAGE, sorted."""
    folder = DOCS / language
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))


def all_files() -> List[Path]:
    """The README and all pages."""
    return [README, *(DOCS / lang / name for lang in LANGUAGES for name in pages(lang))]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    """A file's path in the repository, as an id of tests."""
    return path.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """A text without its blocks of code."""
    return FENCE.sub("", text)


def code_blocks(text: str) -> List[Tuple[str, str]]:
    """Language and content of each block of code, without comments and empty lines."""
    blocks = []
    for _, language, content in FENCE.findall(text):
        lines = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in content.split("\n")]
        blocks.append((language, "\n".join(line for line in lines if line.strip())))
    return blocks


def code_spans(text: str) -> List[str]:
    """Code in a text's lines."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def headings(text: str) -> List[Tuple[int, str]]:
    """Level and text of each heading."""
    found = re.findall(r"^(#+) (.+?)(?: \{.*\})?$", prose(text), re.M)
    return [(len(marks), title) for marks, title in found]


def tables(text: str) -> List[List[List[str]]]:
    """The cells of each row of each table; the line below the head is left out."""
    found, is_in_table = [], False
    for line in prose(text).split("\n"):
        line = line.strip()
        if not line.startswith("|"):
            is_in_table = False
            continue
        if not is_in_table:
            found.append([])
        is_in_table = True
        # bars inside of code, formulas and behind a backslash part no cells
        bare = re.sub(r"`[^`]*`|\$[^$]*\$|\\\|", lambda match: "x" * len(match[0]), line)
        ends = [place for place, sign in enumerate(bare) if sign == "|"]
        cells = [line[start + 1 : end].strip() for start, end in zip(ends, ends[1:])]
        if not all(re.fullmatch(":?-+:?", cell) for cell in cells):
            found[-1].append(cells)
    return found


def pictures(text: str) -> List[str]:
    return re.findall(r"!\[[^]]*\]\(([^)]+)\)", prose(text))


def links(text: str) -> List[Tuple[str, str]]:
    """Path and anchor of each link that leads into the repository."""
    without_code = re.sub(r"`[^`\n]+`", "", prose(text))
    return re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", without_code)


def anchors(path: Path) -> Set[str]:
    """The anchors of a file's headings: as GitHub makes them, or as the site's builder does."""
    names: List[str] = []
    for _, title in headings(read(path)):
        title = re.sub(r"[`*]|\]\([^)]*\)|\[", "", title)
        if path.parent == ROOT:
            name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        else:
            plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
            name = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        same = sum(other == name for other in names)
        names.append(name)
        if same:
            names.append(f"{name}_{same}")
    return {*names, *re.findall(r"\{ ?#([\w-]+)", read(path))}


def commands(text: str) -> List[str]:
    """Commands of the scripts, such as "wgangp_toy.py mode=eval"."""
    typed = re.findall(rf"python {LAUNCHER}(wgangp_\w+\.py{END})", text)
    named = re.findall(rf"`(wgangp_\w+\.py {END})`", text)
    return sorted({command.strip() for command in typed + named})


def programs(text: str) -> List[Tuple[str, List[str]]]:
    """The other programs that a text runs by `python`, with their options."""
    found = re.findall(rf"python ((?:-m )?[\w./]+)({END})", text)
    return [
        (program, re.findall(r"(?<!\S)--[\w-]+", arguments))
        for program, arguments in found
        if not program.startswith("wgangp_")
    ]


def make_targets(text: str) -> Set[str]:
    return set(re.findall(r"(?:^ *|`)make ([a-z][\w-]*)", text, re.M))
