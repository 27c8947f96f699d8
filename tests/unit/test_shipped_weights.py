# SPDX-License-Identifier: Apache-2.0
"""Weights that ship: their table and files, their names, and how an entry is made."""

import importlib
import json
import shutil
from pathlib import Path

import common
import numpy as np
import pytest
import ship_weights
import tables
from omegaconf import OmegaConf

import functions
import wgangp_toy
from modes import exported_files
from modes.evaluate import evaluate
from modes.evaluate import read_files
from modes.export import export
from modes.infer import infer
from modes.recognition import KEYS
from modes.recognition import ROLES
from modes.recognition import adopt_settings
from modes.recognition import load_all
from support import shipped_weights
from support import storage
from support import weight_files
from support.errors import UserError
from support.weight_notes import Notes

TABLE = shipped_weights.read_table(shipped_weights.FOLDER)
KEY = "EVAL.pretrained_gen_model_path"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A folder of weights with one entry, `points` of the toy script, without a critic."""
    folder = tmp_path / "weights"
    folder.mkdir()
    entry = json.loads(json.dumps(TABLE["toy_8gaussians"]))
    del entry["files"]["discriminator"]
    shutil.copy(f"{shipped_weights.FOLDER}/{entry['files']['generator']['file']}", folder)
    (folder / "weights.json").write_text(json.dumps({"points": entry}))
    monkeypatch.setattr(shipped_weights, "FOLDER", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_table_has_what_ships():
    folder = Path(shipped_weights.FOLDER)
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.pdparams")}
    named = {"mnist_classifier.pdparams"}  # It has a record of its own.
    for entry in TABLE.values():
        assert entry["command"].startswith(f"python {entry['script']}.py")
        for file in entry["files"].values():
            assert storage.sha256(str(folder / file["file"])) == file["sha256"]
            assert sizes[file["file"]] == file["bytes"]
            named.add(file["file"])
    assert named == set(sizes)
    assert sum(sizes.values()) < ship_weights.MAX_BYTES


@pytest.mark.parametrize("name", TABLE)
def test_the_weights_of_each_name_fit_their_networks(name, configure):
    script = TABLE[name]["script"]
    module = importlib.import_module(script)
    experiment = {
        "wgangp_toy": "Toy",
        "wgangp_mnist": "Mnist",
        "wgangp_cifar10": "Cifar10",
        "wgangp_image64": "Image64",
    }[script]
    words = [f"EVAL.{key}={name}" for role, key in KEYS.items() if role in TABLE[name]["files"]]
    experiment = getattr(module, experiment)(configure(script[len("wgangp_") :], *words))
    files = read_files(experiment.cfg.EVAL, script)
    assert set(files) == set(TABLE[name]["files"])
    adopt_settings(experiment, files)
    networks = dict(zip(ROLES, experiment.make_networks()))
    before = {role: network.parameters()[0].numpy() for role, network in networks.items()}
    load_all(files, networks)
    assert all((networks[role].parameters()[0].numpy() != before[role]).any() for role in files)


def test_a_name_draws_evaluates_and_exports(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(wgangp_toy.Toy, "make_drawer", lambda *_: lambda path: None)
    monkeypatch.setattr(wgangp_toy.pictures, "save_toy_picture", lambda *_: None)
    words = "INFER.pretrained_model_path=toy_8gaussians INFER.num_samples=20 EVAL.num_samples=200"
    words += f" INFER.export_path={tmp_path}/e/toy"
    for role in ("gen", "dis"):
        words += f" EVAL.pretrained_{role}_model_path=toy_8gaussians"
    infer(wgangp_toy.Toy(configure("toy", words, "mode=infer")))
    assert len((tmp_path / "points.csv").read_text().splitlines()) == 21
    evaluate(wgangp_toy.Toy(configure("toy", words, "mode=eval")))
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["weights"]["pretrained_dis_model_path"] == {
        "source": "toy_8gaussians",
        "sha256": TABLE["toy_8gaussians"]["files"]["discriminator"]["sha256"],
    }
    assert written["metrics"]["modes"]["value"] == 8
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without ONNX
    export(wgangp_toy.Toy(configure("toy", words, "mode=export")))
    assert exported_files.read_export(f"{tmp_path}/e/toy", "native").classes == ()


@pytest.mark.parametrize(
    ("source", "script", "role", "message"),
    [
        ("point", "wgangp_toy", "generator", "file or folder point. Weights that ship with wgangp"),
        ("points", "wgangp_mnist", "generator", "points belong to wgangp_toy.py. No weights ship"),
        ("points", "wgangp_toy", "discriminator", "points ships without a critic. Leave the set"),
    ],
)
def test_a_wrong_name_is_refused(folder, source, script, role, message):
    with pytest.raises(UserError) as error:
        shipped_weights.find(source, script, KEY, role)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["./points", "points.pdparams", "https://a/points", "~points"])
def test_paths_and_urls_are_not_names(folder, source):
    assert shipped_weights.find(source, "wgangp_toy", KEY, "generator") is None


def test_a_path_comes_before_a_name(folder, tmp_path):
    assert shipped_weights.find("points", "wgangp_toy", KEY, "generator") is not None
    (tmp_path / "points").mkdir()
    assert shipped_weights.find("points", "wgangp_toy", KEY, "generator") is None


def test_a_script_without_weights_says_nothing_of_names(folder):
    assert shipped_weights.advise("wgangp_mnist") == ""
    with pytest.raises(UserError, match="there is no file .*/nothing.pdparams or"):
        weight_files.read_weights("nothing", KEY, "generator", script="wgangp_mnist")


def test_a_damaged_file_of_a_name_is_refused(folder):
    (path,) = folder.glob("*.pdparams")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="but weights.json demands"):
        weight_files.read_weights("points", KEY, "generator", script="wgangp_toy")
    path.unlink()
    with pytest.raises(UserError, match="can't be read"):
        weight_files.read_weights("points", KEY, "generator", script="wgangp_toy")


@pytest.fixture
def run(tmp_path):
    """The folder of a training whose average was evaluated, with its settings and records."""
    run = tmp_path / "run"
    run.mkdir()
    words = "preset=authors LOSS=wgan MODEL.gen_net.dim=3 TRAIN.learning_rate=3e-3 seed=7"
    words += " output_dir=/somewhere"
    cfg = OmegaConf.to_container(common.compose("wgangp_toy", words.split()), resolve=True)
    (run / "config.yaml").write_text(json.dumps(cfg))
    (run / "metrics.jsonl").write_text('{"step": 4, "seconds": 8.6}\n')
    path = run / "model_average_generator.pdparams"
    settings = {"DATA": {"mode": "8gaussians", "data_path": "/somewhere/data"}}
    notes = Notes.of(settings, "points", ())
    weight_files.save_weights(functions.WganGpToyGenerator(3), str(path), notes)
    figure = {"value": 8.0, "deviation": None, "real": 8.0, "num_samples": 9, "better": "higher"}
    written = {
        "script": "wgangp_toy",
        "versions": {"paddlepaddle": "3.2.2"},
        "weights": {
            "pretrained_gen_model_path": {"source": "x", "sha256": storage.sha256(str(path))}
        },
        "metrics": {"modes": figure},
    }
    (run / "metrics.json").write_text(json.dumps(written))
    return run


def test_an_entry_is_made_of_a_run(run, folder, capsys):
    ship_weights.main(["small", str(run), f"--folder={folder}"])
    entry = json.loads(capsys.readouterr().out)
    table = json.loads((folder / "weights.json").read_text())
    assert list(table) == ["points", "small"] and table["small"] == entry
    words = "preset=authors LOSS=wgan seed=7 MODEL.gen_net.dim=3 TRAIN.learning_rate=0.003"
    assert entry["command"] == f"python wgangp_toy.py {words}"  # The critic's rate follows.
    assert (entry["seed"], entry["iterations"], entry["seconds"]) == (7, 4, 9)
    assert entry["weights"] == "model_average_generator.pdparams"
    assert entry["figures"]["modes"]["value"] == 8.0
    (file,) = entry["files"].values()
    path = folder / file["file"]
    assert storage.sha256(str(path)) == file["sha256"] and path.stat().st_size == file["bytes"]
    found, former = (
        weight_files.read_weights(str(source), KEY)
        for source in (path, run / "model_average_generator.pdparams")
    )
    assert former.notes.settings["DATA.data_path"] == "/somewhere/data"
    assert dict(found.notes.settings) == {"DATA.mode": "8gaussians"}  # without the user's path
    assert found.arrays.keys() == former.arrays.keys()
    for name, array in former.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("large", "MB of weights, and at most 4 MB ship"),
        ("other", "has no .pdparams with the evaluated SHA-256"),
        ("no evaluation", "has no metrics.json: evaluate its weights by mode=eval"),
    ],
)
def test_what_cannot_ship_is_refused(run, folder, change, message):
    if change == "large":
        (folder / "others.pdparams").write_bytes(bytes(ship_weights.MAX_BYTES))
    elif change == "other":
        (run / "model_average_generator.pdparams").write_bytes(b"other")
    else:
        (run / "metrics.json").unlink()
    with pytest.raises(SystemExit, match=message):
        ship_weights.ship("small", run, folder)
    assert list(json.loads((folder / "weights.json").read_text())) == ["points"]


def test_the_pages_table_has_every_name():
    head, *lines = tables.TABLES["shipped_weights"](TABLE)
    assert [line[0] for line in lines] == [f"`{name}`" for name in TABLE]
    assert all(len(line) == len(head) for line in lines)
