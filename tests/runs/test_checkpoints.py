# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: resumed trainings end like others, and what doesn't fit or is damaged is refused."""

import errno
import json
import os
import random
import shutil
import signal
import zipfile

import numpy as np
import paddle
import pytest
import stress
from omegaconf import OmegaConf

import wgangp_cifar10
import wgangp_mnist
import wgangp_toy
from data import synthetic
from support import npz
from support import weight_files
from support.errors import UserError
from training import adversarial
from training import checkpoints

TOY = ["MODEL.gen_net.dim=8", "MODEL.dis_net.dim=8", "TRAIN.batch_size=16", "log_freq=3"]
TOY += ["TRAIN.epochs=3", "TRAIN.iters_per_epoch=4", "TRAIN.eval_num_samples=50"]
TOY += ["TRAIN.ema.use_ema=false"]


@pytest.fixture
def toy(configure, tmp_path, monkeypatch):
    """Trains the toy networks in a folder; stops after some iteration, if asked to."""
    # pictures take longer than these trainings, and have tests of their own
    monkeypatch.setattr(wgangp_toy, "make_drawer", lambda *_: lambda path: open(path, "w").close())
    monkeypatch.setattr(adversarial.pictures, "draw_losses", lambda folder: None)

    def train(folder, *overrides, stop=None, monkeypatch=None):
        paddle.seed(1)
        cfg = configure("toy", *TOY, *overrides)
        cfg.output_dir = str(tmp_path / folder)
        if stop is not None:
            step = adversarial.train_iteration

            def stopping(critic_solver, generator_solver, iteration):
                step(critic_solver, generator_solver, iteration)
                if iteration == stop:
                    os.kill(os.getpid(), signal.SIGTERM)

            monkeypatch.setattr(adversarial, "train_iteration", stopping)
        try:
            wgangp_toy.train(cfg)
        finally:
            if stop is not None:
                monkeypatch.setattr(adversarial, "train_iteration", step)
        return tmp_path / folder

    return train


@pytest.mark.parametrize(
    ("stop", "overrides"),
    [
        (1, []),
        (8, []),
        (6, ["TRAIN.ema.use_ema=true", "TRAIN.update_freq=2"]),
        # just after what is the best, and remains it at so low a rate
        (5, ["TRAIN.eval_freq=1", "TRAIN.learning_rate=1e-5"]),
    ],
)
def test_a_stopped_training_ends_like_one_left_alone(toy, monkeypatch, stop, overrides):
    alone = toy("alone", *overrides)
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        toy("stopped", *overrides, stop=stop, monkeypatch=monkeypatch)
    assert end.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == former
    folder = toy("stopped", *overrides, "TRAIN.resume=auto")
    weights, records = stress.outcome(folder)
    assert len({file for file, _ in weights}) == 4 + ("TRAIN.ema.use_ema=true" in overrides)
    assert (weights, records) == stress.outcome(alone)
    assert [record["step"] for record in records] == [1, 3, 4, 6, 8, 9, 12]
    # nothing is left to do, and nothing changes
    assert stress.outcome(toy("stopped", *overrides, "TRAIN.resume=auto")) == (weights, records)


def cifar10_run(configure, seed):
    """Solvers of conditional networks with batch normalisation, and their run."""
    paddle.seed(seed)
    cfg = configure(
        *("cifar10", "MODEL.gen_net.dim=4", "MODEL.dis_net.dim=4", "TRAIN.batch_size=2"),
        *("TRAIN.epochs=2", "TRAIN.iters_per_epoch=3", "TRAIN.ema.use_ema=true"),
    )
    generator, critic = wgangp_cifar10.make_networks(cfg)
    data = synthetic.synthetic_set(train=20, test=5)
    solvers = adversarial.make_solvers(
        cfg, generator, critic, lambda rows, key: wgangp_cifar10.real_images(data, rows, key)
    )
    average = adversarial.make_average(cfg, generator)
    return checkpoints.Run(cfg, *solvers, average, data.describe())


def advance(run, iterations):
    solvers = run.critic_solver, run.generator_solver
    adversarial.seek(run.cfg, solvers, run.iteration)
    for _ in range(iterations):
        adversarial.train_iteration(*solvers, run.iteration + 1)
        run.iteration += 1
        run.average.update(run.iteration)


def everything(run):
    arrays = {}
    for role, network in run.networks.items():
        for name, value in network.state_dict().items():
            arrays[role, name] = value.numpy().tobytes()
    for role, solver in run.solvers.items():
        for name, value in checkpoints.optimizer_state(run.networks[role], solver).items():
            arrays[(role, "optimizer", *name)] = value.numpy().tobytes()
        arrays[role, "rate"] = solver.optimizer.get_lr()
        for name, values in run.losses[role].figures.items():
            arrays[role, "figures", name] = [float(value) for value in values]
    return arrays


class Scaler:
    """In the place of paddle.amp.GradScaler, which is empty on a CPU; of the same state."""

    def __init__(self, scale):
        self.state = {"scale": np.array([scale], "float32"), "incr_ratio": 2.0, "incr_count": 7}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_a_checkpoint_holds_all_of_a_training(configure, tmp_path):
    run = cifar10_run(configure, 1)
    advance(run, 2)
    path = str(tmp_path / "x.npz")
    for solver in run.solvers.values():
        solver.scaler = Scaler(1024.0)
    checkpoints.write(run, path)
    for solver in run.solvers.values():
        solver.scaler = None
    kept = everything(run)
    kinds = {key[3] for key in kept if key[1] == "optimizer"}
    assert kinds == {"moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"}
    advance(run, 2)
    draws = random.random(), np.random.rand(), float(paddle.rand([1]))

    # fresh networks of another seed, as another process has them
    other = cifar10_run(configure, 2)
    for solver in other.solvers.values():
        solver.scaler = Scaler(2.0)
    checkpoints.restore(other, checkpoints.read(path))
    assert other.iteration == 2 and everything(other) == kept
    for solver in other.solvers.values():
        assert solver.scaler.state["scale"].tolist() == [1024.0]
        assert solver.scaler.state["scale"].dtype == np.float32
        assert solver.scaler.state["incr_count"] == 7
        solver.scaler = None
    advance(other, 2)
    assert everything(other) == everything(run)
    assert (random.random(), np.random.rand(), float(paddle.rand([1]))) == draws

    # and a run that has come further goes back
    checkpoints.restore(run, checkpoints.read(path))
    assert everything(run) == kept
    # NumPy reads the file, and its zip members are whole
    with np.load(path) as arrays:
        assert json.loads(arrays["contents"].tobytes())["iteration"] == 2
    assert zipfile.ZipFile(path).testzip() is None


def test_the_newest_are_kept_beside_the_best(toy):
    folder = toy("run", "TRAIN.epochs=6", "TRAIN.keep=2", "TRAIN.eval_freq=2")
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {
        *("iteration_20.npz", "iteration_24.npz", "best.npz"),
        *("best_generator.pdparams", "best_discriminator.pdparams"),
    }
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(record["step"] for record in records if record.get("best"))
    kept = checkpoints.read(str(folder / "checkpoints" / "best.npz"))
    assert kept.contents["iteration"] == best
    weights = paddle.load(str(folder / "checkpoints" / "best_generator.pdparams"))
    for name, value in kept.part("generator").items():
        np.testing.assert_array_equal(weights[name].numpy(), value)


def test_a_checkpoint_can_be_evaluated(toy, configure, tmp_path):
    folder = toy("run")
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    path = folder / "checkpoints" / "iteration_12.npz"
    weights = [f"EVAL.pretrained_{role}_model_path={path}" for role in ("gen", "dis")]
    cfg = configure("toy", *TOY, "mode=eval", "EVAL.num_samples=50", *weights)
    wgangp_toy.evaluate(cfg)
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["metrics"]["wasserstein_2"]["value"] == last["wasserstein_2"]
    used = OmegaConf.load(tmp_path / "config_eval.yaml")
    assert used.EVAL.pretrained_gen_model_path == str(path) and used.MODEL == cfg.MODEL


def test_of_a_checkpoint_the_average_is_evaluated(toy, configure, tmp_path, monkeypatch):
    folder = toy("run", "TRAIN.ema.use_ema=true", "TRAIN.ema.decay=0.9")
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    path = folder / "checkpoints" / "iteration_12.npz"
    weights = [f"EVAL.pretrained_gen_model_path={path}"]
    wgangp_toy.evaluate(configure("toy", *TOY, "mode=eval", "EVAL.num_samples=50", *weights))
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["metrics"]["wasserstein_2"]["value"] == last["wasserstein_2"]

    told = []
    monkeypatch.setattr(weight_files.logger, "info", told.append)
    weights = [f"EVAL.pretrained_gen_model_path={folder}/model_generator"]
    wgangp_toy.evaluate(configure("toy", *TOY, "mode=eval", "EVAL.num_samples=50", *weights))
    said = "model_average_generator.pdparams is the moving average that its training evaluated"
    assert any(said in line for line in told)
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["metrics"]["wasserstein_2"]["value"] != last["wasserstein_2"]


def test_damaged_checkpoints_are_passed_over(toy):
    folder = toy("run")
    expected = stress.outcome(folder)
    newest, middle, _ = checkpoints.by_age(str(folder / "checkpoints"))
    with open(newest, "r+b") as file:
        file.truncate(os.path.getsize(newest) - 1)
    content = bytearray(open(middle, "rb").read())
    content[len(content) // 2] ^= 1
    with open(middle, "wb") as file:
        file.write(content)
    for path in (newest, middle):
        with pytest.raises(UserError, match="is not intact .its checksum"):
            checkpoints.read(path)
    (folder / "checkpoints" / "x.partial").write_bytes(b"")
    (folder / "model_generator.pdparams").unlink()
    toy("run", "TRAIN.resume=auto")
    assert stress.outcome(folder) == expected
    assert not list(folder.rglob("*.partial"))
    checkpoints.read(newest)


def rewrite(path, **replaced):
    """A checkpoint with other parts, and a checksum that is right."""
    with np.load(path) as former:
        npz.write_npz(str(path), {**former, **replaced})


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"generator/layers.0.bias": np.zeros(3, "float32")}, "misshapen: layers.0.bias"),
        ({"generator/more": np.zeros(3, "float32")}, "unexpected: more"),
        ({"generator_optimizer/none/moment1": np.zeros(3)}, "not those that it has: none/moment1"),
        ({"generator_optimizer/layers.0.bias/moment1": np.zeros(3, "f4")}, "misshapen, or not"),
        ({"generator_optimizer/layers.0.bias/moment2": np.full(8, np.inf, "f4")}, "or not finite"),
        (
            {"contents": np.frombuffer(b'{"iteration": "1"}', "uint8")},
            "no checkpoint of this",
        ),
        ({"contents": np.frombuffer(b"[" * 100000, "uint8")}, "no checkpoint of this"),
        ({"discriminator/layers.0.bias": np.array([{}])}, "is not intact"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(toy, replaced, message):
    folder = toy("run")
    path = folder / "checkpoints" / "best.npz"
    rewrite(path, **replaced)
    with pytest.raises(UserError, match=message):
        toy("other", f"TRAIN.resume={path}")
    assert not (folder.parent / "other" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("iteration", -3, "counts below 0"),
        ("random", {"python": [[1]]}, "random states can't be read"),
        ("random", {"python": [3, [1] * 625, None], "numpy": 5}, "random states can't be read"),
    ],
)
def test_contents_that_make_no_sense_are_refused(toy, key, value, message):
    folder = toy("run")
    path = folder / "checkpoints" / "best.npz"
    contents = checkpoints.read(str(path)).contents
    contents[key] = value
    rewrite(path, contents=np.frombuffer(json.dumps(contents).encode(), "uint8"))
    with pytest.raises(UserError, match=message):
        toy("other", f"TRAIN.resume={path}")


def test_going_back_leaves_no_later_checkpoint_in_the_way(toy):
    folder = toy("run", "TRAIN.keep=1", "TRAIN.epochs=4", "TRAIN.eval_during_train=false")
    alone = stress.outcome(folder)
    toy("early", "TRAIN.keep=0", "TRAIN.epochs=4", "TRAIN.eval_during_train=false")
    early = folder.parent / "early" / "checkpoints"
    # to the second of four, whose checkpoint lies beside a newer one
    (early / "iteration_08.npz").rename(folder / "checkpoints" / "iteration_08.npz")
    path = folder / "checkpoints" / "iteration_08.npz"
    again = ["TRAIN.keep=1", "TRAIN.epochs=4", "TRAIN.eval_during_train=false"]
    toy("run", *again, f"TRAIN.resume={path}")
    assert stress.outcome(folder) == alone
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"iteration_16.npz", "iteration_16.npz.abandoned"}
    # a folder stands for its newest checkpoint
    assert checkpoints.newest(str(folder)).contents["iteration"] == 16


def test_a_best_that_lies_ahead_is_not_believed(toy):
    settings = ["TRAIN.eval_freq=1", "TRAIN.learning_rate=2e-3"]  # the best comes after 4
    folder = toy("run", *settings)
    best = checkpoints.read(str(folder / "checkpoints" / "best.npz")).contents
    assert best["iteration"] > 4
    first = checkpoints.by_age(str(folder / "checkpoints"))[-1]
    assert checkpoints.read(first).contents["iteration"] == 4
    expected = stress.outcome(folder)
    toy("run", *settings, f"TRAIN.resume={first}")
    weights, records = stress.outcome(folder)
    again = checkpoints.read(str(folder / "checkpoints" / "best.npz")).contents
    values = [record["wasserstein_2"] for record in records if record.get("best")]
    assert again["best"] == values[-1]
    assert weights == expected[0]


def test_what_differs_is_named(toy, configure, tmp_path, monkeypatch):
    path = toy("run") / "checkpoints" / "iteration_12"
    with pytest.raises(UserError, match="MODEL.dis_net.dim was 8 and is 16"):
        toy("other", f"TRAIN.resume={path}", "MODEL.dis_net.dim=16")
    with pytest.raises(UserError, match="TRAIN.ema.use_ema was False and is True"):
        toy("other", f"TRAIN.resume={path}", "TRAIN.ema.use_ema=true")
    with pytest.raises(UserError, match="on other data: 8gaussians; this is swissroll"):
        toy("other", f"TRAIN.resume={path}", "DATA.mode=swissroll")
    with pytest.raises(UserError, match="no checkpoint .*nowhere.npz"):
        toy("other", f"TRAIN.resume={tmp_path}/nowhere")
    # a longer run may go on, and is told what it is not
    warned = []
    monkeypatch.setattr(checkpoints.logger, "warning", warned.append)
    folder = toy("longer", f"TRAIN.resume={path}", "TRAIN.epochs=4", "TRAIN.learning_rate=0.1")
    assert "TRAIN.epochs was 3 and is 4" in warned[0] and "TRAIN.learning_rate was" in warned[0]
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    # a linear fall to 0 over 16 iterations, from the rate of this run
    assert last["step"] == 16 and last["learning_rate"] == pytest.approx(0.1 / 16)
    cfg = configure("mnist", "DATA.source=digits", f"TRAIN.resume={path}")
    cfg.output_dir = str(tmp_path / "mnist")
    with pytest.raises(UserError, match="of another training"):
        wgangp_mnist.train(cfg)


def test_a_checkpoint_of_elsewhere_does_not_overwrite_a_training(toy):
    path = toy("one") / "checkpoints" / "iteration_08"
    other = toy("two", "seed=7", "TRAIN.epochs=4")
    before = {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="two holds another training already"):
        toy("two", f"TRAIN.resume={path}")
    assert {file: file.read_bytes() for file in other.rglob("*") if file.is_file()} == before


def test_a_best_that_was_not_yet_written_is_still_the_best(toy):
    """As where a training is killed between its checkpoint and the best's copy."""
    settings = ["TRAIN.eval_freq=1", "TRAIN.learning_rate=1e-5"]  # too low to change much
    folder = toy("run", *settings, "TRAIN.keep=0")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record.get("best")] == [4]
    (folder.parent / "killed" / "checkpoints").mkdir(parents=True)
    shutil.copy(folder / "checkpoints" / "iteration_04.npz", folder.parent / "killed/checkpoints")
    killed = toy("killed", *settings, "TRAIN.keep=0", "TRAIN.resume=auto")
    assert stress.outcome(killed) == stress.outcome(folder)


def test_the_best_of_other_samples_is_not_compared_with(toy):
    settings = ["TRAIN.eval_freq=1", "TRAIN.learning_rate=1e-5"]
    toy("run", *settings, "TRAIN.eval_num_samples=20")
    other = ["TRAIN.resume=auto", "TRAIN.epochs=4", "TRAIN.eval_num_samples=50"]
    folder = toy("run", *settings, *other)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    before = [record["wasserstein_2"] for record in records if record.get("best")]
    # worse by number, but the first of its kind
    assert records[-1]["step"] == 16 and records[-1]["best"]
    assert records[-1]["wasserstein_2"] > min(before[:-1])


def test_the_data_set_is_known_by_its_content():
    one, two = (synthetic.synthetic_set(train=20, test=5) for _ in range(2))
    assert one.describe() == two.describe() and one.describe().startswith("20 pictures")
    two.train_images[7, 0, 0, 0] ^= 1
    assert one.describe() != two.describe()
    three = synthetic.synthetic_set(train=20, test=5)
    three.train_labels[3] ^= 1
    assert one.describe() != three.describe()


def test_a_finished_training_without_checkpoints_is_not_begun_again(toy):
    toy("run", "TRAIN.save_freq=0", "TRAIN.eval_during_train=false")
    with pytest.raises(UserError, match="holds no checkpoint that could be resumed"):
        toy("run", "TRAIN.save_freq=0", "TRAIN.resume=auto")
    with pytest.raises(UserError, match="Continue it by TRAIN.resume=auto"):
        toy("run")


def poison(monkeypatch, at, times):
    """Makes a weight of the generator NaN in an iteration, the first few times it comes."""
    step, seen = adversarial.train_iteration, []

    def poisoned(critic_solver, generator_solver, iteration):
        step(critic_solver, generator_solver, iteration)
        if iteration == at and len(seen) < times:
            seen.append(iteration)
            weight = generator_solver.model.parameters()[0]
            weight.set_value(weight * float("nan"))

    monkeypatch.setattr(adversarial, "train_iteration", poisoned)
    return seen


def test_a_diverged_training_names_step_values_and_checkpoint(toy, monkeypatch, tmp_path):
    poison(monkeypatch, 6, 1)
    with pytest.raises(UserError, match="diverged in iteration 6, .*weights of the generator") as e:
        toy("run", "TRAIN.save_freq=1")
    path = tmp_path / "run" / "checkpoints" / "iteration_04.npz"
    assert str(path) in str(e.value) and "TRAIN.on_nan=roll_back" in str(e.value)
    for array in checkpoints.read(str(path)).arrays.values():
        assert np.isfinite(array).all()
    assert not (tmp_path / "run" / "model_generator.pdparams").exists()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_rate_too_large_diverges_in_its_first_iteration(toy, tmp_path):
    with pytest.raises(UserError, match="diverged in iteration 1, .*_loss is .*no checkpoint yet"):
        toy("run", "TRAIN.learning_rate=1e30", "TRAIN.on_nan=stop")
    assert not list((tmp_path / "run").rglob("*.pdparams"))


def test_an_optimiser_is_not_poisoned_unnoticed(toy, tmp_path):
    """Gradients whose squares overflow leave weights and losses finite, but not Adam."""
    with pytest.raises(UserError, match="gradients too large for the optimiser"):
        toy("run", "TRAIN.penalty_weight=1e30")
    assert not checkpoints.by_age(str(tmp_path / "run" / "checkpoints"))


def test_what_reading_meets_ends_the_training(toy, monkeypatch):
    def draw(*_):
        raise MemoryError("no room for a batch")

    monkeypatch.setattr(synthetic, "draw_toy", draw)
    with pytest.raises(MemoryError, match="no room for a batch"):
        toy("run", "TRAIN.eval_during_train=false", "DATA.mode=swissroll")


def test_what_may_go_back_is_saved_after_its_first_iteration(toy):
    settings = ["TRAIN.epochs=1", "TRAIN.eval_during_train=false"]
    for on_nan, names in (("stop", ["iteration_4.npz"]), ("roll_back", ["iteration_1.npz"])):
        folder = toy(on_nan, *settings, f"TRAIN.on_nan={on_nan}") / "checkpoints"
        assert sorted(path.name for path in folder.iterdir())[:1] == names


def test_a_second_interrupt_ends_at_once():
    with adversarial.stop_signals() as noted:
        for _ in range(3):  # as Paddle's launcher sends it
            os.kill(os.getpid(), signal.SIGTERM)
        assert noted == 3 * [signal.SIGTERM]
    with adversarial.stop_signals() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_it_rolls_back_with_other_draws(toy, monkeypatch):
    seen = poison(monkeypatch, 6, 2)
    rolled = toy("run", "TRAIN.on_nan=roll_back", "TRAIN.eval_during_train=false")
    assert len(seen) == 2
    steps = [json.loads(x)["step"] for x in (rolled / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 3, 4, 6, 8, 9, 12]
    newest = checkpoints.by_age(str(rolled / "checkpoints"))[0]
    assert checkpoints.read(newest).contents["rollbacks"] == 2
    monkeypatch.undo()
    alone, records = stress.outcome(toy("alone", "TRAIN.eval_during_train=false"))
    weights, rolled_records = stress.outcome(rolled)
    # the same until the checkpoint it went back to, and other draws from there on
    assert rolled_records[:3] == records[:3] and rolled_records[3:] != records[3:]
    assert weights != alone


@pytest.mark.parametrize("at", [1, 6])
def test_it_rolls_back_a_bounded_number_of_times(toy, monkeypatch, at):
    seen = poison(monkeypatch, at, 100)
    with pytest.raises(UserError, match="It went back"):
        toy("run", "TRAIN.on_nan=roll_back", "TRAIN.max_rollbacks=2")
    assert len(seen) == (3 if at == 6 else 1)  # before the first, there is nowhere to go back to


def test_a_full_disk_ends_clearly_and_keeps_what_was_saved(toy, monkeypatch, tmp_path):
    fsync, left = os.fsync, [2]  # for metrics.jsonl's beginning and the first checkpoint

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device.*The last checkpoint is") as error:
        toy("run", "TRAIN.eval_during_train=false")
    (path,) = checkpoints.by_age(str(tmp_path / "run" / "checkpoints"))
    assert f"{path}; TRAIN.resume=PATH goes on" in str(error.value)
    checkpoints.read(path)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_that_is_removed_ends_it_clearly(toy, monkeypatch, tmp_path):
    step = adversarial.train_iteration

    def removing(critic_solver, generator_solver, iteration):
        step(critic_solver, generator_solver, iteration)
        if iteration == 5:
            (tmp_path / "run").rename(tmp_path / "gone")

    monkeypatch.setattr(adversarial, "train_iteration", removing)
    with pytest.raises(UserError, match="run can't be written to any more .*removed while"):
        toy("run", "TRAIN.eval_during_train=false")
    assert not (tmp_path / "run").exists()


def test_killed_processes_resume_and_end_alike(tmp_path):
    alone = tmp_path / "alone"
    stress.finish(stress.start(alone, "TRAIN.epochs=30"), alone)
    folder = tmp_path / "killed"
    assert stress.kill_and_resume(folder, 2, random.Random(5), "TRAIN.epochs=30") == 2
    assert stress.outcome(folder) == stress.outcome(alone)


def test_two_runs_do_not_share_a_folder_and_an_interrupt_saves(tmp_path):
    folder, output = tmp_path / "run", tmp_path / "run.out"
    first = stress.start(folder)
    try:
        stress.wait_for(first, folder / "metrics.jsonl")
        second = stress.start(folder)
        try:
            assert second.wait(timeout=60) == 2
        finally:
            second.kill()
        assert f"another process (mode=train) writes into {folder}" in output.read_text()
        assert first.poll() is None
        os.kill(first.pid, signal.SIGINT)
        assert first.wait(timeout=60) == 130
    finally:
        first.kill()
    text = output.read_text()
    assert f"hydra.run.dir={folder} TRAIN.resume=auto" in text and "Traceback" not in text
    assert checkpoints.by_age(str(folder / "checkpoints"))
