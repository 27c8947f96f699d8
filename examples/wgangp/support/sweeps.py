# SPDX-License-Identifier: Apache-2.0
"""Sweeps (--multirun): a failed job does not stop the others, and a table lists how each ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import traceback
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import List
from typing import Optional

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode

from support import paths
from support import storage
from support.errors import explain
from support.errors import fail
from support.errors import printable
from support.errors import show

NAME = "sweep_summary"  # of the files in the sweep's folder
FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"


@dataclasses.dataclass
class Job:
    """What became of a job.

    Args:
        number: Its number in the sweep.
        settings: The command's overrides for this job.
        folder: Its output folder.
        status: How it ended.
        reason: Why it failed.
        figures: Its final figures by name.
        is_fault: Whether it failed by a fault of the program.
    """

    number: int
    settings: List[str]
    folder: str
    status: str = INTERRUPTED
    reason: Optional[str] = None
    figures: Dict[str, Any] = dataclasses.field(default_factory=dict)
    is_fault: bool = False


_jobs: List[Job] = []  # of this process's sweep
_fixed_folders: List[str] = []  # that of the job that runs, if it is not Hydra's
_signals: List[int] = []  # those that came when a job was about to finish


def is_sweep() -> bool:
    """Whether the configuration that runs is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def folder_key() -> str:
    """The setting that names the output folder."""
    if is_sweep():
        return "hydra.sweep.dir"
    return "output_dir" if _fixed_folders else "hydra.run.dir"


def note_folder(output_dir: str) -> None:
    """Remembers whether the output folder of a job is Hydra's, for `folder_key`."""
    _fixed_folders.clear()
    if HydraConfig.initialized():
        hydras = HydraConfig.get().runtime.output_dir
        if osp.abspath(output_dir) != osp.abspath(hydras):
            _fixed_folders.append(output_dir)


def name_folder(output_dir: str) -> str:
    """Writes the setting that names an output folder, or the whole sweep's, with its value."""
    folder = _sweep_folder() if is_sweep() else osp.abspath(output_dir)
    return paths.quote(folder_key(), folder)


def _sweep_folder() -> str:
    config = HydraConfig.get()
    return osp.abspath(osp.join(config.runtime.cwd, config.sweep.dir))


def end_after_job(number: int) -> None:
    """Ends the sweep, if another job follows, when the one that runs has finished."""
    _signals.append(number)


def run_job(run: Callable[[], Optional[Dict[str, Any]]]) -> None:
    """Runs a job; an error ends this job only. SIGINT and SIGTERM end the sweep.

    Args:
        run: Runs the job, and returns its figures.
    """
    if _signals:
        sys.exit(128 + _signals.pop())
    config = HydraConfig.get()
    job = Job(config.job.num, list(config.overrides.task), config.runtime.output_dir)
    try:
        job.figures = run() or {}
        job.status = FINISHED
    except Exception as error:
        job.status, job.is_fault = FAILED, explain(error) is None
        job.reason = explain(error) or f"{type(error).__name__}: {printable(error)}"
        if job.is_fault:
            traceback.print_exc()
        show(f"job {job.number} ({printable(job.folder)}): {job.reason}")
    finally:
        _jobs.append(job)
        if int(os.environ.get("PADDLE_TRAINER_ID", 0)) == 0:
            _write_summary(_sweep_folder())


class Summary(Callback):
    """Prints the table at the end of a sweep; the status says whether all jobs have finished."""

    def on_multirun_start(self, config, **kwargs) -> None:
        _jobs.clear()
        _signals.clear()

    def on_multirun_end(self, config, **kwargs) -> None:
        if not _jobs:  # Another launcher has run them, in other processes.
            return
        with contextlib.suppress(OSError):
            print(make_table(_jobs), flush=True)
        failed = [job for job in _jobs if job.status != FINISHED]
        if failed:
            numbers = ", ".join(str(job.number) for job in failed)
            fail(
                f"{len(failed)} of {len(_jobs)} jobs failed: {numbers}. The same command with the "
                "same hydra.sweep.dir= runs them again and skips finished trainings.",
                1 if any(job.is_fault for job in failed) else 2,
            )


def _write_summary(folder: str) -> None:
    """Writes the table of the jobs so far, as Markdown and as JSON."""
    content = [dataclasses.asdict(job) for job in _jobs]
    for part in content:
        part["folder"] = osp.relpath(part["folder"], folder)
        del part["is_fault"]
    texts = {".md": make_table(_jobs), ".json": json.dumps(content, indent=2)}
    with contextlib.suppress(OSError):  # The jobs' own files matter more.
        for suffix, text in texts.items():
            with storage.replacing(osp.join(folder, NAME + suffix)) as file:
                file.write(f"{text}\n".encode())


def list_differences(jobs: List[Job]) -> Dict[int, List[str]]:
    """Lists the settings of each job that other jobs do not share, by the jobs' numbers."""
    shared = set.intersection(*(set(job.settings) for job in jobs)) if len(jobs) > 1 else set()
    return {job.number: [text for text in job.settings if text not in shared] for job in jobs}


def make_table(jobs: List[Job]) -> str:
    """Makes a Markdown table of jobs: their settings, how they ended, and their figures."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        text = f"{value:.5g}" if isinstance(value, float) else printable(value)
        return text.replace("|", "\\|")

    names = list(dict.fromkeys(name for job in jobs for name in job.figures))
    differences = list_differences(jobs)
    rows = [["job", "settings", "status", *names]]
    if any(job.reason for job in jobs):
        names.append("reason")
        rows[0].append("reason")
    for job in jobs:
        cells = (str(job.number), " ".join(differences[job.number]), job.status)
        figures = {**job.figures, "reason": job.reason and printable(job.reason, 80)}
        rows.append([cell(value) for value in (*cells, *map(figures.get, names))])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
