# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what a file holds, and how damaged files and those that don't fit are refused."""

import json
import os
import zipfile

import numpy as np
import paddle
import pytest
import stress
from omegaconf import OmegaConf
from trainings import CIFAR10
from trainings import make_run
from trainings import read_records
from trainings import rewrite_checkpoint

import wgangp_cifar10
from data import synthetic
from modes.evaluate import evaluate
from support import weight_files
from support.errors import UserError
from training import checkpoints


def cifar10_run(configure, seed):
    """A run of conditional networks with batch normalisation."""
    paddle.seed(seed)
    length = "TRAIN.epochs=2 TRAIN.iters_per_epoch=3 TRAIN.ema.use_ema=true"
    experiment = wgangp_cifar10.Cifar10(configure("cifar10", CIFAR10, length))
    return make_run(experiment, synthetic.synthetic_set(train=20, test=5))


def advance(run, iterations):
    run.seek()
    for _ in range(iterations):
        run.step()
        run.average.update(run.iteration)


def everything(run):
    """Bytes of all arrays that a run changes, and the players' rates."""
    arrays = {
        **run.critic.arrays(),
        **run.generator.arrays(),
        **{f"average/{n}": v.numpy() for n, v in run.average.network.state_dict().items()},
    }
    rates = [player.rate for player in run.players]
    return {name: array.tobytes() for name, array in arrays.items()}, rates


class Scaler:
    """Replaces paddle.amp.GradScaler, whose state is empty on a CPU; its state has that form."""

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
    for player in run.players:
        player.solver.scaler = Scaler(1024.0)
    checkpoints.write(run, path)
    for player in run.players:
        player.solver.scaler = None
    kept = everything(run)
    kinds = {name.rpartition("/")[2] for name in kept[0] if "_optimizer/" in name}
    assert kinds == {"moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"}
    assert any(name.startswith("generator_figures/") for name in kept[0])
    advance(run, 2)

    # Another process makes networks of other weights.
    other = cifar10_run(configure, 2)
    for player in other.players:
        player.solver.scaler = Scaler(2.0)
    checkpoints.restore(other, checkpoints.read(path))
    assert other.iteration == 2 and everything(other) == kept
    for player in other.players:
        assert player.solver.scaler.state["scale"].tolist() == [1024.0]
        assert player.solver.scaler.state["scale"].dtype == np.float32
        assert player.solver.scaler.state["incr_count"] == 7
        player.solver.scaler = None
    advance(other, 2)
    assert everything(other) == everything(run)

    # A run that has come further goes back.
    checkpoints.restore(run, checkpoints.read(path))
    assert everything(run) == kept
    # NumPy reads the file, and its zip members are whole.
    with np.load(path) as arrays:
        assert json.loads(arrays["contents"].tobytes())["iteration"] == 2
    assert zipfile.ZipFile(path).testzip() is None


def test_the_newest_checkpoints_and_the_best_are_kept(toy):
    folder = toy("run", "TRAIN.epochs=6 TRAIN.keep=2 TRAIN.eval_freq=2")
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {
        *("iteration_20.npz", "iteration_24.npz", "best.npz"),
        *("best_generator.pdparams", "best_discriminator.pdparams"),
    }
    best = max(record["step"] for record in read_records(folder) if record.get("best"))
    kept = checkpoints.read(str(folder / "checkpoints" / "best.npz"))
    assert kept.contents["iteration"] == best
    weights = paddle.load(str(folder / "checkpoints" / "best_generator.pdparams"))
    for name, value in kept.part("generator").items():
        np.testing.assert_array_equal(weights[name].numpy(), value)


def test_a_checkpoint_can_be_evaluated(toy, make_toy, tmp_path):
    folder = toy("run")
    path = folder / "checkpoints" / "iteration_12.npz"
    experiment = make_toy(
        "mode=eval EVAL.num_samples=50",
        *(f"EVAL.pretrained_{role}_model_path={path}" for role in ("gen", "dis")),
    )
    (tmp_path / "config.yaml").write_text("seed: 1")  # a training's
    evaluate(experiment)
    assert (tmp_path / "config.yaml").read_text() == "seed: 1"
    report = json.loads((tmp_path / "metrics.json").read_text())
    expected = read_records(folder)[-1]["wasserstein_2"]
    assert report["metrics"]["wasserstein_2"]["value"] == expected
    used = OmegaConf.load(tmp_path / "config_eval.yaml")
    assert used.EVAL.pretrained_gen_model_path == str(path)
    assert used.MODEL == experiment.cfg.MODEL


def test_the_average_of_a_checkpoint_is_evaluated(toy, make_toy, tmp_path, monkeypatch):
    folder = toy("run", "TRAIN.ema.use_ema=true TRAIN.ema.decay=0.9")
    recorded = read_records(folder)[-1]["wasserstein_2"]

    def measure(weights):
        settings = "mode=eval EVAL.num_samples=50"
        evaluate(make_toy(settings, f"EVAL.pretrained_gen_model_path={folder}/{weights}"))
        report = json.loads((tmp_path / "metrics.json").read_text())
        return report["metrics"]["wasserstein_2"]["value"]

    assert measure("checkpoints/iteration_12.npz") == recorded
    logged = []
    monkeypatch.setattr(weight_files.logger, "info", logged.append)
    assert measure("model_generator") != recorded
    advice = "model_average_generator.pdparams is the moving average that its training evaluated"
    assert any(advice in line for line in logged)


def test_damaged_checkpoints_are_passed_over(toy):
    folder = toy("run")
    expected = stress.outcome(folder)
    newest, middle, _ = checkpoints.list_newest_first(str(folder / "checkpoints"))
    with open(newest, "r+b") as file:
        file.truncate(os.path.getsize(newest) - 1)
    content = bytearray(open(middle, "rb").read())
    content[len(content) // 2] ^= 1
    with open(middle, "wb") as file:
        file.write(content)
    for path in (newest, middle):
        with pytest.raises(UserError, match="is not intact .its checksum"):
            checkpoints.read(path)
    for place in (folder, folder / "checkpoints"):
        (place / "tmp1234abcd.partial").write_bytes(b"")
    (folder / "model_generator.pdparams").unlink()
    toy("run", "TRAIN.resume=auto")
    assert stress.outcome(folder) == expected
    assert not list(folder.rglob("*.partial"))
    checkpoints.read(newest)


@pytest.fixture
def refuse(toy, tmp_path):
    """Resumes from a checkpoint of replaced arrays and contents, and expects an error."""
    path = toy("run") / "checkpoints" / "best.npz"

    def resume(message, arrays=None, **contents):
        rewrite_checkpoint(path, arrays, **contents)
        with pytest.raises(UserError, match=message):
            toy("other", f"TRAIN.resume={path}")
        assert not (tmp_path / "other" / "metrics.jsonl").exists()

    return resume


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"generator/layers.0.bias": np.zeros(3, "float32")}, "misshapen: layers.0.bias"),
        ({"generator/more": np.zeros(3, "float32")}, "unexpected: more"),
        (
            {"generator_optimizer/none/moment1": np.zeros(3)},
            "not those of this training's optimiser: none/moment1",
        ),
        (
            {"generator_optimizer/layers.0.bias/moment1": np.zeros(3, "f4")},
            "another shape, or is not",
        ),
        (
            {"generator_optimizer/layers.0.bias/moment2": np.full(8, np.inf, "f4")},
            "or is not finite",
        ),
        (
            {"contents": np.frombuffer(b'{"iteration": "1"}', "uint8")},
            "not a checkpoint of this",
        ),
        ({"contents": np.frombuffer(b"[" * 100000, "uint8")}, "not a checkpoint of this"),
        ({"discriminator/layers.0.bias": np.array([{}])}, "is not intact"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(refuse, replaced, message):
    refuse(message, replaced)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("iteration", -3, "is not from 0 to"),
        ("rollbacks", -1, "is not from 0 to"),
        ("settings", [1], "its settings is a list"),
        ("best_iteration", "4", "its best_iteration is not a whole number"),
    ],
)
def test_contents_that_make_no_sense_are_refused(refuse, key, value, message):
    refuse(message, **{key: value})


@pytest.mark.parametrize(
    "key",
    [
        *("TRAIN.best_metric", "TRAIN.eval_num_samples", "EVAL.batch_size"),
        *("EVAL.classifier_weights", "EVAL.inception_sha256"),
        "MODEL.gen_net.batch_norm_statistics",
    ],
)
def test_a_best_figure_of_other_measures_is_dropped(key, make_toy):
    run = make_run(make_toy())
    run.seek()
    run.step()
    run.iteration, run.best, run.best_iteration = 4, 1.5, 4
    checkpoints.save_best(run)
    run.iteration = 8
    checkpoints.save(run)
    checkpoint = checkpoints.read(run.checkpoint)
    checkpoints.restore(run, checkpoint)
    assert (run.best, run.best_iteration) == (1.5, 4)
    settings = OmegaConf.create(checkpoint.contents["settings"])
    OmegaConf.update(settings, key, "another", force_add=True)
    checkpoint.contents["settings"] = OmegaConf.to_container(settings)
    checkpoints.restore(run, checkpoint)
    assert (run.best, run.best_iteration) == (None, None)


def test_a_data_set_is_recognised_by_its_content():
    one, two = (synthetic.synthetic_set(train=20, test=5) for _ in range(2))
    assert one.fingerprint() == two.fingerprint() and one.fingerprint().startswith("20 pictures")
    two.train_images[7, 0, 0, 0] ^= 1
    assert one.fingerprint() != two.fingerprint()
    three = synthetic.synthetic_set(train=20, test=5)
    three.train_labels[3] ^= 1
    assert one.fingerprint() != three.fingerprint()
