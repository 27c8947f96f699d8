# SPDX-License-Identifier: Apache-2.0
"""The loop: a run's files, its records and lines of progress, the best generator."""

import io
import itertools
import sys
import time
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from trainings import TOY
from trainings import load_arrays
from trainings import read_records
from trainings import without_clock

import wgangp_toy
from measures.evaluation import Evaluator
from modes.train import train
from support.errors import UserError
from training import checkpoints
from training import records


def train_toy(configure, folder, overrides):
    paddle.seed(1)  # The first weights do not depend on the seed of the draws.
    cfg = configure("toy", TOY, overrides)
    cfg.output_dir = str(folder)
    train(wgangp_toy.Toy(cfg))
    return read_records(folder)


def test_a_run_leaves_its_files_and_repeats_itself(configure, tmp_path):
    def run(seed, name):
        overrides = (
            f"TRAIN.epochs=3 TRAIN.iters_per_epoch=2 TRAIN.save_freq=2 seed={seed} "
            "TRAIN.eval_freq=3 TRAIN.eval_num_samples=50 log_freq=1"
        )
        found = train_toy(configure, tmp_path / name, overrides)
        weights = [
            array.tobytes()
            for role in ("generator", "discriminator")
            for array in load_arrays(tmp_path / name / f"model_{role}.pdparams")
        ]
        return found, weights

    folder = tmp_path / "first"
    first, weights = run(1, "first")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.p*")}
    assert {f"samples/iteration_{i}.png" for i in (0, 2, 4, 6)} <= names
    assert "losses.png" in names and (folder / "report.html").is_file()
    # Every second epoch and the last one have checkpoints.
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        *("iteration_4.npz", "iteration_6.npz", "best.npz"),
        *("best_generator.pdparams", "best_discriminator.pdparams"),
    }
    assert [record["step"] for record in first] == [1, 2, 3, 4, 5, 6]
    expected = {"step", "seconds", "critic_loss", "generator_loss", "wasserstein"}
    expected |= {"gradient_penalty", "gradient_norm", "learning_rate"}
    assert set(first[0]) - {"critic_balance"} == expected
    assert set(first[5]) - {"critic_balance"} - expected == {
        *("modes", "high_quality", "reverse_kl", "wasserstein_1", "wasserstein_2"),
        *("evaluated", "best"),
    }
    assert first[5]["evaluated"] == "generator"
    for record in first:
        loss = -record["wasserstein"] + 0.1 * record["gradient_penalty"]
        assert record["critic_loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
        optimal = 0.2 * (record["gradient_penalty"] + record["gradient_norm"] - 1)
        balance = record["wasserstein"] / optimal if optimal > 0 else None
        assert record.get("critic_balance") == pytest.approx(balance, rel=1e-4)
    assert any("critic_balance" in record for record in first)

    second, same = run(1, "second")
    assert same == weights
    assert without_clock(second) == without_clock(first)
    _, others = run(2, "third")
    assert others[0] != weights[0]
    with pytest.raises(UserError, match="holds another training already"):
        run(1, "first")


def test_records_do_not_depend_on_lines_that_only_show_progress(configure, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(records.logger, "info", logged.append)

    def run(silence):
        logged.clear()
        monkeypatch.setattr(records, "SILENCE", silence)
        overrides = (
            "TRAIN.epochs=1 TRAIN.iters_per_epoch=5 log_freq=3 TRAIN.eval_during_train=false"
        )
        return without_clock(train_toy(configure, tmp_path / str(silence), overrides))

    def logged_steps():
        return [int(line[1]) for line in logged if "/5] wasserstein" in line]

    expected = run(30)
    assert [record["step"] for record in expected] == [1, 3, 5] == logged_steps()
    assert run(0) == expected
    assert logged_steps() == [1, 2, 3, 4, 5]
    assert not any("[Train]" in line for line in logged)  # ppsci's own lines begin with it.


def test_lines_of_progress_come_after_each_silence(configure, tmp_path, monkeypatch):
    """By this clock, an iteration takes ten seconds."""
    logged, seconds = [], itertools.count(0, 10)
    clock = SimpleNamespace(
        perf_counter=lambda: next(seconds), strftime=time.strftime, gmtime=time.gmtime
    )
    monkeypatch.setattr(records, "time", clock)
    monkeypatch.setattr(records, "SILENCE", 25)
    monkeypatch.setattr(records.logger, "info", logged.append)
    overrides = "TRAIN.epochs=1 TRAIN.iters_per_epoch=10 TRAIN.eval_during_train=false"
    train_toy(configure, tmp_path, overrides)
    lines = [line.split("/10] ") for line in logged if "/10] wasserstein" in line]
    assert [line[0] for line in lines] == ["[1", "[4", "[7", "[10"]


def test_records_are_means_since_the_last_record(configure, tmp_path):
    def run(log_freq):
        overrides = (
            f"TRAIN.epochs=2 TRAIN.iters_per_epoch=3 log_freq={log_freq} "
            "TRAIN.eval_during_train=false TRAIN.save_freq=0"
        )
        found = train_toy(configure, tmp_path / str(log_freq), overrides)
        return {record["step"]: record for record in found}

    each, rare = run(1), run(100)
    assert set(rare) == {1, 3, 6}
    for name in ("wasserstein", "critic_loss", "generator_loss", "gradient_norm"):
        for step, steps in ((1, [1]), (3, [2, 3]), (6, [4, 5, 6])):
            mean = np.mean([each[other][name] for other in steps])
            assert rare[step][name] == pytest.approx(mean, rel=1e-4, abs=1e-6), (name, step)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_progress_bar(configure, tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    overrides = "TRAIN.epochs=1 TRAIN.iters_per_epoch=3 TRAIN.eval_during_train=false"
    record = train_toy(configure, tmp_path, overrides)[-1]
    last = terminal.getvalue().rpartition("\r")[2]
    assert "100%" in last and " 3/3 " in last
    assert f"wasserstein={record['wasserstein']:.3f}" in last


def test_the_average_is_evaluated_drawn_and_saved(configure, tmp_path):
    def run(use_ema):
        overrides = (
            "TRAIN.epochs=1 TRAIN.iters_per_epoch=8 TRAIN.n_critic=1 TRAIN.eval_freq=1 "
            "TRAIN.eval_num_samples=40 TRAIN.learning_rate=0.01 TRAIN.ema.decay=0.9 "
            f"TRAIN.ema.use_ema={use_ema}"
        )
        return train_toy(configure, tmp_path / str(use_ema), overrides)[-1]

    folder, average_folder = tmp_path / "False", tmp_path / "True"
    plain, averaged = run(False), run(True)
    assert plain["evaluated"] == "generator" and averaged["evaluated"] == "average"
    assert not (folder / "model_average_generator.pdparams").exists()
    # Training itself is the same, but another network is evaluated.
    assert averaged["wasserstein"] == plain["wasserstein"]
    assert averaged["wasserstein_2"] != plain["wasserstein_2"]
    states = [
        [array.tobytes() for array in load_arrays(path)]
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
    ("metric", "values", "are_best"),
    [
        ("modes", [2, 5, 4], [True, True, False]),
        ("wasserstein_2", [0.5, 0.2, 0.4], [True, True, False]),
        ("wasserstein_2", [0.5, 0.5, 0.6], [True, False, False]),  # The first of equals is kept.
    ],
)
def test_the_best_is_ranked_in_the_metrics_own_direction(
    configure, tmp_path, monkeypatch, metric, values, are_best
):
    figures = iter(values)
    monkeypatch.setattr(Evaluator, "evaluate", lambda self: {metric: next(figures)})
    overrides = (
        "TRAIN.epochs=3 TRAIN.iters_per_epoch=1 TRAIN.eval_freq=1 TRAIN.save_freq=1 "
        f"TRAIN.eval_num_samples=20 TRAIN.best_metric={metric}"
    )
    found = train_toy(configure, tmp_path, overrides)
    assert [record.get("best", False) for record in found] == are_best
    best = max(record["step"] for record in found if record.get("best"))
    for role in ("generator", "discriminator"):
        kept = load_arrays(tmp_path / f"checkpoints/best_{role}.pdparams")
        path = tmp_path / f"checkpoints/iteration_{best}.npz"
        then = checkpoints.read(str(path)).part(role).values()
        assert [a.tobytes() for a in kept] == [a.tobytes() for a in then]


def test_the_line_of_a_record_says_speed_and_time_left():
    record = {"step": 50, "seconds": 25.0, "wasserstein": 1.5, "critic_loss": -1.25}
    record["generator_loss"] = 0.125
    line = records.format_record(record, 200)
    assert line == (
        "[50/200] wasserstein 1.5000, critic -1.2500, generator 0.1250, 2.00 it/s, 00:01:15 left"
    )
    record.update(gradient_norm=0.9, accuracy_real=0.5, accuracy_fake=0.25)
    line = records.format_record(record, 2 * 86400 * 2 + 50)
    assert "gradient norm 0.900, class accuracy real 0.50 fake 0.25" in line
    assert line.endswith("2 d 00:00:00 left")
