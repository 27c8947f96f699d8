# SPDX-License-Identifier: Apache-2.0
"""The tutorial, in both languages: named sections, commands that compose, facts that hold."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT
from helpers import SCRIPTS
from omegaconf import OmegaConf

PAGES = {language: ROOT / "docs" / language / "examples" / "wgangp.md" for language in ("zh", "en")}
TEXTS = {language: path.read_text(encoding="utf-8") for language, path in PAGES.items()}
COMMAND = re.compile(
    r"^ *(?:\$ )?python (?:-m paddle\.distributed\.launch .*?)?(wgangp_\w+\.py.*)", re.M
)
INLINE = re.compile(r"`(?:python )?(wgangp_\w+\.py [^`]+)`")
COMMANDS = sorted({*COMMAND.findall(TEXTS["zh"]), *INLINE.findall(TEXTS["zh"])})


def marks():
    """Section markers of all sources, as (file, kind, name)."""
    for path in sorted(SCRIPTS.rglob("*.py")):
        for kind, name in re.findall(r"--8<-- \[(\w+):(\w+)\]", path.read_text()):
            yield path.relative_to(ROOT).as_posix(), kind, name


def shown(language):
    return re.findall(r'--8<-- "([^"]*)"', TEXTS[language])


def problems(marks, shown):
    """What is wrong with section markers, and with what a page shows of them."""
    marks = list(marks)
    starts = [(path, name) for path, kind, name in marks if kind == "start"]
    ends = [(path, name) for path, kind, name in marks if kind == "end"]
    found = [f"doubled: {mark}" for mark in set(marks) if marks.count(mark) > 1]
    found += [f"without its other end: {mark}" for mark in set(starts) ^ set(ends)]
    sections = {f"{path}:{name}" for path, name in starts}
    found += [f"nobody shows {section}" for section in sections - set(shown)]
    for what in shown:
        path, _, section = what.partition(":")
        if section and not re.fullmatch(r"[a-z_]\w*", section):
            found.append(f"by numbers, which go stale: {what}")
        elif not (ROOT / path).is_file() or section and what not in sections:
            found.append(f"is not there: {what}")
    return found


@pytest.mark.parametrize("language", PAGES)
def test_code_is_shown_by_named_sections(language):
    assert len(shown(language)) > 30
    assert problems(marks(), shown(language)) == []


@pytest.mark.parametrize(
    "change, problem",
    (
        (lambda marks, shown: (marks[1:], shown), "without its other end"),
        (lambda marks, shown: (marks + marks[:1], shown), "doubled"),
        (lambda marks, shown: (marks, shown[1:]), "nobody shows"),
        (lambda marks, shown: (marks, [*shown, "README.md:3:9"]), "by numbers"),
        (lambda marks, shown: (marks, [*shown, "README.md:3"]), "by numbers"),
        (
            lambda marks, shown: (marks, [*shown, "examples/wgangp/measures/metrics.py:all"]),
            "not there",
        ),
        (lambda marks, shown: (marks, [*shown, "examples/wgangp/other.py"]), "not there"),
    ),
)
def test_what_is_wrong_with_sections_is_found(change, problem):
    assert any(problem in each for each in problems(*change(list(marks()), shown("zh"))))


@pytest.mark.parametrize("language", PAGES)
def test_pictures_are_there_and_small(language):
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXTS[language])
    assert len(pictures) >= 8
    for picture in pictures:
        path = PAGES[language].parent / picture
        assert path.is_file(), picture
        assert path.stat().st_size < 10**6, picture


@pytest.mark.parametrize("command", COMMANDS)
def test_hydra_composes_each_command(command, check_command):
    check_command(command)


def test_there_are_commands_of_each_script_and_mode():
    assert {command.split()[0] for command in COMMANDS} == {
        path.name for path in SCRIPTS.glob("wgangp_*.py")
    }
    for mode in ("eval", "export", "infer"):
        assert any(f"mode={mode}" in command for command in COMMANDS)


@pytest.mark.parametrize(
    "pattern",
    (
        r"^(#+ [\d.]*)",  # headings' levels and numbers
        COMMAND.pattern,
        INLINE.pattern,
        r'--8<-- "([^"]*)"',
        r"!\[[^]]*\]\(([^)]+)\)",
        r"<!-- results: (\w+) -->",
        r"^\$\$\n([\s\S]*?)\n\$\$",
        r"`(tests/[^`]+)`",
        r"^(?:=== |\| |\d\. )",  # as many tabs, rows of tables and numbered items
        r"^(\*\*.)",  # and questions
    ),
)
def test_both_languages_are_in_step(pattern):
    found = [re.findall(pattern, TEXTS[language], re.M) for language in PAGES]
    if "\\*\\*" in pattern or "===" in pattern:
        found = [len(each) for each in found]
    assert found[0] == found[1]
    assert found[0]


@pytest.mark.parametrize("language", PAGES)
def test_the_tests_named_as_evidence_exist(language):
    named = re.findall(r"`tests/(\w+/\w+\.py)::(\w+)`", TEXTS[language])
    assert len(named) >= 12
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), name


@pytest.mark.parametrize("language", PAGES)
def test_the_table_of_defaults_is_the_configurations(language):
    for script, label in (("toy", "toy"), ("mnist", "MNIST"), ("cifar10", "CIFAR-10")) + (
        ("image64", "64x64"),
    ):
        settings = OmegaConf.load(SCRIPTS / "conf" / f"wgangp_{script}.yaml").TRAIN
        rate = f"{settings.learning_rate:.1e}".replace(".0e", "e").replace("e-0", "e-")
        rate += " → 0" if settings.lr_schedule != "constant" else ""
        batch = settings.batch_size
        row = [
            *(label, f"{settings.penalty_weight:g}", rate, f"{settings.beta1}/{settings.beta2}"),
            f"{batch}/{batch * settings.generator_batch_factor}",
            f"{settings.epochs * settings.iters_per_epoch:,}",
        ]
        assert f"| {' | '.join(row)} |" in TEXTS[language].splitlines()


def test_tables_are_those_of_the_results():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "results.py", "tables", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
