# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that someone has made up, with a right checksum, and odd things with their names.

They end in one line or are passed over with a message, and nothing of them is restored.
"""

import json
import os

import numpy as np
import paddle
import pytest
import stress
from trainings import CIFAR10
from trainings import make_run
from trainings import rewrite_checkpoint

import wgangp_cifar10
from data import synthetic
from support.errors import UserError
from training import checkpoints
from training import resume
from training.player import FIGURES

NO_EVALUATION = "TRAIN.eval_during_train=false"
RECORD = {"step": 1, "seconds": 0.5, "wasserstein": 1.0}


def nested(depth):
    """Dictionaries in dictionaries."""
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def lines(*records):
    return "".join(f"{json.dumps(record)}\n" for record in records)


CONTENTS = [
    *(("iteration", value) for value in (10**30, -1, True, 3.0, "4", None)),
    *(("rollbacks", value) for value in (10**30, -1, True, 0.5)),
    *(("seconds", value) for value in (float("nan"), float("inf"), -1.0, 1e300, "1", 10**400)),
    *(("best", value) for value in (float("nan"), float("inf"), 10**400, "1", True)),
    *(("best_iteration", value) for value in (-1, 10**30, 2.0, "4", True, 5)),
    ("journal", "no JSON\n"),
    ("journal", "[1]\n"),
    ("journal", "{}\n"),
    ("journal", "\n"),
    ("journal", lines(RECORD).rstrip("\n")),
    ("journal", lines({**RECORD, "step": 5})),
    ("journal", lines({**RECORD, "step": -1})),
    ("journal", lines({**RECORD, "step": 10**30})),
    ("journal", lines(RECORD, RECORD)),
    ("journal", lines({**RECORD, "wasserstein": float("nan")})),
    ("journal", lines({**RECORD, "wasserstein": float("inf")})),
    ("journal", '{"step": 1, "wasserstein": 1e999}\n'),
    ("journal", lines({**RECORD, "wasserstein": "1"})),
    ("journal", lines({**RECORD, "wasserstein": [1]})),
    ("journal", lines({**RECORD, "evaluated": 1, "best": "yes"})),
    ("journal", f'{{"step": 1, "a": {"[" * 5000}{"]" * 5000}}}\n'),
    ("journal", lines({**RECORD, "evaluated": "x"}).replace('"x"', '"\ud800"')),
    *(("settings", value) for value in ([], "x", None, nested(20))),
    *(("machine", value) for value in ([], {"python": 3}, {"python": None}, {"a": nested(20)})),
    *(("classes", value) for value in ("ab", None, {"0": "a"}, ["a", 1], [["a"]])),
    ("scalers", []),
    ("scalers", {"generator": 1}),
    ("scalers", {"generator": {"scale": "1"}}),
    ("scalers", {"generator": {"scale": [1.0, 2.0]}}),
    ("scalers", {"generator": {"scale": [float("nan")]}}),
    ("scalers", {"generator": {"incr_count": 2**40}}),
    ("scalers", {"generator": {"scale": [[1.0]]}}),
    ("data", 3),
]


@pytest.fixture
def path(toy):
    """The checkpoint of iteration 4."""
    return toy("run", NO_EVALUATION) / "checkpoints" / "iteration_04.npz"


def test_contents_that_are_made_up_are_not_a_checkpoint(path):
    original = path.read_bytes()
    for key, value in CONTENTS:
        path.write_bytes(original)
        rewrite_checkpoint(path, **{key: value})
        with pytest.raises(UserError, match=f"not a checkpoint of this suite .its .*{key}|nested"):
            checkpoints.read(str(path))
    for text in (b"[]", b"3", b"null", b"{}", b"{", b"\xff", b"1" * 5000):
        path.write_bytes(original)
        rewrite_checkpoint(path, {"contents": np.frombuffer(text, "uint8")})
        with pytest.raises(UserError, match="not a checkpoint of this suite"):
            checkpoints.read(str(path))
    path.write_bytes(original)
    rewrite_checkpoint(path, {"more/array": np.zeros(3, "float32")})
    with pytest.raises(UserError, match="not a checkpoint of this suite .it has an array more"):
        checkpoints.read(str(path))


def toy_states(run):
    """Bytes of all that a checkpoint restores."""
    arrays = checkpoints.collect(run).arrays
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("arrays", "contents"),
    [
        ({"generator_figures/generator_loss": np.zeros((2, 2), "f4")}, {}),
        ({"generator_figures/generator_loss": np.zeros((), "f4")}, {}),
        ({"generator_figures/generator_loss": np.zeros(0, "f4")}, {}),
        ({"generator_figures/generator_loss": np.zeros(3, "int64")}, {}),
        ({"generator_figures/generator_loss": np.zeros(3, ">f4")}, {}),
        ({"generator_figures/generator_loss": np.full(3, np.nan, "f4")}, {}),
        ({"generator_figures/step": np.zeros(1, "f4")}, {}),
        ({"generator_figures/critic_loss": np.zeros(1, "f4")}, {}),
        ({f"discriminator_figures/{n}": np.zeros(len(n), "f4") for n in FIGURES["critic"]}, {}),
        # Paddle's own check of this shape is an assertion in the next step.
        ({"generator_optimizer/layers.0.weight/moment1": np.zeros(1, "f4")}, {}),
        ({"generator_optimizer/layers.0.weight/beta1_pow_acc": np.zeros((2, 8), "f4")}, {}),
        ({"average/layers.0.bias": np.zeros(3, "f4")}, {}),
        ({}, {"data": "\n\x1b[31m" * 1000}),
        ({}, {"scalers": {"generator": {"scale": [2.0]}}}),
        ({}, {"scalers": {"generator": {"scale": [2.0], "incr_count": 2.5}}}),
    ],
)
def test_what_does_not_fit_changes_nothing(path, make_toy, arrays, contents):
    run = make_run(make_toy("TRAIN.ema.use_ema=true"))
    run.seek()
    run.step()

    class Scaler:
        def state_dict(self):
            return {"scale": np.ones(1, "float32"), "incr_count": 3}

    checkpoints.write(run, str(path.with_name("own.npz")))
    rewrite_checkpoint(path.with_name("own.npz"), arrays, **contents)
    checkpoint = checkpoints.read(str(path.with_name("own.npz")))
    run.step()
    run.generator.solver.scaler = Scaler()
    before = toy_states(run)
    with pytest.raises(UserError) as error:
        checkpoints.restore(run, checkpoint)
    assert str(error.value).isprintable() and len(str(error.value)) < 2000
    assert toy_states(run) == before
    assert (run.iteration, run.checkpoint, run.journal) == (2, None, "")


def test_the_known_figures_are_those_of_the_losses(configure):
    experiment = wgangp_cifar10.Cifar10(configure("cifar10", CIFAR10, "MODEL.use_label=true"))
    run = make_run(experiment, synthetic.synthetic_set(train=20, test=5))
    run.seek()
    run.step()
    for player in run.players:
        assert set(player.loss.figures) == FIGURES[player.name]


def test_odd_settings_of_a_checkpoint_are_named_in_one_line(path, toy):
    rewrite_checkpoint(path, settings={"MODEL": ["\n" * 9999], "TRAIN": {"ema": 3}, "\x1b[31m": 1})
    with pytest.raises(UserError, match="is of another training: MODEL") as error:
        toy("other", f"TRAIN.resume={path}")
    assert str(error.value).isprintable() and len(str(error.value)) < 5000


def test_a_checkpoint_beyond_the_end_is_refused(path, toy):
    path = path.with_name("iteration_12.npz")
    with pytest.raises(
        UserError, match="is of iteration 12, and this training ends at .* 8. Raise"
    ):
        toy("other", f"TRAIN.resume={path} TRAIN.epochs=2")


@pytest.fixture
def warnings(monkeypatch):
    texts = []
    for module in (resume, checkpoints):
        monkeypatch.setattr(module.logger, "warning", texts.append)
    return texts


def make_folder(path):
    (path / "inside").mkdir(parents=True)


ODD = {
    "a folder": make_folder,
    "a broken link": lambda path: path.symlink_to("nothing"),
    "a loop": lambda path: path.symlink_to(path.name),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_a_file_does_not_end_a_resume(kind, toy, tmp_path, warnings):
    """Some of these names come first, others are those of checkpoints that are still to come."""
    settings = f"{NO_EVALUATION} TRAIN.keep=1 TRAIN.epochs=4"
    expected = stress.outcome(toy("uninterrupted", settings))
    with pytest.raises(SystemExit):
        toy("run", settings, stop=6)
    place = tmp_path / "run" / "checkpoints"
    odd = [f"iteration_{name}.npz" for name in ("99", "12", "04")] + ["best.npz"]
    for name in odd:
        ODD[kind](place / name)
    # A folder that was set aside earlier is in the way.
    make_folder(place / "iteration_99.npz.abandoned")
    make_folder(place / "x.partial")
    make_folder(tmp_path / "run" / "y.partial")
    assert resume.newest(str(tmp_path / "run")).contents["iteration"] == 6
    for name in ("99", "12"):
        assert any(f"iteration_{name}.npz is not a checkpoint" in text for text in warnings)
    assert stress.outcome(toy("run", settings, "TRAIN.resume=auto")) == expected
    for name in odd:
        assert any(f"{name} is not a file" in text for text in warnings)
    names = [path for path in os.listdir(place) if path.endswith(".npz")]
    assert names == ["iteration_16.npz"]
    assert (place / "x.partial" / "inside").is_dir()


def test_a_name_of_another_iteration_is_passed_over_with_a_message(toy, warnings):
    folder = toy("run", NO_EVALUATION)
    expected = stress.outcome(folder)
    newest, former, _ = checkpoints.list_newest_first(str(folder / "checkpoints"))
    os.replace(former, newest)
    found = resume.newest(str(folder))
    assert found.contents["iteration"] == 4
    assert any("is of iteration 8, which is not that of its name" in text for text in warnings)
    assert stress.outcome(toy("run", NO_EVALUATION, "TRAIN.resume=auto")) == expected


def test_digits_of_other_scripts_are_not_names_of_checkpoints(tmp_path):
    (tmp_path / "iteration_\u0664.npz").touch()
    assert checkpoints.list_newest_first(str(tmp_path)) == []


def test_the_first_state_of_an_optimiser_is_paddles_own(make_toy):
    """A training that goes back to its start repeats itself bit for bit."""
    for overrides in ("", "LOSS=wgan", "LOSS=gan", "TRAIN.beta1=0.5"):
        paddle.seed(1)
        run = make_run(make_toy("TRAIN.on_nan=roll_back TRAIN.ema.use_ema=true", overrides))
        run.seek()
        checkpoints.keep_start(run)
        start = run.start
        states = []
        for _ in range(2):
            for _ in range(3):
                run.step()
                run.average.update(run.iteration)
            states.append(toy_states(run))
            checkpoints.restore(run, start)
            run.seek()
        assert states[0] == states[1]
