# SPDX-License-Identifier: Apache-2.0
"""Both players: gradients of each phase, batches, schedules, and separation of the networks."""

import numpy as np
import paddle
import pytest
from trainings import CIFAR10
from trainings import TOY
from trainings import make_run

import functions
import wgangp_cifar10
import wgangp_toy
from data import synthetic
from kernels import availability
from kernels import maps
from networks.normalisation import use_groups


def toy_run(cfg):
    return make_run(wgangp_toy.Toy(cfg))


def cifar10_run(cfg):
    return make_run(wgangp_cifar10.Cifar10(cfg), synthetic.synthetic_set(train=20, test=5))


CASES = {
    "toy": ("toy", toy_run, TOY),
    "conditional": ("cifar10", cifar10_run, f"{CIFAR10} MODEL.use_label=true"),
    "unconditional": ("cifar10", cifar10_run, f"{CIFAR10} MODEL.use_label=false"),
}
WITH_PROJECTION = ("cifar10", cifar10_run, f"{CIFAR10} MODEL.dis_net.projection=true")


@pytest.fixture(params=CASES)
def run(request, configure):
    name, make, overrides = CASES.get(request.param, WITH_PROJECTION)
    return make(configure(name, overrides, "TRAIN.epochs=1"))


def gradients(network):
    return {
        name: None if weight.grad is None else weight.grad.numpy().copy()
        for name, weight in network.named_parameters()
    }


def watch_steps(player, watch):
    """Calls a function before each step of a player's optimiser."""
    step = player.solver.optimizer.step

    def watched():
        watch()
        step()

    player.solver.optimizer.step = watched


def read_batch(player, number, size):
    """Batch `number` of a player's data, read from its streams."""
    positions = list(range(number * size, (number + 1) * size))
    return {key: paddle.to_tensor(stream[positions]) for key, stream in player.inputs.items()}


def critic_objective(critic, data, fake, weight):
    """The critic's loss in plain Paddle."""
    value_real, logits = critic.judge(data["real"], data.get("labels"))
    value_fake, _ = critic.judge(fake, data.get("labels"))
    shape = [-1] + [1] * (fake.ndim - 1)
    mixed = data["real"] + data["alpha"].reshape(shape) * (fake - data["real"])
    mixed.stop_gradient = False
    with maps.twice_differentiable():
        value, _ = critic.judge(mixed, data.get("labels"))
        (slope,) = paddle.grad(value.sum(), mixed, create_graph=True)
    norm = slope.square().sum(list(range(1, slope.ndim))).sqrt()
    loss = value_fake.mean() - value_real.mean() + weight * ((norm - 1) ** 2).mean()
    if logits is not None:
        loss += paddle.nn.functional.cross_entropy(logits, data["labels"])
    return loss


def generator_objective(generator, critic, data):
    """The generator's loss in plain Paddle."""
    value, logits = critic.judge(generator(data)["fake"], data.get("labels"))
    loss = -value.mean()
    if logits is not None:
        loss += 0.1 * paddle.nn.functional.cross_entropy(logits, data["labels"])
    return loss


@pytest.mark.parametrize("run", [*CASES, "projection"], indirect=True)
def test_every_step_uses_the_gradients_of_a_clean_computation(run, monkeypatch):
    """Plain Paddle computes them from the same weights and batches; phases share nothing."""
    critic, generator = run.critic.network, run.generator.network
    logged, weights = [], []

    def log(network):
        states = [part.state_dict() for part in (critic, generator)]
        weights.append([{k: v.numpy().copy() for k, v in s.items()} for s in states])
        logged.append(gradients(network))

    watch_steps(run.critic, lambda: log(critic))
    watch_steps(run.generator, lambda: log(generator))
    toy = isinstance(critic, functions.WganGpToyDiscriminator)
    critic_size, generator_size = (16, 16) if toy else (2, 4)
    for _ in range(2):
        run.step()
    assert len(logged) == 12
    monkeypatch.setattr(availability, "is_available", lambda: False)  # Paddle's operators from here

    # An iteration has five steps of the critic and one of the generator.
    for number, (critic_state, generator_state) in enumerate(weights):
        iteration, phase = divmod(number, 6)
        critic.set_state_dict(critic_state)
        generator.set_state_dict(generator_state)
        for network in (critic, generator):
            network.clear_gradients()
        if phase < 5:
            data = read_batch(run.critic, iteration * 5 + phase, critic_size)
            with paddle.no_grad():
                fake = generator(data)["fake"]
            loss = critic_objective(critic, data, fake, 0.1 if toy else 10.0)
        else:
            data = read_batch(run.generator, iteration, generator_size)
            assert len(data["noise"]) == generator_size
            loss = generator_objective(generator, critic, data)
        loss.backward()
        clean = gradients(critic if phase < 5 else generator)
        assert set(clean) == set(logged[number])
        largest = max(np.abs(part).max() for part in clean.values() if part is not None)
        for name, expected in clean.items():
            found = logged[number][name]
            assert (expected is None) == (found is None), name
            if expected is not None:
                # A bias before batch normalisation has gradient 0, but for rounding.
                scale = max(np.abs(expected).max(), 1e-3 * largest)
                np.testing.assert_allclose(found / scale, expected / scale, atol=2e-3, err_msg=name)


def test_convolutional_networks_repeat_themselves_bit_for_bit(configure):
    def train():
        paddle.seed(3)
        overrides = "MODEL.gen_net.dim=16 MODEL.dis_net.dim=16 TRAIN.batch_size=8"
        run = cifar10_run(configure("cifar10", overrides))
        for _ in range(2):
            run.step()
        return [w.numpy().tobytes() for network in run.networks for w in network.parameters()]

    assert train() == train()


def test_a_phase_changes_no_gradients_of_the_other_network(run):
    critic, generator = run.critic.network, run.generator.network
    during = {"critic": [], "generator": []}
    watch_steps(run.critic, lambda: during["critic"].append(gradients(generator)))
    watch_steps(run.generator, lambda: during["generator"].append(gradients(critic)))
    run.step()
    assert len(during["critic"]) == 5 and len(during["generator"]) == 1
    for other in during["critic"] + during["generator"]:
        assert all(value is None or not value.any() for value in other.values())
    # After the steps, both are trainable again.
    assert not any(w.stop_gradient for w in (*critic.parameters(), *generator.parameters()))


def test_the_critic_is_thawed_after_a_step_that_fails(run):
    def fail():
        raise MemoryError("no room")

    watch_steps(run.generator, fail)
    with pytest.raises(MemoryError, match="no room"):
        run.step()
    assert not any(weight.stop_gradient for weight in run.critic.network.parameters())


def test_critic_steps_build_no_graph_through_the_generator(run):
    drawn, generate = [], run.generator.network.generate

    def watched(*inputs):
        drawn.append(generate(*inputs))
        return drawn[-1]

    run.generator.network.generate = watched
    run.step()
    assert [fake.stop_gradient for fake in drawn] == [True] * 5 + [False]


def test_labels_are_read_only_where_they_are_used(run):
    conditional = "labels" in run.generator.network.input_keys
    for player in run.players:
        assert ("labels" in player.inputs) == conditional


@pytest.mark.parametrize("factor", (1, 2, 3))
def test_the_generators_batch_is_a_multiple_of_the_critics(configure, factor):
    batch = "" if factor == 2 else f"TRAIN.generator_batch_factor={factor}"  # 2 by default
    run = cifar10_run(configure("cifar10", CIFAR10, batch, "TRAIN.epochs=1"))
    sizes = []
    for player in run.players:
        inputs, _, _ = next(iter(player.constraint.data_loader))
        sizes.append({len(array) for array in inputs.values()})
    assert sizes == [{2}, {2 * factor}]


def test_meters_do_not_grow_with_the_iterations(run):
    for _ in range(3):
        run.step()
    for player in run.players:
        solver = player.solver
        meters = [solver.train_output_info, solver.train_loss_info, solver.train_time_info]
        assert meters[0] and meters[1]
        assert not any(meter.history for kind in meters for meter in kind.values())


def test_both_networks_move(run):
    before = [[w.numpy().copy() for w in p.network.parameters()] for p in run.players]
    run.step()
    for player, start in zip(run.players, before):
        weights = player.network.parameters()
        moved = [np.abs(w.numpy() - old).max() for w, old in zip(weights, start)]
        # The bias of the critic's value cancels in differences, so its gradient is 0.
        assert sum(change > 0 for change in moved) >= len(moved) - 1


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
    ],
)
def test_the_rate_falls_over_the_runs_own_length(configure, schedule, shares):
    """All steps of an iteration have one rate; the authors' generator has the next one's."""
    length = f"TRAIN.epochs=2 TRAIN.iters_per_epoch=2 TRAIN.lr_schedule={schedule}"
    run = toy_run(configure("toy", TOY, length))
    rates, used = [[player.rate for player in run.players]], {"critic": [], "generator": []}
    for player in run.players:
        watch_steps(player, lambda player=player: used[player.name].append(player.rate))
    for _ in range(4):
        run.step()
        rates.append([player.rate for player in run.players])
    expected = 1e-4 * np.array(shares)
    np.testing.assert_allclose(rates, np.stack([expected, expected], 1), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(used["generator"], expected[:4], rtol=1e-6)
    np.testing.assert_allclose(used["critic"], np.repeat(expected[:4], 5), rtol=1e-6)


def test_the_check_leaves_out_the_powers_of_adams_betas(configure):
    """Each of them would be copied to a GPU in each iteration."""
    run = toy_run(configure("toy", TOY))
    run.step()
    player = run.critic
    state = player.solver.optimizer.state_dict()
    names = [n for n, v in state.items() if isinstance(v, paddle.Tensor) and "_pow_acc" not in n]
    weights = player.network.state_dict()
    assert len(names) == 2 * len(weights) < len(state) - len(weights)
    figures = 2 * player.batches  # losses and estimates
    assert len(player.sums()) == len(weights) + len(names) + figures


def test_fakes_are_normalised_in_groups(configure):
    """In the steps of both networks, as the authors' generator runs on halves of each batch."""
    run = cifar10_run(configure("cifar10", CIFAR10))
    run.step()
    generator = run.generator.network
    inputs = {"noise": paddle.randn([8, 128]), "labels": paddle.randint(0, 10, [8])}
    found = run.critic.constraint.output_expr["fake"](inputs), generator(inputs)["fake"]
    use_groups(generator, 1)
    halves = paddle.empty([8, 3, 32, 32])
    for start in range(2):
        part = {key: values[start::2] for key, values in inputs.items()}
        halves[start::2] = generator(part)["fake"].detach()
    for fakes in found:
        np.testing.assert_allclose(fakes.numpy(), halves.numpy(), atol=1e-5)
    assert float((generator(inputs)["fake"] - halves).abs().max()) > 1e-2


def test_a_reading_error_ends_the_step(configure):
    """A second failure raises its own error, not the first one's."""
    run = toy_run(configure("toy", TOY))
    draw = run.critic.inputs["real"].draw
    for error in (MemoryError("no room for a batch"), OSError("the disk is gone")):

        def fail(*_, error=error):
            raise error

        run.critic.inputs["real"].draw = fail
        run.seek()
        with pytest.raises(type(error), match=str(error)):
            run.step()
        run.critic.inputs["real"].draw = draw
        run.seek()
        run.step()
