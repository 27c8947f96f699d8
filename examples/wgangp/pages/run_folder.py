# SPDX-License-Identifier: Apache-2.0
"""Reads what a run left in its output folder, as far as a page shows it."""

from __future__ import annotations

import dataclasses
import json
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import List
from typing import Mapping
from typing import Optional
from typing import Tuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pages import origin
from support import settings
from support import storage
from support.errors import UserError
from support.errors import printable
from support.errors import require

# Fields of metrics.jsonl that are not figures of an evaluation stand before the first mark of a
# record, and what was evaluated follows the second one.
MARKS = ("learning_rate", "evaluated")
HIDDEN_KEYS = ("mode", "output_dir", "device")  # The command, the title and the machine show them.


def make_rows(
    figures: Mapping[str, float], describe: Callable[[str], Mapping[str, Any]]
) -> Dict[str, Dict[str, Any]]:
    """Makes the rows of metrics.json: each figure's value, deviation, and what belongs to it.

    Args:
        figures: Figures by name; `X_deviation` is the deviation of X.
        describe: Returns what belongs to a figure, by its name.
    """
    return {
        name: {
            "value": value,
            "deviation": figures.get(f"{name}_deviation"),
            **describe(name),
        }
        for name, value in figures.items()
        if not name.endswith("_deviation")
    }


@dataclasses.dataclass
class Source:
    """Figures of one evaluation.

    Args:
        title: What was evaluated.
        rows: For each figure, its "value" and, where they are known, "deviation", "better",
            "num_samples", "measured_by" and those of real data, as in metrics.json.
    """

    title: str
    rows: Dict[str, Dict[str, Any]]

    @property
    def about(self) -> str:
        """Numbers of samples and what measured them, in words; empty where it is not known."""
        texts = {}
        for row in self.rows.values():
            by, real = row.get("measured_by") or {}, row.get("real_num_samples")
            text = f"{row['num_samples']:,} samples" if row.get("num_samples") else ""
            text += f", {real:,} real ones" if real else ""
            text += f", measured by {by['network']}" if "network" in by else ""
            text += f" (SHA-256 {by['sha256'][:12]})" if "sha256" in by else ""
            texts[text] = None
        return "; ".join(filter(None, texts))


@dataclasses.dataclass
class RunFolder:
    """What a run left.

    Args:
        folder: The folder's absolute path.
        records: The records of metrics.jsonl; empty where nothing was trained.
        training: The content of run.json; empty where a training of an earlier version wrote none.
        evaluation: The content of metrics.json; empty where nothing was evaluated.
        drawing: The content of infer.json; empty where mode=infer drew nothing.
        settings: The settings by key, of the training or else of the evaluation.
    """

    folder: str
    records: List[Dict[str, Any]]
    training: Dict[str, Any]
    evaluation: Dict[str, Any]
    drawing: Dict[str, Any]
    settings: Dict[str, Any]

    @property
    def script(self) -> Optional[str]:
        """Name of the script's file in conf/, if it is known."""
        return self.training.get("script") or self.evaluation.get("script")

    @property
    def origins(self) -> Dict[str, Dict[str, Any]]:
        """What `origin.describe` wrote, of the training and of the evaluation."""
        found = {"Training": self.training, "Evaluation": self.evaluation}
        return {title: content for title, content in found.items() if "command" in content}

    def drew(self, file: str) -> bool:
        """Whether mode=infer wrote a picture of the folder, by its checksums."""
        listed = storage.read_checksums(osp.join(self.folder, origin.MANIFEST))
        return listed.get(file) == storage.sha256(osp.join(self.folder, file))

    @property
    def has_samples_only(self) -> bool:
        """Whether the folder holds samples of mode=infer, and nothing that was trained."""
        return not (self.records or self.evaluation)

    def describe_progress(self) -> str:
        """How far the training has come, in words; empty where nothing was trained."""
        if not self.records:
            return ""
        step, seconds = (self.records[-1].get(name, 0) for name in ("step", "seconds"))
        epochs, length = (self.settings.get(f"TRAIN.{k}") for k in ("epochs", "iters_per_epoch"))
        total = epochs * length if epochs and length else step
        minutes = round(seconds / 60)
        time = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
        time = f"{seconds:.0f} s" if minutes < 2 else time
        if step >= total:
            return f"{step:,} iterations in {time}"
        return f"stopped: records of {step:,} of {total:,} iterations, {time}"

    def list_sources(self) -> List[Source]:
        """The figures of the newest evaluation during the training, and those of mode=eval."""
        sources = []
        evaluated = [record for record in self.records if MARKS[1] in record]
        if evaluated:
            newest = evaluated[-1]
            title = f"{newest[MARKS[1]]} at iteration {newest['step']:,}"
            sources.append(Source(title, self._rows_of_record(newest)))
        if self.evaluation.get("metrics"):
            sources.append(Source("mode=eval", self.evaluation["metrics"]))
        return sources

    def _rows_of_record(self, record: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
        names = list(record)
        first, last = (names.index(mark) for mark in MARKS)
        figures = {name: record[name] for name in names[first + 1 : last]}
        known = self.training.get("figures", {})
        return make_rows(figures, lambda name: known.get(name, {}))

    def list_changes(self) -> Dict[str, Tuple[Any, Any]]:
        """The settings that differ from the defaults: each with its value and its default.

        A default that refers to another setting is what it would be with this run's settings.
        """
        if self.script is None:
            return {}
        defaults = settings.load_defaults(self.script)
        flat, chosen = settings.flatten(defaults), OmegaConf.create(defaults)
        for key, value in self.settings.items():
            if key in flat and not _is_reference(flat[key]):
                OmegaConf.update(chosen, key, value)
        changes = {}
        for key, value in self.settings.items():
            if key not in HIDDEN_KEYS:
                default = flat.get(key)
                default = OmegaConf.select(chosen, key) if _is_reference(default) else default
                if value != default:
                    changes[key] = value, default
        return changes


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def read(folder: str) -> RunFolder:
    """Reads a run's folder.

    Raises:
        UserError: If it holds no training, no evaluation and no samples, or a file is damaged.
    """
    folder = osp.abspath(folder)
    records = _read_records(osp.join(folder, "metrics.jsonl"))
    evaluation = _read_json(osp.join(folder, "metrics.json"))
    drawing = _read_json(osp.join(folder, origin.INFER_NAME))
    require(
        bool(records or evaluation or drawing),
        f"{printable(folder)} holds neither records (metrics.jsonl) nor figures (metrics.json). "
        "Name the output folder of a training, of mode=eval or of mode=infer.",
    )
    return RunFolder(
        folder,
        records,
        _read_json(osp.join(folder, origin.NAME)),
        evaluation,
        drawing,
        _read_settings(osp.join(folder, "config.yaml" if records else "config_eval.yaml")),
    )


def _read_records(path: str) -> List[Dict[str, Any]]:
    text = _read_text(path)
    # A kill may have cut the last line short; a resumed training drops it, too.
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [_parse(line, f"line {number} of {path}") for number, line in enumerate(lines, 1)]


def _read_json(path: str) -> Dict[str, Any]:
    return _parse(_read_text(path) or "{}", path)


def _parse(text: str, where: str) -> Dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    require(isinstance(content, Mapping), f"{printable(where)} is damaged: it is not JSON.")
    return content


def _read_settings(path: str) -> Dict[str, Any]:
    try:
        return settings.flatten_current(yaml.safe_load(_read_text(path)) or {})
    except (yaml.YAMLError, OmegaConfBaseException, AttributeError, RecursionError):
        raise UserError(f"{printable(path)} is damaged: it does not hold settings.") from None


def _read_text(path: str) -> str:
    """The text of a file; empty where there is none."""
    if not osp.lexists(path):
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{printable(path)} can't be read ({printable(error)}).") from None
