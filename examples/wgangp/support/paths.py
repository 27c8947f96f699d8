# SPDX-License-Identifier: Apache-2.0
"""Paths in settings: what a user may write in place of a plain path."""

from __future__ import annotations

import re
import shlex
import urllib.parse
import urllib.request
from os import path as osp
from typing import Any

from omegaconf import DictConfig
from omegaconf import OmegaConf

from support.errors import require

ENDINGS = ("_dir", ".dir", "_path", "_weights", ".resume")  # of the keys of paths
# The beginnings of keys that take URLs, too.
URL_KEYS = ("TRAIN.pretrained_", "EVAL.pretrained_", "INFER.pretrained_")


def is_path(key: str) -> bool:
    """Whether a setting is a path."""
    return key.endswith(ENDINGS)


def check_path(key: str, value: Any, shown: Any) -> None:
    """Refuses a value that can't be a path.

    Args:
        key: The full name of a setting that is a path.
        value: Its value.
        shown: The value as YAML writes it.

    Raises:
        UserError: Says what is wrong and what would be right.
    """
    hint = "give a path" if value is None else "put it in quotes"
    if isinstance(value, bool):
        hint = "give auto or a path" if key == "TRAIN.resume" else "give a path"
    require(isinstance(value, str), f"{key}={shown} is not a path: {hint}.")
    require(
        value.strip() != "",
        f"{key}= is empty, as after a shell variable that is not set. Give a path, or leave {key} "
        "out.",
    )
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?", value)
    if scheme and scheme[1].lower() == "file":
        _split_file_url(key, value)
    elif scheme and scheme[2]:
        takes_urls = key.startswith(URL_KEYS)
        require(
            takes_urls and scheme[1] in ("http", "https"),
            f"{key}={shown} is a URL, and "
            + ("only https:// and file:// are read" if takes_urls else "a path is needed")
            + ". Download the file and give its path.",
        )


def check_plain(key: str, value: str) -> None:
    """Refuses a folder that Hydra would make under another name than the user means.

    Args:
        key: The full name of the setting.
        value: Its value, references unresolved.

    Raises:
        UserError: If it is empty, or begins with ~ or file://, which Hydra does not replace.
    """
    check_path(key, value, value)
    plain = value
    if value.lower().startswith("file:"):
        plain = _split_file_url(key, value)
    elif value.startswith("~"):
        plain = osp.expanduser(value)
    require(plain == value, f"{key}={value} has to be a plain path: give {key}={plain}.")


def quote(key: str, value: str) -> str:
    """Writes a setting as a shell and Hydra read it, with quotes where its characters need them."""
    if re.fullmatch(r"[\w./+%@:-]*", value, re.ASCII):
        return f"{key}={value}"
    # Hydra reads backslashes as such, but for those before a quote.
    text = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + (match[2] and "\\'"), value)
    return (
        shlex.quote(f"{key}='{text}'") if re.search(r"[\"$`\\!]", text) else f"\"{key}='{text}'\""
    )


def replace_file_urls(cfg: DictConfig, prefix: str = "") -> None:
    """Replaces file:// URLs in settings that are paths by the paths that they name."""
    for name in list(cfg):
        key, value = f"{prefix}{name}", cfg[name]
        if isinstance(value, DictConfig):
            replace_file_urls(value, f"{key}.")
        elif is_path(key) and isinstance(value, str) and value.lower().startswith("file:"):
            OmegaConf.update(cfg, name, _split_file_url(key, value))


def _split_file_url(key: str, url: str) -> str:
    """Returns the path that a file:// URL names."""
    parts = urllib.parse.urlsplit(url)
    require(
        parts.netloc in ("", "localhost") and parts.path.startswith("/"),
        f"{key}={url} does not name a file of this machine: file:///FOLDER/FILE has three slashes.",
    )
    return urllib.request.url2pathname(parts.path)
