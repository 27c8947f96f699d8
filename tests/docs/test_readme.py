# SPDX-License-Identifier: Apache-2.0
"""The README: short, and with a command for each script and mode. See also test_pages.py."""

import re

import texts
from helpers import SCRIPTS

TEXT = texts.read(texts.README)


def section(title):
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_readme_is_read_in_one_sitting():
    assert TEXT.count("\n") <= 200
    assert len(TEXT.split()) <= 1900


def test_readme_shows_a_picture_of_each_kind_of_pictures():
    assert len(texts.pictures(TEXT)) == 3  # MNIST, CIFAR-10's networks, 64x64


def test_readme_has_a_command_of_each_script_and_mode():
    commands = texts.commands(TEXT)
    scripts = {command.split()[0] for command in commands}
    assert scripts == {path.name for path in SCRIPTS.glob("wgangp_*.py")}
    for mode in ("eval", "export", "infer"):
        assert any(f"mode={mode}" in command for command in commands)


def test_readme_has_one_table_of_at_most_eight_results():
    marks = re.findall(r"<!-- results: (\w+) -->", TEXT)
    assert marks == ["headline"]
    (table,) = texts.tables(section("Results"))
    assert 1 < len(table) <= 1 + 8


def test_readme_names_the_ten_settings_most_used():
    (table,) = texts.tables(section("Settings"))
    assert len(table) == 1 + 10
    assert len(texts.KEY.findall(section("Settings"))) > 8


def test_readme_names_the_commands_of_the_makefile():
    assert {"demo", "test", "docs", "reproduce-cifar10"} <= texts.make_targets(TEXT)
