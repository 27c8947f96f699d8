# SPDX-License-Identifier: Apache-2.0
"""A training starts from weights, of one network or both; what does not fit is refused."""

import numpy as np
import paddle
import pytest
from trainings import load_arrays
from trainings import read_records

import wgangp_toy
from modes import start_weights
from modes.train import train
from support import shipped_weights
from support import weight_files
from support.errors import UserError
from support.weight_notes import Notes

SHORT = "TRAIN.epochs=1 TRAIN.iters_per_epoch=1 TRAIN.eval_during_train=false"
GENERATOR, CRITIC = "TRAIN.pretrained_gen_model_path", "TRAIN.pretrained_dis_model_path"


@pytest.fixture
def weights(make_toy, tmp_path):
    """Paths of weights of networks that are wider than those of `toy`, with notes, by key."""
    experiment = make_toy("MODEL.gen_net.dim=5 MODEL.dis_net.dim=6 DATA.mode=swissroll")
    notes, paths = Notes.of(experiment.cfg, "other points", ()), {}
    for key, network in zip((GENERATOR, CRITIC), experiment.make_networks()):
        paths[key] = f"{tmp_path}/{key}.pdparams"
        weight_files.save_weights(network, paths[key], notes)
    return paths


@pytest.fixture
def start(configure, monkeypatch, tmp_path):
    """Starts a training with overrides, and returns its run before the first step."""
    monkeypatch.setattr(wgangp_toy.Toy, "make_drawer", lambda *_: lambda path: None)
    runs = []

    def loop(run, *_):
        runs.append(run)

    monkeypatch.setattr("training.loop.train", loop)

    def call(*overrides):
        train(wgangp_toy.Toy(configure("toy", SHORT, *overrides)))
        return runs[-1]

    monkeypatch.setattr("training.records.final_figures", lambda journal: {})
    return call


def is_loaded(network, path):
    values = [value.numpy() for value in network.state_dict().values()]
    return all(np.array_equal(*pair) for pair in zip(values, load_arrays(path)))


@pytest.mark.parametrize("keys", [(GENERATOR,), (CRITIC,), (GENERATOR, CRITIC)])
def test_networks_start_from_weights_and_take_their_sizes(start, weights, keys):
    run = start(*(f"{key}={weights[key]}" for key in keys))
    generator, critic = run.generator.network, run.critic.network
    assert is_loaded(generator, weights[GENERATOR]) == (GENERATOR in keys)
    assert is_loaded(run.average.network, weights[GENERATOR]) == (GENERATOR in keys)
    assert is_loaded(critic, weights[CRITIC]) == (CRITIC in keys)
    model, data = run.settings.whole["MODEL"], run.settings.whole["DATA"]
    assert model["gen_net"]["dim"] == (5 if GENERATOR in keys else 128)
    assert model["dis_net"]["dim"] == (6 if CRITIC in keys else 128)
    assert data["mode"] == "8gaussians"  # A training has its own data.


def test_a_name_starts_a_training(start):
    run = start(f"{GENERATOR}=toy_8gaussians DATA.mode=25gaussians")
    path = f"{shipped_weights.FOLDER}/toy_8gaussians_generator.pdparams"
    assert is_loaded(run.generator.network, path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("MODEL.gen_net.dim=7", "MODEL.gen_net.dim=7 was given, but .* MODEL.gen_net.dim=5"),
        ("{critic}", "does not fit .*, and was not loaded. .*Do the weights belong to another"),
        ("nothing", "there is no file or folder nothing. Weights that ship with wgangp_toy.py: "),
    ],
)
def test_what_does_not_fit_is_refused(start, weights, overrides, message):
    words = f"{GENERATOR}={weights[GENERATOR]} {overrides}"
    if "=" not in overrides:
        words = f"{GENERATOR}={overrides.format(critic=weights[CRITIC])}"
    with pytest.raises(UserError, match=message) as error:
        start(words)
    assert GENERATOR in str(error.value) and "\n" not in str(error.value)


def test_networks_that_cannot_be_trained_are_refused(start, make_toy, tmp_path):
    network, _ = make_toy("mode=eval MODEL.arch=published").make_networks()
    paddle.save(network.state_dict(), f"{tmp_path}/published.pdparams")
    with pytest.raises(UserError, match="MODEL.arch=published is for mode=eval"):
        start(f"{GENERATOR}={tmp_path}/published")


def test_a_checkpoint_comes_before_weights(toy, weights, monkeypatch):
    lines = []
    monkeypatch.setattr(start_weights.logger, "info", lines.append)
    words = f"{GENERATOR}={weights[GENERATOR]} MODEL.gen_net.dim=5 TRAIN.eval_during_train=false"
    toy("run", words)
    assert "The generator starts from" in " ".join(lines)
    lines.clear()
    folder = toy("run", words, "TRAIN.epochs=4 TRAIN.resume=auto")
    assert f"{GENERATOR} has no effect: the training has a checkpoint." in lines
    assert "The generator starts from" not in " ".join(lines)
    assert read_records(folder)[-1]["step"] == 16


def test_other_classes_than_those_of_the_weights_are_logged(make_toy, weights, monkeypatch):
    warnings = []
    monkeypatch.setattr(start_weights.logger, "warning", warnings.append)
    experiment = make_toy("MODEL.gen_net.dim=5")
    networks = experiment.make_networks()
    notes = Notes.of(experiment.cfg, "", ("a", "b"))
    weight_files.save_weights(networks[0], weights[GENERATOR], notes)
    files = {"generator": weight_files.read_weights(weights[GENERATOR], GENERATOR, "generator")}
    for classes in (("a", "b"), ("b", "a"), ()):
        start_weights.load(files, *networks, classes, False)
    assert len(warnings) == 1 and "the classes a, b; here they are b, a." in warnings[0]
