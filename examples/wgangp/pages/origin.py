# SPDX-License-Identifier: Apache-2.0
"""Where a run comes from: its command, the versions of its packages, the machine."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import re
import shlex
import sys
import time
from os import path as osp
from pathlib import Path
from typing import Any
from typing import Dict
from typing import Sequence

from support import processor
from support import storage
from support.errors import printable

# The files of mode=train and mode=infer; metrics.json holds the same of an evaluation.
NAME, INFER_NAME = "run.json", "infer.json"
MANIFEST = "samples.sha256"  # the checksums of the files of mode=infer
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddlesci", "numpy")


def describe(script: str, device: str, processes: int) -> Dict[str, Any]:
    """Describes the process that runs.

    Args:
        script: Name of the script's file in conf/, without the suffix.
        device: Paddle's name of the device that is used.
        processes: Number of processes.
    """
    return {
        "script": script,
        "command": shlex.join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "versions": {"python": platform.python_version(), **find_versions(PACKAGES)},
        "machine": {
            "processor": name_processor(),
            "cores": processor.count_cores(),
            "threads": os.environ.get("MKL_NUM_THREADS"),
            "system": f"{platform.system()} {platform.machine()}",
            "device": device,
            "processes": processes,
        },
    }


def find_versions(packages: Sequence[str]) -> Dict[str, str]:
    """The versions of those packages that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def save(folder: str, name: str, content: Dict[str, Any]) -> None:
    """Writes a file about a run; a failure is a warning, since only pages read the file.

    Args:
        folder: The run's folder.
        name: The name of the file.
        content: What `describe` returned. Of a training, also "figures": what is known of the
            figures of its evaluations by name, as in metrics.json. Of samples, also "weights".
    """
    path = osp.join(osp.abspath(folder), name)
    text = json.dumps(content, indent=2, allow_nan=False)
    try:
        with storage.replacing(path) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        logger = logging.getLogger("ppsci")
        logger.warning(f"{printable(path)} was not written ({printable(error)}).")


def name_processor() -> str:
    """The processor's name, from /proc/cpuinfo where Linux has one."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"model name\s*: (.*)", text)
    return found[1].strip() if found else platform.processor() or platform.machine()
