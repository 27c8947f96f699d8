# SPDX-License-Identifier: Apache-2.0
"""--help: an overview of a script, and the meaning of a setting or a group."""

import importlib
import sys

import pytest

from support import command_line
from support import help_pages
from support import launch
from support.errors import UserError
from support.settings import flatten
from support.settings import load_defaults

NAMES = ("wgangp_toy", "wgangp_mnist", "wgangp_cifar10", "wgangp_image64")


def write(script, topic=""):
    return help_pages.write_help(script, importlib.import_module(script).CHOICES, topic)


@pytest.mark.parametrize("script", NAMES)
def test_the_overview_fits_on_a_page_and_says_what_runs(script, check_command):
    lines = write(script).splitlines()
    assert len(lines) <= 42 and max(map(len, lines)) <= help_pages.WIDTH
    assert lines[0].startswith(f"{script}.py: ") and lines[1].startswith("Usage: python ")
    commands = [line.strip() for line in lines if line.startswith("  python ")]
    assert len(commands) == 4
    for command in commands:
        check_command(command.partition(" ")[2])
    known = flatten(load_defaults(script))
    shown = [line.split()[0].partition("=")[0] for line in lines if line.startswith("  ")]
    assert set(shown) - {"python", "preset", "LOSS", "hydra.run.dir"} <= set(known)
    assert {"mode", "TRAIN.epochs", "LOSS", "preset"} <= set(shown)


@pytest.mark.parametrize("script", NAMES)
def test_every_setting_has_a_page(script):
    for key in flatten(load_defaults(script)):
        lines = write(script, key).splitlines()
        assert lines[0] == key and lines[1].startswith("  meaning:  ")
        assert any(line.startswith("  default:  ") for line in lines)
        assert lines[-1].startswith(("  values:   ", " " * 12))


@pytest.mark.parametrize(
    ("topic", "lines"),
    [
        ("TRAIN.n_critic", ["  meaning:  critic steps before each generator step", "default:  5"]),
        ("n_critic", ["TRAIN.n_critic", "  values:   whole number ≥ 1"]),
        ("LOSS.clip", ["  values:   number ≥ 1e-12"]),
        ("critic_learning_rate", ["  default:  = TRAIN.learning_rate"]),
        ("dim", ["MODEL.gen_net.dim", "MODEL.dis_net.dim"]),
        ("EVAL", ["  EVAL.num_samples=2500", "the generator's weights: the name of weights"]),
        ("LOSS", ["LOSS=wgan", "TRAIN.learning_rate=0.00005", "  LOSS.k=2"]),
        ("preset", ["preset=short", "TRAIN.epochs=16", "preset=authors"]),
        ("hydra.run.dir", ["  default:  outputs_wgangp_toy/DATE/TIME", "  values:   path"]),
    ],
)
def test_a_topic_is_a_setting_its_last_part_or_a_group(topic, lines):
    text = write("wgangp_toy", topic)
    assert all(line in text for line in lines)


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("TRAIN.epochz", "setting or group. Did you mean TRAIN.epochs"),
        ("n_critics", "Did you mean TRAIN.n_critic?"),
        ("nothing", "--help=nothing: there is no such setting or group. --help lists the most"),
        ("TRAIN.penalty_weight", "has a new name: LOSS.penalty_weight."),
        ("DATA.source", "there is no such setting or group."),
    ],
)
def test_an_unknown_topic_is_refused_with_similar_ones(topic, message):
    with pytest.raises(UserError) as error:
        write("wgangp_toy", topic)
    assert message in str(error.value) and r"\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "topic"),
    [
        ("", None),
        ("TRAIN.epochs=3 --cfg job", None),
        ("--help", ""),
        ("-h", ""),
        ("TRAIN.epochs=3 --help", ""),
        ("--help=TRAIN", "TRAIN"),
        ("--help TRAIN.epochs=3 seed=1", "TRAIN.epochs"),
    ],
)
def test_the_flag_has_a_topic_or_none(words, topic):
    assert command_line.find_topic(words.split()) == topic


@pytest.mark.parametrize(
    ("word", "status", "out", "err"),
    [
        ("--help=seed", None, "seed\n  meaning:  seed of all random draws", ""),
        ("--help=seeds", 2, "", "Error: --help=seeds: there is no such setting or group. Did"),
    ],
)
def test_a_script_prints_help_and_ends(word, status, out, err, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["wgangp_toy.py", word])
    with pytest.raises(SystemExit) as stop:
        launch.begin("wgangp_toy", importlib.import_module("wgangp_toy").CHOICES)
    assert stop.value.code == status
    printed = capsys.readouterr()
    assert printed.out.startswith(out) and printed.err.startswith(err)
    assert bool(printed.out) == bool(out) and bool(printed.err) == bool(err)
