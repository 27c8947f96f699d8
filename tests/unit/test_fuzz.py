# SPDX-License-Identifier: Apache-2.0
"""A sample of the cases of fuzz.py, and what fuzz.py itself notices."""

import json
import time

import fuzz
import fuzz_cases
import numpy as np
import pytest

from support.errors import UserError


def test_readers_refuse_damaged_files_or_read_them_right():
    report = fuzz.fuzz(450, seed=1)
    assert not report.failures, report.failures[0]
    # Each reader refuses some files, and reads some whose damage is outside of the content.
    outcomes = report.outcomes
    assert {name for name, kind in outcomes if kind == "refused"} == {name for name, _ in outcomes}
    assert len({name for name, _ in outcomes}) == 13
    assert sum(count for (_, kind), count in outcomes.items() if kind == "equal") > 5
    used = {name for name, _ in report.generators}
    assert used == {generator.__name__ for generator in fuzz_cases.GENERATORS}
    counts = json.loads(json.dumps(report.as_dict(450, 1)))
    assert sum(counts["total"].values()) == counts["cases"] == 450
    assert set(counts["total"]) == {*fuzz.GOOD, *fuzz.BAD}
    assert sum(counts["reasons_for_different"].values()) == counts["total"]["different"]


def make_target(read):
    return fuzz_cases.Target("target", b"", read, {"(pickle)": b"", "inner.npy": b""})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("case.pdparams is damaged: /tmp/case.pdparams"), "refused"),
        (UserError("inner.npy is damaged"), "refused"),
        (UserError("damaged pickle"), "error"),
        (ValueError("a traceback"), "error"),
        (MemoryError(), "memory"),
        (SystemExit(1), "error"),
    ],
)
def test_an_outcome_is_classified(error, kind):
    def read(path):
        raise error

    target = make_target(read)
    path = fuzz_cases.Path("/tmp/case.pdparams")
    assert fuzz.read_case(target, path, {}, None)[0] == kind


def test_a_result_that_differs_needs_a_reason():
    target, path = make_target(lambda path: {"a": np.ones(2)}), fuzz_cases.Path("/tmp/x")
    assert fuzz.read_case(target, path, {"a": np.ones(2)}, None)[0] == "equal"
    assert fuzz.read_case(target, path, {"a": np.zeros(2)}, None)[0] == "wrong"
    assert fuzz.read_case(target, path, {"a": np.zeros(2)}, "why")[0] == "different"


@pytest.mark.parametrize("end", ["crash", "hang"])
def test_a_child_that_dies_or_hangs_is_noticed(monkeypatch, tmp_path, end):
    """The child is replaced by a script that reports the start of a case, and no more."""
    last = {"crash": "os.abort()", "hang": "time.sleep(600)"}[end]
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, sys, time\n"
        "output, first = int(sys.argv[2]), int(sys.argv[4])\n"
        "result = {'case': first, 'target': 't', 'generator': 'g', 'class': None}\n"
        "os.write(output, (json.dumps(result) + chr(10)).encode())\n"
        f"{last}\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(script))
    monkeypatch.setattr(fuzz, "SILENT_SECONDS", 0.2)
    start = time.monotonic()
    report = fuzz.fuzz(2)
    assert report.outcomes == {("t", end): 2} and len(report.failures) == 2
    assert time.monotonic() - start < 300


def test_programs_and_other_files_are_noticed(tmp_path):
    """Audit hooks stay forever: a process of its own has this one."""
    code = (
        "import os, subprocess, sys; sys.path.insert(0, sys.argv[1]); import fuzz\n"
        "watch = fuzz.Watch((sys.argv[2], sys.prefix, sys.base_prefix, '/dev'))\n"
        "open(sys.argv[3]).close(); watch.is_on = True\n"
        "open(sys.argv[2] + '/inside', 'w').close(); open(sys.argv[3]).close()\n"
        "os.system('true'); subprocess.run(['true'])\n"
        "print(watch.events)"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    outside = tmp_path / "outside"
    outside.write_text("")
    tests = str(fuzz.Path(fuzz.__file__).parent)
    arguments = [fuzz.sys.executable, "-c", code, tests, str(folder), str(outside)]
    found = fuzz.subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert found.count("open ") == 1 and str(outside) in found
    assert "os.system" in found and "subprocess.Popen" in found
