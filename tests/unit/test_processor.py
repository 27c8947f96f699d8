# SPDX-License-Identifier: Apache-2.0
"""The processor's variables and what becomes of freed memory."""

import json
import os
import subprocess
import sys

import pytest
from helpers import SCRIPTS

from support import processor
from support.processor import PROCESSOR_VARIABLES

PROGRAM = """
import json, os
from support.processor import PROCESSOR_VARIABLES, prepare
prepare()
print(json.dumps([os.environ.get(name) for name in PROCESSOR_VARIABLES]))
"""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def prepare(**environment):
    """The variables that `prepare` leaves in a process of its own."""
    base = {name: value for name, value in os.environ.items() if name not in PROCESSOR_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=SCRIPTS,
        env={**base, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_prepare_sets_threads_to_the_number_of_cores():
    assert prepare()[:2] == [str(CORES)] * 2


def test_prepare_shares_cores_among_the_processes_of_a_machine():
    assert prepare(PADDLE_LOCAL_SIZE="2")[:2] == [str(max(CORES // 2, 1))] * 2
    assert prepare(PADDLE_LOCAL_SIZE=str(2 * CORES))[:2] == ["1", "1"]


def test_prepare_leaves_a_users_variables_alone():
    assert prepare(MKL_NUM_THREADS="7")[:2] == ["7", str(CORES)]
    assert prepare(FLAGS_paddle_num_threads="7")[:2] == [str(CORES), "7"]
    assert prepare(MKL_DEBUG_CPU_TYPE="4")[2] == "4"
    assert prepare(NVIDIA_TF32_OVERRIDE="1")[3] == "1"


def test_prepare_turns_tf32_off():
    assert prepare()[3] == "0"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("vendor_id : AuthenticAMD\nflags : fma avx2 bmi2\n", "5"),
        ("vendor_id : AuthenticAMD\nflags : fma avx bmi2\n", None),
        ("vendor_id : GenuineIntel\nflags : fma avx2 bmi2\n", None),
    ],
)
def test_prepare_names_the_type_of_amd_processors_only(monkeypatch, tmp_path, text, value):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(processor, "open", lambda *_, **__: path.open(), raising=False)
    # a variable of malloc's: memory is left as it is
    monkeypatch.setattr(os, "environ", {"MALLOC_ARENA_MAX": "1"})
    processor.prepare()
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == value


class Library:
    """The C library, as far as `prepare` calls it."""

    def __init__(self):
        self.calls = []

    def mallopt(self, *arguments):
        self.calls.append(arguments)


@pytest.mark.parametrize(
    ("system", "environment", "calls"),
    [
        ("Linux", {}, [(-3, 32 << 20), (-1, 2**31 - 1), (-2, 64 << 20), (-8, 1)]),
        ("Linux", {"MALLOC_ARENA_MAX": "1"}, []),
        ("Darwin", {}, []),
    ],
)
def test_prepare_keeps_freed_memory_unless_malloc_is_configured(
    monkeypatch, system, environment, calls
):
    library = Library()
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(processor.platform, "system", lambda: system)
    monkeypatch.setattr(processor.ctypes, "CDLL", lambda _: library)
    processor.prepare()
    assert library.calls == calls


def test_prepare_chooses_the_backend_that_writes_files(monkeypatch):
    """Notebooks name one of their own, which may not be installed for the script."""
    environment = {"MPLBACKEND": "module://absent.backend", "MALLOC_ARENA_MAX": "1"}
    monkeypatch.setattr(os, "environ", environment)
    processor.prepare()
    assert os.environ["MPLBACKEND"] == "Agg"


def test_prepare_leaves_the_backend_of_a_notebooks_own_process(monkeypatch):
    environment = {"MPLBACKEND": "module://present.backend", "MALLOC_ARENA_MAX": "1"}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", object())
    processor.prepare()
    assert os.environ["MPLBACKEND"] == "module://present.backend"


def test_prepare_does_without_mallopt(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(processor.ctypes, "CDLL", lambda _: object())
    processor.prepare()
    assert os.environ["MKL_NUM_THREADS"] == str(CORES)
