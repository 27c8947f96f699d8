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
    files = [*SCRIPTS.rglob("*.py"), *SCRIPTS.glob("conf/**/*.yaml")]
    return [
        (path.relative_to(ROOT).as_posix(), kind, name)
        for path in sorted(files)
        for kind, name in re.findall(r"--8<-- \[(\w+):(\w+)\]", texts.read(path))
    ]


def find_shown(text):
    return re.findall(r'--8<-- "([^"]*)"', text)


def find_all_shown(language):
    """Returns what each page of a language shows of the sources."""
    folder = texts.DOCS / language
    return [find_shown(texts.read(folder / page)) for page in texts.pages(language)]


def find_problems(marks, pages):
    """Returns what is wrong with section markers, and with the sections that pages show."""
    starts = [(path, name) for path, kind, name in marks if kind == "start"]
    ends = [(path, name) for path, kind, name in marks if kind == "end"]
    problems = [f"doubled: {mark}" for mark in set(marks) if marks.count(mark) > 1]
    problems += [f"without its other end: {mark}" for mark in set(starts) ^ set(ends)]
    sections = {f"{path}:{name}" for path, name in starts}
    problems += [f"not shown: {section}" for section in sections - {*sum(pages, [])}]
    for shown in pages:
        problems += [f"shown twice: {part}" for part in set(shown) if shown.count(part) > 1]
    for each in sum(pages, []):
        path, _, section = each.partition(":")
        if section and not re.fullmatch(r"[a-z_]\w*", section):
            problems.append(f"by line numbers: {each}")
        elif not (ROOT / path).is_file() or section and each not in sections:
            problems.append(f"missing: {each}")
    return problems


def read_section(shown):
    """Returns the lines of a section, without those of other markers."""
    path, _, name = shown.partition(":")
    text = texts.read(ROOT / path)
    text = text.split(f"--8<-- [start:{name}]\n")[1].split(f"--8<-- [end:{name}]")[0]
    return [line for line in text.split("\n")[:-1] if "--8<--" not in line]


@EVERY_LANGUAGE
def test_every_named_section_is_shown(language):
    assert len(find_shown(TEXTS[language])) > 20
    assert find_problems(find_marks(), find_all_shown(language)) == []


@pytest.mark.parametrize(
    "change, problem",
    (
        (lambda marks, pages: (marks[1:], pages), "without its other end"),
        (lambda marks, pages: (marks + marks[:1], pages), "doubled"),
        (lambda marks, pages: (marks, []), "not shown"),
        (lambda marks, pages: (marks, [*pages, ["a.py:b", "a.py:b"]]), "shown twice"),
        (lambda marks, pages: (marks, [*pages, ["README.md:3:9"]]), "by line numbers"),
        (lambda marks, pages: (marks, [*pages, ["README.md:3"]]), "by line numbers"),
        (
            lambda marks, pages: (marks, [*pages, ["examples/wgangp/measures/metrics.py:all"]]),
            "missing",
        ),
        (lambda marks, pages: (marks, [*pages, ["examples/wgangp/other.py"]]), "missing"),
    ),
)
def test_problems_of_sections_are_found(change, problem):
    problems = find_problems(*change(find_marks(), find_all_shown("zh")))
    assert any(each.startswith(problem) for each in problems)


@EVERY_LANGUAGE
def test_the_page_and_its_sections_are_short(language):
    assert TEXTS[language].count("\n") <= 500
    for shown in find_shown(TEXTS[language]):
        if ":" in shown:
            assert 3 <= len(read_section(shown)) <= 25, shown


@EVERY_LANGUAGE
def test_code_is_included_under_the_path_of_its_file(language):
    blocks = re.findall(r'^( *)``` py title="([^"]+)"\n([\s\S]*?)\n\1```$', TEXTS[language], re.M)
    assert len(blocks) > 20
    for _, title, body in blocks:
        for line in body.split("\n"):
            assert re.fullmatch(rf' *--8<-- "{re.escape(title)}(:\w+)?"', line), (title, line)
    scripts = {path.relative_to(ROOT).as_posix() for path in SCRIPTS.glob("wgangp_*.py")}
    assert scripts <= {*find_shown(TEXTS[language])}, "full code"


@EVERY_LANGUAGE
def test_yaml_is_included_and_its_files_are_named(language):
    blocks = re.findall(r"^(.*)\n\n``` yaml\n([\s\S]*?)\n```$", TEXTS[language], re.M)
    assert len(blocks) == TEXTS[language].count("``` yaml") >= 3
    for before, body in blocks:
        for line in body.split("\n"):
            found = re.fullmatch(r'--8<-- "examples/wgangp/(conf/[\w/]+\.yaml):\w+"', line)
            assert found and f"`{found[1]}`" in before, (before, line)


@EVERY_LANGUAGE
def test_the_expected_log_has_the_form_of_the_log(language):
    from training.records import format_record

    names = "step wasserstein critic_loss generator_loss gradient_norm".split()
    form = r"\[(\d+)/(\d+)\] wasserstein (\S+), critic (\S+), generator (\S+), gradient norm (\S+)"
    lines = re.findall(rf"^({form})$", TEXTS[language], re.M)
    assert len(lines) > 3
    for line, step, iterations, *values in lines:
        record = dict(zip(names, map(float, (step, *values))), step=int(step), seconds=1.0)
        assert format_record(record, int(iterations)).startswith(f"{line}, "), line


@EVERY_LANGUAGE
def test_the_expected_table_has_the_form_of_the_report(language):
    from measures.report import make_table

    (block,) = re.findall(r"^``` text\n(figure .*\n(?:.*\n)*?)```$", TEXTS[language], re.M)
    head, *lines = block.splitlines()
    assert head.split("  ")[0] == "figure" and len(lines) == 5
    assert re.sub(" +", " ", head) == re.sub(" +", " ", make_table({}))


@EVERY_LANGUAGE
def test_commands_have_fixed_folders_and_evaluations_weights_of_them(language):
    blocks = [content for name, content in texts.code_blocks(TEXTS[language]) if name == "sh"]
    commands = texts.commands("\n".join(blocks))
    folders = {
        re.search(r"hydra\.run\.dir=(\S+)", command)[1]
        for command in commands
        if " mode=" not in command
    }
    assert len(folders) > 8
    shipped = {path.stem.rpartition("_")[0] for path in (SCRIPTS / "weights").glob("*.pdparams")}
    for command in commands:
        for path in re.findall(r"pretrained\w*_path=(\S+)", command):
            assert path in folders | shipped, command


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
        # as many tabs, rows of tables, and items of lists
        lambda text: len(re.findall(r"^(?:=== |\| )", text, re.M)),
        lambda text: [len(item) for item in re.findall(r"^(- |\d+\. )", text, re.M)],
    ),
    ids="headings commands code pictures results formulas tests links rows items".split(),
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
