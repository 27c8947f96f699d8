# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The benchmark runs, with what is installed; how fast anything is, no test says."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("experiment", ["toy:8:4", "cifar10:4:2"])
def test_each_side_takes_its_turn(experiment, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "speed.py", experiment, "--repeat", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    for what in ("critic", "generator", "iteration"):
        for side in ("ours", "plain"):
            assert [what, side] in rows, done.stdout
    assert "GFLOP/s" in done.stdout
