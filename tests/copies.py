# SPDX-License-Identifier: Apache-2.0
"""Runs scripts in copies of a process that has imported Paddle, since the import takes seconds."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

TIMEOUT = 300  # seconds until a script that hangs is killed
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["paddle", "ppsci", "hydra", "scipy.special", "matplotlib.pyplot"])


class Copy:
    """A script that runs, with the methods of `subprocess.Popen` that tests use.

    Args:
        words: A script's file, or "-m" and a module, and the arguments.
        folder: Where it runs.
        environment: Its variables.
        stdout: The file that its output is appended to.
        stderr: The file for its errors, likewise.
    """

    def __init__(self, words, folder, environment, stdout, stderr):
        outputs = (str(stdout), str(stderr))
        self._process = _CONTEXT.Process(
            target=_run_and_exit, args=(list(words), str(folder), dict(environment), outputs)
        )
        self._process.start()
        self.pid = self._process.pid
        self.kill = self._process.kill

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=TIMEOUT):
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("a copy", timeout)
        return self.poll()


def run(words, folder, environment):
    """Runs `python WORDS` in a folder, as `subprocess.run` does.

    Args:
        words: A script's file, or "-m" and a module, and the arguments.
        folder: Where it runs.
        environment: Its variables.

    Returns:
        A `subprocess.CompletedProcess` with the script's output.
    """
    with tempfile.TemporaryDirectory() as outputs:
        paths = [Path(outputs) / name for name in ("stdout", "stderr")]
        copy = Copy(words, folder, environment, *paths)
        try:
            status = copy.wait()
        finally:
            copy.kill()
        return subprocess.CompletedProcess(words, status, *(path.read_text() for path in paths))


def _run_and_exit(words, folder, environment, outputs):
    """What a copy does: it becomes the script's process."""
    for number, path in enumerate(outputs, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tests = str(Path(__file__).parent)
    sys.path[:] = [folder, *(p for p in sys.path if p != folder and not p.startswith(tests))]
    try:
        status = _run_program(words)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _run_program(words):
    """Runs a script or module as the main program; returns its status."""
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        return _status(ended)
    except BaseException:  # as the interpreter reports what nobody caught
        try:
            sys.excepthook(*sys.exc_info())
        except SystemExit as ended:
            return _status(ended)
        return 1
    return 0


def _status(ended):
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    print(ended.code, file=sys.stderr)
    return 1
