# SPDX-License-Identifier: Apache-2.0
"""What a benchmark says of the machine: its processor, its packages, and how busy it is."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any
from typing import Dict
from typing import Optional

from pages import origin
from support import processor

PACKAGES = ("paddlepaddle", "paddlesci", "torch", "torch_fidelity", "numpy")
# The machine is busy if other programs use more cores than this.
BUSY = 0.1
WARNING = "THE MACHINE IS BUSY: these figures are not those of an idle one."


def describe_machine() -> Dict[str, Any]:
    """The processor, its cores, and the versions of what the benchmark compares."""
    return {
        "processor": origin.name_processor(),
        "cores": processor.count_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"Python": platform.python_version(), **origin.find_versions(PACKAGES)},
    }


def _read_busy_seconds() -> Optional[float]:
    """Seconds of work of all cores since the machine started; None where /proc does not say."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft_interrupts, stolen, *_ = map(int, words[1:])
    ticks = user + nice + system + interrupts + soft_interrupts + stolen
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch:
    """Watches how busy the machine is, apart from this program and its children that end."""

    def __init__(self):
        self._before = os.getloadavg()[0]
        self._begin, self._busy, self._own = time.monotonic(), _read_busy_seconds(), self._sum_own()

    @staticmethod
    def _sum_own() -> float:
        return sum(os.times()[:4])  # with those of the children that have ended

    def stop(self) -> Dict[str, Any]:
        """The load averages, and the cores that others have used; call it when children ended."""
        load = {"before": self._before, "after": os.getloadavg()[0], "others": None}
        busy = _read_busy_seconds()
        if busy is not None and self._busy is not None:
            others = busy - self._busy - (self._sum_own() - self._own)
            load["others"] = max(others / (time.monotonic() - self._begin), 0.0)
        return {name: value and round(value, 2) for name, value in load.items()}


def look() -> Dict[str, Any]:
    """The load of one second."""
    watch = Watch()
    time.sleep(1)
    return watch.stop()


def is_busy(load: Dict[str, Any]) -> bool:
    """Whether others worked; where /proc does not say, whether the load average began high."""
    return (load["before"] if load["others"] is None else load["others"]) > BUSY


def describe_load(load: Dict[str, Any]) -> str:
    """A load in words, with a warning if the machine was busy."""
    text = f"load average before and after: {load['before']:.2f}, {load['after']:.2f}"
    if load["others"] is not None:
        text += f"; others used {load['others']:.2f} cores meanwhile"
    return f"{text}. {WARNING}" if is_busy(load) else f"{text}."


def write_results(path: Path, load: Dict[str, Any], rows: Dict[str, Any]) -> None:
    """Writes the figures of a benchmark, with its command, its date and the machine, as JSON."""
    results = {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "load": load,
        "rows": rows,
    }
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
