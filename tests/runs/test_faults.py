# SPDX-License-Identifier: Apache-2.0
"""Faults: little memory, signals at any moment, removed checkpoints, divergence at the start."""

import errno
import random
import re
import resource
import shutil
import signal
import subprocess
import sys

import paddle
import pytest
import stress
from helpers import SCRIPTS
from trainings import after_steps
from trainings import make_run
from trainings import read_records

from support import errors
from support import signals
from support.errors import UserError
from training import checkpoints
from training import loop

NO_EVALUATION = "TRAIN.eval_during_train=false"
ROLL_BACK = f"{NO_EVALUATION} TRAIN.on_nan=roll_back TRAIN.max_rollbacks=2"


def run_program(program, *arguments, memory=None):
    """Runs Python code in the scripts' folder; returns its status and stderr."""
    limit = None
    if memory is not None:

        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=limit,
    )
    text = done.stdout + done.stderr
    assert not any(word in text for word in ("Traceback", "FatalError", "C++")), text[-3000:]
    return done.returncode, done.stderr


# Sends SIGTERM to itself when a module is imported, and in the end.
KILLED_WHILE_IMPORTING = """
import atexit, os, runpy, signal, sys

class Killer:
    def find_spec(self, name, *_):
        if name == target:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)

target = sys.argv.pop(1)
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Killer())
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("module", ["hydra", "paddle", "ppsci"])
def test_sigterm_while_a_script_starts_is_one_line(module, tmp_path):
    program = KILLED_WHILE_IMPORTING.replace("sys.argv[0]", "'wgangp_toy.py'")
    arguments = (module, f"hydra.run.dir={tmp_path}/run", "device=cpu")
    status, text = run_program(program, *arguments)
    assert status == 128 + signal.SIGTERM
    assert text.endswith("Error: interrupted.\n") and text.count("interrupted") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_an_exit_that_something_catches_ends_by_the_second_signal(times):
    program = (
        "import os, signal, sys; from support import signals; signals.end_on_signals()\n"
        "for _ in range(int(sys.argv[1])):\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except SystemExit: pass\n"
    )
    status, text = run_program(program, str(times))
    assert (status, text) == ([0, 143][times - 1], "Error: interrupted.\n")


def test_a_second_sigterm_does_not_change_the_status(toy, monkeypatch):
    """It comes after the training was saved, while the process ends."""
    leave = loop.leave

    def leave_and_kill(run, received):
        try:
            leave(run, received)
        finally:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "leave", leave_and_kill)
    with pytest.raises(SystemExit) as end:
        toy("run", NO_EVALUATION, stop=5)
    assert end.value.code == 143


def test_a_held_sigterm_reaches_the_training():
    former = signal.getsignal(signal.SIGTERM)
    signals.hold_sigterm()
    signal.raise_signal(signal.SIGTERM)
    with signals.stop_signals() as received:
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == former
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize(
    ("memory", "settings"),
    [
        (300 * 10**6, ""),  # Paddle can't be imported.
        # The first layer's output takes 6.5 GB; an epoch of one step has few rows to order.
        (
            6 * 10**9,
            "MODEL.gen_net.dim=8 MODEL.dis_net.dim=1024 TRAIN.batch_size=1600000 "
            "TRAIN.iters_per_epoch=1 TRAIN.n_critic=1",
        ),
    ],
)
def test_little_memory_is_one_line(memory, settings, tmp_path):
    program = "import runpy; runpy.run_path('wgangp_toy.py', run_name='__main__')"
    arguments = (f"hydra.run.dir={tmp_path}/run", "device=cpu", NO_EVALUATION, *settings.split())
    status, text = run_program(program, *arguments, memory=memory)
    assert status == 2
    last = text.splitlines()[-1]
    assert last.startswith("Error: there is not enough memory (") and "TRAIN.batch_size" in last
    if settings:
        log = (tmp_path / "run" / "train.log").read_text()
        reasons = r"Fail to alloc|\[Errno 12\] Cannot allocate memory"  # Paddle's, and the pool's
        assert re.search(rf"ERROR: there is not enough memory \(({reasons})", log)


def test_a_thread_without_memory_ends_the_process():
    """Paddle's reader is a thread, and the training would wait for it forever."""
    program = (
        "import threading; from support import launch; launch.begin('wgangp_mnist', {})\n"
        "def fail(): raise MemoryError('no room')\n"
        "threading.Thread(target=fail).start(); threading.Event().wait()\n"
    )
    status, text = run_program(program)
    assert status == 2 and text.startswith("Error: there is not enough memory (no room).")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), ""),
        (MemoryError("(ResourceExhausted) Fail to alloc 7.\n  [Hint: x]\n"), "Fail to alloc 7."),
        (MemoryError("\n---\nC++\n---\nResourceExhaustedError: \n\nOut of it.\n\nX"), "Out of it."),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "[Errno 12] Cannot allocate memory"),
        (ImportError("x.so: failed to map segment"), "x.so: failed to map segment"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (SystemError("Blocking queue is killed"), "Blocking queue is killed"),
    ],
)
def test_errors_of_little_memory_are_explained(error, reason):
    expected = f"there is not enough memory{f' ({reason})' if reason else ''}. Choose"
    assert errors.explain(error).startswith(expected)


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError("(External) CUDA error"), ImportError("no x"), KeyError(1)]
)
def test_other_errors_are_not_explained(error):
    assert errors.explain(error) is None


def test_an_error_of_cuda_is_not_one_of_the_folder(make_toy):
    run = make_run(make_toy())
    with pytest.raises(OSError, match="CUDA error"), loop.writing(run):
        raise OSError("(External) CUDA error")
    with pytest.raises(UserError, match="can't be written to any more"), loop.writing(run):
        raise OSError(errno.ENOSPC, "full")


@pytest.fixture
def warnings(monkeypatch):
    texts = []
    for module in (loop, checkpoints):
        monkeypatch.setattr(module.logger, "warning", texts.append)
    return texts


def spoil(monkeypatch, iteration, times=1, remove=None):
    """Makes a weight NaN in an iteration the first few times, and may remove a folder before."""
    spoiled = []

    def set_nan(run):
        if run.iteration == iteration and len(spoiled) < times:
            spoiled.append(run.rollbacks)
            weight = dict(run.generator.network.named_parameters())["layers.2.weight"]
            weight.set_value(weight * float("nan"))
            if remove is not None:
                shutil.rmtree(remove)

    after_steps(monkeypatch, set_nan)
    return spoiled


def test_divergence_in_the_first_iteration_goes_back_to_the_start(toy, monkeypatch, warnings):
    expected = stress.outcome(toy("uninterrupted", ROLL_BACK))
    with monkeypatch.context() as patch:
        spoil(patch, 1)
        folder = toy("run", ROLL_BACK)
    assert any("Back to the start, with other draws (rollback 1)." in text for text in warnings)
    records = read_records(folder)
    assert [record["step"] for record in records] == [1, 3, 4, 6, 8, 9, 12]
    newest = checkpoints.list_newest_first(str(folder / "checkpoints"))[0]
    assert checkpoints.read(newest).contents["rollbacks"] == 1
    assert stress.outcome(folder) != expected


def test_the_way_back_to_the_start_is_limited(toy, monkeypatch):
    spoiled = spoil(monkeypatch, 1, 100)
    message = "rolled back 2 times before .TRAIN.max_rollbacks=2.. There is no checkpoint yet"
    with pytest.raises(UserError, match=message):
        toy("run", ROLL_BACK)
    assert spoiled == [0, 1, 2]


def test_a_divergence_at_a_rate_of_0_is_described(make_toy):
    run = make_run(make_toy("TRAIN.learning_rate=0 TRAIN.critic_learning_rate=1e-3"))
    assert "at a learning rate of 0: numbers" in loop.describe_divergence(run, 0.0)
    run = make_run(make_toy("TRAIN.learning_rate=1e-2 TRAIN.critic_learning_rate=1e-3"))
    assert "at a learning rate of 0.1 (critic: 0.01): num" in loop.describe_divergence(run, 0.1)


def test_the_cause_of_a_divergence_names_the_tensor(make_toy):
    run = make_run(make_toy("TRAIN.ema.use_ema=true"))
    run.seek()
    run.step()
    assert "numbers too large to be added" in loop.describe_divergence(run, 0.1)
    weights = dict(run.critic.network.named_parameters())
    state = run.critic.solver.optimizer.state_dict()
    tensor = state[f"{weights['layers.2.bias'].name}_moment2_0"]
    tensor.set_value(paddle.full_like(tensor, float("inf")))
    text = loop.describe_divergence(run, 0.1)
    assert "tensors of the critic's optimiser" in text
    assert text.endswith("not finite: layers.2.bias/moment2.")
    average = dict(run.average.network.named_parameters())["layers.0.bias"]
    average.set_value(average * float("nan"))
    assert "the moving average are not finite: layers.0.bias" in loop.describe_divergence(run, 0.1)
    weight = dict(run.generator.network.named_parameters())["layers.2.weight"]
    weight.set_value(weight * float("nan"))
    text = loop.describe_divergence(run, 0.1)
    assert "weights of the generator are not finite: layers.2.weight" in text


@pytest.mark.parametrize(
    ("on_nan", "message"),
    [
        ("stop", "The last checkpoint, .*iteration_04.npz, was removed while the training ran"),
        ("roll_back", "can't be rolled back: there is no checkpoint .*iteration_04.npz"),
    ],
)
def test_a_removed_checkpoint_is_named(toy, monkeypatch, tmp_path, on_nan, message):
    spoil(monkeypatch, 6, remove=tmp_path / "run" / "checkpoints")
    with pytest.raises(UserError, match=f"layers.2.weight.*{message}") as error:
        toy("run", NO_EVALUATION, f"TRAIN.on_nan={on_nan}")
    assert "no checkpoint yet" not in str(error.value)


def test_a_removed_folder_of_checkpoints_is_reported_and_made_again(
    toy, monkeypatch, tmp_path, warnings
):
    expected = stress.outcome(toy("uninterrupted", NO_EVALUATION))
    assert warnings == []

    def remove(run):
        if run.iteration == 6:
            shutil.rmtree(tmp_path / "run" / "checkpoints")

    with monkeypatch.context() as patch:
        after_steps(patch, remove)
        folder = toy("run", NO_EVALUATION)
    assert len(warnings) == 1 and "checkpoints was removed while the training ran" in warnings[0]
    assert stress.outcome(folder) == expected
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    assert sorted(names) == ["iteration_08.npz", "iteration_12.npz"]


def test_killed_trainings_end_like_an_uninterrupted_one(stress_copies, tmp_path):
    uninterrupted, folder = tmp_path / "uninterrupted", tmp_path / "killed"
    stress_copies.finish(stress_copies.start(uninterrupted, "TRAIN.epochs=14"), uninterrupted)
    # test_sigterm_while_a_script_starts_is_one_line has the first seconds.
    kinds = [kind for kind in stress_copies.KINDS if "first seconds" not in kind]
    # Five kills, the first and the last at random
    kills = (folder, 5, random.Random(3), "TRAIN.epochs=14", kinds)
    assert len(kinds) == 4 and stress_copies.kill_and_resume(*kills) == 5
    assert stress.outcome(folder) == stress.outcome(uninterrupted)
