# SPDX-License-Identifier: Apache-2.0
"""The README and all pages: what they show is there, and both languages are in step."""

import re
from pathlib import Path

import pytest
import texts
import yaml
from helpers import ROOT
from helpers import SCRIPTS
from hydra import compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from support.settings import flatten

FILES = texts.all_files()
EVERY_FILE = pytest.mark.parametrize("path", FILES, ids=texts.name_of)
# Files that programs write, and programs of the authors
OTHER_FILES = re.compile(r"config(_eval)?\.yaml|gan_\w+\.py")
EVERY_PAGE = pytest.mark.parametrize("page", sorted({*texts.pages("en"), *texts.pages("zh")}))
COMMANDS = sorted({command for path in FILES for command in texts.commands(texts.read(path))})
# Critical readers of the Chinese pages found these terms, as patterns. The values are better ones.
TERMS = {
    "评论家": "评判器",
    "反量化": "去量化",
    "梯度长度": "梯度范数",
    "[有无]条件(?!生成)": "条件生成、无条件生成",
    r"\d+ 遍": "epoch",
    "下限": "真实样本间距离、参照值",
    "证明见": "由测试验证",
    "(?<!基于 )PaddleScience 的 WGAN-GP": "基于 PaddleScience 的 WGAN-GP",
    "未保留": "a command that repeats it",
}
# A test that a page names as evidence
EVIDENCE = re.compile(r"`(tests/\w+/\w+\.py)::(\w+)`")


@pytest.fixture(scope="module")
def keys():
    """All keys of the composed configurations, groups included."""
    found = set()
    for path in SCRIPTS.glob("conf/wgangp_*.yaml"):
        with initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
            settings = OmegaConf.to_container(compose(path.stem), resolve=False)
        for key in flatten(settings):
            parts = key.split(".")
            found |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return found


def both(page):
    """The texts of a page in both languages."""
    return [texts.read(texts.DOCS / language / page) for language in texts.LANGUAGES]


def test_pages_exist_in_both_languages():
    assert texts.pages("en") == texts.pages("zh")
    assert len(texts.pages("en")) >= 2


def test_navigation_lists_every_page():
    def paths(entry):
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [path for part in parts for path in paths(part)]

    settings = yaml.safe_load(texts.read(ROOT / "mkdocs.yml"))
    assert sorted(paths(settings["nav"])) == texts.pages("zh")


@EVERY_PAGE
def test_headings_are_in_step(page):
    en, zh = ([level for level, _ in texts.headings(text)] for text in both(page))
    assert en == zh
    assert en.count(1) == 1


@EVERY_PAGE
def test_code_blocks_are_in_step(page):
    en, zh = map(texts.code_blocks, both(page))
    assert en == zh


@EVERY_PAGE
def test_tables_are_in_step(page):
    en, zh = ([[len(row) for row in table] for table in texts.tables(text)] for text in both(page))
    assert en == zh


@EVERY_PAGE
def test_code_in_tables_is_in_step(page):
    en, zh = (
        [sorted(re.findall(r"`[^`]+`", " ".join(sum(table, [])))) for table in texts.tables(text)]
        for text in both(page)
    )
    assert en == zh


@EVERY_PAGE
def test_pictures_are_in_step(page):
    en, zh = map(texts.pictures, both(page))
    assert en == zh


@EVERY_PAGE
def test_results_are_in_step(page):
    en, zh = (re.findall(r"<!-- results: (\w+) -->", text) for text in both(page))
    assert en == zh


@EVERY_FILE
def test_rows_of_a_table_have_as_many_cells_as_its_head(path):
    for table in texts.tables(texts.read(path)):
        assert {len(row) for row in table} == {len(table[0])}, table[0]


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_no_table_stands_twice(language):
    files = [path for path in FILES if f"docs/{language}/" in texts.name_of(path)]
    files += [texts.README] if language == "en" else []
    seen, marks = {}, {}
    for path in files:
        text = texts.read(path)
        for mark in re.findall(r"<!-- results: (\w+) -->", text):
            assert mark not in marks, f"{mark}: {marks[mark]} and {texts.name_of(path)}"
            marks[mark] = texts.name_of(path)
        for table in texts.tables(text):
            body = str(table[1:])
            assert body not in seen, f"{seen[body]} and {texts.name_of(path)}: {table[0]}"
            seen[body] = texts.name_of(path)
    assert marks and seen


@EVERY_FILE
def test_links_lead_to_files_and_headings(path):
    found = texts.links(texts.read(path))
    for link, anchor in found:
        target = (path.parent / link).resolve() if link else path
        assert target.is_file(), link
        limit = 4 * 10**6 if target.suffix == ".pdparams" else 10**6
        assert target.stat().st_size < limit, link
        if anchor:
            assert anchor in texts.anchors(target), (link, anchor)
    if path == texts.README:
        assert len(found) > 10


@EVERY_FILE
def test_pictures_say_what_they_show(path):
    text = texts.prose(texts.read(path))
    assert re.findall(r"!\[\s*\]\([^)]*\)", text) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command, check_command):
    check_command(command)


def test_commands_cover_each_script_and_mode():
    assert {command.split()[0] for command in COMMANDS} == {
        path.name for path in SCRIPTS.glob("wgangp_*.py")
    }
    for mode in ("eval", "export", "infer"):
        assert any(f"mode={mode}" in command for command in COMMANDS)


@EVERY_FILE
def test_programs_exist_and_have_the_options_shown(path):
    for program, options in texts.programs(texts.read(path)):
        if program in ("-m venv", "-m pytest", "-m paddle.distributed.launch"):
            continue
        name = f"{program[3:].replace('.', '/')}.py" if program.startswith("-m ") else program
        places = [root / name for root in (SCRIPTS, ROOT) if (root / name).is_file()]
        assert places, f"there is no program {program}"
        source = texts.read(places[0])
        for option in options:
            assert re.search(rf'add_argument\(\s*"{option}"', source), (program, option)


def test_programs_of_users_are_shown():
    shown = {name for path in FILES for name, _ in texts.programs(texts.read(path))}
    assert {"toy_critics.py", "report.py"} <= shown
    assert {"-m measures.inception", "-m measures.digit_classifier"} <= shown


@EVERY_FILE
def test_make_targets_exist(path):
    known = set(re.findall(r"^([\w-]+):", texts.read(ROOT / "Makefile"), re.M))
    assert texts.make_targets(texts.read(path)) <= known


@EVERY_FILE
def test_keys_exist_in_the_composed_configuration(path, keys):
    text = texts.read(path)
    code = [*texts.code_spans(text), *(content for _, content in texts.code_blocks(text))]
    named = {key for part in code for key in texts.KEY.findall(part)}
    assert named <= keys


def test_keys_are_named_by_the_readme_and_pages():
    pages = texts.DOCS / "en" / "objectives.md", texts.DOCS / "zh" / "own-pictures.md"
    for path in (texts.README, *pages):
        assert len(set(texts.KEY.findall(texts.read(path)))) > 5


@EVERY_FILE
def test_files_of_the_repository_that_are_named_exist(path):
    for span in texts.code_spans(texts.read(path)):
        for name in re.findall(r"^(?:tests|docs|benchmarks|examples)/[\w./-]+", span):
            # Outputs of `make results` exist only after it ran; GROUP and NAME stand for names.
            is_example = "outputs_" in name or re.search("[A-Z]{4,}", name)
            assert is_example or (ROOT / name).exists(), name


@EVERY_FILE
def test_tests_that_are_named_as_evidence_exist(path):
    for name, test in EVIDENCE.findall(texts.read(path)):
        assert f"def {test}(" in texts.read(ROOT / name), (name, test)


@EVERY_PAGE
def test_evidence_is_in_step(page):
    en, zh = map(EVIDENCE.findall, both(page))
    assert en == zh
    assert en or page not in ("differences.md", "mistakes.md", "lab-notes.md")


@EVERY_FILE
def test_programs_of_the_suite_that_are_named_exist(path):
    for span in texts.code_spans(texts.read(path)):
        if re.fullmatch(r"(?:\w+/)*\w+\.(?:py|yaml)", span) and not re.search("[A-Z]{3,}", span):
            places = [root / span for root in (SCRIPTS, ROOT)]
            assert any(map(Path.is_file, places)) or OTHER_FILES.fullmatch(span), span


@EVERY_PAGE
def test_settings_are_included_from_their_files(page):
    for text in both(page):
        for language, content in texts.code_blocks(text):
            if language.split()[:1] in (["yaml"], ["yml"]):
                names = re.findall(r'--8<-- "(examples/wgangp/conf/[\w/]+\.yaml)[^"]*"', content)
                assert names and len(names) == len(content.splitlines()), content
                assert all((ROOT / name).is_file() for name in names)


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_the_way_from_a_command_to_a_checkpoint_is_that_of_the_code(language):
    text = texts.read(texts.DOCS / language / "how-it-works.md")
    (tree,) = [content for kind, content in texts.code_blocks(text) if kind == "text"]
    lines = [re.fullmatch(r" *(\S+\.py) +(.+)", line) for line in tree.splitlines()]
    assert all(lines) and len(lines) > 8
    for line in lines:
        source = texts.read(SCRIPTS / line[1])
        base = r"(?<=\w)\((?:\w+|\"\w+\")\)"  # of a class, or what is made
        names = set(re.findall(r"[A-Za-z_]\w+", re.sub(base, "", line[2]))) - {"class"}
        assert names, line[0]
        for name in names:
            assert re.search(rf"^\s*(?:def|class) {name}\b", source, re.M), line[0]


@pytest.mark.parametrize("page", texts.pages("zh"))
def test_chinese_terms_are_the_usual_ones(page):
    text = texts.read(texts.DOCS / "zh" / page)
    for term, usual in TERMS.items():
        assert not re.search(term, text), f"write {usual}"


@pytest.mark.parametrize(
    "text, expected",
    (
        ("# A\n\n``` sh\n# no heading\n```\n\n## B { #b }\n", [(1, "A"), (2, "B")]),
        ("```bash\n# no heading\n```\n", []),
    ),
)
def test_headings_are_told_from_comments(text, expected):
    assert texts.headings(text) == expected


def test_tables_are_taken_apart():
    text = "| a | b |\n| --- | --- |\n| `x|y` | $|z|$ |\n\nend\n\n| c |\n| --- |\n"
    assert texts.tables(text) == [[["a", "b"], ["`x|y`", "$|z|$"]], [["c"]]]


def test_commands_end_where_prose_begins():
    text = "`python wgangp_toy.py seed=1`, and\npython wgangp_mnist.py LOSS=wgan # faster\n"
    assert texts.commands(text) == ["wgangp_mnist.py LOSS=wgan", "wgangp_toy.py seed=1"]
