# SPDX-License-Identifier: Apache-2.0
"""The pages of all settings are current, complete, and made of what the scripts check."""

import shutil

import make_configuration
import pytest
import texts
import yaml
from helpers import ROOT
from helpers import SCRIPTS

from support.settings import flatten
from support.settings import load_defaults

DEFAULTS = {path.stem: flatten(load_defaults(path.stem)) for path in SCRIPTS.glob("wgangp_*.py")}


@pytest.fixture
def copy(monkeypatch, tmp_path):
    """A copy of conf/ and of the pages, for `make_configuration` to work on."""
    suite = tmp_path / "examples" / "wgangp"
    shutil.copytree(SCRIPTS / "conf", suite / "conf")
    for path in SCRIPTS.glob("wgangp_*.py"):
        shutil.copy(path, suite)
    for name in ("en/configuration.md", "zh/configuration.md", "zh/configuration.yaml"):
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs" / name)
    monkeypatch.setattr(make_configuration, "ROOT", tmp_path)
    monkeypatch.setattr(make_configuration, "SUITE", suite)
    return tmp_path


def change(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def read_rows(language):
    """Cells of each setting's row, by the key."""
    page = (ROOT / "docs" / language / "configuration.md").read_text(encoding="utf-8")
    rows = [row for table in texts.tables(page)[:-1] for row in table[1:]]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_pages_are_current():
    make_configuration.main(["--check"])


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_the_pages_have_every_setting_once(language):
    keys = {key for flat in DEFAULTS.values() for key in flat}
    page = (ROOT / "docs" / language / "configuration.md").read_text(encoding="utf-8")
    rows = [row[0] for table in texts.tables(page)[:-1] for row in table[1:]]
    assert sorted(rows) == sorted(f"`{key}`" for key in keys)
    options = [row[0] for row in texts.tables(page)[-1][1:]]
    shared = [f"`{path.parent.name}={path.stem}`" for path in SCRIPTS.glob("conf/*/*.yaml")]
    assert sorted(option for option in options if option.endswith("`")) == sorted(shared)
    own = [option for option in options if not option.endswith("`")]
    assert len(own) == len(list(SCRIPTS.glob("conf/*/*/*.yaml")))


def test_rows_say_defaults_and_values_of_the_scripts():
    en, zh = read_rows("en"), read_rows("zh")
    assert en["TRAIN.n_critic"] == [
        "`5`",
        "critic steps before each generator step",
        "whole number ≥ 1",
    ]
    assert en["TRAIN.epochs"][0] == "`16` (toy); `200` (MNIST); `100` (CIFAR-10, 64x64)"
    assert zh["TRAIN.epochs"][0] == "`16`（玩具数据）；`200`（MNIST）；`100`（CIFAR-10、64x64）"
    assert en["TRAIN.critic_learning_rate"][0] == "= `TRAIN.learning_rate`"
    assert en["TRAIN.ema.decay"][2] == "number ≥ 0.000001, < 1"
    assert zh["TRAIN.beta1"][2] == "数 ≥ 0, < 1"
    assert en["LOSS.clip"][2] == "number ≥ 1e-12"
    assert en["use_amp"][2] == "`true` or `false`" and zh["use_amp"][2] == "`true` 或 `false`"
    assert en["MODEL.dis_net.norm"][::2] == [
        "`null` (toy, MNIST, CIFAR-10); `layer` (64x64)",
        "`null`, `spectral` (toy); `null`, `layer`, `batch`, `spectral` (MNIST, CIFAR-10, 64x64)",
    ]
    assert en["DATA.mode"][::2] == [
        "`8gaussians` (toy)",
        "`8gaussians`, `25gaussians`, `swissroll`",
    ]
    assert en["MODEL.arch"][2].startswith(
        "`paper`, `published` (toy, CIFAR-10); `paper`, `wgan_lab`"
    )
    assert en["DATA.data_path"][2] == "path (MNIST, CIFAR-10); path, or `null` (64x64)"
    assert en["DATA.data_path"][1].startswith("MNIST, CIFAR-10: file or folder of the data set")


def test_a_page_that_is_not_current_is_refused_and_written_again(copy):
    page = copy / "docs" / "zh" / "configuration.md"
    former = page.read_text(encoding="utf-8")
    change(copy / "examples" / "wgangp" / "conf" / "base.yaml", "# task of", "# purpose of")
    with pytest.raises(SystemExit, match="en/configuration.md is not current"):
        make_configuration.main(["--check"])
    make_configuration.main([])
    make_configuration.main(["--check"])
    assert "| purpose of the run |" in (copy / "docs" / "en" / "configuration.md").read_text(
        "utf-8"
    )
    assert page.read_text(encoding="utf-8") == former
    change(page, "## 通用", "## 一般")
    change(page, "# 配置项\n", "# 所有配置项\n")
    with pytest.raises(SystemExit, match="zh/configuration.md is not current"):
        make_configuration.main(["--check"])
    make_configuration.main([])
    # Text above the mark is written by hand.
    assert page.read_text(encoding="utf-8") == former.replace("# 配置项\n", "# 所有配置项\n", 1)


@pytest.mark.parametrize(
    ("place", "old", "new", "message"),
    [
        ("base.yaml", " # task of the run", "", r"mode \(wgangp_toy\) lacks a meaning in English"),
        ("wgangp_toy.yaml", " # data set", "", "DATA.mode .* lacks a meaning in English"),
        ("zh", "  mode: 运行的任务\n", "", "mode .* lacks a meaning in Chinese"),
        (
            "zh",
            "    wgangp_image64: 自己",
            "    other: 自己",
            "DATA.data_path .*image64.* in Chinese",
        ),
        ("zh", "  mode: ", "  modes: x\n  mode: ", "there are no settings modes"),
        ("zh", "  LOSS=gan: ", "  LOSS=gun: ", "LOSS=gan lacks a meaning in Chinese"),
        ("zh", "  INFER: ", "  INFERS: ", "INFER lacks a meaning in Chinese"),
        ("LOSS/wgan.yaml", "# WGAN with", "\n# WGAN with", "LOSS=wgan lacks a meaning in English"),
        (
            "wgangp_toy.yaml",
            "epochs: 200",
            "epochs: 200 # again",
            "TRAIN.epochs has its meaning in a shared file",
        ),
    ],
)
def test_a_setting_without_a_meaning_is_refused(copy, place, old, new, message):
    conf = copy / "examples" / "wgangp" / "conf"
    change(copy / "docs" / "zh" / "configuration.yaml" if place == "zh" else conf / place, old, new)
    with pytest.raises(SystemExit, match=message):
        make_configuration.main(["--check"])


def test_chinese_meanings_are_chinese():
    chinese = yaml.safe_load((ROOT / "docs" / "zh" / "configuration.yaml").read_text("utf-8"))
    meanings = [text for part in chinese.values() for text in flatten(part).values()]
    assert len(meanings) > 60
    for text in meanings:
        assert any("\u4e00" <= letter <= "\u9fff" for letter in text), text
