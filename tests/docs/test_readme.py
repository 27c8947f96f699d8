# SPDX-License-Identifier: Apache-2.0
"""The README's commands, keys, targets and files are real."""

import re

import pytest
from helpers import ROOT
from helpers import SCRIPTS
from omegaconf import OmegaConf

from support.settings import flatten

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
LAUNCHER = r"(?:-m paddle\.distributed\.launch [^`\n]*?)?"
COMMANDS = sorted(set(re.findall(rf"python {LAUNCHER}(wgangp_\w+\.py[^`\n|(]*)", TEXT)))


def test_there_are_commands():
    scripts = {command.split()[0] for command in COMMANDS}
    assert scripts == {path.name for path in SCRIPTS.glob("wgangp_*.py")}
    assert any("mode=eval" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_hydra_composes_each_command(command, check_command):
    check_command(command)


def test_each_key_of_the_configuration_table_exists():
    known = set()
    for path in SCRIPTS.glob("conf/wgangp_*.yaml"):
        settings = OmegaConf.to_container(OmegaConf.load(path))
        known |= set(flatten(settings))
    section = TEXT.split("## Configuration")[1].split("\n## ")[0]
    named = set(re.findall(r"`((?:TRAIN|MODEL|EVAL|DATA)\.[\w.]+)`", section))
    assert len(named) > 10
    assert named <= known


def test_links_into_the_repository_and_make_targets():
    links = re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", TEXT)
    assert {bool(anchor) for _, anchor in links} == {True, False}
    for link, anchor in links:
        path = ROOT / (link or "README.md")
        assert path.is_file(), link
        assert path.stat().st_size < 10**6, link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            # as GitHub makes them
            names = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings]
            assert anchor in names, (link, anchor)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", TEXT, re.M)) <= targets


def test_the_other_programs_have_the_options_shown():
    commands = set(
        re.findall(
            r"python (?:-m )?(measures\.inception|measures\.digit_classifier|toy_critics|animate)"
            r"(?:\.py)?([^`\n]*)",
            TEXT,
        )
    )
    assert {name for name, _ in commands} == {
        "measures.inception",
        "measures.digit_classifier",
        "toy_critics",
        "animate",
    }
    for name, arguments in commands:
        source = (SCRIPTS / f"{name.replace('.', '/')}.py").read_text()
        for option in re.findall(r"--\w+", arguments):
            assert f'add_argument("{option}"' in source, (name, option)
