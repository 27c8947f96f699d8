# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: the import path, tiny data, and the real data where it is there."""

import importlib
import logging
import os
import shlex
import signal
import subprocess
import sys

import pytest
from helpers import REAL_DATA
from helpers import SCRIPTS

from support import storage
from support.processor import prepare
from support.settings import check_command_line

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")  # "gw0" and so on
if WORKER and hasattr(os, "sched_setaffinity"):
    # Threads that wait for a core which another worker's have are many times as slow.
    available = sorted(os.sched_getaffinity(0))
    number, workers = int(WORKER[2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, available[number::workers] or {available[number % len(available)]})
prepare()

import inception_reference
import numpy as np
import paddle
from hydra import compose
from hydra import initialize_config_dir
from ppsci.utils import logger

EXPERIMENTS = ("toy", "mnist", "cifar10")


@pytest.fixture(autouse=True)
def quiet_and_seeded(monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "cache"))
    logger.init_logger("ppsci", None, 40)
    paddle.set_device("cpu")
    paddle.seed(0)
    np.random.seed(0)
    # what scripts that run in this process set for good
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
    """Finds real data; a test that wants a file skips where it is absent."""

    def find(name):
        path = REAL_DATA / name
        if not path.is_file():
            pytest.skip(f"needs {name} in {REAL_DATA} (WGANGP_TEST_DATA names another folder)")
        return str(path)

    return find


@pytest.fixture
def configure(tmp_path):
    """Composes a script's configuration with overrides, output in a temporary folder."""

    def make(name, *overrides):
        with initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
            return compose(f"wgangp_{name}", [*overrides, "device=cpu", f"output_dir={tmp_path}"])

    return make


@pytest.fixture
def check_command(monkeypatch, tmp_path):
    """Composes a command that a text shows, such as "wgangp_toy.py mode=eval"."""

    def check(command):
        monkeypatch.chdir(tmp_path)  # where the output folder would be
        words = shlex.split(command)
        monkeypatch.setattr(sys, "argv", words)
        script = words[0][: -len(".py")]
        check_command_line(script, importlib.import_module(script).CHOICES)
        with initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
            compose(script, words[1:])

    return check


@pytest.fixture
def run_script(tmp_path):
    """Runs a script as a user does, in its folder; returns the finished process."""

    def run(name, *arguments, status=0):
        # also on a machine that has a network: nothing listens there
        environment = {**os.environ, "HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
        for name_ in ("PYTHONPATH", "no_proxy", "NO_PROXY"):
            environment.pop(name_, None)
        command = [*(name.split() if name.startswith("-m ") else [f"{name}.py"]), *arguments]
        if name in EXPERIMENTS:
            command = [f"wgangp_{name}.py", *arguments, "device=cpu"]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=SCRIPTS,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """Random weights in the form of the Inception's file, and their checksum."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    inception_reference.write_pth(path, inception_reference.random_state())
    return str(path), storage.sha256(str(path))
