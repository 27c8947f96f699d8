# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and weights of former code (commit 6cd954e) stay readable.

The files in tests/golden/former were written by that code with

    python wgangp_toy.py MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16
        TRAIN.epochs=2 TRAIN.iters_per_epoch=4 log_freq=1 TRAIN.eval_freq=1
        TRAIN.eval_num_samples=50 TRAIN.penalty_weight=0.3
        TRAIN.penalty_gradient=double_backward
    python wgangp_cifar10.py DATA.source=synthetic EVAL.inception=false MODEL.gen_net.dim=2
        MODEL.dis_net.dim=2 TRAIN.batch_size=4 TRAIN.epochs=1 TRAIN.iters_per_epoch=1
"""

import json

import numpy as np
import pytest
from helpers import GOLDEN
from trainings import load_arrays
from trainings import read_records

import wgangp_cifar10
import wgangp_toy
from modes.evaluate import load_networks
from modes.train import train
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
    for found, line in zip(read_records(tmp_path), former):
        expected = json.loads(line)
        assert set(found) == set(expected)
        for name in ("wasserstein", "critic_loss", "generator_loss", "gradient_norm"):
            assert found[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-4)


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


def test_former_weights_load(configure):
    for experiment, name in (
        (wgangp_toy.Toy(configure("toy", TOY)), "toy"),
        (
            wgangp_cifar10.Cifar10(configure("cifar10", "MODEL.gen_net.dim=2 MODEL.dis_net.dim=2")),
            "cifar10",
        ),
    ):
        settings = experiment.cfg.EVAL
        settings.pretrained_gen_model_path = str(FORMER / f"{name}_model_generator")
        settings.pretrained_dis_model_path = str(FORMER / f"{name}_model_discriminator")
        networks = experiment.make_networks()
        assert load_networks(settings, *networks)[0] is networks[1]
        for network, role in zip(networks, ("generator", "discriminator")):
            expected = load_arrays(FORMER / f"{name}_model_{role}.pdparams")
            expected = [array for array in expected if not isinstance(array, dict)]
            found = [value.numpy() for value in network.state_dict().values()]
            assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]
