# SPDX-License-Identifier: Apache-2.0
"""`make demo`: its commands, its one page, and the progress bar on a real terminal."""

import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios

import pytest
from helpers import ROOT
from helpers import SCRIPTS
from trainings import read_records

import report
import wgangp_cifar10
from modes.runner import run_mode
from pages import page

TINY = (
    "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 TRAIN.batch_size=4 TRAIN.epochs=1 "
    "TRAIN.iters_per_epoch=3 TRAIN.eval_freq=1 TRAIN.eval_num_samples=20 EVAL.num_samples=20 "
    "log_freq=1 device=cpu"
)


def read_commands(folder):
    """The commands of the Makefile's target, with a folder in place of the demo's."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndemo: setup\n")[2]
    recipe = recipe.partition("\n\n")[0].replace("\\\n", "").replace("$(DEMO)", str(folder))
    return [shlex.split(part)[1:] for part in re.findall(r"&& (\$\(RUN\) .*)", recipe)]


def run_in_terminal(words):
    """Runs a script in a terminal of its own; returns its status and what it showed."""
    own, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))  # rows, columns
    process = subprocess.Popen(
        [sys.executable, *words], cwd=SCRIPTS, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    parts = []
    while True:
        try:
            part = os.read(own, 65536)
        except OSError:  # Linux: no process holds the terminal any more.
            break
        if not part:
            break
        parts.append(part)
    os.close(own)
    return process.wait(), b"".join(parts).decode()


def test_the_demo_leaves_one_page(tmp_path, configure, check_command, monkeypatch):
    folder = tmp_path / "demo"
    train, evaluate, draw, show = read_commands(folder)
    for words in (train, evaluate, draw):
        check_command(shlex.join(words))
    status, screen = run_in_terminal([*train, *TINY.split()])
    assert status == 0, screen[-3000:]
    (record,) = (record for record in read_records(folder) if record["step"] == 3)

    # A bar shows the estimate, the speed and the time left; the log's file has the lines.
    bar = [line for line in re.split(r"[\r\n]+", screen) if "| 3/3 [" in line][-1]
    assert f"wasserstein={record['wasserstein']:.3f}" in bar
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, +[\d.]+(it/s|s/it), ", bar)
    log = (folder / "train.log").read_text()
    for line in ("[3/3] wasserstein", "best_generator.pdparams", "Auto collation is disabled"):
        assert line in log and line not in screen
    assert "evaluated the generator" in screen and "model_generator.pdparams" in screen

    monkeypatch.setattr(page, "write_or_warn", lambda folder: None)  # report.py writes it below.
    for words in (evaluate, draw):
        tiny = TINY if words is evaluate else "INFER.num_samples=20 INFER.batch_size=20"
        cfg = configure("cifar10", shlex.join(words[1:]), tiny)
        cfg.output_dir = next(w for w in words if w.startswith("hydra.run.dir=")).partition("=")[2]
        os.makedirs(cfg.output_dir, exist_ok=True)
        run_mode(wgangp_cifar10.Cifar10(cfg))
    rows = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert {"classifier_score", "frechet_distance", "class_accuracy"} <= set(rows)
    assert rows["class_accuracy"]["real"] > 0.9  # of 20 digits
    assert rows["classifier_score"]["measured_by"]["network"].endswith("last layer refitted")
    monkeypatch.setattr(sys, "argv", show)
    report.main()
    text = (folder / "report.html").read_text()
    for part in ("Each column is a class", "Weights that ship with the suite", "class_accuracy"):
        assert part in text


def show_setup(*words):
    """Shows what `make setup` would do; a make that runs the tests hands down its own settings."""
    names = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PADDLE", "CUDA", "VENV")
    env = {name: value for name, value in os.environ.items() if name not in names}
    command = ["make", "-n", "setup", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is absent")
@pytest.mark.parametrize(
    ("stamp", "words", "build"),
    [
        (None, ["PADDLE=gpu"], "gpu-cu126"),
        (None, ["PADDLE=gpu", "CUDA=cu118"], "gpu-cu118"),
        ("gpu-cu118", [], None),
        ("cpu-cu126", [], None),
        ("cpu-cu126", ["PADDLE=gpu"], "gpu-cu126"),
    ],
)
def test_make_keeps_the_build_that_is_there(stamp, words, build, tmp_path):
    if stamp is not None:
        (tmp_path / f".ready-{stamp}").touch()
    shown = show_setup(f"VENV={tmp_path}", "PYTHON=true", *words).stdout
    assert ("venv --clear" in shown) == (build is not None)
    if build is not None:
        assert f"{tmp_path}/.ready-{build}" in shown


@pytest.mark.skipif(shutil.which("make") is None, reason="make is absent")
@pytest.mark.parametrize("word", ["PADDLE=GPU", "VENV=a b"])
def test_make_refuses_what_it_does_not_know(word):
    done = show_setup(word)
    assert done.returncode and word in done.stderr and "venv --clear" not in done.stdout


def test_the_help_of_make_names_the_demo_as_the_readme_does():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r'@echo "make demo +(.*)"', makefile)
    minutes = re.search(r"(\w+) minutes", line)[0]
    (paragraph,) = (part for part in readme.split("\n\n") if part.startswith("`make demo` "))
    assert minutes in paragraph.replace("\n", " ")
