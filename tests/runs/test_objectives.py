# SPDX-License-Identifier: Apache-2.0
"""Objectives: formulas in plain NumPy, their optimisers, and clipping after each step."""

import json
import sys

import numpy as np
import paddle
import pytest
from PIL import Image
from trainings import make_run
from trainings import read_records

import toy_critics
import wgangp_mnist
import wgangp_toy
from data.image_set import ImageSet
from modes.train import train
from networks.normalisation import make_critic_norm
from support.errors import UserError
from support.settings import CHOICES
from training import build
from training import objectives

TINY = "MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16"
NAMES = CHOICES["LOSS.name"]
PENALISED = ("wgan_gp", "wgan_lp", "wgan_div")


def values(seed):
    return np.random.default_rng(seed).standard_normal(50) * 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("name", NAMES)
def test_terms_equal_the_papers_formulas(name, configure):
    objective = objectives.make_objective(configure("toy", f"LOSS={name}").LOSS)
    real, fake, norm = values(0), values(1), np.abs(values(2))
    critic = float(objective.critic_term(paddle.to_tensor(real), paddle.to_tensor(fake)))
    generator = float(objective.generator_term(paddle.to_tensor(fake)))
    if name == "gan":
        expected = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
        assert critic == pytest.approx(expected, rel=1e-6)
        assert generator == pytest.approx(-np.log(sigmoid(fake)).mean(), rel=1e-6)
    elif name == "hinge":
        expected = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
        assert critic == pytest.approx(expected, rel=1e-6)
        assert generator == pytest.approx(-fake.mean(), rel=1e-6)
    else:
        assert critic == pytest.approx(fake.mean() - real.mean(), rel=1e-6)
        assert generator == pytest.approx(-fake.mean(), rel=1e-6)
    assert objective.clip == (0.01 if name == "wgan" else None)
    penalties = {
        "wgan_gp": (0.1, ((norm - 1) ** 2).mean()),
        "wgan_lp": (0.1, (np.maximum(norm - 1, 0) ** 2).mean()),
        "wgan_div": (2.0, (norm**6).mean()),
    }
    assert set(penalties) == set(PENALISED)
    if name in penalties:
        weight, penalty = penalties[name]
        assert objective.penalty_weight == weight
        found = float(objective.penalty(paddle.to_tensor(norm)))
        assert found == pytest.approx(penalty, rel=1e-6)
    else:
        assert objective.penalty is None


@pytest.mark.parametrize("name", ["wgan_gp", "wgan_div"])
def test_the_loss_of_a_scaled_critic_is_stationary_at_the_optimal_estimate(name, configure):
    objective = objectives.make_objective(configure("toy", f"LOSS={name}").LOSS)
    real, fake, norm = (paddle.to_tensor(values(seed)) for seed in range(3))
    norm = norm.abs()

    def loss(scale):
        term = objective.critic_term(scale * real, scale * fake)
        return float(term + objective.penalty_weight * objective.penalty(scale * norm))

    slope = (loss(1 + 1e-5) - loss(1 - 1e-5)) / 2e-5
    means = float(objective.penalty(norm)), float(norm.mean())
    optimal = objective.optimal_estimate(*means, objective.penalty_weight)
    assert slope == pytest.approx(optimal - float(real.mean() - fake.mean()), rel=1e-6)


def test_a_critic_whose_scale_is_fixed_has_no_balance(configure):
    for norm, has_balance in (("null", True), ("spectral", False)):
        run = toy_run(configure("toy", TINY, f"MODEL.dis_net.norm={norm}"))
        assert (run.critic.loss.objective.optimal_estimate is not None) == has_balance


def test_large_logits_do_not_overflow():
    large = paddle.to_tensor([1e4, -1e4])
    assert float(objectives.gan_critic(large, large)) == pytest.approx(1e4)
    assert float(objectives.gan_generator(large)) == pytest.approx(5e3)


def toy_run(cfg):
    return make_run(wgangp_toy.Toy(cfg))


@pytest.mark.parametrize(
    ("name", "kind", "rate"),
    [
        ("wgan_gp", "Adam", 1e-2),
        ("wgan_lp", "Adam", 1e-2),
        ("wgan", "RMSProp", 5e-5),
        ("wgan_div", "Adam", 2e-4),
        ("hinge", "Adam", 2e-4),
        ("gan", "Momentum", 2e-4),
    ],
)
def test_each_objective_sets_its_optimiser(name, kind, rate, configure):
    cfg = configure("toy", TINY, f"LOSS={name}")
    run = toy_run(cfg)
    for player in run.players:
        assert type(player.solver.optimizer).__name__ == kind
        assert player.rate == pytest.approx(rate)
    if name == "wgan_div":
        assert (cfg.TRAIN.beta1, cfg.TRAIN.beta2) == (0.5, 0.999)
    if name == "hinge":
        assert (cfg.TRAIN.beta1, cfg.TRAIN.beta2, run.critic.steps) == (0.0, 0.9, 5)
        assert cfg.MODEL.dis_net.norm == "spectral"
    if name == "gan":
        assert cfg.TRAIN.momentum == 0.9 and run.critic.steps == 1


def test_the_preset_authors_is_the_authors_recipe(configure):
    cfg = configure("toy", "preset=authors")
    train = cfg.TRAIN
    assert (cfg.MODEL.gen_net.dim, cfg.MODEL.dis_net.dim) == (512, 512)
    assert (train.batch_size, train.generator_batch_factor, train.n_critic) == (256, 1, 5)
    assert (train.optimizer, train.learning_rate, train.lr_schedule) == ("Adam", 1e-4, "constant")
    assert (train.beta1, train.beta2, cfg.LOSS.penalty_weight) == (0.5, 0.9, 0.1)
    assert not train.ema.use_ema
    assert train.epochs * train.iters_per_epoch == 100_000
    # LOSS= on the command line sets its own optimiser and steps.
    train = configure("toy", "LOSS=gan", "preset=authors").TRAIN
    assert (train.optimizer, train.learning_rate, train.n_critic) == ("SGD", 2e-4, 1)
    assert train.batch_size == 256


def test_the_critics_optimiser_can_be_another(configure):
    own = "TRAIN.critic_optimizer=SGD TRAIN.critic_learning_rate=0.1"
    run = toy_run(configure("toy", TINY, "LOSS=wgan", own))
    kinds = [type(player.solver.optimizer).__name__ for player in run.players]
    assert kinds == ["Momentum", "RMSProp"]
    assert [player.rate for player in run.players] == [0.1, 5e-5]


def largest(network):
    return max(float(weight.abs().max()) for weight in network.parameters())


def test_weights_are_clipped_after_each_critic_step(configure):
    run = toy_run(configure("toy", TINY, "LOSS=wgan"))
    sizes, step = [], run.critic.solver.optimizer.step

    def watched():
        sizes.append(largest(run.critic.network))
        step()

    run.critic.solver.optimizer.step = watched
    run.step()
    # Weights are large before the first step, and clipped before each of the others.
    assert len(sizes) == 5 and sizes[0] > 0.1
    assert max(sizes[1:]) <= 0.01 + 1e-9
    assert largest(run.critic.network) <= 0.01 + 1e-9
    assert largest(run.generator.network) > 0.1


def test_clipping_keeps_values_that_are_not_finite(configure):
    run = toy_run(configure("toy", TINY, "LOSS=wgan"))
    weight = run.critic.network.parameters()[0]
    for lost in (np.inf, np.nan):
        weight.set_value(paddle.full_like(weight, lost))
        run.critic.loss.after_step()
        assert bool(weight.isnan().all())


@pytest.mark.parametrize("name", NAMES)
def test_each_objective_trains(name, configure, tmp_path):
    length = "TRAIN.epochs=1 TRAIN.iters_per_epoch=3 TRAIN.eval_during_train=false log_freq=1"
    train(wgangp_toy.Toy(configure("toy", TINY, f"LOSS={name}", length)))
    last = read_records(tmp_path)[-1]
    assert ("gradient_norm" in last) == (name in PENALISED)
    weight = {"wgan_gp": 0.1, "wgan_lp": 0.1, "wgan_div": 2.0}.get(name, 0.0)
    loss = -last["wasserstein"] + weight * last.get("gradient_penalty", 0.0)
    if name == "hinge":  # Fresh values are small, so that the hinges are open.
        assert last["critic_loss"] == pytest.approx(2 - last["wasserstein"], rel=1e-5)
    elif name != "gan":
        assert last["critic_loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)


def test_batch_normalisation_with_a_penalty_is_warned_about(configure, monkeypatch):
    logged = []
    monkeypatch.setattr(build.logger, "warning", logged.append)
    tiny = "DATA.source=digits MODEL.gen_net.dim=2 MODEL.dis_net.dim=2 MODEL.dis_net.norm=batch"
    images, labels = np.zeros((50, 1, 28, 28), "uint8"), np.zeros(50, "int64")
    data = ImageSet(images, labels, images, labels)
    for loss in NAMES:
        logged.clear()
        make_run(wgangp_mnist.Mnist(configure("mnist", tiny, f"LOSS={loss}")), data)
        warns = loss in PENALISED
        assert any("ties samples together" in text for text in logged) == warns
    with pytest.raises(UserError, match="choose null, layer, batch or spectral"):
        make_critic_norm("instance", 4)


def test_toy_critics_write_figures_and_pictures(run_script, tmp_path):
    run_script("toy_critics", f"--output {tmp_path} --steps 3 --dim 8 --deep-dim 4")
    numbers = json.loads((tmp_path / "toy_critics.json").read_text())
    assert set(numbers["gradients"]) == {
        *("clipping 0.1", "clipping 0.01", "clipping 0.001", "gradient penalty")
    }
    assert all(len(layers) == 11 for layers in numbers["gradients"].values())
    for name in ("toy_critics", "toy_gradients"):
        assert Image.open(tmp_path / f"{name}.png").size[0] > 500


def test_toy_critics_refuse_sizes_below_1(monkeypatch, capsys, tmp_path):
    arguments = ["toy_critics.py", "--output", str(tmp_path), "--steps", "0"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        toy_critics.main()
    assert stop.value.code == 2
    assert "--steps, --dim and --deep-dim must be at least 1" in capsys.readouterr().err
