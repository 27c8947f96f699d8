# SPDX-License-Identifier: Apache-2.0
"""What --help prints: an overview of a script, or what one setting or group means."""

from __future__ import annotations

import difflib
import re
import textwrap
from pathlib import Path
from typing import Any
from typing import Dict
from typing import List
from typing import Mapping
from typing import Sequence

from support.errors import UserError
from support.meanings import KINDS
from support.meanings import list_option_files
from support.meanings import read_comments
from support.meanings import read_head
from support.meanings import read_option
from support.meanings import read_shared_comments
from support.meanings import show_default
from support.meanings import show_value
from support.meanings import show_values
from support.settings import CHOICES
from support.settings import CONF
from support.settings import RENAMED
from support.settings import describe_unknown
from support.settings import flatten
from support.settings import load_defaults
from support.shipped_weights import list_names

WIDTH = 100
GROUPS = ("preset", "LOSS")  # of options, in conf/
# The settings of the overview, as far as a script has them.
COMMON_KEYS = (
    *("mode", "DATA.mode", "DATA.source", "DATA.data_path", "MODEL.arch", "MODEL.use_label"),
    *("MODEL.gen_net.dim", "MODEL.dis_net.dim", "TRAIN.epochs", "TRAIN.iters_per_epoch"),
    *("TRAIN.batch_size", "TRAIN.learning_rate", "TRAIN.resume"),
    *("EVAL.pretrained_gen_model_path", "INFER.pretrained_model_path", "seed", "hydra.run.dir"),
)
# What each script trains on without any other file.
FIRST_RUNS = {
    "wgangp_toy": "DATA.mode=25gaussians",
    "wgangp_mnist": "DATA.source=digits",
    "wgangp_cifar10": "DATA.source=colored_small_digits",
    "wgangp_image64": "DATA.data_path=PICTURES",
}


def write_help(script: str, choices: Mapping[str, Sequence], topic: str) -> str:
    """Writes what --help or --help=TOPIC prints.

    Args:
        script: Name of the script's file in conf/, without the suffix.
        choices: Values of the script's own settings, in addition to `settings.CHOICES`.
        topic: A setting, its last part, a group such as "TRAIN", "LOSS" or "preset"; "" for an
            overview.

    Raises:
        UserError: If there is no such setting or group. Names those that are similar.
    """
    choices = {**CHOICES, **choices}
    known = flatten(load_defaults(script))
    known["hydra.run.dir"] = f"outputs_{script}/DATE/TIME"
    conf = Path(CONF)
    texts = {**read_comments(conf / f"{script}.yaml"), **read_shared_comments(conf)}
    texts["hydra.run.dir"] = texts["output_dir"]
    if not topic:
        return "\n".join(_write_overview(script, known, texts, choices))
    found = [key for key in known if key == topic or f".{key}".endswith(f".{topic}")]
    options = _list_options(topic, choices) if topic in GROUPS else []
    inner = [key for key in known if key.startswith(f"{topic}.")]
    if not found + options + inner:
        raise UserError(_describe_unknown(topic, known))
    lines = [line for key in found for line in _write_setting(key, known, texts, choices)]
    lines += [line for option in options for line in _write_option(topic, option, script)]
    lines += [_write_line(key, known, texts, choices) for key in inner]
    return "\n".join(lines)


def _describe_unknown(topic: str, known: Mapping[str, Any]) -> str:
    """Writes a sentence about a topic that does not exist."""
    if topic in RENAMED:
        return describe_unknown(topic, known)
    words = {key.rpartition(".")[2]: key for key in known}
    near = difflib.get_close_matches(topic, [*known, *words], 5, 0.6)
    near = list(dict.fromkeys(words.get(name, name) for name in near))
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"--help={topic}: there is no such setting or group.{hint} --help lists the most used."


def _write_overview(
    script: str,
    known: Mapping[str, Any],
    texts: Mapping[str, str],
    choices: Mapping[str, Sequence],
) -> List[str]:
    names, command = list_names(script), f"  python {script}.py"
    head = _cut(read_head(Path(CONF) / f"{script}.yaml"))
    lines = [f"{script}.py: {head}", f"Usage: python {script}.py [KEY=VALUE ...]", ""]
    lines.append("Settings that are changed most often, with their defaults:")
    lines += [_write_line(key, known, texts, choices) for key in COMMON_KEYS if key in known]
    lines += ["", "Presets, and objectives with their optimisers:"]
    for group in GROUPS:
        for option in _list_options(group, choices):
            meaning = read_head(list_option_files(Path(CONF), group, option, script)[-1])
            lines.append(_fit(f"  {group}={option}", _cut(meaning), 17))
    lines += ["", "Examples:"]
    lines += [
        f"{command} {FIRST_RUNS[script]} hydra.run.dir=RUN TRAIN.resume=auto",
        f"{command} mode=eval EVAL.pretrained_gen_model_path=RUN",
        f"{command} mode=infer INFER.pretrained_model_path={names[0] if names else 'RUN'}",
        f"{command} --multirun seed=1,2,3 hydra.sweep.dir=SWEEP",
    ]
    if names:
        lines += ["", f"Weights that ship, by name: {', '.join(names)}"]
    lines += ["", "--help=KEY explains a setting, and --help=GROUP a group, such as --help=TRAIN."]
    lines.append("docs/en/configuration.md lists all settings.")
    return lines


def _list_options(group: str, choices: Mapping[str, Sequence]) -> List[str]:
    """Lists the options of a group in conf/ that a script has."""
    names = choices["LOSS.name" if group == "LOSS" else group]
    return [name for name in names if name is not None]


def _write_line(
    key: str,
    known: Mapping[str, Any],
    texts: Mapping[str, str],
    choices: Mapping[str, Sequence],
) -> str:
    """Writes a setting in one line: its default, and the first part of its meaning."""
    default = show_default(key, known[key]).replace("`", "")
    text = re.split(r"[;(]", texts[key])[0].strip()
    if key in choices:
        text += f": {', '.join(map(show_value, choices[key]))}"
    return _fit(f"  {key}={default.lstrip('= ')}", text)


def _cut(text: str) -> str:
    """Returns the first sentence of a text, without what is in brackets."""
    return re.sub(r" \([^)]*\)", "", re.split(r"[.:;](?: |$)", text)[0])


def _fit(start: str, text: str, width: int = 38) -> str:
    """Joins the two columns of a line, and shortens the second to fit."""
    start = f"{start:<{width}}  "
    return start + textwrap.shorten(text, WIDTH - len(start), placeholder=" ...")


def _write_setting(
    key: str,
    known: Mapping[str, Any],
    texts: Mapping[str, str],
    choices: Mapping[str, Sequence],
) -> List[str]:
    """Writes all about a setting."""
    default = known[key]
    parts = {
        "meaning": texts[key],
        "default": show_default(key, default),
        "values": show_values(key, default, choices, KINDS),
    }
    return [key, *_write_parts(parts)]


def _write_option(group: str, option: str, script: str) -> List[str]:
    """Writes all about an option of a group."""
    paths = list_option_files(Path(CONF), group, option, script)
    sets = [f"{k}={show_value(v)}" for path in paths for k, v in read_option(path).items()]
    parts = {"meaning": read_head(paths[-1]), "sets": ", ".join(sets)}
    return [f"{group}={option}", *_write_parts(parts)]


def _write_parts(parts: Dict[str, str]) -> List[str]:
    lines = []
    for name, text in parts.items():
        if text:
            first, after = f"  {name + ':':<9} ", " " * 12
            text = text.replace("`", "")
            lines += textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=after)
    return lines
