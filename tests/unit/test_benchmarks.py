# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, with what is installed; how fast anything is, no test says."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import ROOT
from test_data import write_mnist

sys.path.insert(0, str(ROOT / "benchmarks"))

import results

TINY = ["MODEL.gen_net.dim=8", "MODEL.dis_net.dim=8"]
SHORT = ["TRAIN.epochs=1", "TRAIN.iters_per_epoch=2", "TRAIN.batch_size=4"]


def speed(*options: str, folder) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "speed.py", *options, "--repeat", "1"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("experiment", ["toy:8:4", "cifar10:4:2"])
def test_each_side_takes_its_turn(experiment, tmp_path):
    output = speed(experiment, folder=tmp_path)
    rows = [line.split()[:2] for line in output.splitlines()]
    for what in ("critic", "generator", "iteration"):
        for side in ("ours", "plain"):
            assert [what, side] in rows, output
    assert "GFLOP/s" in output
    _, memory = output.split("peak memory, GiB (after the imports): ours ")
    found = re.findall(r"([\d.]+) \(([\d.]+)\)", memory)
    assert len(found) >= 2
    for peak, imports in found:
        assert 0.1 < float(imports) <= float(peak)


def test_a_profile_tells_where_an_iteration_goes(tmp_path):
    """The profiled iteration is another one than the timed one, on a machine that others use."""
    ours, *others = speed("mnist:8:4", "--profile", folder=tmp_path).split("| torch |")
    for output in (ours, *others):
        rows = [line.strip("| ").split(" | ") for line in output.splitlines() if " | " in line]
        seconds = {
            name: [float(x) for x in numbers] for name, *numbers in rows if "." in numbers[0]
        }
        *parts, (_, whole) = seconds.items()
        for column in (0, 1):
            share = sum(numbers[column] for _, numbers in parts) / whole[column]
            assert 0.001 < share < 100, output
        kinds = [name for name, _ in parts]
        assert kinds[:2] == ["convolutions", "matrix products"]
        assert kinds[-1] == "all other operators"
        assert ("patches of small convolutions" in kinds) == (output is ours)
    assert not list(tmp_path.iterdir())  # Paddle's profiler would leave a folder


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("speed.py", "toy:8"), "'toy:8' is not EXPERIMENT:WIDTH:BATCH, such as toy:512:256."),
        (("results.py", "run", "emoji"), "emoji wants --data=ARCHIVE"),
    ],
)
def test_a_slip_is_named_before_anything_runs(command, said):
    script, *words = command
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and said in done.stderr


def test_objectives_have_as_many_steps_each(configure):
    for group in ("objectives_toy", "objectives_mnist"):
        steps = set()
        for row in results.GROUPS[group].values():
            train = configure(row.script, *row.model, *row.training).TRAIN
            steps.add(train.epochs * train.iters_per_epoch * (train.n_critic + 1))
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
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "mistakes.json").read_text())
    train, test = sets[0][0], sets[2][0]
    expected = np.sqrt(((test - train.mean(0)) ** 2).sum(1)).mean()
    assert rows["distance"] == pytest.approx(expected, rel=1e-4)
    assert rows["graph"]["generator_has_gradients"] == {"detached": False, "graph_left": True}
    table = results.table("mistakes", tmp_path)
    assert f"{expected:.2f}" in table and "batch norm in the critic" in table


def run_results(tmp_path, *arguments):
    """`results.py run` of CIFAR-10 in small, on shapes and without the Inception."""
    settings = [*TINY, *SHORT, "DATA.source=synthetic", "EVAL.inception=false", "device=cpu"]
    settings += ["TRAIN.eval_during_train=false", "EVAL.num_samples=10", "EVAL.batch_size=10"]
    settings += [f"EVAL.inception_weights={tmp_path}/none.pth"]
    folders = ["--output", tmp_path / "runs", "--results", tmp_path / "results"]
    command = [sys.executable, ROOT / "benchmarks" / "results.py", "run", "cifar10", *folders]
    return subprocess.run(
        [*command, "--set", *settings, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "HOME": str(tmp_path)},
    )


def test_cifar10_is_reproduced_in_small(tmp_path):
    """All of `make reproduce-cifar10` but its size, its data and the score."""
    done = run_results(tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| unconditional | 2 | – | 7.86 | – | not measured |",
        "| conditional | 2 | – | 8.42 | – | not measured |",
    ]
    text = (tmp_path / "results" / "cifar10.json").read_text()
    assert str(tmp_path) not in text
    row = json.loads(text)["conditional"]
    assert row["train"].startswith("python wgangp_cifar10.py MODEL.use_label=true MODEL.gen_net")
    again = run_results(tmp_path)
    assert "conditional is there already" in again.stdout and "ppsci" not in again.stdout
    other = run_results(tmp_path, "seed=1")
    assert other.returncode == 1 and "was made by another command" in other.stderr
    # the same command would mean something else once a default has changed
    (tmp_path / "results" / "cifar10.json").unlink()
    path = tmp_path / "runs" / "cifar10" / "unconditional" / "config.yaml"
    path.write_text(path.read_text().replace("penalty_weight: 10.0", "penalty_weight: 5.0"))
    changed = run_results(tmp_path)
    assert changed.returncode == 1 and "ppsci" not in changed.stdout
    assert "other settings: TRAIN.penalty_weight was 5.0 and is 10.0. Remove it" in changed.stderr


@pytest.mark.parametrize("name", ["model_average_generator", "model_generator"])
def test_what_a_training_evaluates_is_evaluated_at_its_end(name, tmp_path, monkeypatch):
    folder = tmp_path / "toy" / "short"
    commands = []

    def start(*command):
        commands.append(command)
        if "mode=eval" in command:
            (folder / "evaluation").mkdir()
            (folder / "evaluation" / "metrics.json").write_text('{"seed": 1, "metrics": {}}')
            return
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"step": 3, "seconds": 1.5}\n')
        for weights in {name, "model_generator", "model_discriminator"}:
            (folder / f"{weights}.pdparams").touch()

    monkeypatch.setattr(results, "start", start)
    monkeypatch.setitem(results.GROUPS, "toy", {"short": results.Row("toy", ["seed=1"])})
    results.run("toy", tmp_path, tmp_path / "results")
    assert len(commands) == 2
    assert f"EVAL.pretrained_gen_model_path={folder}/{name}.pdparams" in commands[1]
    assert f"EVAL.pretrained_dis_model_path={folder}/model_discriminator.pdparams" in commands[1]
    row = json.loads((tmp_path / "results" / "toy.json").read_text())["short"]
    assert row["evaluated"] == name


def test_the_verdict_on_cifar10():
    def row(score):
        figures = {"inception_score": {"value": score, "deviation": 0.1}, "fid": {"value": 20.0}}
        return {"iterations": 100000, "metrics": figures}

    table = results.cifar10_table({"unconditional": row(7.08), "conditional": row(7.57)})
    assert [line[-1] for line in table[1:]] == ["within 10% (90.1%)", "NOT within 10% (89.9%)"]
    assert {*table[0]} - {"Inception Score", "FID"} <= {*results.CHINESE}


def toy_row(distance, floor, iterations=8000, **figures):
    figures = {key: {"value": value} for key, value in figures.items()}
    figures["wasserstein_2"] = {"value": distance, "real": floor}
    return {"iterations": iterations, "metrics": figures}


def test_toy_runs_are_summed_up_by_set():
    rows = {
        "8gaussians_0": toy_row(0.25, 0.1, modes=8, high_quality=0.9, reverse_kl=0.01),
        "8gaussians_1": toy_row(0.35, 0.2, modes=7, high_quality=0.96, reverse_kl=0.03),
        "25gaussians_0": toy_row(0.2, 0.2, modes=25, high_quality=0.95, reverse_kl=0.01),
        "swissroll_0": toy_row(0.1, 0.125),
        "swissroll_1": toy_row(0.1, 0.135),
        "8gaussians_paper": toy_row(0.5, 0.3, 4000, modes=6, high_quality=0.2, reverse_kl=0.5),
    }
    lines = results.toy_table(rows)
    deviation = 0.06 / 2**0.5  # of two numbers
    share = f"93.0% ± {deviation:.1%} (≥ 90.00%)"
    cells = ["2", "8,000", "7.5 ± 0.7", share, "0.0200 ± 0.0141", "0.300 ± 0.071", "0.150"]
    assert lines[1] == ["`8gaussians`", "WGAN-GP, default", *cells]
    cells = ["1", "4,000", "6.0", "20.0%", "0.5000", "0.500", "0.300"]
    assert lines[2] == ["`8gaussians`", "WGAN-GP, `preset=paper`", *cells]
    cells = ["1", "8,000", "25.0", "95.0%", "0.0100", "0.200", "0.200"]
    assert ["`25gaussians`", "WGAN-GP, default", *cells] in lines
    assert ["`25gaussians`", "PacGAN4", "10", "–", "24.8", "93.6%", "0.04", "–", "–"] in lines
    assert lines[-1][2:] == ["2", "8,000", "–", "–", "–", "0.100 ± 0.000", "0.130"]
    assert {len(line) for line in lines} == {9}


def test_headings_of_all_tables_have_chinese_words():
    for path in results.RESULTS.glob("*.json"):
        head, *_ = results.TABLES[path.stem](json.loads(path.read_text()))
        assert {cell for cell in head if not cell.startswith("`")} <= {*results.CHINESE}


def test_an_interrupt_is_passed_on_and_waited_for(tmp_path, monkeypatch):
    script = tmp_path / "slow.py"
    script.write_text(
        "import signal, sys, time, pathlib\n"
        "def save(*_):\n"
        "    time.sleep(1)\n"
        "    pathlib.Path('saved').touch()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(results, "SCRIPTS", tmp_path)

    def terminate():
        deadline = time.monotonic() + 30
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(SystemExit, match="the same command goes on"):
        results.start("slow.py")
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_published_is_what_the_groups_train(configure):
    for path in results.RESULTS.glob("*.json"):
        if path.stem in results.GROUPS:
            rows = json.loads(path.read_text())
            assert list(rows) == list(results.GROUPS[path.stem])
            for name, row in results.GROUPS[path.stem].items():
                words = [f"wgangp_{row.script}.py", *row.model, *row.training]
                assert rows[name]["train"] == shlex.join(["python", *words])
                train = configure(row.script, *row.model, *row.training).TRAIN
                assert rows[name]["iterations"] == train.epochs * train.iters_per_epoch


@pytest.mark.parametrize(
    "text, part",
    (
        ("<!-- results: toy -->", "lacks its other end"),
        ("<!-- results: toy --> <!-- results: mnist --><!-- end of results -->", "lacks its other"),
        ("<!-- end of results -->", "lacks its other end"),
        ("<!-- results: objectives-toy --><!-- end of results -->", "There is no table"),
    ),
)
def test_marks_that_cannot_be_are_refused(text, part):
    with pytest.raises(SystemExit, match=part):
        results.render(text)


@pytest.mark.parametrize(
    "content", ("", "[]", '{"swissroll_0": 1}', '{"swissroll_0": {"metrics": {}}}')
)
def test_damaged_results_are_named(content, tmp_path):
    (tmp_path / "toy.json").write_text(content)
    with pytest.raises(SystemExit, match="toy.json .*restore it"):
        results.table("toy", tmp_path)


def test_tables_that_differ_are_found_and_written(tmp_path, monkeypatch):
    page = tmp_path / "zh" / "page.md"
    page.parent.mkdir()
    page.write_text("before <!-- results: mistakes -->old<!-- end of results --> after")
    monkeypatch.setattr(results, "PAGES", [page])
    monkeypatch.setattr(sys, "argv", ["results.py", "tables", "--check"])
    with pytest.raises(SystemExit, match="its tables differ"):
        results.main()
    monkeypatch.setattr(sys, "argv", ["results.py", "tables"])
    results.main()
    lines = page.read_text().splitlines()
    assert lines[0] == "before <!-- results: mistakes -->" and "old" not in page.read_text()
    row = json.loads((results.RESULTS / "mistakes.json").read_text())
    assert f"| （真值） | {row['distance']:.2f} | 1 | – |" in lines
    assert "| 错误 | 估计的距离 |" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["results.py", "tables", "--check"])
    results.main()
