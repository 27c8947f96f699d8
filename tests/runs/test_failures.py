# SPDX-License-Identifier: Apache-2.0
"""Failures from outside: disks, folders, readers, signals, and a second process."""

import errno
import os
import shutil
import signal

import pytest
from trainings import after_steps

from data import synthetic
from support.errors import UserError
from support.signals import stop_signals
from training import checkpoints

NO_EVALUATION = "TRAIN.eval_during_train=false"


def test_an_error_while_reading_ends_the_training(toy, monkeypatch):
    def draw(*_):
        raise MemoryError("no room for a batch")

    monkeypatch.setattr(synthetic, "draw_toy", draw)
    with pytest.raises(MemoryError, match="no room for a batch"):
        toy("run", NO_EVALUATION, "DATA.mode=swissroll")


def test_a_full_disk_ends_the_training_and_keeps_what_was_saved(toy, monkeypatch, tmp_path):
    fsync, left = os.fsync, [3]  # run.json, metrics.jsonl's first version and a checkpoint

    def fail_when_full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail_when_full)
    with pytest.raises(UserError, match="No space left on device.*The last checkpoint is") as error:
        toy("run", NO_EVALUATION)
    (path,) = checkpoints.list_newest_first(str(tmp_path / "run" / "checkpoints"))
    assert f"{path}; TRAIN.resume=PATH resumes from it" in str(error.value)
    checkpoints.read(path)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_removed_folder_ends_the_training_and_stays_removed(toy, monkeypatch, tmp_path):
    def remove(run):
        if run.iteration == 5:
            (tmp_path / "run").rename(tmp_path / "gone")

    after_steps(monkeypatch, remove)
    with pytest.raises(UserError, match="run can't be written to any more .*removed while"):
        toy("run", NO_EVALUATION)
    assert not (tmp_path / "run").exists()


def test_a_removed_folder_of_samples_is_made_again(toy, monkeypatch, tmp_path):
    samples = tmp_path / "run" / "samples"

    def remove(run):
        if run.iteration == 5:
            shutil.rmtree(samples)

    after_steps(monkeypatch, remove)
    toy("run", NO_EVALUATION)
    assert sorted(path.name for path in samples.iterdir()) == [
        "iteration_08.png",
        "iteration_12.png",
    ]


def test_a_second_interrupt_ends_at_once():
    with stop_signals() as signals:
        for _ in range(3):  # Paddle's launcher sends three.
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals == 3 * [signal.SIGTERM]
    with stop_signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_process_is_refused_and_an_interrupt_saves(stress_copies, tmp_path):
    folder, output = tmp_path / "run", tmp_path / "run.out"
    endless = "TRAIN.epochs=100000"  # The first process runs until it is interrupted.
    first = stress_copies.start(folder, endless)
    try:
        stress_copies.wait_until(first, (folder / "metrics.jsonl").exists)
        second = stress_copies.start(folder, endless)
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
    assert checkpoints.list_newest_first(str(folder / "checkpoints"))
