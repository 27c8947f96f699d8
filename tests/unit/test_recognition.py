# SPDX-License-Identifier: Apache-2.0
"""Weights bring their settings along: by what they keep of their training, by names and shapes."""

import copy
import hashlib
import itertools
import json
import types

import numpy as np
import paddle
import pytest
import yaml
from helpers import GOLDEN
from omegaconf import OmegaConf

import functions
import wgangp_cifar10
import wgangp_image64
import wgangp_mnist
import wgangp_toy
from modes import recognition
from modes.evaluate import evaluate
from modes.evaluate import read_files
from modes.recognition import adopt_settings
from modes.recognition import load_all
from modes.train import train
from support import settings
from support import weight_files
from support import weight_notes
from support.errors import UserError
from support.weight_files import SavedWeights
from support.weight_notes import Notes

DEFAULTS = {}  # the configuration of each script
EXPERIMENTS = {
    "toy": wgangp_toy.Toy,
    "mnist": wgangp_mnist.Mnist,
    "cifar10": wgangp_cifar10.Cifar10,
    "image64": wgangp_image64.Image64,
}


def saved(network, notes=None):
    """The weights of a network, as if a file had been read."""
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    return SavedWeights("w", "EVAL.x: w.pdparams", "", arrays, notes)


def files_of(experiment, notes=None):
    networks = dict(zip(recognition.ROLES, experiment.make_networks()))
    return {role: saved(network, notes) for role, network in networks.items()}


@pytest.fixture
def lines(monkeypatch):
    found = []
    monkeypatch.setattr(recognition.logger, "info", found.append)
    return found


@pytest.fixture
def make(configure, tmp_path):
    """Makes an experiment with overrides; composing each configuration would take seconds."""

    def make(name, *texts):
        if name not in DEFAULTS:
            DEFAULTS[name] = configure(name)
        cfg, words = copy.deepcopy(DEFAULTS[name]), " ".join(texts).split()
        for word in [*words, f"output_dir={tmp_path}"]:
            key, _, value = word.partition("=")
            OmegaConf.update(cfg, key, yaml.safe_load(value))
        return EXPERIMENTS[name](cfg)

    return make


def list_networks(name):
    """Settings of all kinds of networks of a script, in widths that nothing else has."""
    labels = (False, True) if name in ("cifar10", "image64") else (None,)
    archs = {**settings.CHOICES, **EXPERIMENTS[name].choices}["MODEL.arch"]
    for arch, label in itertools.product(archs, labels):
        widths = {"gen_net.dim": 3, "dis_net.dim": 5}
        if name != "toy":
            widths["gen_net.noise_dim"] = 7
        if label is not None:
            widths["use_label"] = label
        if name == "image64" and label:
            widths["num_classes"] = 6
        norms = {"toy": (None, "spectral")}.get(name, (None, "layer", "spectral"))
        for norm in (None,) if arch == "published" else norms:
            yield {"arch": arch, **widths, "dis_net.norm": norm}
        if arch == "resnet":
            yield {"arch": arch, **widths, "attention": True}
        if name in ("cifar10", "image64") and label and arch != "published":
            yield {"arch": arch, **widths, "dis_net.projection": True}
        if name == "toy" and arch != "published":
            yield {"arch": arch, **widths, "gen_net.hidden": 6}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_all_networks_are_recognised_by_names_and_shapes(name, make):
    for model in list_networks(name):
        trained, experiment = make(name), make(name)
        for key, value in model.items():
            OmegaConf.update(trained.cfg.MODEL, key, value)
        adopt_settings(experiment, files_of(trained))
        assert experiment.cfg.MODEL == trained.cfg.MODEL, model


def test_a_generator_alone_leaves_the_critics_settings(make, lines):
    trained = make("mnist", "MODEL.arch=wgan_lab MODEL.gen_net.dim=3 MODEL.dis_net.dim=5")
    experiment = make("mnist")
    adopt_settings(experiment, {"generator": files_of(trained)["generator"]})
    assert experiment.cfg.MODEL.arch == "wgan_lab" and experiment.cfg.MODEL.gen_net.dim == 3
    assert experiment.cfg.MODEL.dis_net.dim == 64
    assert lines == [
        "EVAL.x: w.pdparams: these settings are taken from it: MODEL.arch=wgan_lab instead of "
        "paper, MODEL.gen_net.dim=3 instead of 64.",
        "EVAL.x: w.pdparams does not say how it was trained; these settings are as configured: "
        "MODEL.gen_net.batch_norm_statistics=batch, DATA.label_distribution=uniform, "
        "DATA.source=mnist.",
    ]


NOTES = {
    "MODEL": {"arch": "paper", "gen_net": {"dim": 3}, "dis_net": {"dim": 5}},
    "DATA": {"mode": "25gaussians"},
}


def test_settings_that_shapes_do_not_show_are_taken_from_the_notes(make, lines):
    words = "MODEL.gen_net.batch_norm_statistics=running MODEL.gen_net.dim=4 DATA.source=synthetic"
    trained = make("cifar10", words, "MODEL.dis_net.dim=4 DATA.data_path=/nowhere/c.tar")
    notes = Notes.of(trained.cfg, "some pictures", ())
    experiment = make("cifar10")
    path = experiment.cfg.DATA.data_path
    adopt_settings(experiment, files_of(trained, notes))
    assert experiment.cfg.MODEL == trained.cfg.MODEL
    assert experiment.cfg.DATA.source == "synthetic"
    assert experiment.cfg.DATA.data_path == path  # The other one is not on this machine.
    assert len(lines) == 1 and "batch_norm_statistics=running instead of batch" in lines[0]


def test_a_path_of_data_is_taken_where_it_exists(make, tmp_path):
    experiment = make("image64")
    settings = {"DATA": {"data_path": str(tmp_path), "crop": True, "flip": True}}
    adopt_settings(experiment, files_of(make("image64"), Notes.of(settings, "", ())))
    assert experiment.cfg.DATA.data_path == str(tmp_path)
    assert experiment.cfg.DATA.crop and not experiment.cfg.DATA.flip


@pytest.mark.parametrize(
    ("given", "verb"),
    [
        ("MODEL.gen_net.dim=4", "was trained with MODEL.gen_net.dim=3"),
        ("MODEL.arch=published", "was trained with MODEL.arch=paper"),
        ("DATA.mode=swissroll", "was trained with DATA.mode=25gaussians"),
    ],
)
def test_other_settings_that_were_given_are_refused_by_name(given, verb, make):
    files = files_of(make("toy", "MODEL.gen_net.dim=3 MODEL.dis_net.dim=5"))
    experiment, key = make("toy", given), given.partition("=")[0]
    with pytest.raises(UserError) as error:
        adopt_settings(experiment, with_notes(files, NOTES))
    assert str(error.value) == (
        f"{given} was given, but EVAL.x: w.pdparams {verb}. Leave {key} out (and a preset "
        "or file that sets it), or name other weights."
    )
    if key != "DATA.mode":
        with pytest.raises(UserError, match=f"{given} was given, but .* holds a network of {key}="):
            adopt_settings(make("toy", given), files)


def with_notes(files, whole):
    notes = Notes.of(whole, "data", ())
    return {role: saved_with(part, notes) for role, part in files.items()}


def saved_with(part, notes):
    return SavedWeights(part.source, part.where, part.sha256, part.arrays, notes)


def test_settings_of_the_evaluation_alone_stay_as_given(make, lines):
    trained = make("cifar10", "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4")
    experiment = make("cifar10", "MODEL.gen_net.batch_norm_statistics=running")
    adopt_settings(experiment, files_of(trained, Notes.of(trained.cfg, "", ())))
    assert experiment.cfg.MODEL.gen_net.batch_norm_statistics == "running"
    assert (
        "with MODEL.gen_net.batch_norm_statistics=batch; it is running here, as given" in lines[0]
    )


def test_a_default_in_the_command_line_is_given(make, monkeypatch):
    words = ["MODEL.use_label=true", "DATA={source:cifar10}"]
    job = types.SimpleNamespace(overrides=types.SimpleNamespace(task=words))
    monkeypatch.setattr(settings.HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(settings.HydraConfig, "get", lambda: job)
    given = settings.list_given(make("cifar10", "seed=3").cfg, "wgangp_cifar10")
    assert {"MODEL.use_label", "DATA.source", "seed"} < given
    assert "MODEL.arch" not in given
    files = files_of(make("cifar10", "MODEL.use_label=false MODEL.gen_net.dim=4"))
    with pytest.raises(UserError, match="MODEL.use_label=true was given, but"):
        adopt_settings(make("cifar10"), {"generator": files["generator"]})


def test_networks_of_different_trainings_are_refused(make):
    files = files_of(make("toy", "MODEL.gen_net.dim=3 MODEL.dis_net.dim=5"))
    files = with_notes(files, NOTES)
    other = Notes.of({**NOTES, "DATA": {"mode": "swissroll"}}, "", ())
    files["discriminator"] = saved_with(files["discriminator"], other)
    with pytest.raises(
        UserError, match="DATA.mode was swissroll there, and 25gaussians in the gen"
    ):
        adopt_settings(make("toy"), files)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"gen_net": {"dim": 10**9}}, "contradicts itself: it says MODEL.gen_net.dim=1000000000"),
        ({"arch": "published"}, "contradicts itself: it says MODEL.arch=published"),
        ({"gen_net": {"batch_norm_statistics": "x"}}, "that is not valid here: .*statistics=x is"),
    ],
)
def test_notes_that_the_arrays_contradict_are_refused(section, message, make):
    files = files_of(make("mnist", "MODEL.gen_net.dim=2 MODEL.dis_net.dim=2"))
    with pytest.raises(UserError, match=message):
        adopt_settings(make("mnist"), with_notes(files, {"MODEL": section}))


def test_weights_of_another_script_are_refused_at_once(make, lines):
    files = files_of(make("image64", "MODEL.gen_net.dim=2 MODEL.dis_net.dim=2"))
    experiment = make("mnist")
    adopt_settings(experiment, with_notes(files, {"MODEL": {"gen_net": {"dim": 10**9}}}))
    networks = dict(zip(recognition.ROLES, experiment.make_networks()))
    with pytest.raises(UserError, match="does not fit .* Do the weights belong to another script"):
        load_all(files, networks)
    assert lines == []


def test_incomplete_weights_are_compared_with_the_most_similar_networks(make):
    trained = make("mnist", "MODEL.arch=published")
    files = {"generator": files_of(trained)["generator"]}
    del files["generator"].arrays["generator.linear1.bias"]
    experiment = make("mnist")
    adopt_settings(experiment, files)
    generator, _ = experiment.make_networks()
    with pytest.raises(
        UserError, match="fit PublishedMnistGenerator, .* missing: generator.linear"
    ):
        load_all(files, {"generator": generator})


@pytest.mark.parametrize("value", [None, "text", [1, 2], np.float32(1), np.zeros((2, 3, 4), "f4")])
def test_values_that_are_not_weights_are_refused(value, make):
    files = {"generator": files_of(make("toy"))["generator"]}
    files["generator"].arrays["layers.0.weight"] = value
    experiment = make("toy")
    adopt_settings(experiment, files)
    with pytest.raises(UserError, match="layers.0.weight"):
        load_all(files, {"generator": experiment.make_networks()[0]})


def test_a_checkpoint_says_how_it_was_trained(make, lines):
    experiment = make("toy", f"EVAL.pretrained_gen_model_path={GOLDEN}/former/toy_iteration_4.npz")
    files = read_files(experiment.cfg.EVAL, experiment.script)
    adopt_settings(experiment, files)
    assert experiment.cfg.MODEL.gen_net.dim == 8
    assert files["generator"].notes.data == "8gaussians"
    assert "does not say" not in "".join(lines)


def test_an_evaluation_repeats_a_training_without_its_settings(make, tmp_path, monkeypatch):
    words = (
        "DATA.mode=25gaussians MODEL.gen_net.dim=3 MODEL.dis_net.dim=5 TRAIN.batch_size=4 "
        "TRAIN.epochs=1 TRAIN.iters_per_epoch=1 TRAIN.eval_num_samples=50"
    )
    monkeypatch.setattr(wgangp_toy.Toy, "make_drawer", lambda *_: lambda path: None)
    train(make("toy", words))
    paths = " ".join(
        f"EVAL.pretrained_{short}_model_path={tmp_path}/model_{role}"
        for short, role in (("gen", "average_generator"), ("dis", "discriminator"))
    )
    evaluate(make("toy", "mode=eval EVAL.num_samples=50", paths))
    *_, record = (tmp_path / "metrics.jsonl").read_text().splitlines()
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["metrics"]["modes"]["value"] == json.loads(record)["modes"]
    assert "mode: 25gaussians" in (tmp_path / "config_eval.yaml").read_text()


def test_other_data_than_the_trainings_are_named(make, tmp_path, monkeypatch):
    trained, warnings = make("toy", "MODEL.gen_net.dim=3"), []
    notes = Notes.of(trained.cfg, "other points", ())
    weight_files.save_weights(trained.make_networks()[0], f"{tmp_path}/g.pdparams", notes)
    monkeypatch.setattr(recognition.logger, "warning", warnings.append)
    evaluate(make("toy", "EVAL.num_samples=50", f"EVAL.pretrained_gen_model_path={tmp_path}/g"))
    assert "was trained on other data (other points) than those that" in warnings[-1]


# What files keep.


@pytest.fixture
def written(tmp_path):
    """Writes weights with notes, and returns their path."""
    path = tmp_path / "g.pdparams"
    whole = {
        "MODEL": {"arch": "paper", "gen_net": {"dim": 3}},
        "DATA": {"flip": True, "crop": True},
    }
    notes = Notes.of({**whole, "seed": 3}, "data #1", ["cat", "#NOTES:", "größe"])
    weight_files.save_weights(functions.WganGpToyGenerator(3), str(path), notes)
    return path


def test_weights_keep_notes_on_their_training(written):
    found = weight_files.read_weights(str(written), "EVAL.x")
    expected = {"MODEL.arch": "paper", "MODEL.gen_net.dim": 3, "DATA.crop": True}
    assert found.notes == Notes(expected, "data #1", ("cat", "#NOTES:", "größe"))
    assert found.classes == ("cat", "#NOTES:", "größe")
    state = paddle.load(str(written), return_numpy=True)  # It ignores the notes.
    for name, value in found.arrays.items():
        np.testing.assert_array_equal(value, state[name])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "Expecting"),
        (b"[]", "no format"),
        (b'{"format": 2}', "their format is 2, and this version knows 1"),
        (b'{"format": 1, "settings": {}}', "settings or data are absent"),
        (b'{"format": 1, "settings": {"MODEL": {"arch": []}}, "data": ""}', "MODEL.arch is a list"),
        (b'{"format": 1, "settings": {}, "data": "", "classes": [1]}', "not a list of names"),
        (b'{"a": ' * 10**5, "recursion"),
        (b"\xff", "utf-8"),
    ],
)
def test_notes_that_are_not_of_this_suite_are_refused(text, reason, written):
    content = written.read_bytes()
    body = content[: content.index(weight_notes.MARK)] + weight_notes.MARK + text
    digest = hashlib.sha256(body).hexdigest().encode()
    written.write_bytes(body + weight_files.CHECKSUM_MARK + digest)
    with pytest.raises(UserError, match=f"notes on its training can't be read .*({reason})"):
        weight_files.read_weights(str(written), "EVAL.x")
