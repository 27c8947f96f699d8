# SPDX-License-Identifier: Apache-2.0
"""Writes the pages of all settings: `python docs/make_configuration.py`.

Reads examples/wgangp/conf (defaults; English meanings, in comments), the scripts' and
support.settings' ranges and choices, and docs/zh/configuration.yaml (Chinese meanings); writes
docs/en/configuration.md and docs/zh/configuration.md. With `--check`, the program writes nothing
and fails if a page is not current. It fails if a setting has no meaning in one of the languages.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path
from typing import Any
from typing import Dict
from typing import Iterator
from typing import List
from typing import Mapping
from typing import Optional
from typing import Sequence

import yaml

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "examples" / "wgangp"
sys.path.insert(0, str(SUITE))

from support import settings  # noqa: E402
from support.meanings import KINDS as ENGLISH_KINDS  # noqa: E402
from support.meanings import read_comments  # noqa: E402
from support.meanings import read_head  # noqa: E402
from support.meanings import read_option  # noqa: E402
from support.meanings import read_shared_comments  # noqa: E402
from support.meanings import show_default  # noqa: E402
from support.meanings import show_value  # noqa: E402
from support.meanings import show_values  # noqa: E402

LANGUAGES = ("en", "zh")
SCRIPTS = {
    "wgangp_toy": {"en": "toy", "zh": "玩具数据"},
    "wgangp_mnist": {"en": "MNIST", "zh": "MNIST"},
    "wgangp_cifar10": {"en": "CIFAR-10", "zh": "CIFAR-10"},
    "wgangp_image64": {"en": "64x64", "zh": "64x64"},
}
SECTIONS = ("", "DATA", "MODEL", "LOSS", "TRAIN", "EVAL", "INFER")
WORDS = {
    "head": {"en": ("key", "default", "meaning", "values"), "zh": ("键", "默认值", "含义", "取值")},
    "options": {"en": ("option", "sets", "meaning"), "zh": ("选项", "设定", "含义")},
    "general": {"en": "General", "zh": "通用"},
    "options title": {"en": "Presets and objectives", "zh": "预设与目标函数"},
    "default": {"en": "{text} ({names})", "zh": "{text}（{names}）"},
    "values": {"en": "{text} ({names})", "zh": "{text}（{names}）"},
    "meaning": {"en": "{names}: {text}", "zh": "{names}：{text}"},
    "between scripts": {"en": "; ", "zh": "；"},
    "between names": {"en": ", ", "zh": "、"},
}
KINDS = {
    "en": ENGLISH_KINDS,
    "zh": {
        "bool": "{} 或 {}",
        "int": "整数",
        "float": "数",
        "path": "路径",
        "text": "文本",
        "and null": "{}，或 {}",
        "class": "类别名称或编号，或 {}",
    },
}
MARK = "<!-- settings: docs/make_configuration.py writes what follows -->"


class Incomplete(Exception):
    """A meaning is missing, or stands in the wrong place."""


def read_chinese() -> Dict[str, Dict[str, Any]]:
    """Reads the Chinese meanings of keys, sections and options."""
    return yaml.safe_load((ROOT / "docs" / "zh" / "configuration.yaml").read_text("utf-8"))


def read_choices(script: str) -> Dict[str, Sequence]:
    """Reads the CHOICES of a script without running it, and those that all scripts share."""
    tree = ast.parse((SUITE / f"{script}.py").read_text(encoding="utf-8"))
    own = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "CHOICES"
    )
    return {**settings.CHOICES, **own}


def read_defaults() -> Dict[str, Dict[str, Any]]:
    """Composes the defaults of each key, by script; shared keys first, in the files' order."""
    defaults: Dict[str, Dict[str, Any]] = {}
    for script in SCRIPTS:
        for key, value in settings.flatten(settings.load_defaults(script)).items():
            defaults.setdefault(key, {})[script] = value
    return defaults


def read_meanings(defaults: Mapping[str, Mapping]) -> Dict[str, Dict[str, Dict[str, str]]]:
    """Reads the meanings of each key, by language and script.

    Raises:
        Incomplete: If a key lacks a meaning, or a meaning has no key.
    """
    shared = read_shared_comments(SUITE / "conf")
    own = {script: read_comments(SUITE / "conf" / f"{script}.yaml") for script in SCRIPTS}
    chinese = read_chinese()
    meanings = {}
    for key, scripts in defaults.items():
        english = {script: shared.get(key) or own[script].get(key) for script in scripts}
        texts = chinese["keys"].pop(key, None)
        if not isinstance(texts, dict):
            texts = dict.fromkeys(scripts, texts)
        texts = {script: texts.get(script) for script in scripts}
        for script in scripts:
            if not (english[script] and texts[script]):
                language = "Chinese" if english[script] else "English"
                raise Incomplete(f"{key} ({script}) lacks a meaning in {language}.")
            if key in shared and key in own[script]:
                raise Incomplete(
                    f"{key} has its meaning in a shared file, and again in {script}.yaml."
                )
        meanings[key] = {"en": english, "zh": texts}
    if chinese["keys"]:
        raise Incomplete(f"there are no settings {', '.join(chinese['keys'])}.")
    return meanings


def by_script(texts: Mapping[str, str], form: str, language: str) -> str:
    """Joins texts of scripts: one alone where all have the same, else with the scripts' names.

    Args:
        texts: A text for each script that has the setting.
        form: How a text and names are written, of `WORDS`.
        language: The language of the names.
    """
    groups: Dict[str, List[str]] = {}
    for script, text in texts.items():
        groups.setdefault(text, []).append(SCRIPTS[script][language])
    if len(groups) == 1 and (len(texts) == len(SCRIPTS) or form != "default"):
        return next(iter(groups))
    parts = []
    for text, names in groups.items():
        joined = WORDS["between names"][language].join(names)
        parts.append(WORDS[form][language].format(text=text, names=joined))
    return WORDS["between scripts"][language].join(parts)


def mark_code(text: str, choices: Sequence) -> str:
    """Marks names in a meaning as code: keys, files, assignments, and the setting's choices."""
    names = [re.escape(str(choice)) for choice in ("auto", "null", *choices)]
    patterns = [
        rf"(?<![\w.])(?:{'|'.join(names)})(?![\w.])",
        r"python -m [\w.]+|hydra(?:\.\w+)+",
        r"[\w.]+=\w+(?:\.\w+)?(?:-\w+)*|[\w./]*\w_\w[\w./]*\w|\w+/(?!\w)",
        r"[\w.]+\.jsonl|\.pdparams",
    ]
    return re.sub("|".join(patterns), lambda match: f"`{match[0]}`", text, flags=re.ASCII)


def write_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> List[str]:
    rows = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in rows] + [""]


def write_section(
    section: str,
    defaults: Mapping[str, Mapping[str, Any]],
    meanings: Mapping[str, Mapping[str, Mapping[str, str]]],
    language: str,
) -> Iterator[str]:
    """Writes the table of a section's keys."""
    choices = {script: read_choices(script) for script in SCRIPTS}
    rows = []
    for key, values in defaults.items():
        if key.partition(".")[0] != section and (section or "." in key):
            continue
        shown, texts, allowed = {}, {}, {}
        every = [choice for script in values for choice in choices[script].get(key, ())]
        for script, value in values.items():
            shown[script] = show_default(key, value)
            texts[script] = mark_code(meanings[key][language][script], every)
            allowed[script] = show_values(key, value, choices[script], KINDS[language])
        # The column of defaults says which scripts have the setting.
        columns = (("default", shown), ("meaning", texts), ("values", allowed))
        cells = [by_script(column, form, language) for form, column in columns]
        rows.append([f"`{key}`", *cells])
    yield f"## {section or WORDS['general'][language]} {{ #{(section or 'general').lower()} }}"
    yield ""
    notes = {"en": read_comments(SUITE / "conf" / "base.yaml"), "zh": read_chinese()["sections"]}
    if section in notes["en"]:
        if section not in notes["zh"]:
            raise Incomplete(f"{section} lacks a meaning in Chinese.")
        yield mark_code(notes[language][section], ())
        yield ""
    yield from write_table(WORDS["head"][language], rows)


def list_options(conf: Path) -> List[Path]:
    """Lists the files of options by group and name; what scripts share comes first."""
    paths = [*conf.glob("*/*.yaml"), *conf.glob("*/*/*.yaml")]
    return sorted(paths, key=lambda path: (path.relative_to(conf).parts[0], path.stem, str(path)))


def write_options(language: str) -> Iterator[str]:
    """Writes the table of presets and objectives."""
    chinese = read_chinese()
    rows = []
    conf = SUITE / "conf"
    for path in list_options(conf):
        group, *own = path.parent.relative_to(conf).parts  # and the script, where it is its own
        option = "/".join([group, *own]) + f"={path.stem}"
        shown = f"`{group}={path.stem}`"
        for script in own:
            shown = WORDS["values"][language].format(text=shown, names=SCRIPTS[script][language])
        meaning = read_head(path) if language == "en" else chinese["options"].get(option)
        if not meaning:
            name = {"en": "English", "zh": "Chinese"}[language]
            raise Incomplete(f"{option} lacks a meaning in {name}.")
        sets = [f"`{key}={show_value(value)}`" for key, value in read_option(path).items()]
        rows.append([shown, ", ".join(sets) or "–", mark_code(meaning, ())])
    yield f"## {WORDS['options title'][language]} {{ #presets-and-objectives }}"
    yield ""
    yield from write_table(WORDS["options"][language], rows)


def make_page(language: str) -> str:
    """Writes a language's page: what stands above `MARK` stays, and all settings follow."""
    path = ROOT / "docs" / language / "configuration.md"
    head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise Incomplete(f"{path} lacks the line {MARK}")
    defaults = read_defaults()
    meanings = read_meanings(defaults)
    lines = [mark, ""]
    for section in SECTIONS:
        lines += write_section(section, defaults, meanings, language)
    lines += write_options(language)
    return head + "\n".join(lines)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if a page is not current")
    is_check = parser.parse_args(arguments).check
    for language in LANGUAGES:
        path = ROOT / "docs" / language / "configuration.md"
        try:
            page = make_page(language)
        except Incomplete as error:
            sys.exit(f"Error: {error}")
        if not is_check:
            path.write_text(page, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != page:
            sys.exit(f"{path} is not current: python docs/make_configuration.py writes it again.")


if __name__ == "__main__":
    main()
