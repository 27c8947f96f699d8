# SPDX-License-Identifier: Apache-2.0
"""The loop: clean gradients in both phases, schedules, and the same run from the same seed."""

import json

import numpy as np
import paddle
import pytest

import functions
import wgangp_cifar10
import wgangp_toy
from data import synthetic
from kernels import maps
from measures import evaluation
from measures import sampling
from support.errors import UserError
from training import adversarial
from training import checkpoints

TINY = {
    "toy": ["preset=paper", "MODEL.gen_net.dim=8", "MODEL.dis_net.dim=8", "TRAIN.batch_size=16"],
    "cifar10": ["MODEL.gen_net.dim=4", "MODEL.dis_net.dim=4", "TRAIN.batch_size=2"],
}


def toy_solvers(cfg):
    generator, critic = wgangp_toy.make_networks(cfg)
    return adversarial.make_solvers(
        cfg, generator, critic, lambda length, seed: wgangp_toy.real_points(cfg, length, seed)
    )


def cifar10_solvers(cfg):
    generator, critic = wgangp_cifar10.make_networks(cfg)
    data = synthetic.synthetic_set(train=20, test=5)
    return adversarial.make_solvers(
        cfg,
        generator,
        critic,
        lambda length, seed: wgangp_cifar10.real_images(data, length, seed),
    )


CASES = {
    "toy": ("toy", toy_solvers, []),
    "conditional": ("cifar10", cifar10_solvers, ["MODEL.use_label=true"]),
    "unconditional": ("cifar10", cifar10_solvers, ["MODEL.use_label=false"]),
}


@pytest.fixture(params=CASES)
def solvers(request, configure):
    name, make, overrides = CASES[request.param]
    return make(configure(name, *TINY[name], *overrides, "TRAIN.epochs=1"))


def gradients(network):
    return {
        name: None if weight.grad is None else weight.grad.numpy().copy()
        for name, weight in network.named_parameters()
    }


def record_steps(solver, log):
    """Notes the gradients that an optimiser is about to use, and lets it go on."""
    step = solver.optimizer.step

    def recorded():
        log.append(gradients(solver.model))
        step()

    solver.optimizer.step = recorded


def batch(constraint, number, size):
    """Batch `number` of a constraint's data set, straight from its streams."""
    positions = list(range(number * size, (number + 1) * size))
    inputs = constraint.data_loader.dataset.input
    return {key: paddle.to_tensor(stream[positions]) for key, stream in inputs.items()}


def test_every_step_uses_the_gradients_of_a_clean_computation(solvers):
    """Plain Paddle, from the same weights and batches, with nothing shared between phases."""
    critic_solver, generator_solver = solvers
    critic, generator = critic_solver.model, generator_solver.model
    critic_constraint = critic_solver.constraint["critic"]
    critic_log, generator_log = [], []
    record_steps(critic_solver, critic_log)
    record_steps(generator_solver, generator_log)
    weights = []
    for solver in solvers:
        original = solver.optimizer.step

        def step(original=original):
            states = [network.state_dict() for network in (critic, generator)]
            weights.append([{k: v.numpy().copy() for k, v in s.items()} for s in states])
            original()

        solver.optimizer.step = step
    toy = isinstance(critic, functions.WganGpToyDiscriminator)
    critic_size, generator_size = (16, 16) if toy else (2, 4)

    for iteration in (1, 2):
        adversarial.train_iteration(critic_solver, generator_solver, iteration)
    assert len(critic_log) == 10 and len(generator_log) == 2

    conditional = "labels" in generator.input_keys
    # steps come as five of the critic, one of the generator, and so on
    for number, (critic_state, generator_state) in enumerate(weights):
        iteration, phase = divmod(number, 6)
        critic.set_state_dict(critic_state)
        generator.set_state_dict(generator_state)
        for network in (critic, generator):
            network.clear_gradients()
        if phase < 5:
            data = batch(critic_constraint, iteration * 5 + phase, critic_size)
            with paddle.no_grad():
                fake = generator(data)["fake"]
            value_real, logits = critic.score(data["real"])
            value_fake, _ = critic.score(fake)
            mixed = data["real"] + data["alpha"].reshape([-1] + [1] * (fake.ndim - 1)) * (
                fake - data["real"]
            )
            mixed.stop_gradient = False
            with maps.twice_differentiable():
                (slope,) = paddle.grad(critic.score(mixed)[0].sum(), mixed, create_graph=True)
            norm = slope.square().sum(list(range(1, slope.ndim))).sqrt()
            weight = 0.1 if toy else 10.0
            loss = value_fake.mean() - value_real.mean() + weight * ((norm - 1) ** 2).mean()
            if conditional:
                loss += paddle.nn.functional.cross_entropy(logits, data["labels"])
            network, logged = critic, critic_log[iteration * 5 + phase]
        else:
            constraint = generator_solver.constraint["generator"]
            data = batch(constraint, iteration, generator_size)
            assert len(data["noise"]) == generator_size
            value, logits = critic.score(generator(data)["fake"])
            loss = -value.mean()
            if conditional:
                loss += 0.1 * paddle.nn.functional.cross_entropy(logits, data["labels"])
            network, logged = generator, generator_log[iteration]
        loss.backward()
        clean = gradients(network)
        assert set(clean) == set(logged)
        for name, expected in clean.items():
            assert (expected is None) == (logged[name] is None), name
            if expected is not None:
                scale = np.abs(expected).max() + 1e-6
                np.testing.assert_allclose(
                    logged[name] / scale, expected / scale, atol=2e-3, err_msg=name
                )


def test_convolutional_networks_repeat_themselves_bit_for_bit(configure):
    def run():
        paddle.seed(3)
        cfg = configure(
            *("cifar10", "MODEL.gen_net.dim=16", "MODEL.dis_net.dim=16", "TRAIN.batch_size=8")
        )
        solvers = cifar10_solvers(cfg)
        for iteration in (1, 2):
            adversarial.train_iteration(*solvers, iteration)
        return [w.numpy().tobytes() for s in solvers for w in s.model.parameters()]

    assert run() == run()


def test_phases_leave_each_other_alone(solvers):
    critic_solver, generator_solver = solvers
    critic, generator = critic_solver.model, generator_solver.model
    during = {"critic": [], "generator": []}

    def watch(solver, phase, other):
        step = solver.optimizer.step

        def watched():
            during[phase].append(gradients(other))
            step()

        solver.optimizer.step = watched

    watch(critic_solver, "critic", generator)
    watch(generator_solver, "generator", critic)
    adversarial.train_iteration(critic_solver, generator_solver, 1)
    assert len(during["critic"]) == 5 and len(during["generator"]) == 1
    for other in during["critic"] + during["generator"]:
        assert all(value is None or not value.any() for value in other.values())
    # and both are trainable again
    assert not any(w.stop_gradient for w in (*critic.parameters(), *generator.parameters()))


def test_critic_steps_build_no_graph_through_the_generator(solvers):
    critic_solver, generator_solver = solvers
    drawn, generate = [], generator_solver.model.generate

    def watched(*inputs):
        drawn.append(generate(*inputs))
        return drawn[-1]

    generator_solver.model.generate = watched
    adversarial.train_iteration(critic_solver, generator_solver, 1)
    assert [fake.stop_gradient for fake in drawn] == [True] * 5 + [False]


def test_labels_travel_only_where_they_are_used(solvers):
    conditional = "labels" in solvers[1].model.input_keys
    for solver in solvers:
        for constraint in solver.constraint.values():
            assert ("labels" in constraint.input_keys) == conditional


@pytest.mark.parametrize("factor", (1, 2, 3))
def test_the_generators_batch_is_a_multiple_of_the_critics(configure, factor):
    batch = [] if factor == 2 else [f"TRAIN.generator_batch_factor={factor}"]  # 2 by default
    cfg = configure("cifar10", *TINY["cifar10"], *batch, "TRAIN.epochs=1")
    sizes = []
    for solver in cifar10_solvers(cfg):
        (constraint,) = solver.constraint.values()
        inputs, _, _ = next(constraint.data_iter)
        sizes.append({len(array) for array in inputs.values()})
    assert sizes == [{2}, {2 * factor}]


def test_nothing_grows_with_the_iterations(solvers):
    for iteration in (1, 2, 3):
        adversarial.train_iteration(*solvers, iteration)
    for solver in solvers:
        meters = [solver.train_output_info, solver.train_loss_info, solver.train_time_info]
        assert meters[0] and meters[1]
        assert not any(meter.history for kind in meters for meter in kind.values())


def test_both_networks_move(solvers):
    critic_solver, generator_solver = solvers
    before = [[w.numpy().copy() for w in s.model.parameters()] for s in solvers]
    adversarial.train_iteration(critic_solver, generator_solver, 1)
    for solver, start in zip(solvers, before):
        moved = [np.abs(w.numpy() - old).max() for w, old in zip(solver.model.parameters(), start)]
        # the value's bias is in no difference of values, but all else moves
        assert sum(change > 0 for change in moved) >= len(moved) - 1


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
    ],
)
def test_the_rate_falls_over_the_runs_own_length(configure, schedule, shares):
    overrides = ["TRAIN.epochs=2", "TRAIN.iters_per_epoch=2", f"TRAIN.lr_schedule={schedule}"]
    cfg = configure("toy", *TINY["toy"], *overrides)
    critic_solver, generator_solver = toy_solvers(cfg)
    rates = []
    for iteration in range(1, 5):
        rates.append((generator_solver.optimizer.get_lr(), critic_solver.optimizer.get_lr()))
        adversarial.train_iteration(critic_solver, generator_solver, iteration)
    rates.append((generator_solver.optimizer.get_lr(), critic_solver.optimizer.get_lr()))
    expected = 1e-4 * np.array(shares)
    np.testing.assert_allclose(rates, np.stack([expected, expected], 1), rtol=1e-6, atol=1e-12)


def test_adam_has_the_configurations_betas(configure):
    cfg = configure("cifar10", *TINY["cifar10"])
    for solver in cifar10_solvers(cfg):
        assert (solver.optimizer._beta1, solver.optimizer._beta2) == (0.0, 0.9)


def load(path):
    return paddle.load(str(path), return_numpy=True).values()


def test_a_run_leaves_its_files_and_repeats_itself(configure, tmp_path):
    def run(seed, folder):
        paddle.seed(1)  # the same weights at first, whatever the seed of the draws
        cfg = configure(
            "toy",
            *TINY["toy"],
            *("TRAIN.epochs=3", "TRAIN.iters_per_epoch=2", "TRAIN.save_freq=2", f"seed={seed}"),
            *("TRAIN.eval_freq=3", "TRAIN.eval_num_samples=50", "log_freq=1"),
        )
        cfg.output_dir = str(folder)
        wgangp_toy.train(cfg)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        weights = [
            array.tobytes()
            for name in ("generator", "discriminator")
            for array in load(folder / f"model_{name}.pdparams")
        ]
        return [json.loads(line) for line in lines], weights

    folder = tmp_path / "first"
    first, weights = run(1, folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.p*")}
    assert {f"samples/iteration_{i}.png" for i in (0, 2, 4, 6)} <= names
    assert "losses.png" in names
    # of every second epoch and of the last
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        *("iteration_4.npz", "iteration_6.npz", "best.npz"),
        *("best_generator.pdparams", "best_discriminator.pdparams"),
    }
    assert [record["step"] for record in first] == [1, 2, 3, 4, 5, 6]
    expected = {"step", "seconds", "critic_loss", "generator_loss", "wasserstein"}
    expected |= {"gradient_penalty", "gradient_norm", "learning_rate"}
    assert set(first[0]) == expected
    assert set(first[5]) - expected == {
        *("modes", "high_quality", "reverse_kl", "wasserstein_2", "evaluated", "best")
    }
    assert first[5]["evaluated"] == "generator"
    for record in first:
        loss = -record["wasserstein"] + 0.1 * record["gradient_penalty"]
        assert record["critic_loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)

    second, same = run(1, tmp_path / "second")
    assert same == weights
    assert [{**r, "seconds": 0} for r in second] == [{**r, "seconds": 0} for r in first]
    _, others = run(2, tmp_path / "third")
    assert others[0] != weights[0]
    with pytest.raises(UserError, match="holds another training already"):
        run(1, folder)


def test_signs_of_life_do_not_change_what_is_recorded(configure, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(adversarial.logger, "info", said.append)

    def run(silence):
        said.clear()
        monkeypatch.setattr(adversarial, "SILENCE", silence)
        paddle.seed(1)
        cfg = configure(
            *("toy", *TINY["toy"], "TRAIN.epochs=1", "TRAIN.iters_per_epoch=5", "log_freq=3"),
            "TRAIN.eval_during_train=false",
        )
        cfg.output_dir = str(tmp_path / str(silence))
        wgangp_toy.train(cfg)
        lines = (tmp_path / str(silence) / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "seconds": 0} for line in lines]

    def told():
        return [int(line[1]) for line in said if "/5] wasserstein" in line]

    records = run(30)
    assert [record["step"] for record in records] == [1, 3, 5] == told()
    assert run(0) == records
    assert told() == [1, 2, 3, 4, 5]


def test_grid_has_a_class_a_column_and_a_noise_a_row(configure):
    cfg = configure("cifar10", *TINY["cifar10"])
    generator, _ = wgangp_cifar10.make_networks(cfg)
    inputs = sampling.grid_inputs(cfg, generator, 10, 10)
    assert inputs["labels"].numpy().reshape(10, 10).tolist() == [list(range(10))] * 10
    noise = inputs["noise"].numpy().reshape(10, 10, -1)
    assert (noise == noise[:, :1]).all() and len({row.tobytes() for row in noise[:, 0]}) == 10
    again = sampling.grid_inputs(cfg, generator, 10, 10)
    np.testing.assert_array_equal(again["noise"].numpy(), inputs["noise"].numpy())


@pytest.mark.parametrize("decay", [0.2, 0.9])
def test_the_average_is_exponential_and_copies_buffers(decay):
    network = functions.WganGpCifar10Generator(dim=4)
    start = [weight.numpy().copy() for weight in network.parameters()]
    average = adversarial.MovingAverage(network, decay)
    for step in (1, 2):
        for weight in network.parameters():
            weight.set_value(weight + 1.0)
        average.update(step)
    for buffer in network.buffers():
        buffer.set_value(buffer + 7.0)
    average.update(3)
    # weights were w + 1, w + 2, w + 2; the decay is at most (1 + step) / (10 + step), here 0.31
    expected = 0.0
    for step, weight in ((1, 1.0), (2, 2.0), (3, 2.0)):
        rate = 1 - min(decay, (1 + step) / (10 + step))
        expected += rate * (weight - expected)
    for before, weight in zip(start, average.network.parameters()):
        np.testing.assert_allclose(weight.numpy() - before, expected, rtol=1e-4)
    buffers = list(average.network.buffers())
    assert len(buffers) == 14
    for copy, buffer in zip(buffers, network.buffers()):
        np.testing.assert_array_equal(copy.numpy(), buffer.numpy())
        assert copy is not buffer


def test_without_a_decay_there_is_no_copy():
    network = functions.WganGpToyGenerator(4)
    average = adversarial.MovingAverage(network, None)
    average.update(1)
    assert average.network is network


def test_the_average_is_evaluated_drawn_and_saved(configure, tmp_path):
    def run(use_ema):
        paddle.seed(1)
        cfg = configure(
            *("toy", *TINY["toy"], "TRAIN.epochs=1", "TRAIN.iters_per_epoch=8", "TRAIN.n_critic=1"),
            *("TRAIN.eval_freq=1", "TRAIN.eval_num_samples=40", "TRAIN.learning_rate=0.01"),
            f"TRAIN.ema.use_ema={use_ema}",
            "TRAIN.ema.decay=0.9",
        )
        cfg.output_dir = str(tmp_path / str(use_ema))
        wgangp_toy.train(cfg)
        record = json.loads(
            (tmp_path / str(use_ema) / "metrics.jsonl").read_text().splitlines()[-1]
        )
        return record, tmp_path / str(use_ema)

    plain, folder = run(False)
    assert plain["evaluated"] == "generator"
    assert not (folder / "model_average_generator.pdparams").exists()
    averaged, average_folder = run(True)
    assert averaged["evaluated"] == "average"
    # training itself is the same, what is evaluated is not
    assert averaged["wasserstein"] == plain["wasserstein"]
    assert averaged["wasserstein_2"] != plain["wasserstein_2"]
    states = [
        [array.tobytes() for array in load(path)]
        for path in (
            folder / "model_generator.pdparams",
            average_folder / "model_generator.pdparams",
            average_folder / "model_average_generator.pdparams",
            average_folder / "checkpoints" / "best_average_generator.pdparams",
        )
    ]
    assert states[0] == states[1] != states[2] == states[3]
    pictures = [path / "samples" / "iteration_8.png" for path in (folder, average_folder)]
    assert pictures[0].read_bytes() != pictures[1].read_bytes()


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [("modes", [2, 5, 4], 2), ("wasserstein_2", [0.5, 0.2, 0.4], 2)],
)
def test_the_best_is_ranked_in_the_metrics_own_direction(
    configure, tmp_path, monkeypatch, metric, values, best
):
    cfg = configure(
        *("toy", *TINY["toy"], "TRAIN.epochs=3", "TRAIN.iters_per_epoch=1", "TRAIN.eval_freq=1"),
        *(f"TRAIN.best_metric={metric}", "TRAIN.save_freq=1", "TRAIN.eval_num_samples=20"),
    )
    figures = iter(values)
    monkeypatch.setattr(evaluation, "evaluate", lambda solver: {metric: next(figures)})
    wgangp_toy.train(cfg)
    records = [json.loads(s) for s in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record.get("best", False) for record in records] == [True, True, False]
    for net in ("generator", "discriminator"):
        kept = load(tmp_path / f"checkpoints/best_{net}.pdparams")
        path = tmp_path / f"checkpoints/iteration_{best}.npz"
        then = checkpoints.read(str(path)).part(net).values()
        assert [a.tobytes() for a in kept] == [a.tobytes() for a in then]
