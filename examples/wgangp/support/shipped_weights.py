# SPDX-License-Identifier: Apache-2.0
"""Weights that ship with the suite: their names, files and checksums, from weights/weights.json."""

from __future__ import annotations

import dataclasses
import functools
import json
from os import path as osp
from typing import Any
from typing import Dict
from typing import List
from typing import Optional

from support.errors import UserError
from support.errors import printable

FOLDER = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), "weights")
TABLE = "weights.json"
NETWORKS = {"generator": "a generator", "discriminator": "a critic"}


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A file of weights that ships.

    Args:
        path: Where it is.
        sha256: The SHA-256 that it must have.
    """

    path: str
    sha256: str


@functools.cache
def read_table(folder: str) -> Dict[str, Dict[str, Any]]:
    """Reads the entries of weights.json in a folder, by name.

    Raises:
        UserError: If it can't be read.
    """
    path = osp.join(folder, TABLE)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{printable(path)} can't be read ({printable(error)}). Install the suite again."
        ) from None


def list_names(script: str) -> List[str]:
    """Lists the names of the weights that ship for a script.

    Args:
        script: The name of the script without its suffix, such as "wgangp_toy".
    """
    return [name for name, entry in read_table(FOLDER).items() if entry["script"] == script]


def advise(script: str) -> str:
    """Writes a sentence with the names of a script's weights; "" if it has none."""
    names = list_names(script)
    return f" Weights that ship with {script}.py: {', '.join(names)}." if names else ""


def find(source: str, script: str, setting: str, role: str) -> Optional[Shipped]:
    """Finds the weights that a name stands for.

    A name has neither a slash nor a suffix. A file or folder of that name comes first.

    Args:
        source: What the user wrote: a name, a path or a URL.
        script: The script that asks, without its suffix.
        setting: The configuration key, for messages.
        role: "generator" or "discriminator".

    Returns:
        The file; None for a path or URL.

    Raises:
        UserError: If there is nothing of that name, or only for another script or network.
    """
    if osp.basename(source) != source or osp.splitext(source)[1] or source.startswith("~"):
        return None
    if any(osp.exists(source + suffix) for suffix in ("", ".pdparams", ".npz")):
        return None
    entry, advice = read_table(FOLDER).get(source), advise(script)
    if entry is None:
        if not advice:
            return None
        raise UserError(f"{setting}: there is no file or folder {printable(source)}.{advice}")
    if entry["script"] != script:
        raise UserError(
            f"{setting}: the weights {source} belong to {entry['script']}.py."
            + (advice or f" No weights ship with {script}.py.")
        )
    file = entry["files"].get(role)
    if file is None:
        raise UserError(
            f"{setting}: {source} ships without {NETWORKS[role]}. Leave the setting out, or give "
            "the path of other weights."
        )
    return Shipped(osp.join(FOLDER, file["file"]), file["sha256"])
