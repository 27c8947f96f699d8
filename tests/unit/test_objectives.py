# SPDX-License-Identifier: Apache-2.0
"""The objectives: plain NumPy formulas, their optimisers, and clipping after each step."""

import json
import sys

import numpy as np
import paddle
import pytest
from PIL import Image

import toy_critics
import wgangp_mnist
import wgangp_toy
from data.image_set import ImageSet
from networks.normalisation import make_critic_norm
from support.errors import UserError
from training import adversarial
from training import objectives

TINY = ["MODEL.gen_net.dim=8", "MODEL.dis_net.dim=8", "TRAIN.batch_size=16"]
NAMES = ("wgan_gp", "wgan", "wgan_div", "gan")


def values(seed):
    return np.random.default_rng(seed).standard_normal(50) * 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_those_of_the_papers(name, configure):
    objective = objectives.make_objective(configure("toy", f"LOSS={name}"))
    real, fake, norm = values(0), values(1), np.abs(values(2))
    critic = float(objective.critic_term(paddle.to_tensor(real), paddle.to_tensor(fake)))
    generator = float(objective.generator_term(paddle.to_tensor(fake)))
    if name == "gan":
        expected = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
        assert critic == pytest.approx(expected, rel=1e-6)
        assert generator == pytest.approx(-np.log(sigmoid(fake)).mean(), rel=1e-6)
    else:
        assert critic == pytest.approx(fake.mean() - real.mean(), rel=1e-6)
        assert generator == pytest.approx(-fake.mean(), rel=1e-6)
    assert objective.clip == (0.01 if name == "wgan" else None)
    penalties = {"wgan_gp": (0.1, ((norm - 1) ** 2).mean()), "wgan_div": (2.0, (norm**6).mean())}
    if name in penalties:
        weight, penalty = penalties[name]
        assert objective.penalty_weight == weight
        found = float(objective.penalty(paddle.to_tensor(norm)))
        assert found == pytest.approx(penalty, rel=1e-6)
    else:
        assert objective.penalty is None


def test_large_logits_do_not_overflow():
    large = paddle.to_tensor([1e4, -1e4])
    assert float(objectives.gan_critic(large, large)) == pytest.approx(1e4)
    assert float(objectives.gan_generator(large)) == pytest.approx(5e3)


def solvers_of(cfg):
    generator, critic = wgangp_toy.make_networks(cfg)
    return adversarial.make_solvers(
        cfg, generator, critic, lambda rows, seed: wgangp_toy.real_points(cfg, rows, seed)
    )


@pytest.mark.parametrize(
    ("name", "kind", "rate"),
    [
        ("wgan_gp", "Adam", 1e-2),
        ("wgan", "RMSProp", 5e-5),
        ("wgan_div", "Adam", 2e-4),
        ("gan", "Momentum", 2e-4),
    ],
)
def test_each_brings_its_optimiser(name, kind, rate, configure):
    for solver in solvers_of(configure("toy", *TINY, f"LOSS={name}")):
        assert type(solver.optimizer).__name__ == kind
        assert solver.optimizer.get_lr() == pytest.approx(rate)
        if name == "wgan_div":
            assert (solver.optimizer._beta1, solver.optimizer._beta2) == (0.5, 0.999)
        if name == "gan":
            assert solver.optimizer._momentum == 0.9 and solver.epochs == 1


def test_the_papers_preset_is_the_authors_recipe(configure):
    cfg = configure("toy", "preset=paper")
    train = cfg.TRAIN
    assert (cfg.MODEL.gen_net.dim, cfg.MODEL.dis_net.dim) == (512, 512)
    assert (train.batch_size, train.generator_batch_factor, train.n_critic) == (256, 1, 5)
    assert (train.optimizer, train.learning_rate, train.lr_schedule) == ("Adam", 1e-4, "constant")
    assert (train.beta1, train.beta2, train.penalty_weight) == (0.5, 0.9, 0.1)
    assert not train.ema.use_ema
    assert train.epochs * train.iters_per_epoch == 100_000
    # an objective that is typed brings its own optimiser and steps
    train = configure("toy", "LOSS=gan", "preset=paper").TRAIN
    assert (train.optimizer, train.learning_rate, train.n_critic) == ("SGD", 2e-4, 1)
    assert train.batch_size == 256


def test_the_critics_optimiser_can_be_another(configure):
    overrides = ["LOSS=wgan", "TRAIN.critic_optimizer=SGD", "TRAIN.critic_learning_rate=0.1"]
    critic, generator = solvers_of(configure("toy", *TINY, *overrides))
    assert type(critic.optimizer).__name__ == "Momentum" and critic.optimizer.get_lr() == 0.1
    assert type(generator.optimizer).__name__ == "RMSProp"
    assert generator.optimizer.get_lr() == 5e-5


def test_rmsprop_is_tensorflows(configure):
    """w -= rate g / sqrt(0.9 r + 0.1 g^2 + 1e-10), on a network of one weight."""
    cfg = configure("toy", "LOSS=wgan")
    network = paddle.nn.Linear(1, 1, bias_attr=False)
    optimizer = adversarial.make_optimizer(cfg, network, "RMSProp", 0.5)
    weight, mean = float(network.weight), 0.0
    for gradient in (3.0, -1.0, 0.5):
        (gradient * network.weight.sum()).backward()
        optimizer.step()
        optimizer.clear_grad()
        mean = 0.9 * mean + 0.1 * gradient**2
        weight -= 0.5 * gradient / np.sqrt(mean + 1e-10)
        assert float(network.weight) == pytest.approx(weight, rel=1e-5)


def test_weights_are_clipped_after_each_critic_step(configure):
    cfg = configure("toy", *TINY, "LOSS=wgan")
    critic_solver, generator_solver = solvers_of(cfg)
    sizes, step = [], critic_solver.optimizer.step

    def watched():
        sizes.append(max(float(w.abs().max()) for w in critic_solver.model.parameters()))
        step()

    critic_solver.optimizer.step = watched
    adversarial.train_iteration(critic_solver, generator_solver, 1)
    # before the first step they are large, before each of the others they were cut
    assert len(sizes) == 5 and sizes[0] > 0.1
    assert max(sizes[1:]) <= 0.01 + 1e-9
    assert max(float(w.abs().max()) for w in critic_solver.model.parameters()) <= 0.01 + 1e-9
    assert max(float(w.abs().max()) for w in generator_solver.model.parameters()) > 0.1


def test_clipping_does_not_hide_what_is_not_finite(configure):
    critic_solver, _ = solvers_of(configure("toy", *TINY, "LOSS=wgan"))
    weight = critic_solver.model.parameters()[0]
    for lost in (np.inf, np.nan):
        weight.set_value(paddle.full_like(weight, lost))
        critic_solver.constraint["critic"].loss.after_step()
        assert bool(weight.isnan().all())


@pytest.mark.parametrize("name", NAMES)
def test_each_trains(name, configure, tmp_path):
    cfg = configure(
        *("toy", *TINY, f"LOSS={name}", "TRAIN.epochs=1", "TRAIN.iters_per_epoch=3"),
        *("TRAIN.eval_during_train=false", "log_freq=1"),
    )
    wgangp_toy.train(cfg)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    has_penalty = name in ("wgan_gp", "wgan_div")
    assert ("gradient_norm" in records[-1]) == has_penalty
    weight = {"wgan_gp": 0.1, "wgan_div": 2.0}.get(name, 0.0)
    loss = -records[-1]["wasserstein"] + weight * records[-1].get("gradient_penalty", 0.0)
    if name != "gan":
        assert records[-1]["critic_loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)


def test_batch_normalisation_with_a_penalty_draws_a_warning(configure, monkeypatch):
    said = []
    monkeypatch.setattr(adversarial.logger, "warning", said.append)
    tiny = ["DATA.source=digits", "MODEL.gen_net.dim=2", "MODEL.dis_net.dim=2"]
    images, labels = np.zeros((50, 1, 28, 28), "uint8"), np.zeros(50, "int64")
    data = ImageSet(images, labels, images, labels)

    def real(rows, seed):
        return wgangp_mnist.real_images(data, rows, seed)

    for loss, warns in (("wgan_gp", True), ("wgan_div", True), ("wgan", False), ("gan", False)):
        said.clear()
        cfg = configure("mnist", *tiny, "MODEL.dis_net.norm=batch", f"LOSS={loss}")
        adversarial.make_solvers(cfg, *wgangp_mnist.make_networks(cfg), real)
        assert any("ties samples together" in text for text in said) == warns
    with pytest.raises(UserError, match="choose null, layer or batch"):
        make_critic_norm("instance", 4)


def test_the_papers_toy_critics_as_a_command(run_script, tmp_path):
    sizes = ["--steps", "3", "--dim", "8", "--deep-dim", "4"]
    run_script("toy_critics", "--output", str(tmp_path), *sizes)
    numbers = json.loads((tmp_path / "toy_critics.json").read_text())
    assert set(numbers["gradients"]) == {
        *("clipping 0.1", "clipping 0.01", "clipping 0.001", "gradient penalty")
    }
    assert all(len(layers) == 11 for layers in numbers["gradients"].values())
    for name in ("toy_critics", "toy_gradients"):
        assert Image.open(tmp_path / f"{name}.png").size[0] > 500


def test_the_toy_critics_refuse_sizes_that_cannot_be(monkeypatch, capsys, tmp_path):
    arguments = ["toy_critics.py", "--output", str(tmp_path), "--steps", "0"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        toy_critics.main()
    assert stop.value.code == 2
    assert "--steps, --dim and --deep-dim must be at least 1" in capsys.readouterr().err
