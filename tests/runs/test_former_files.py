# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and weights of former code (commit 6cd954e) stay readable.

The files in tests/golden/former were written by that code with

    python wgangp_toy.py MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16
        TRAIN.epochs=2 TRAIN.iters_per_epoch=4 log_freq=1 TRAIN.eval_freq=1
        TRAIN.eval_num_samples=50 TRAIN.penalty_weight=0.3
        TRAIN.penalty_gradient=double_backward
    python wgangp_cifar10.py DATA.source=synthetic EVAL.inception=false MODEL.gen_net.dim=2
        MODEL.dis_net.dim=2 TRAIN.batch_size=4 TRAIN.epochs=1 TRAIN.iters_per_epoch=1

settings.json has the settings of each script there, by their keys, as that code composed them.
The files records_*.jsonl there are the metrics.jsonl that the former code wrote with the settings
in `RECORDS`.
"""

import json

import numpy as np
import pytest
from helpers import GOLDEN
from ppsci.utils import misc
from trainings import load_arrays
from trainings import read_records

import wgangp_cifar10
import wgangp_image64
import wgangp_mnist
import wgangp_toy
from data import image_folder
from data.classes import hold_out
from measures import validators
from modes.evaluate import read_files
from modes.recognition import ROLES
from modes.recognition import adopt_settings
from modes.recognition import load_all
from modes.train import train
from support.settings import flatten
from support.settings import flatten_current
from support.settings import load_defaults
from training import checkpoints
from training import resume

FORMER = GOLDEN / "former"
TOY = (
    "MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16 TRAIN.epochs=2 "
    "TRAIN.iters_per_epoch=4 log_freq=1 TRAIN.eval_freq=1 TRAIN.eval_num_samples=50 "
    "LOSS.penalty_weight=0.3 LOSS.penalty_gradient=double_backward"
)


def test_a_former_checkpoint_resumes_and_ends_as_it_did(configure, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(resume.logger, "warning", warnings.append)
    path = FORMER / "toy_iteration_4.npz"
    train(wgangp_toy.Toy(configure("toy", TOY, f"TRAIN.resume={path} seed=42")))
    # The suite knows the former names of moved keys, so no setting counts as changed.
    assert not any("LOSS." in text or "TRAIN." in text for text in warnings)
    for name in ("model_average_generator", "model_generator", "model_discriminator"):
        found = load_arrays(tmp_path / f"{name}.pdparams")
        expected = load_arrays(FORMER / f"toy_{name}.pdparams")
        assert len(found) == len(expected) == 8
        for one, other in zip(found, expected):
            # Another machine may round products in another way.
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    former = (FORMER / "toy_metrics.jsonl").read_text().splitlines()
    records = read_records(tmp_path)
    assert len(records) == len(former)
    for found, line in zip(records, former):
        expected = json.loads(line)
        new = {"critic_balance", "wasserstein_1"}  # Former code did not have these figures.
        assert set(found) - new == set(expected)
        for name in ("wasserstein", "critic_loss", "generator_loss", "gradient_norm"):
            assert found[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("script", ["toy", "mnist", "cifar10", "image64"])
def test_settings_that_came_later_do_not_stop_a_former_training(script):
    """A key that the former code did not have counts as one of other networks, or warns."""
    former = flatten_current(json.loads((FORMER / "settings.json").read_text())[script])
    present = flatten(load_defaults(f"wgangp_{script}"))
    later = {key for key, value in present.items() if key not in former and value is not None}
    assert [key for key in later if not key.startswith(resume.HARMLESS_KEYS)] == []
    assert not later & set(checkpoints.MEASURE_KEYS)


def test_a_former_checkpoint_knows_its_best_iteration():
    """Former code wrote it into the records only."""
    checkpoint = checkpoints.read(str(FORMER / "toy_iteration_4.npz"))
    assert checkpoint.contents["best"] is not None
    assert checkpoint.contents["best_iteration"] == 4


def test_a_former_checkpoint_of_other_settings_is_named_by_present_keys(
    configure, tmp_path, monkeypatch
):
    warnings = []
    monkeypatch.setattr(resume.logger, "warning", warnings.append)
    settings = f"TRAIN.resume={FORMER}/toy_iteration_4.npz LOSS.penalty_weight=0.5 TRAIN.epochs=1"
    train(wgangp_toy.Toy(configure("toy", TOY, settings)))
    assert "LOSS.penalty_weight was 0.3 and is 0.5" in warnings[0]


def test_former_weights_load_without_any_setting(configure):
    for experiment, name in (
        (wgangp_toy.Toy(configure("toy")), "toy"),
        (wgangp_cifar10.Cifar10(configure("cifar10")), "cifar10"),
    ):
        settings = experiment.cfg.EVAL
        settings.pretrained_gen_model_path = str(FORMER / f"{name}_model_generator")
        settings.pretrained_dis_model_path = str(FORMER / f"{name}_model_discriminator")
        files = read_files(settings, experiment.script)
        adopt_settings(experiment, files)
        networks = dict(zip(ROLES, experiment.make_networks()))
        load_all(files, networks)
        for role, network in networks.items():
            expected = load_arrays(FORMER / f"{name}_model_{role}.pdparams")
            expected = [array for array in expected if not isinstance(array, dict)]
            found = [value.numpy() for value in network.state_dict().values()]
            assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]


SHORT = (
    "TRAIN.epochs=2 TRAIN.iters_per_epoch=3 log_freq=1 TRAIN.eval_freq=1 "
    "TRAIN.eval_num_samples=60 TRAIN.batch_size=8 MODEL.gen_net.dim={0} MODEL.dis_net.dim={0}"
)
RECORDS = {
    "toy": (wgangp_toy.Toy, "toy", f"{SHORT.format(16)} TRAIN.batch_size=32"),
    "mnist": (wgangp_mnist.Mnist, "mnist", f"{SHORT.format(4)} DATA.source=digits"),
    "cifaru": (
        wgangp_cifar10.Cifar10,
        "cifar10",
        f"{SHORT.format(4)} DATA.source=synthetic MODEL.use_label=false EVAL.inception=false "
        "MODEL.gen_net.batch_norm_statistics=running MODEL.gen_net.batch_norm_groups=1 "
        "TRAIN.ema.use_ema=true",
    ),
    "dcgan": (
        wgangp_image64.Image64,
        "image64",
        f"{SHORT.format(2)} MODEL.use_label=true DATA.crop=true DATA.flip=true DATA.jitter=0.1 "
        "EVAL.inception=false",
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_each_script_records_what_former_code_recorded(
    name, configure, shared, tmp_path, monkeypatch
):
    make_experiment, script, settings = RECORDS[name]
    # The former choice of test pictures: the first ones, and of a folder without regard to classes.
    monkeypatch.setattr(
        validators, "draw_test_rows", lambda size, count, _: np.arange(size)[:count]
    )
    monkeypatch.setattr(image_folder, "hold_out", lambda x: hold_out(np.zeros_like(x)))
    if name == "dcgan":
        settings += f" DATA.data_path={shared('emoji64.tar')} DATA.label_distribution=uniform"
    misc.set_random_seed(42)  # as a script's start does
    train(make_experiment(configure(script, settings)))
    former = (FORMER / f"records_{name}.jsonl").read_text().splitlines()
    found = read_records(tmp_path)
    assert len(found) == len(former) == 6
    for record, line in zip(found, former):
        expected = json.loads(line)
        assert set(record) - {"critic_balance", "wasserstein_1"} == set(expected)
        for figure in set(expected) - {"seconds", "evaluated", "best"}:
            # On the machine that wrote them, they are equal bit for bit.
            # Rounding may move a picture or two of 60 to another class.
            most = 2.5 / 60 if "accuracy" in figure else 2e-3
            assert record[figure] == pytest.approx(expected[figure], rel=5e-3, abs=most), figure
