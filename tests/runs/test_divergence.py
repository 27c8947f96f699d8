# SPDX-License-Identifier: Apache-2.0
"""Divergence: a training that meets NaN or infinity stops with its values, or rolls back."""

import numpy as np
import paddle
import pytest
import stress
from trainings import after_steps
from trainings import make_run
from trainings import read_records

from pages import page
from support.errors import UserError
from training import checkpoints

NO_EVALUATION = "TRAIN.eval_during_train=false"


def spoil_network(network, value):
    network.parameters()[0].set_value(paddle.full_like(network.parameters()[0], value))


def spoil_optimizer(player, value):
    for tensor in player.solver.optimizer.state_dict().values():
        if isinstance(tensor, paddle.Tensor):
            tensor.set_value(paddle.full_like(tensor, value))
            return


def spoil_figure(player, name, position, value):
    player.loss.figures[name][position] = paddle.to_tensor(value)


def spoil_loss(player, position, value):
    spoil_figure(player, f"{player.name}_loss", position, value)


PARTS = {
    "critic": lambda run, value: spoil_network(run.critic.network, value),
    "generator": lambda run, value: spoil_network(run.generator.network, value),
    "average": lambda run, value: spoil_network(run.average.network, value),
    "critic's optimiser": lambda run, value: spoil_optimizer(run.critic, value),
    "generator's optimiser": lambda run, value: spoil_optimizer(run.generator, value),
    # That of the original GAN may be infinite where its loss, softplus(-inf), is 0.
    "estimate": lambda run, value: spoil_figure(run.critic, "wasserstein", -1, value),
    "first critic loss": lambda run, value: spoil_loss(run.critic, -5, value),
    "last critic loss": lambda run, value: spoil_loss(run.critic, -1, value),
    "generator's loss": lambda run, value: spoil_loss(run.generator, -1, value),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", PARTS)
def test_any_part_that_is_not_finite_is_a_divergence(part, value, make_toy):
    run = make_run(make_toy("TRAIN.ema.use_ema=true"))
    run.seek()
    for _ in range(2):
        run.step()
    assert run.agree(0) == (False, False)
    spoil_loss(run.critic, -6, value)  # This loss belongs to the iteration before.
    assert run.agree(1) == (False, True)
    PARTS[part](run, value)
    assert run.agree(0) == (True, False)


def poison(monkeypatch, iteration, times):
    """Makes a weight of the generator NaN in an iteration, the first few times it is done."""
    poisoned = []

    def set_nan(run):
        if run.iteration == iteration and len(poisoned) < times:
            poisoned.append(run.iteration)
            weight = run.generator.network.parameters()[0]
            weight.set_value(weight * float("nan"))

    after_steps(monkeypatch, set_nan)
    return poisoned


def test_a_diverged_training_names_step_values_and_checkpoint(toy, monkeypatch, tmp_path):
    poison(monkeypatch, 6, 1)
    pages = []
    monkeypatch.setattr(page, "write_or_warn", pages.append)
    with pytest.raises(UserError, match="diverged in iteration 6, .*weights of the generator") as e:
        toy("run", "TRAIN.save_freq=1")
    path = tmp_path / "run" / "checkpoints" / "iteration_04.npz"
    assert str(path) in str(e.value) and "TRAIN.on_nan=roll_back" in str(e.value)
    for array in checkpoints.read(str(path)).arrays.values():
        assert np.isfinite(array).all()
    assert not (tmp_path / "run" / "model_generator.pdparams").exists()
    assert pages == [str(tmp_path / "run")]
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_rate_too_large_diverges_in_its_first_iteration(toy, monkeypatch, tmp_path):
    pages = []
    monkeypatch.setattr(page, "write_or_warn", pages.append)
    with pytest.raises(UserError, match="diverged in iteration 1, .*_loss is .*no checkpoint yet"):
        toy("run", "TRAIN.learning_rate=1e30 TRAIN.on_nan=stop")
    assert not list((tmp_path / "run").rglob("*.pdparams"))
    assert not pages  # There is nothing to show.


def test_the_critics_own_rate_is_named(toy):
    settings = "TRAIN.critic_learning_rate=1e30 TRAIN.learning_rate=1e-4"
    with pytest.raises(UserError, match="rate of 0.0001 .critic: 1e.30.: ") as error:
        toy("run", settings, NO_EVALUATION)
    assert "Try a smaller TRAIN.learning_rate or TRAIN.critic_learning_rate" in str(error.value)


def test_an_optimiser_that_overflows_ends_the_training(toy, tmp_path):
    """Gradients whose squares overflow leave weights and losses finite, but not Adam."""
    with pytest.raises(UserError, match="gradients were too large: tensors of the critic's opt"):
        toy("run", "LOSS.penalty_weight=1e30")
    assert not checkpoints.list_newest_first(str(tmp_path / "run" / "checkpoints"))


def test_a_training_that_may_roll_back_saves_its_first_iteration(toy):
    for on_nan, name in (("stop", "iteration_4.npz"), ("roll_back", "iteration_1.npz")):
        folder = toy(on_nan, NO_EVALUATION, f"TRAIN.epochs=1 TRAIN.on_nan={on_nan}")
        assert min(path.name for path in (folder / "checkpoints").iterdir()) == name


def test_a_rollback_continues_with_other_draws(toy, monkeypatch):
    with monkeypatch.context() as patch:
        poisoned = poison(patch, 6, 2)
        rolled_back = toy("run", NO_EVALUATION, "TRAIN.on_nan=roll_back")
    assert len(poisoned) == 2
    steps = [record["step"] for record in read_records(rolled_back)]
    assert steps == [1, 3, 4, 6, 8, 9, 12]
    newest = checkpoints.list_newest_first(str(rolled_back / "checkpoints"))[0]
    assert checkpoints.read(newest).contents["rollbacks"] == 2
    expected_weights, expected = stress.outcome(toy("uninterrupted", NO_EVALUATION))
    weights, records = stress.outcome(rolled_back)
    # Both are the same up to the checkpoint of iteration 4; from there on, draws differ.
    assert records[:3] == expected[:3] and records[3:] != expected[3:]
    assert weights != expected_weights


def test_a_rollback_removes_later_records(toy, monkeypatch):
    poison(monkeypatch, 6, 1)
    folder = toy("run", NO_EVALUATION, "TRAIN.on_nan=roll_back log_freq=1")
    assert [record["step"] for record in read_records(folder)] == list(range(1, 13))


def test_a_stopped_training_keeps_its_rollbacks(toy, monkeypatch):
    """Draws depend on their number, so the rest of the training does, too."""
    settings = f"{NO_EVALUATION} TRAIN.on_nan=roll_back"
    with monkeypatch.context() as patch:
        poison(patch, 6, 1)
        uninterrupted = toy("uninterrupted", settings)
    with monkeypatch.context() as patch:
        poison(patch, 6, 1)
        with pytest.raises(SystemExit):
            toy("stopped", settings, stop=9)
    folder = toy("stopped", settings, "TRAIN.resume=auto")
    assert stress.outcome(folder) == stress.outcome(uninterrupted)


@pytest.mark.parametrize(("iteration", "attempts"), [(1, 3), (6, 3)])
def test_rollbacks_are_limited(toy, monkeypatch, iteration, attempts):
    poisoned = poison(monkeypatch, iteration, 100)
    with pytest.raises(UserError, match="was rolled back . times before"):
        toy("run", "TRAIN.on_nan=roll_back TRAIN.max_rollbacks=2")
    assert len(poisoned) == attempts
