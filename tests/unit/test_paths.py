# SPDX-License-Identifier: Apache-2.0
"""Paths as users write them: empty, as URLs, with ~, folders of runs, exports."""

import os

import numpy as np
import pytest
from omegaconf import OmegaConf

from modes.exported_files import export_base
from support import paths
from support.errors import UserError
from support.weight_paths import weights_path

KEY = "EVAL.pretrained_gen_model_path"


def refuse(key, value):
    """What `check_path` says, or None."""
    try:
        paths.check_path(key, value, value)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("value", ["a", "a/b c", "~/a", "run:2", "file:///a/b%20c", "../ü"])
def test_paths_pass(value):
    assert refuse("DATA.data_path", value) is None


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("", "DATA.data_path= is empty, as after a shell variable that is not set"),
        (" ", "is empty"),
        (3, "DATA.data_path=3 is not a path: put it in quotes."),
        ("file://host/a", "three slashes"),
        ("file://a", "three slashes"),
        ("https://host/a.zip", "is a URL, and a path is needed. Download the file"),
        ("s3://bucket/a", "is a URL"),
    ],
)
def test_what_is_not_a_path_is_refused(value, part):
    assert part in refuse("DATA.data_path", value)


def test_urls_of_weights_pass():
    assert refuse(KEY, "https://host/a.pdparams") is None
    assert "only https:// and file:// are read" in refuse(KEY, "ftp://host/a")


def test_file_urls_become_paths():
    cfg = OmegaConf.create(
        {
            "DATA": {"data_path": "file:///a/b%20c", "mode": "file:///a"},
            "INFER": {"export_path": "FILE://localhost/d"},
            "EVAL": {"pretrained_gen_model_path": "https://host/a", "inception_weights": None},
        }
    )
    expected = OmegaConf.create(OmegaConf.to_container(cfg))
    expected.DATA.data_path, expected.INFER.export_path = "/a/b c", "/d"
    paths.replace_file_urls(cfg)
    assert cfg == expected


def test_hydras_folders_are_plain_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    paths.check_plain("hydra.run.dir", "runs/${seed}")
    for value, plain in (("~/a", "/home/me/a"), ("file:///a%20b", "/a b")):
        with pytest.raises(UserError, match=f"give hydra.run.dir={plain}"):
            paths.check_plain("hydra.run.dir", value)


@pytest.fixture
def find(tmp_path, monkeypatch):
    """Makes files, and finds weights by what a user names; returns the name of the file."""
    monkeypatch.chdir(tmp_path)

    def call(files, source, role="generator"):
        for name in files.split():
            path = tmp_path / "run" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return weights_path(source, KEY, role)[len(f"{tmp_path}/") :]

    return call


# Each list of a document repeats the one before it eight times.
LAUGHS = [(b, ", ".join([f"*{a}"] * 8)) for a, b in zip("abcdefghijkl", "bcdefghijklm")]
FINAL = "model_generator.pdparams model_discriminator.pdparams"


def test_a_longer_run_stands_for_its_newest_checkpoint(find, tmp_path):
    # A training writes its records before its weights.
    files = f"metrics.jsonl {FINAL.split()[0]} checkpoints/iteration_5.npz"
    assert find(files, "run") == f"run/{FINAL.split()[0]}"
    os.utime(tmp_path / "run" / FINAL.split()[0], (1, 1))  # Now the records are newer.
    assert find("", "run") == "run/checkpoints/iteration_5.npz"
    (tmp_path / "run" / "checkpoints" / "iteration_5.npz").unlink()
    assert find("", "run") == f"run/{FINAL.split()[0]}"


@pytest.mark.parametrize(
    ("steps", "checkpoint", "found"),
    [
        (6, 6, "checkpoints/iteration_6.npz"),  # the same weights, if it is a copy
        (6, 4, "model_generator.pdparams"),  # a finished training that saved none at its end
        (5, 4, "checkpoints/iteration_4.npz"),  # stopped, after it was made longer
    ],
)
def test_a_copy_of_a_finished_run_stands_for_its_final_weights(
    find, tmp_path, steps, checkpoint, found
):
    """The files of a copy are as old as the copy, in any order."""
    find(f"{FINAL} checkpoints/iteration_{checkpoint}.npz", "run")
    for name in FINAL.split():
        os.utime(tmp_path / "run" / name, (1, 1))
    (tmp_path / "run" / "metrics.jsonl").write_text(f'{{"step": 1}}\n{{"step": {steps}}}\n')
    (tmp_path / "run" / "config.yaml").write_text("TRAIN: {epochs: 3, iters_per_epoch: 2}")
    assert find("", "run") == f"run/{found}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", "[" * 200_000),
        ("config.yaml", "a: &a [x, x]\n" + "".join(f"{c}: &{c} [{p}]\n" for c, p in LAUGHS)),
    ],
)
def test_hostile_records_are_those_of_a_longer_run(find, tmp_path, name, content):
    find(f"{FINAL} checkpoints/iteration_6.npz", "run")
    for weights in FINAL.split():
        os.utime(tmp_path / "run" / weights, (1, 1))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 6}\n')
    (tmp_path / "run" / name).write_text(content)
    assert find("", "run") == "run/checkpoints/iteration_6.npz"


@pytest.mark.parametrize(
    ("files", "source", "role", "found"),
    [
        ("a.pdparams a.npz a", "run/a", "generator", "run/a.pdparams"),
        ("a.npz a", "run/a", "generator", "run/a.npz"),
        ("a", "run/a", "generator", "run/a"),
        ("a.npz", "run/a.npz", None, "run/a.npz"),
        (FINAL, "run", "generator", "run/model_generator.pdparams"),
        (FINAL, "run/", "discriminator", "run/model_discriminator.pdparams"),
        (
            f"{FINAL} model_average_generator.pdparams checkpoints/iteration_9.npz",
            *("run", "generator", "run/model_average_generator.pdparams"),
        ),
        (
            "checkpoints/iteration_9.npz checkpoints/iteration_10.npz checkpoints/best.npz",
            *("run", "discriminator", "run/checkpoints/iteration_10.npz"),
        ),
        (
            f"{FINAL} checkpoints/iteration_9.npz checkpoints/best.npz",
            *("run/checkpoints", "generator", "run/checkpoints/iteration_9.npz"),
        ),
        ("checkpoints/best.npz", "run", "generator", "run/checkpoints/best.npz"),
    ],
)
def test_weights_are_found(find, files, source, role, found):
    assert find(files, source, role) == found


def test_other_folders_are_refused_with_what_they_hold(find):
    with pytest.raises(UserError, match="run is a folder. .* such as best.npz, iteration_9.npz"):
        find("iteration_9.npz best.npz notes.txt", "run")
    with pytest.raises(UserError, match="run/checkpoints is a folder. Name a file of weights"):
        find("checkpoints/notes.txt", "run/checkpoints")
    with pytest.raises(UserError, match="there is no file .*/x.pdparams or .*/x.npz"):
        find("a", "x")


@pytest.mark.parametrize(
    ("named", "base"),
    [
        ("out/a", "out/a"),
        ("out/", "out/toy"),
        ("new/", "new/toy"),
        ("out", "out/toy"),
        ("both", "both"),
        ("both/", "both/toy"),
        ("out/a.json", "out/a"),
        ("out/a.onnx", "out/a"),
        ("out/a.pdiparams", "out/a"),
        ("out/a.b", "out/a.b"),
    ],
)
def test_an_export_is_named_by_its_base_a_file_or_a_folder(tmp_path, monkeypatch, named, base):
    monkeypatch.chdir(tmp_path)
    for folder in ("out", "both"):
        (tmp_path / folder).mkdir()
    (tmp_path / "both.json").write_bytes(b"")
    assert export_base(named, "toy") == str(tmp_path / base)


def test_numbers_are_finite_everywhere(configure):
    from support.settings import check_settings
    from support.settings import flatten
    from wgangp_image64 import CHOICES
    from wgangp_image64 import NAME

    cfg, tried = configure("image64"), 0
    for key, value in flatten(OmegaConf.to_container(cfg, resolve=True)).items():
        for other in (np.inf, -np.inf, np.nan) if isinstance(value, float) else ():
            changed = cfg.copy()
            OmegaConf.update(changed, key, float(other))
            with pytest.raises(UserError, match=f"{key}=-?(inf|nan) must be"):
                check_settings(changed, NAME, CHOICES)
            tried += 1
    assert tried > 30
