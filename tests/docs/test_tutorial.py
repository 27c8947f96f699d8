# SPDX-License-Identifier: Apache-2.0
"""The tutorial: the code that it shows, its evidence, and its facts. See also test_pages.py."""

import re
import subprocess
import sys

import pytest
import texts
from helpers import ROOT
from helpers import SCRIPTS

PAGE = "examples/wgangp.md"
TEXTS = {language: texts.read(texts.DOCS / language / PAGE) for language in texts.LANGUAGES}
EVERY_LANGUAGE = pytest.mark.parametrize("language", texts.LANGUAGES)
EVIDENCE = re.compile(r"`tests/(\w+/\w+\.py)::(\w+)`")


def find_marks():
    """Returns the section markers of all sources, as (file, kind, name)."""
    return [
        (path.relative_to(ROOT).as_posix(), kind, name)
        for path in sorted(SCRIPTS.rglob("*.py"))
        for kind, name in re.findall(r"--8<-- \[(\w+):(\w+)\]", texts.read(path))
    ]


def find_shown(language):
    return re.findall(r'--8<-- "([^"]*)"', TEXTS[language])


def find_problems(marks, shown):
    """Returns what is wrong with section markers, and with the sections that a page shows."""
    starts = [(path, name) for path, kind, name in marks if kind == "start"]
    ends = [(path, name) for path, kind, name in marks if kind == "end"]
    problems = [f"doubled: {mark}" for mark in set(marks) if marks.count(mark) > 1]
    problems += [f"without its other end: {mark}" for mark in set(starts) ^ set(ends)]
    sections = {f"{path}:{name}" for path, name in starts}
    problems += [f"not shown: {section}" for section in sections - set(shown)]
    problems += [f"shown twice: {section}" for section in set(shown) if shown.count(section) > 1]
    for each in shown:
        path, _, section = each.partition(":")
        if section and not re.fullmatch(r"[a-z_]\w*", section):
            problems.append(f"by line numbers: {each}")
        elif not (ROOT / path).is_file() or section and each not in sections:
            problems.append(f"missing: {each}")
    return problems


@EVERY_LANGUAGE
def test_every_named_section_is_shown(language):
    assert len(find_shown(language)) > 30
    assert find_problems(find_marks(), find_shown(language)) == []


@pytest.mark.parametrize(
    "change, problem",
    (
        (lambda marks, shown: (marks[1:], shown), "without its other end"),
        (lambda marks, shown: (marks + marks[:1], shown), "doubled"),
        (lambda marks, shown: (marks, shown[1:]), "not shown"),
        (lambda marks, shown: (marks, shown + shown[:1]), "shown twice"),
        (lambda marks, shown: (marks, [*shown, "README.md:3:9"]), "by line numbers"),
        (lambda marks, shown: (marks, [*shown, "README.md:3"]), "by line numbers"),
        (
            lambda marks, shown: (marks, [*shown, "examples/wgangp/measures/metrics.py:all"]),
            "missing",
        ),
        (lambda marks, shown: (marks, [*shown, "examples/wgangp/other.py"]), "missing"),
    ),
)
def test_problems_of_sections_are_found(change, problem):
    problems = find_problems(*change(find_marks(), find_shown("zh")))
    assert any(each.startswith(problem) for each in problems)


@EVERY_LANGUAGE
def test_code_has_the_path_of_its_file_as_title(language):
    blocks = re.findall(
        r'^``` py title="([^"]+)"\n((?:--8<-- "[^"]*"\n)+)```$', TEXTS[language], re.M
    )
    paths = [
        (title, path) for title, body in blocks for path in re.findall(r'--8<-- "([^":]+)', body)
    ]
    assert len(paths) == len(find_shown(language))
    assert all(title == path for title, path in paths)


@EVERY_LANGUAGE
def test_pictures_are_all_shown_by_a_page(language):
    shown = set()
    for page in texts.pages(language):
        path = texts.DOCS / language / page
        for picture in texts.pictures(texts.read(path)):
            picture = (path.parent / picture).resolve()
            assert picture.is_file(), (page, picture)
            assert picture.stat().st_size < 10**6, (page, picture)
            shown.add(picture)
    images = texts.DOCS / "images"
    assert {*images.glob("*.png"), *images.glob("*.gif")} <= shown
    assert len(shown) >= 8


def test_commands_cover_each_script_and_mode():
    commands = texts.commands(TEXTS["zh"])
    scripts = {path.name for path in SCRIPTS.glob("wgangp_*.py")}
    assert {command.split()[0] for command in commands} == scripts
    for mode in ("eval", "export", "infer"):
        assert any(f"mode={mode}" in command for command in commands)


@pytest.mark.parametrize(
    "find",
    (
        lambda text: re.findall(r"^(#+ [\d.]*)", text, re.M),  # headings' levels and numbers
        texts.commands,
        lambda text: re.findall(r'--8<-- "([^"]*)"', text),
        texts.pictures,
        lambda text: re.findall(r"<!-- results: (\w+) -->", text),
        lambda text: re.findall(r"^\$\$\n([\s\S]*?)\n\$\$", text, re.M),  # formulas
        lambda text: re.findall(r"`(tests/[^`]+)`", text),
        lambda text: [link for link, _ in texts.links(text)],
        # as many tabs, rows of tables, items of lists, and questions
        lambda text: len(re.findall(r"^(?:=== |\| )", text, re.M)),
        lambda text: [len(item) for item in re.findall(r"^(- |\d+\. )", text, re.M)],
        lambda text: len(re.findall(r"^\*\*.", text, re.M)),
    ),
    ids="headings commands code pictures results formulas tests links rows items questions".split(),
)
def test_languages_are_in_step(find):
    found = find(TEXTS["en"])
    assert found
    assert find(TEXTS["zh"]) == found


@pytest.mark.parametrize(("page", "least"), [(PAGE, 2), ("differences.md", 25)])
def test_evidence_names_tests_that_exist(page, least):
    named, other = (
        EVIDENCE.findall(texts.read(texts.DOCS / language / page)) for language in texts.LANGUAGES
    )
    assert named == other and len(named) >= least
    for file, name in named:
        path = ROOT / "tests" / file
        assert path.is_file() and f"def {name}(" in texts.read(path), (file, name)


@pytest.mark.parametrize(
    "script, label",
    (("toy", "toy"), ("mnist", "MNIST"), ("cifar10", "CIFAR-10"), ("image64", "64x64")),
)
def test_table_of_defaults_is_the_configurations(script, label, configure):
    cfg = configure(script)
    settings = cfg.TRAIN
    rate = f"{settings.learning_rate:.1e}".replace(".0e", "e").replace("e-0", "e-")
    rate += " → 0" if settings.lr_schedule != "constant" else ""
    batch = settings.batch_size
    row = [
        *(label, f"{cfg.LOSS.penalty_weight:g}", rate, f"{settings.beta1}/{settings.beta2}"),
        f"{batch}/{batch * settings.generator_batch_factor}",
        f"{settings.epochs * settings.iters_per_epoch:,}",
    ]
    for text in TEXTS.values():
        assert f"| {' | '.join(row)} |" in text.splitlines()


def test_tables_of_results_are_those_of_the_files():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "tables.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
