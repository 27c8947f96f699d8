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

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_data import write_cifar
from test_data import write_mnist

sys.path.insert(0, str(ROOT / "benchmarks"))

import results

TINY = ["MODEL.gen_net.dim=8", "MODEL.dis_net.dim=8"]
SHORT = ["TRAIN.epochs=1", "TRAIN.iters_per_epoch=2", "TRAIN.batch_size=4"]


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


def test_a_row_is_trained_evaluated_and_tabled(tmp_path, monkeypatch):
    row = results.Row("toy", ["DATA.mode=swissroll", *TINY], SHORT)
    monkeypatch.setattr(results, "GROUPS", {"toy": {"swissroll": row}})
    folders = tmp_path / "runs", tmp_path / "results"
    results.run("toy", *folders, ["EVAL.num_samples=100", "TRAIN.eval_during_train=false"])
    written = (tmp_path / "results" / "toy.json").read_text()
    found = json.loads(written)["swissroll"]
    assert found["iterations"] == 2
    assert found["train"].startswith("python wgangp_toy.py DATA.mode=swissroll MODEL")
    assert str(tmp_path) not in written
    page = "before <!-- results: toy -->old<!-- end of results --> after"
    distance = found["metrics"]["wasserstein_2"]
    line = f"| `swissroll` | – | – | – | {distance['value']:.3f} | {distance['real']:.3f} |"
    rendered = results.render(page, folders[1])
    assert line in rendered.splitlines()
    assert "old" not in rendered
    assert results.render(rendered, folders[1]) == rendered

    def fail(*command):
        raise AssertionError(command)

    monkeypatch.setattr(results, "start", fail)
    results.run("toy", *folders)  # it is done


def test_objectives_have_as_many_steps_each():
    for group in ("objectives_toy", "objectives_mnist"):
        steps = set()
        for name, row in results.GROUPS[group].items():
            epochs, length = (int(word.split("=")[1]) for word in row.training[4:6])
            steps.add(epochs * length * (2 if name.startswith("gan") else 6))
        assert len(steps) == 1


def test_a_table_without_its_results_is_named(tmp_path):
    with pytest.raises(SystemExit, match="toy.json is missing: `make results GROUP=toy`"):
        results.render("<!-- results: toy --><!-- end of results -->", tmp_path)


def test_mistakes_are_measured_and_tabled(tmp_path):
    rng = np.random.default_rng(0)
    sets = [(rng.integers(256, size=(60, 784)) / 256, np.arange(60) % 10) for _ in range(3)]
    path = tmp_path / "mnist.pkl.gz"
    write_mnist(path, sets)
    command = ["--mnist", path, "--steps", "2", "--repeat", "2", "--output"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "mistakes.py", *command, tmp_path / "mistakes.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "mistakes.json").read_text())
    train, test = sets[0][0], sets[2][0]
    expected = np.sqrt(((test - train.mean(0)) ** 2).sum(1)).mean()
    assert rows["distance"] == pytest.approx(expected, rel=1e-4)
    assert rows["graph"]["generator_has_gradients"] == {"detached": False, "graph_left": True}
    table = results.table("mistakes", tmp_path)
    assert f"{expected:.2f}" in table and "batch norm in the critic" in table


def test_cifar10_is_reproduced_in_small_with_a_verdict(tmp_path, inception_weights):
    """All of `make reproduce-cifar10` but its size, its data and the Inception's weights."""
    path, sha256 = inception_weights
    archive = tmp_path / "tiny.tar.gz"
    write_cifar(archive, {"data_batch_1": 12, "test_batch": 3})
    settings = [*TINY, *SHORT, "EVAL.num_samples=20", "EVAL.batch_size=10"]
    settings += ["TRAIN.eval_during_train=false", f"EVAL.inception_weights={path}"]
    settings += [f"EVAL.inception_sha256={sha256}"]
    folders = ["--data", archive, "--output", tmp_path / "runs", "--results", tmp_path / "results"]
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "results.py",
            "run",
            "cifar10",
            *folders,
            "--set",
            *settings,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| unconditional", "| conditional"]
    assert all(" NOT within 10% (" in row for row in rows[2:])
    rows = json.loads((tmp_path / "results" / "cifar10.json").read_text())
    rows["conditional"]["metrics"]["inception_score"]["value"] = 7.58
    verdicts = [line[-1] for line in results.cifar10_table(rows)]
    assert verdicts[2] == "within 10% (90%)"
