# SPDX-License-Identifier: Apache-2.0
"""report.html: one file that shows a run, or several next to each other, without any request."""

from __future__ import annotations

import logging
import os
from os import path as osp
from typing import Any
from typing import Dict
from typing import List
from typing import Optional
from typing import Sequence

from pages import curves
from pages import frames
from pages import run_folder
from pages.run_folder import HIDDEN_KEYS
from pages.run_folder import RunFolder
from support import settings
from support import shipped_weights
from support import storage
from support.errors import printable
from support.errors import require
from support.meanings import show_value

NAME = "report.html"
logger = logging.getLogger("ppsci")
STILLS = {  # pictures of mode=eval
    "samples.png": "Samples of the evaluated weights",
    "neighbours.png": "Samples and their nearest training pictures",
}


def write_or_warn(folder: str) -> None:
    """Writes the page of a run into its folder; a failure is one warning, and ends nothing."""
    path = osp.join(osp.abspath(folder), NAME)
    try:
        write([folder], path)
        logger.info(f"Wrote {path}")
    except Exception as error:  # Whatever it is, the training is worth more than its page.
        logger.warning(f"{printable(path)} was not written ({printable(error)}).")


def write(folders: Sequence[str], path: str) -> None:
    """Writes the page of one run, or of several that are compared.

    Args:
        folders: The output folders of the runs, and of samples to show next to theirs.
        path: The page to write.

    Raises:
        UserError: If a folder holds no run, or a file of it is damaged.
        OSError: If a picture can't be read, or the page can't be written.
    """
    found = [run_folder.read(folder) for folder in folders]
    runs = [run for run in found if not run.has_samples_only]
    require(
        bool(runs),
        f"{printable(folders[0])} holds samples of mode=infer only. Name the output folder of a "
        "training or of mode=eval, too, to see them on its page.",
    )
    text = render(runs, [run for run in found if run.has_samples_only])
    with storage.replacing(osp.abspath(path)) as file:
        file.write(text.encode(errors="replace"))  # A folder's name may not be UTF-8.


def render(runs: Sequence[RunFolder], samples: Sequence[RunFolder] = ()) -> str:
    """Makes the page's HTML. The template escapes every text that comes from the runs.

    Args:
        runs: Trainings and evaluations.
        samples: Folders of mode=infer. The page shows their samples, and what drew them.
    """
    import jinja2  # A training can do without it, so its absence is found out here.

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(osp.dirname(osp.abspath(__file__))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=format_number, setting=show_value)
    views = [
        _view(run, name, color, frames.MAX_BYTES // len(runs))
        for run, name, color in zip(runs, _name(runs), _colors(len(runs)))
    ]
    panels = curves.draw_panels([run.records for run in runs], _real(runs[0]))
    return environment.get_template("page.html").render(
        runs=views,
        title=views[0]["title"] if len(runs) == 1 else f"{len(runs)} runs",
        panels=panels,
        figures=_list_figures(runs),
        has_real=bool(_real(runs[0])),
        drawings=[_view_samples(run) for run in samples],
        **_compare_settings(runs),
    )


def _view(run: RunFolder, name: str, color: str, max_bytes: int) -> Dict[str, Any]:
    """What the template shows of a run."""
    paths = frames.find_pictures(run.folder)
    stills = {
        title: frames.make_frame(osp.join(run.folder, file))
        for file, title in STILLS.items()
        if run.evaluation and osp.isfile(osp.join(run.folder, file)) and not run.drew(file)
    }
    max_bytes -= sum(len(still.content) for still in stills.values())
    return {
        "name": name,
        "title": f"{run.script}: {name}" if run.script else name,
        "color": color,
        "progress": run.describe_progress(),
        "frames": frames.choose(paths, max_bytes),
        "has_class_columns": run.settings.get("MODEL.use_label")
        and run.settings.get("MODEL.num_classes", 10) <= 10,  # see measures/sampling.py
        "pictures": len(paths),
        "stills": stills,
        "sources": run.list_sources(),
        "origins": run.origins,
        "weights": run.evaluation.get("weights", {}),
    }


def _view_samples(run: RunFolder) -> Dict[str, Any]:
    """What the template shows of the samples of mode=infer."""
    weights = run.drawing.get("weights", {})
    entry = shipped_weights.read_table(shipped_weights.FOLDER).get(weights.get("source"), {})
    is_shipped = entry.get("files", {}).get("generator", {}).get("sha256") == weights.get("sha256")
    return {
        "source": weights.get("source"),
        "frame": frames.make_frame(osp.join(run.folder, "samples.png")),
        "shipped": entry if is_shipped else None,
        "command": run.drawing.get("command"),
    }


def _name(runs: Sequence[RunFolder]) -> List[str]:
    """Short names of runs: the ends of their paths, as far as these differ."""
    if len(runs) == 1:
        return [osp.basename(runs[0].folder) or runs[0].folder]
    try:
        parent = osp.commonpath([osp.dirname(run.folder) for run in runs])
    except ValueError:  # They are on several drives of Windows.
        return [run.folder for run in runs]
    return [osp.relpath(run.folder, parent) for run in runs]


def _colors(count: int) -> List[str]:
    return [curves.COLORS[number % len(curves.COLORS)] for number in range(count)]


def _list_figures(runs: Sequence[RunFolder]) -> Dict[str, Optional[str]]:
    """The figures of all runs, each with the direction in which it is better, if it has one."""
    rows = [row for run in runs for source in run.list_sources() for row in source.rows.items()]
    directions: Dict[str, Optional[str]] = {}
    for name, row in rows:
        directions[name] = directions.get(name) or row.get("better")
    return directions


def _real(run: RunFolder) -> Dict[str, float]:
    """Figures of real data, of the newest evaluation that has them."""
    found = {}
    for source in reversed(run.list_sources()):
        found.update({k: r["real"] for k, r in source.rows.items() if r.get("real") is not None})
    return found


def _compare_settings(runs: Sequence[RunFolder]) -> Dict[str, Any]:
    """The settings that differ from the defaults in a run, or between runs.

    Runs of several scripts have several defaults; then these are left out.
    """
    changes = [run.list_changes() for run in runs]
    keys = dict.fromkeys(key for changed in changes for key in changed)
    for key, value in runs[0].settings.items():
        if any(run.settings.get(key, value) != value for run in runs[1:]):
            keys[key] = None
    defaults: Optional[Dict[str, Any]] = None
    if runs[0].script and len({run.script for run in runs}) == 1:
        defaults = settings.flatten(settings.load_defaults(runs[0].script))
        for changed in changes:
            defaults.update({key: default for key, (_, default) in changed.items()})
    return {
        "settings": {
            key: [run.settings.get(key) for run in runs] for key in keys if key not in HIDDEN_KEYS
        },
        "changed": [set(changed) for changed in changes],
        "defaults": defaults,
        "are_scripts_known": all(run.script for run in runs),
    }


def format_number(value: Optional[float]) -> str:
    """Formats a figure with four digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"


def default_path(folders: Sequence[str]) -> str:
    """Where a page goes: into the folder of a single run, or the current folder."""
    return osp.join(folders[0], NAME) if len(folders) == 1 else osp.join(os.curdir, NAME)
