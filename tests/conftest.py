# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: cores and environment, fixtures for configurations, scripts and data."""

import copy
import functools
import importlib
import itertools
import logging
import os
import shlex
import signal
import subprocess
import sys

import copies
import pytest
from helpers import REAL_DATA
from helpers import SCRIPTS

from support import command_line
from support import storage
from support.processor import prepare

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")  # "gw0" and so on
if WORKER and hasattr(os, "sched_setaffinity"):
    # Each worker has its own cores: threads that wait for another worker's are far slower.
    available = sorted(os.sched_getaffinity(0))
    number, workers = int(WORKER[2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, available[number::workers] or {available[number % len(available)]})
prepare()

import inception_reference
import numpy as np
import paddle
from hydra import compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from ppsci.utils import logger

EXPERIMENTS = ("toy", "mnist", "cifar10", "image64")


@pytest.fixture(autouse=True)
def quiet_and_seeded(monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "cache"))
    logger.init_logger("ppsci", None, 40)
    paddle.set_device("cpu")
    paddle.seed(0)
    np.random.seed(0)
    # Scripts that run in this process set these for good.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def float64():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


@pytest.fixture
def shared():
    """Finds files of real data; a test is skipped where its file is absent."""

    def find(name):
        path = REAL_DATA / name
        if not path.is_file():
            pytest.skip(f"needs {name} in {REAL_DATA} (WGANGP_TEST_DATA names another folder)")
        return str(path)

    return find


def split(texts):
    """Splits texts into words as a shell does; a text may hold several overrides."""
    return [word for text in texts for word in shlex.split(str(text))]


@functools.cache
def compose_files(name, words):
    """A script's configuration from the files, with LOSS=NAME, preset=NAME, or any words."""
    with initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
        return compose(f"wgangp_{name}", list(words))


def compose_settings(name, words):
    """What Hydra composes; its reading of the files, a fifth of a second, is kept."""
    is_group = [word.split("=")[0] in ("LOSS", "preset") for word in words]
    values = [word for word, is_one in zip(words, is_group) if not is_one]
    if any(word.startswith(("hydra", "+", "~")) for word in values):
        return copy.deepcopy(compose_files(name, tuple(words)))
    cfg = copy.deepcopy(compose_files(name, tuple(itertools.compress(words, is_group))))
    for override in OverridesParser.create().parse_overrides(values):
        OmegaConf.update(cfg, override.key_or_group, override.value())
    return cfg


@pytest.fixture
def configure(tmp_path):
    """Composes a script's configuration with overrides and a temporary output folder.

    `configure("toy", "TRAIN.epochs=2 log_freq=1")`
    """

    def make(name, *overrides):
        words = [*split(overrides), "device=cpu", f"output_dir={tmp_path}"]
        return compose_settings(name, words)

    return make


@pytest.fixture
def check_command(monkeypatch, tmp_path):
    """Checks a command, such as "wgangp_toy.py mode=eval", as its script does."""

    def check(command):
        monkeypatch.chdir(tmp_path)  # The output folder would be here.
        script, *words = shlex.split(command)
        module = importlib.import_module(script[: -len(".py")])
        command_line.check(module.__name__, module.CHOICES, words)

    return check


@pytest.fixture
def run_script(tmp_path):
    """Runs a script as a user does, in its folder; returns the finished process.

    `run_script("toy", "mode=eval seed=1", status=2)` runs an experiment on the CPU; other names
    are those of a program, such as "toy_critics", or of a module, such as "-m measures.inception".
    With `is_copy=False`, the process is a new one, as that of a user; else it is a copy of one
    that has imported Paddle.
    """

    def run(name, *arguments, status=0, is_copy=True):
        # Nothing listens at the proxy, so a machine with a network is offline, too.
        environment = {**os.environ, "HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
        for variable in ("PYTHONPATH", "no_proxy", "NO_PROXY"):
            environment.pop(variable, None)
        words = split(arguments)
        if name in EXPERIMENTS:
            name, words = f"wgangp_{name}", [*words, "device=cpu"]
        program = name.split() if name.startswith("-m ") else [f"{name}.py"]
        if is_copy:
            done = copies.run([*program, *words], SCRIPTS, environment)
        else:
            done = subprocess.run(
                [sys.executable, *program, *words],
                cwd=SCRIPTS,
                env=environment,
                capture_output=True,
                text=True,
                timeout=copies.TIMEOUT,
                check=False,
            )
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """Path and checksum of random weights in the format of the Inception's file."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    inception_reference.write_pth(path, inception_reference.random_state())
    return str(path), storage.sha256(str(path))
