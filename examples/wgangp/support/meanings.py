# SPDX-License-Identifier: Apache-2.0
"""Meanings, defaults and values of settings as text, from the comments of conf/ and the checks."""

from __future__ import annotations

import decimal
import math
import re
from pathlib import Path
from typing import Any
from typing import Dict
from typing import List
from typing import Mapping
from typing import Sequence

import yaml

from support import paths
from support.settings import RANGES
from support.settings import flatten

KINDS = {
    "bool": "{} or {}",
    "int": "whole number",
    "float": "number",
    "path": "path",
    "text": "text",
    "and null": "{}, or {}",
    "class": "name or number of a class, or {}",
}


def read_comments(path: Path) -> Dict[str, str]:
    """Reads the comments of a file's keys, behind a key or above it, by the keys' full names."""
    comments, above, parents = {}, [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("#"):
            above.append(line.strip()[1:].strip())
            continue
        match = re.match(r"( *)(\w+):(?: [^#]*)?(?:# (.*))?$", line)
        if match:
            indent, name, behind = match.groups()
            parents[len(indent) // 2 :] = [name]
            comment = " ".join(above) or behind
            if comment:
                comments[".".join(parents)] = comment
        above = []
    return comments


def read_shared_comments(conf: Path) -> Dict[str, str]:
    """Reads the comments of the files that several scripts share.

    Args:
        conf: The folder of the files.
    """
    comments = {}
    for path in sorted(conf.glob("*.yaml")):
        if not path.stem.startswith("wgangp_"):
            comments.update(read_comments(path))
    return comments


def read_head(path: Path) -> str:
    """Reads the comment at a file's beginning."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines += [] if line.startswith("# @") else [line[1:].strip()]
    return " ".join(lines)


def list_option_files(conf: Path, group: str, option: str, script: str) -> List[Path]:
    """Lists the files of a group's option: the one that scripts share, then a script's own."""
    paths = (conf / group / f"{option}.yaml", conf / group / script / f"{option}.yaml")
    return [path for path in paths if path.is_file()]


def read_option(path: Path) -> Dict[str, Any]:
    """Reads what an option's file sets, by key or, as LOSS, by group."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    defaults = [item for default in content.pop("defaults", ()) for item in default.items()]
    return {**{name.rpartition("/")[2]: value for name, value in defaults}, **flatten(content)}


def show_default(key: str, value: Any) -> str:
    """Writes a default as one types it; a reference as the key that it names."""
    if isinstance(value, str) and value.startswith("${"):
        sibling = f"{key.rpartition('.')[0]}.{value[3:-1]}"
        return f"= `{sibling if value.startswith('${.') else 'hydra.run.dir'}`"
    return f"`{show_value(value)}`"


def show_value(value: Any) -> str:
    """Writes a value as YAML does, but numbers without an exponent as far as they stay short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(show_value, value))}]"
    if isinstance(value, float) and (value == 0 or 1e-6 <= abs(value) < math.inf):
        text = f"{decimal.Decimal(repr(value)):f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value)


def show_values(
    key: str, default: Any, choices: Mapping[str, Sequence], kinds: Mapping[str, str]
) -> str:
    """Writes what a setting may be: its choices, its range, or its kind.

    Args:
        key: The setting.
        default: Its default.
        choices: Values of some settings.
        kinds: Words for kinds of values; see `KINDS`.
    """
    if key in choices:
        return ", ".join(f"`{show_value(choice)}`" for choice in choices[key])
    if isinstance(default, bool):
        return kinds["bool"].format("`true`", "`false`")
    if key in RANGES:
        least, bound = RANGES[key]
        kind = kinds["float" if isinstance(default, float) or "rate" in key else "int"]
        upper = "" if bound is None else f", < {bound}"
        return f"{kind} ≥ {show_value(least)}{upper}"
    if key == "DATA.class_level":
        return kinds["and null"].format(kinds["int"], "`null`")
    if key == "INFER.label":
        return kinds["class"].format("`null`")
    kind = kinds["path" if paths.is_path(key) else "text"]
    return kinds["and null"].format(kind, "`null`") if default is None else kind
