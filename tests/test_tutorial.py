# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""The tutorial page shows code by named sections that exist, and commands that Hydra composes."""

import re

import pytest
from conftest import ROOT
from conftest import SCRIPTS

PAGE = ROOT / "docs" / "zh" / "examples" / "wgangp.md"
TEXT = PAGE.read_text(encoding="utf-8")
SHOWN = re.findall(r'--8<-- "([^"]+)"', TEXT)
COMMANDS = sorted(set(re.findall(r"^ *python (wgangp_\w+\.py[^\n]*)", TEXT, re.M)))


def marks():
    """Section markers of all sources, as (file, kind, name)."""
    for path in sorted(SCRIPTS.glob("*.py")):
        for kind, name in re.findall(r"# --8<-- \[(start|end):(\w+)\]", path.read_text()):
            yield f"examples/wgangp/{path.name}", kind, name


def test_each_section_begins_and_ends_once():
    found = list(marks())
    assert len(found) == len(set(found)) > 40
    starts = {(path, name) for path, kind, name in found if kind == "start"}
    assert starts == {(path, name) for path, kind, name in found if kind == "end"}


def test_what_is_shown_is_there_and_named():
    """Never by line numbers, which go stale without a word."""
    sections = {f"{path}:{name}" for path, kind, name in marks() if kind == "start"}
    assert len(SHOWN) > 15
    for shown in SHOWN:
        path, _, name = shown.partition(":")
        assert (ROOT / path).is_file(), shown
        assert not name or shown in sections, shown


def test_pictures_are_there():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT)
    assert len(pictures) >= 4
    for picture in pictures:
        assert (PAGE.parent / picture).is_file(), picture


@pytest.mark.parametrize("command", COMMANDS)
def test_hydra_composes_each_command(command, check_command):
    check_command(command)


def test_there_are_commands_of_each_script_and_mode():
    assert {command.split()[0] for command in COMMANDS} == {
        path.name for path in SCRIPTS.glob("wgangp_*.py")
    }
    for mode in ("eval", "export", "infer"):
        assert any(f"mode={mode}" in command for command in COMMANDS)
