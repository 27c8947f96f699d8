# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run and table what they should; no test depends on how fast anything is."""

import dataclasses
import importlib.util
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import common
import copies
import groups
import machine
import numpy as np
import operations
import paddle
import pytest
import results
import speed
import speed_tables
import tables
from helpers import ROOT
from helpers import has_onednn
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from test_data import write_mnist

import functions
from networks import dcgan
from networks import resnet64

# CIFAR-10's script in small, on drawn shapes and without the Inception
SMALL = (
    "MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 DATA.source=synthetic EVAL.inception=false device=cpu "
    "TRAIN.epochs=1 TRAIN.iters_per_epoch=2 TRAIN.batch_size=4 TRAIN.eval_during_train=false "
    "EVAL.num_samples=10 EVAL.batch_size=10"
)


def run_benchmark(program, *words, **options):
    """Runs a program of benchmarks/; returns the finished process."""
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / program, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,  # It ends what hangs; how long it takes is not tested.
        **options,
    )


def run_speed(*options: str, folder) -> str:
    done = run_benchmark("speed.py", *options, "--repeat=1", "--pause=0", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_speed_lets_each_side_take_its_turn(tmp_path):
    """test_speed_profiles_an_iteration_by_kind_of_operator runs the path with oneDNN."""
    words = "toy:8:4 inception:1 --path plain"
    output = run_speed(*words.split(), "--output=speed.json", folder=tmp_path)
    assert "load average before" in output and "GFLOP/s" in output
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written["command"].startswith(f"python benchmarks/speed.py {words}")
    assert list(written["rows"]) == ["toy:8:4", "inception:1"]
    for experiment, row in written["rows"].items():
        steps = ["features"] if experiment == "inception:1" else speed.STEPS
        assert [side for side in row["sides"] if side != "torch"] == ["plain"]
        for side, figures in row["sides"].items():
            assert [step for step in figures if "median" in str(figures[step])] == [*steps]
            assert 0.1 < figures["imports_gib"] <= figures["peak_gib"]
            assert figures.get("onednn") is None
            assert f"{speed.NAMES[side]} " in output
        assert row["rounds"] == 1 and {*row["gflop_per_second"]} == {"numpy", "onednn"}
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]


class FakeSide:
    """A side whose steps take a second of a clock, on which nothing else takes time."""

    now = 0.0

    def __init__(self, side, experiment, pause):
        self.seconds, self.closed = {}, False

    def time(self, step, is_counted):
        FakeSide.now += 1
        if is_counted:
            self.seconds.setdefault(step, []).append(1.0)

    def summarise(self):
        return {step: speed.sum_up(times) for step, times in self.seconds.items()}

    def close(self):
        assert not self.closed
        self.closed = True


@pytest.mark.parametrize(
    ("words", "rounds"),
    [
        ("toy:8:4 --repeat 1", 1),
        ("toy:8:4 --repeat 5", 5),
        ("toy:8:4 --repeat 5 --seconds 0", 2),
        ("toy:8:4 --repeat 5 --seconds 25", 3),  # A round takes 8 s.
        ("inception:10 --repeat 5 --seconds 13", 3),  # A round takes 4 s.
    ],
)
def test_compare_ends_after_rounds_or_seconds(words, rounds, monkeypatch):
    monkeypatch.setattr(speed, "Side", FakeSide)
    monkeypatch.setattr(speed.time, "monotonic", lambda: FakeSide.now)
    options = speed.parse(words.split())
    products = FakeSide("products", "products:2048", 0)
    row = speed.compare(options.experiments[0], ["onednn", "torch"], products, options)
    assert row["rounds"] == rounds
    last = list(row["sides"]["torch"])[-1]
    seconds = 0.1 if last == "features" else 1.0  # of one of ten pictures, or of a step
    assert row["sides"]["torch"][last]["median"] == pytest.approx(seconds)
    assert row["gflop_per_second"]["numpy"]["most"] == pytest.approx(2 * 2.048**3)


def test_finished_rows_are_written_where_a_side_fails(monkeypatch, tmp_path):
    def fail(side, step, is_counted):
        if side.experiment == "mnist:8:4":
            sys.exit("a worker ended without an answer")
        FakeSide.time(side, step, is_counted)

    class FailingSide(FakeSide):
        time = fail

        def __init__(self, side, experiment, pause):
            super().__init__(side, experiment, pause)
            self.experiment = experiment

        def summarise(self):
            return {**super().summarise(), "peak_gib": 2.0, "imports_gib": 1.0}

    monkeypatch.setattr(speed, "Side", FailingSide)
    path = tmp_path / "speed.json"
    with pytest.raises(SystemExit, match="without an answer"):
        speed.compare_all(speed.parse(["toy:8:4", "mnist:8:4", f"--output={path}"]))
    assert [*json.loads(path.read_text())["rows"]] == ["toy:8:4"]


def test_plain_paddle_takes_few_rounds(monkeypatch):
    monkeypatch.setattr(speed, "Side", FakeSide)
    monkeypatch.setattr(FakeSide, "summarise", lambda self: {**self.seconds})
    options = speed.parse(["toy:8:4", "--repeat=5", "--seconds=1e9"])
    products = FakeSide("products", "products:2048", 0)
    row = speed.compare("toy:8:4", ["onednn", "paddle"], products, options)
    counts = {side: len(times["iteration"]) for side, times in row["sides"].items()}
    assert counts == {"onednn": 5, "paddle": speed.PADDLE_ROUNDS}


@pytest.mark.parametrize(
    "words", ["toy:8", "toy:0:4", "toy:8:4:2", "inception:8:4", "cifar10:a:4", "toy:8:4 --repeat 0"]
)
def test_speed_refuses_wrong_words(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        speed.parse(words.split())
    assert stopped.value.code == 2
    named = "--repeat must be at least 1." if "--repeat" in words else f"{words!r} is not"
    assert named in capsys.readouterr().err


def test_choose_sides_leaves_out_what_is_missing(monkeypatch):
    assert speed.choose_sides("toy:8:4", "both", True)[:3] == ["onednn", "plain", "paddle"]
    assert "paddle" not in speed.choose_sides("inception:1", "onednn", True)
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: name == "torch" or None)
    assert speed.choose_sides("toy:8:4", "plain", False) == ["plain", "torch"]
    assert speed.choose_sides("inception:1", "plain", False) == ["plain"]


def test_side_environments_choose_the_way(monkeypatch):
    monkeypatch.setenv("WGANGP_ONEDNN", "0")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    for side, way in {"onednn": "1", "plain": "0", "paddle": "0", "products": "1"}.items():
        environment = common.side_environment(side, OMP_NUM_THREADS="3")
        assert environment["WGANGP_ONEDNN"] == way and environment["OMP_NUM_THREADS"] == "3"
        assert ("MKL_NUM_THREADS" in environment) == (side != "paddle")


def test_watch_tells_the_work_of_others_from_its_own(monkeypatch):
    clock, own, busy = [0.0], [5.0], [100.0]
    monkeypatch.setattr(machine.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(machine.Watch, "_sum_own", staticmethod(lambda: own[0]))
    monkeypatch.setattr(machine, "_read_busy_seconds", lambda: busy[0])
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.05, 1.0, 1.0))
    watch = machine.Watch()
    clock[0], own[0], busy[0] = 10.0, 20.0, 130.0  # 30 s of work in 10 s, half of it its own
    load = watch.stop()
    assert load == {"before": 0.05, "after": 0.05, "others": 1.5}
    assert machine.WARNING in machine.describe_load(load)
    busy[0] = 115.5
    assert machine.WARNING not in machine.describe_load(watch.stop())
    monkeypatch.setattr(machine, "_read_busy_seconds", lambda: None)
    load = machine.Watch().stop()
    assert load["others"] is None and not machine.is_busy(load)
    assert machine.is_busy({**load, "before": 1.0})


def test_watch_reads_the_work_of_this_machine():
    before, own = machine._read_busy_seconds(), machine.Watch._sum_own()
    if before is None:
        pytest.skip("there is no /proc/stat")
    while machine.Watch._sum_own() - own < 0.1:  # seconds of work
        pass
    assert machine._read_busy_seconds() - before >= 0.05


def test_speed_profiles_an_iteration_by_kind_of_operator(tmp_path):
    """With one round, a column is of one iteration: its operators take no longer than it does."""
    pytest.importorskip("torch")
    if not has_onednn():
        pytest.skip("oneDNN is absent")
    outputs = run_speed("mnist:8:4", "--profile", folder=tmp_path).split("| PyTorch |")
    assert len(outputs) == 2
    for output in outputs:
        rows = [line.strip("| ").split(" | ") for line in output.splitlines() if " | " in line]
        seconds = {
            name: [float(x) for x in numbers] for name, *numbers in rows if "." in numbers[0]
        }
        *kinds, profiled, whole = seconds
        assert (profiled, whole) == (speed.PROFILED, speed.WHOLE)
        for column in (0, 1):
            parts = [seconds[kind][column] for kind in kinds]
            assert all(part > 0 for part in parts), output
            rounding = 0.0001 * len(parts)
            assert sum(parts) <= seconds[profiled][column] + rounding, output
        assert kinds[:2] == ["convolutions", "matrix products"]
        assert kinds[-1] == "all other operators"
        assert ("changes of layout" in kinds) == (output is outputs[0])
    assert not list(tmp_path.iterdir())  # Paddle's profiler leaves a folder by default.


def test_speed_sums_operators_by_kind():
    operators = {"conv2d": 1.0, "conv2d_grad": 2.0, "convolution_backward": 4.0, "matmul": 8.0}
    operators |= {"addmm": 16.0, "unfold": 32.0, "fold_grad": 64.0, "add": 128.0, "relu": 256.0}
    operators |= {"convolution": 512.0, "reorder": 1024.0}  # oneDNN's own
    assert speed.sum_by_kind(operators) == {
        "convolutions": 519.0,
        "matrix products": 24.0,
        "patches of small convolutions": 96.0,
        "changes of layout": 1024.0,
        "all other operators": 384.0,
    }


def test_speed_counts_the_operations_of_the_networks():
    """Of the toy networks in the paper's width, counted here layer by layer."""
    multiplications = 2 * 512 + 2 * 512 * 512
    generator, critic = operations.count_operations("toy", 512)
    assert generator == pytest.approx(2 * (multiplications + 512 * 2) / 1e9)
    assert critic == pytest.approx(2 * (multiplications + 512) / 1e9)
    work = 256 * (5 * (generator + 10 * critic) + 3 * generator + 2 * critic)
    assert operations.count_iteration("toy", 512, 256) == pytest.approx(work)


def count_torch(torch, network, function, *inputs):
    """GFLOP of a sample in the layers of a network of PyTorch, and what the function returns."""
    counted, nn = [], torch.nn

    def count(layer, inputs, output):
        large = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        counted.append(layer.weight.numel() * math.prod(large.shape[2:]))

    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, layers)]
    with torch.no_grad():
        result = function(*inputs)
    for hook in hooks:
        hook.remove()
    return 2 * sum(counted) / 1e9, result


@pytest.mark.parametrize("name", ["toy", "mnist", "dcgan64", "resnet64"])
def test_operations_are_those_of_the_reference(name):
    """CIFAR-10's are fewer here, since this suite merges convolutions with resampling."""
    torch = pytest.importorskip("torch")
    import torch_reference

    experiment = torch_reference.Experiment(name, 16, 2)
    network, noise = experiment.generator, torch.zeros(2, experiment.setup.noise_dim)
    generator, fake = count_torch(torch, network, network, noise)
    assert fake.shape[1:] == experiment.setup.shape
    critic, _ = count_torch(torch, experiment.critic, experiment.critic.score, fake)
    assert operations.count_operations(name, 16) == pytest.approx((generator, critic))


def test_a_penalty_with_second_derivatives_takes_two_passes_more():
    generator, critic = operations.count_operations("dcgan64", 8)
    work = 4 * (5 * (generator + 12 * critic) + 3 * generator + 2 * critic)
    assert operations.count_iteration("dcgan64", 8, 4) == pytest.approx(work)


def test_operations_of_the_inception_are_counted():
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    import torch_reference

    pictures = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    network = torch_reference.make_inception()
    counted, _ = count_torch(torch, network, network, pictures)
    assert counted == pytest.approx(operations.INCEPTION_GFLOP)


@pytest.mark.parametrize(
    ("name", "networks"),
    [
        ("toy", (functions.WganGpToyGenerator, functions.WganGpToyDiscriminator)),
        ("mnist", (functions.WganGpMnistGenerator, functions.WganGpMnistDiscriminator)),
        ("cifar10", (functions.WganGpCifar10Generator, functions.WganGpCifar10Discriminator)),
        ("dcgan64", (dcgan.Dcgan64Generator, dcgan.Dcgan64Discriminator)),
        ("resnet64", (resnet64.Resnet64Generator, resnet64.Resnet64Discriminator)),
    ],
)
def test_references_have_as_many_weights_of_each_size(name, networks):
    pytest.importorskip("torch")
    import torch_reference

    experiment = torch_reference.Experiment(name, 16, 2)
    for make, theirs in zip(networks, (experiment.generator, experiment.critic)):
        # Paddle's batch normalisation has an axis of classes, which may be 1.
        ours = sorted(weight.size for weight in make(16).parameters())
        assert ours == sorted(weight.numel() for weight in theirs.parameters())


def copy_weights(torch, ours, theirs):
    """Gives the layers of a network of PyTorch the weights of those of Paddle, kind by kind."""
    kinds = {
        paddle.nn.Linear: torch.nn.Linear,
        paddle.nn.Conv2D: torch.nn.Conv2d,
        paddle.nn.Conv2DTranspose: torch.nn.ConvTranspose2d,
    }
    for kind, other in kinds.items():
        sources = [layer for layer in ours.sublayers() if isinstance(layer, kind)]
        targets = [layer for layer in theirs.modules() if isinstance(layer, other)]
        assert len(sources) == len(targets)
        for source, target in zip(sources, targets):
            weight = source.weight.numpy()
            weight = weight.T if kind is paddle.nn.Linear else weight
            target.weight.data = torch.from_numpy(weight.copy())
            target.bias.data = torch.from_numpy(source.bias.numpy())


@pytest.mark.parametrize(
    ("name", "networks"),
    [
        ("dcgan64", (dcgan.Dcgan64Generator, dcgan.Dcgan64Discriminator)),
        ("resnet64", (resnet64.Resnet64Generator, resnet64.Resnet64Discriminator)),
    ],
)
def test_references_of_64x64_compute_the_same(name, networks):
    torch = pytest.importorskip("torch")
    import torch_reference

    experiment = torch_reference.Experiment(name, 16, 2)
    ours = [make(16) for make in networks]
    for network, theirs in zip(ours, (experiment.generator, experiment.critic)):
        copy_weights(torch, network, theirs)
    noise = np.random.default_rng(0).standard_normal((2, 128)).astype("float32")
    with torch.no_grad():
        fake = experiment.generator(torch.from_numpy(noise)).contiguous()
    expected = ours[0].generate(paddle.to_tensor(noise)).numpy()
    np.testing.assert_allclose(fake.numpy(), expected, atol=1e-4)
    for layer in experiment.critic.modules():
        # TensorFlow pads a convolution of stride 2 after the picture; both cost the same.
        if name == "resnet64" and getattr(layer, "padding", 0) == (1, 1) and layer.stride == (2, 2):
            layer.padding = (0, 0)
            layer.register_forward_pre_hook(
                lambda _, inputs: torch.nn.functional.pad(inputs[0], (0, 1, 0, 1))
            )
    with torch.no_grad():
        values = experiment.critic.score(fake)[0].numpy()
    expected = ours[1].score(paddle.to_tensor(fake.numpy()))[0].numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", common.SETUPS)
def test_setups_are_those_of_the_scripts(name, configure):
    setup = common.SETUPS[name]
    cfg = configure(setup.script, *setup.settings)
    # The references have no normalisation in other critics.
    norm = "layer" if setup.script == "image64" else None
    assert cfg.MODEL.dis_net.get("norm") == norm
    assert setup.penalty_weight == cfg.LOSS.penalty_weight
    assert setup.betas == (cfg.TRAIN.beta1, cfg.TRAIN.beta2)
    assert setup.generator_batch_factor == cfg.TRAIN.generator_batch_factor
    assert setup.batch_norm_groups == cfg.MODEL.gen_net.get("batch_norm_groups", 1)
    assert setup.is_conditional == cfg.MODEL.get("use_label", False)
    assert setup.noise_dim == cfg.MODEL.gen_net.get("noise_dim", 2)
    assert cfg.TRAIN.n_critic == common.CRITIC_STEPS == 5


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("speed.py", "toy:8"), "'toy:8' is not EXPERIMENT:WIDTH:BATCH, such as toy:512:256."),
        (("results.py", "emoji"), "emoji needs --data=ARCHIVE"),
        (("results.py", "emoji64"), "emoji64 needs --data=ARCHIVE"),
    ],
)
def test_wrong_commands_are_refused_before_anything_runs(command, message):
    done = run_benchmark(*command)
    assert done.returncode == 2 and message in done.stderr


def test_rows_of_objectives_are_of_several_seeds_and_as_long_as_they_say(configure):
    for group, lengths in (
        ("objectives_toy", groups.TOY_LENGTHS),
        ("objectives_mnist", groups.MNIST_LENGTHS),
    ):
        assert [*lengths] == [*groups.OBJECTIVES]
        found = {}
        for name, row in groups.GROUPS[group].items():
            cfg = configure(row.script, *row.model, *row.training)
            objective, seed = name.rsplit("_", 1)
            assert cfg.LOSS.name == groups.OBJECTIVES[objective][0] and cfg.seed == int(seed)
            found.setdefault(objective, set()).add(cfg.TRAIN.epochs * cfg.TRAIN.iters_per_epoch)
        assert found == {objective: {length} for objective, length in lengths.items()}
        assert len(groups.GROUPS[group]) == 3 * len(lengths)


@pytest.mark.parametrize("name", ["toy", "headline"])
def test_make_table_names_missing_results(name, tmp_path):
    with pytest.raises(SystemExit, match="toy.json is missing: `make results GROUP=toy`"):
        tables.fill_markers(f"<!-- results: {name} --><!-- end of results -->", tmp_path)


def test_tables_of_damaged_files_and_of_faults_have_sums(tmp_path):
    outcomes = {"refused": 1200, "equal": 30, "different": 4, "crash": 0, "hang": 0}
    targets = {"mnist.pkl.gz": outcomes, "checkpoint": {**outcomes, "hang": 1}}
    total = {"refused": 2400, "equal": 60, "different": 8, "crash": 0, "hang": 1}
    (tmp_path / "fuzz.json").write_text(json.dumps({"targets": targets, "total": total}))
    assert tables.make_table("fuzz", tmp_path).splitlines() == [
        "| reader | files | refused | read as written | read with a known change | failed |",
        "| --- | --- | --- | --- | --- | --- |",
        "| mnist.pkl.gz | 1,234 | 1,200 | 30 | 4 | 0 |",
        "| checkpoint | 1,235 | 1,200 | 30 | 4 | 1 |",
        "| all readers | 2,469 | 2,400 | 60 | 8 | 1 |",
    ]
    faults = {"SIGKILL at a random moment": {"cases": 3, "right": 2, "wrong": 1}}
    (tmp_path / "stress.json").write_text(json.dumps({"classes": faults}))
    lines = tables.make_table("stress", tmp_path, chinese=True).splitlines()
    assert lines[0] == "| 故障 | 次数 | 符合预期 | 不符合预期 |"
    assert lines[2:] == ["| 随机时刻 SIGKILL | 3 | 2 | 1 |", "| 合计 | 3 | 2 | 1 |"]


@pytest.mark.parametrize(
    ("name", "command"),
    [("fuzz", "make fuzz"), ("stress", "make stress"), ("speed_steps", "make bench")],
)
def test_make_table_names_what_makes_missing_counts(name, command, tmp_path):
    source = name.split("_")[0]
    with pytest.raises(SystemExit, match=f"{source}.json is missing: `{command}` makes it"):
        tables.make_table(name, tmp_path)


def test_mistakes_are_measured_and_tabled(tmp_path):
    rng = np.random.default_rng(0)
    sets = [(rng.integers(256, size=(60, 784)) / 256, np.arange(60) % 10) for _ in range(3)]
    path = tmp_path / "mnist.pkl.gz"
    write_mnist(path, sets)
    words = ["--mnist", path, "--steps", "2", "--repeat", "2", "--output"]
    done = run_benchmark("mistakes.py", *words, tmp_path / "mistakes.json")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "mistakes.json").read_text())
    train, test = sets[0][0], sets[2][0]
    expected = np.sqrt(((test - train.mean(0)) ** 2).sum(1)).mean()
    assert rows["distance"] == pytest.approx(expected, rel=1e-4)
    assert rows["graph"]["generator_has_gradients"] == {"detached": False, "graph_left": True}
    table = tables.make_table("mistakes", tmp_path)
    assert f"{expected:.2f}" in table and "batch norm in the critic" in table
    points = rows["8gaussians"]
    assert points["distance"] == pytest.approx(2 / 1.414, rel=1e-2)  # the circle's radius
    table = tables.make_table("mistakes_points", tmp_path)
    assert f"{points['distance']:.2f}" in table and "α from N(0, 1)" in table
    assert "batch norm" not in table


def test_measured_mistakes_are_as_the_page_says():
    page = (common.ROOT / "docs" / "en" / "mistakes.md").read_text()
    assert all(part in page for part in ("1,600 instead of 8", "180 instead of 8", "8 to 15"))
    assert "from 8.3 to 9.8" in page
    rows = json.loads((common.RESULTS / "mistakes.json").read_text())
    assert rows["steps"] == 1000
    estimates = {name: rows[name]["wasserstein"] for name in tables.MISTAKES}
    assert estimates["right"] == pytest.approx(8, abs=0.5)
    assert estimates["one_axis"] == pytest.approx(1600, rel=0.1)
    assert estimates["alpha_per_pixel"] == pytest.approx(estimates["right"], rel=0.05)
    assert estimates["batch_norm"] == pytest.approx(180, rel=0.1)
    points = rows["8gaussians"]
    multiple = 1 + points["distance"] / (2 * 0.1)  # of an optimal critic
    assert points["right"]["gradient_norm"] == pytest.approx(multiple, rel=0.02)
    assert points["alpha_per_pixel"]["gradient_norm"] > 1.08 * multiple
    assert points["alpha_per_pixel"]["gradient_norm_deviation"] > 1
    assert points["alpha_normal"]["gradient_norm"] == pytest.approx(15, abs=0.7)


def test_results_reproduce_cifar10_in_small(tmp_path, capsys, monkeypatch):
    """Does all of `make reproduce-cifar10` but for its size, its data and the score."""

    def run_copy(*command, folder=common.SUITE):
        done = copies.run(command, folder, {**os.environ, "HOME": str(tmp_path)})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        ran.append(command)

    ran = []
    monkeypatch.setattr(results, "run_script", run_copy)
    settings = [*SMALL.split(), f"EVAL.inception_weights={tmp_path}/none.pth"]
    folders = ["--output", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    words = ["cifar10", *folders, "--set", *settings]
    results.main(words)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| unconditional | 2 | – | 7.86 | – | not measured |",
        "| conditional | 2 | – | 8.42 | – | not measured |",
    ]
    text = (tmp_path / "results" / "cifar10.json").read_text()
    assert str(tmp_path) not in text
    row = json.loads(text)["conditional"]
    assert row["train"].startswith("python wgangp_cifar10.py MODEL.use_label=true MODEL.gen_net")
    results.main(words)
    again = capsys.readouterr().out
    assert "cifar10.json has conditional already" in again and len(ran) == 4
    with pytest.raises(SystemExit, match="another command made unconditional"):
        results.main([*words, "seed=1"])
    # The same command would mean something else where a default has changed.
    (tmp_path / "results" / "cifar10.json").unlink()
    path = tmp_path / "runs" / "cifar10" / "unconditional" / "config.yaml"
    path.write_text(path.read_text().replace("penalty_weight: 10.0", "penalty_weight: 5.0"))
    with pytest.raises(SystemExit) as stopped:
        results.main(words)
    message = "other settings: LOSS.penalty_weight was 5.0 and is 10.0. Remove it"
    assert message in str(stopped.value)


def test_require_same_settings_knows_former_names(configure, tmp_path):
    """A folder's config.yaml may be of code that had other names for some keys."""
    train = ["wgangp_mnist.py", "MODEL.arch=wgan_lab", "device=cpu", f"output_dir={tmp_path}"]
    config = OmegaConf.to_container(configure("mnist", "MODEL.arch=wgan_lab"), resolve=True)
    config["TRAIN"]["penalty_weight"] = config["LOSS"].pop("penalty_weight")
    statistics = config["MODEL"]["gen_net"].pop("batch_norm_statistics")
    config["EVAL"]["batch_norm"] = statistics
    del config["MODEL"]["gen_net"]["batch_norm_groups"]  # Former code normalised whole batches.
    path = tmp_path / "config.yaml"
    OmegaConf.save(config, path)
    results.require_same_settings(tmp_path, train)
    config["TRAIN"]["penalty_weight"], config["EVAL"]["batch_norm"] = 5.0, "running"
    OmegaConf.save(config, path)
    with pytest.raises(SystemExit) as stopped:
        results.require_same_settings(tmp_path, [*train, "MODEL.gen_net.batch_norm_groups=2"])
    for change in (
        "MODEL.gen_net.batch_norm_groups was 1 and is 2",
        "MODEL.gen_net.batch_norm_statistics was running and is batch",
        "LOSS.penalty_weight was 5.0 and is 10.0",
    ):
        assert change in str(stopped.value)


@pytest.mark.parametrize("text", ["a b (1)", "o'brien", "x,y=[z]", "a\\b", "b\\", "a\\'b", "é~"])
def test_quoted_values_are_themselves_to_hydra(text):
    override = OverridesParser.create().parse_override(f"key={common.quote(text)}")
    assert override.value() == text


def test_require_same_command_names_the_other_command():
    kept = "python wgangp_cifar10.py LOSS.generator_class_weight=1 'DATA.data_path=a b' mode=eval"
    results.require_same_command(Path("x.json"), "row", kept, kept)
    with pytest.raises(SystemExit, match="x.json: another command made row: python"):
        results.require_same_command(Path("x.json"), "row", kept, kept.replace("=1", "=2"))


@pytest.mark.parametrize("name", ["model_average_generator", "model_generator"])
def test_run_group_evaluates_the_average_where_there_is_one(name, tmp_path, monkeypatch):
    folder = tmp_path / "toy" / "short"
    commands = []

    def run_script(*command):
        commands.append(command)
        if "mode=eval" in command:
            (folder / "evaluation").mkdir()
            (folder / "evaluation" / "metrics.json").write_text('{"seed": 1, "metrics": {}}')
            return
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"step": 3, "seconds": 1.5}\n')
        for weights in {name, "model_generator", "model_discriminator"}:
            (folder / f"{weights}.pdparams").touch()

    monkeypatch.setattr(results, "run_script", run_script)
    monkeypatch.setitem(groups.GROUPS, "toy", {"short": groups.Row("toy", ["seed=1"])})
    results.run_group("toy", tmp_path, tmp_path / "results")
    assert len(commands) == 2
    assert f"EVAL.pretrained_gen_model_path='{folder}/{name}.pdparams'" in commands[1]
    assert f"EVAL.pretrained_dis_model_path='{folder}/model_discriminator.pdparams'" in commands[1]
    row = json.loads((tmp_path / "results" / "toy.json").read_text())["short"]
    assert row["evaluated"] == name


def test_a_row_evaluates_the_training_of_another(tmp_path, monkeypatch):
    commands = []

    def run_script(*command):
        commands.append(command)
        folder = Path(next(word for word in command if word.startswith("hydra.run.dir="))[15:-1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text('{"seed": 1, "metrics": {}}')
        (folder / "metrics.jsonl").write_text('{"step": 3, "seconds": 1.5}\n')

    monkeypatch.setattr(results, "run_script", run_script)
    rows = {
        "plain": groups.Row("toy", []),
        "cut": groups.Row("toy", [], evaluation=["EVAL.truncation=0.03"], trained_by="plain"),
    }
    monkeypatch.setitem(groups.GROUPS, "toy", rows)
    results.run_group("toy", tmp_path, tmp_path / "results")
    assert commands[0] == commands[2]
    assert f"hydra.run.dir='{tmp_path}/toy/plain/evaluation'" in commands[1]
    assert f"hydra.run.dir='{tmp_path}/toy/plain/evaluation_cut'" in commands[3]
    assert "EVAL.truncation=0.03" in commands[3]
    path = tmp_path / "results" / "toy.json"
    assert set(json.loads(path.read_text())) == {"plain", "cut"}
    # Another evaluation, or a row of a user's own, is neither taken for this one nor lost.
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({"own": kept["cut"], "plain": kept["plain"]}))
    results.run_group("toy", tmp_path, tmp_path / "results")
    assert list(json.loads(path.read_text())) == ["plain", "cut", "own"]
    monkeypatch.setitem(rows, "cut", dataclasses.replace(rows["cut"], evaluation=[]))
    with pytest.raises(SystemExit, match="another command made cut: .*truncation"):
        results.run_group("toy", tmp_path, tmp_path / "results")


def test_cifar10_table_gives_a_verdict():
    def row(score):
        figures = {"inception_score": {"value": score, "deviation": 0.1}, "fid": {"value": 20.0}}
        return {"iterations": 100000, "metrics": figures}

    table = tables.cifar10_table({"unconditional": row(7.08), "conditional": row(7.57)})
    assert [line[-1] for line in table[1:]] == ["within 10% (90.1%)", "NOT within 10% (89.9%)"]
    assert {*table[0]} - {"Inception Score", "FID"} <= {*tables.CHINESE}


def toy_row(distance, floor, iterations=8000, **figures):
    figures = {key: {"value": value} for key, value in figures.items()}
    figures["wasserstein_2"] = {"value": distance, "real": floor}
    return {"iterations": iterations, "metrics": figures}


def test_toy_table_sums_up_the_runs_of_each_set():
    rows = {
        "8gaussians_0": toy_row(0.25, 0.1, modes=8, high_quality=0.9, reverse_kl=0.01),
        "8gaussians_1": toy_row(0.35, 0.2, modes=7, high_quality=0.96, reverse_kl=0.03),
        "25gaussians_0": toy_row(0.2, 0.2, modes=25, high_quality=0.95, reverse_kl=0.01),
        "swissroll_0": toy_row(0.1, 0.125),
        "swissroll_1": toy_row(0.1, 0.135),
        "8gaussians_long_0": toy_row(0.3, 0.3, 14000, modes=8, high_quality=0.8, reverse_kl=0.2),
        "8gaussians_truncated_0": toy_row(0.2, 0.3, modes=8, high_quality=1, reverse_kl=0.1),
        "8gaussians_paper": toy_row(0.5, 0.3, 4000, modes=6, high_quality=0.2, reverse_kl=0.5),
    }
    lines = tables.toy_table(rows)
    deviation = 0.06 / 2**0.5  # the deviation of two numbers
    share = f"93.0% ± {deviation:.1%} (≥ 90.00%)"
    cells = ["2", "8,000", "7.5 ± 0.7", share, "0.0200 ± 0.0141", "0.300 ± 0.071", "0.150"]
    assert lines[1] == ["`8gaussians`", "WGAN-GP, default", *cells]
    cells = ["1", "14,000", "8.0", "80.0%", "0.2000", "0.300", "0.300"]
    name = "WGAN-GP, `TRAIN.iters_per_epoch=875 TRAIN.learning_rate=8e-3`"
    assert lines[2] == ["`8gaussians`", name, *cells]
    cells = ["1", "4,000", "6.0", "20.0%", "0.5000", "0.500", "0.300"]
    assert lines[4] == ["`8gaussians`", "WGAN-GP, `preset=authors`", *cells]
    cells = ["1", "8,000", "8.0", "100.0%", "0.1000", "0.200", "0.300"]
    assert lines[3] == ["`8gaussians`", "the same, `EVAL.truncation=0.03`", *cells]
    cells = ["1", "8,000", "25.0", "95.0%", "0.0100", "0.200", "0.200"]
    assert ["`25gaussians`", "WGAN-GP, default", *cells] in lines
    assert ["`25gaussians`", "PacGAN4", "10", "–", "24.8", "93.6%", "0.04", "–", "–"] in lines
    assert ["`8gaussians`", "PacGAN3", "10", "–", "–", "97.7%", "–", "–", "–"] in lines
    assert lines[-1][1] == "WGAN-GP, `TRAIN.learning_rate=1e-3`"
    assert lines[-1][2:] == ["2", "8,000", "–", "–", "–", "0.100 ± 0.000", "0.130"]
    assert {len(line) for line in lines} == {9}


def headline_row(seconds, cores=1, **figures):
    """A row with figures given as (value, deviation, real value, its deviation)."""
    keys = ("value", "deviation", "real", "real_deviation")
    metrics = {name: dict(zip(keys, numbers)) for name, numbers in figures.items()}
    length = {"iterations": 1500, "seconds": seconds, "cores": cores, "machine": "a processor"}
    return {**length, "metrics": metrics}


def test_headline_table_sums_up_files_of_results():
    share = {"high_quality": (0.9, None, 0.98, None)}
    toy = {
        "8gaussians_0": headline_row(60, high_quality=(0.95, None, 0.98, None)),
        "8gaussians_1": headline_row(180, high_quality=(0.97, None, 0.99, None)),
        "25gaussians_0": headline_row(60, **share),
        "25gaussians_long_0": headline_row(60, **share),
        "25gaussians_truncated_0": headline_row(60, **share),
        "25gaussians_paper": headline_row(6000, **share),
        "swissroll_10": headline_row(60, wasserstein_2=(0.25, None, 0.125, None)),
    }
    score = headline_row(1200, classifier_score=(8.0, 0.25, 9.5, 0.125))
    # Nothing else of these files belongs into the table.
    mnist = {"generator_norm": {}, "conditional": score}
    conditional = headline_row(90, 2, class_accuracy=(0.4, None, 0.7, None))
    digits = {"projection": {}, "laptop": conditional}
    _, *lines = tables.headline_table(toy, mnist, digits)
    deviations = 0.02 / 2**0.5, 0.01 / 2**0.5  # those of two numbers
    cells = [f"96.0% ± {deviations[0]:.1%}", f"98.5% ± {deviations[1]:.1%}"]
    machine, distance = "1 core, a processor", ["2-Wasserstein", "0.250", "0.125"]
    assert lines[:6] == [
        ["8 Gaussians", "2", "within 3σ", *cells, "1,500", "2", machine],
        ["25 Gaussians", "1", "within 3σ", "90.0%", "98.0%", "1,500", "1", machine],
        ["25 Gaussians, 14,000 iterations", *lines[1][1:]],
        ["the same, `EVAL.truncation=0.03`", *lines[1][1:]],
        ["25 Gaussians, `preset=authors`", "1", *lines[1][2:6], "100", machine],
        ["swiss roll, a rate of 1e-3", "1", *distance, "1,500", "1", machine],
    ]
    cells = ["classifier score", "8.00 ± 0.25", "9.50 ± 0.12", "1,500", "20", machine]
    assert [line[1:] for line in lines[6:7]] == [["1", *cells]]
    cells = ["right digits", "40.0%", "70.0%", "1,500", "2", "2 cores, a processor"]
    assert [line[1:] for line in lines[7:]] == [["1", *cells]]


def test_digits_table_leaves_figures_out_that_a_run_lacks():
    distance = {"frechet_distance": (0.25, None, 0.125, None)}
    rows = {
        "labels": headline_row(60, class_accuracy=(0.5, None, 0.9, None), **distance),
        "none": headline_row(90, **distance),
    }
    formats = {"class_accuracy": ".1%", "hue_entropy": ".3f", "frechet_distance": ".3g"}
    assert tables.digits_table(rows, formats) == [
        ["figure", "`labels`", "`none`", "real"],
        ["iterations", "1,500", "1,500", "–"],
        ["minutes", "1", "2", "–"],
        ["`class_accuracy`", "50.0%", "–", "90.0%"],
        ["`frechet_distance`", "0.25", "0.25", "0.125"],
    ]


def test_headline_table_is_short_and_complete():
    head, *lines = (
        line.strip("| ").split(" | ")
        for line in tables.make_table("headline", common.RESULTS).splitlines()
        if "---" not in line
    )
    assert 5 <= len(lines) <= 8 and {len(line) for line in lines} == {len(head)}
    assert [line[1] for line in lines[:2]] == ["10", "10"]  # the seeds
    assert "–" not in {cell for line in lines for cell in line}


def make_speed_results(*sides):
    """Results of speed.py with simple figures; the times of a side are twice those before it."""

    def row(steps, scale):
        return {
            "rounds": 3,
            "gflop": 8.0,
            "gflop_per_second": {
                library: {"median": rate, "least": rate - 1, "most": rate + 1}
                for library, rate in (("numpy", 80.0 * scale), ("onednn", 100.0 * scale))
            },
            "sides": {
                side: {
                    **{
                        step: {"median": 0.25 * 2**number * (1 + place), "least": 0.2, "most": 9.0}
                        for place, step in enumerate(steps)
                    },
                    **{"peak_gib": 2.0 + number, "imports_gib": 0.5},
                    **({} if side == "torch" else {"threads": 2, "onednn": "3.6.2"}),
                }
                for number, side in enumerate(sides)
            },
        }

    return {
        "command": "python benchmarks/speed.py",
        "date": "2026-12-01",
        "machine": {"processor": "a processor", "cores": 2, "versions": {"torch": "2.13.0"}},
        "load": {"before": 0.05, "after": 2.0, "others": 0.0},
        "rows": {
            "cifar10:128:16": row(("critic", "generator", "iteration"), 1),
            "inception:20": row(("features",), 2),
        },
    }


def test_tables_of_speed_compare_the_suite_with_pytorch():
    results = make_speed_results("onednn", "plain", "torch")
    head, row, features = speed_tables.speed_table(results)
    times = ["0.75 (0.2)", "1.5 (0.2)", "3 (0.2)"]
    # 8 GFLOP in 0.75 s are an eighth, and a little, of 80 GFLOP/s.
    assert row == ["CIFAR-10", "128", "16", *times, "4.00", "1.50", "3.50", "11", "13%"]
    times = ["0.25 (0.2)", "0.5 (0.2)", "1 (0.2)"]
    name = ["Inception features, a picture", "–", "20"]
    assert features == [*name, *times, "4.00", "1.50", "3.50", "32", "20%"]
    assert "without oneDNN, s" in head
    _, critic, generator = speed_tables.speed_steps_table(results)
    assert critic == ["CIFAR-10", "128", "16", "critic", "0.25 (0.2)", "1 (0.2)", "4.00"]
    assert generator == ["CIFAR-10", "128", "16", "generator", "0.5 (0.2)", "2 (0.2)", "4.00"]
    values = dict(speed_tables.speed_machine_table(results)[1:])
    assert values["threads"] == "2" and values["versions"] == "torch 2.13.0, oneDNN 3.6.2"
    assert values["GFLOP/s of oneDNN's product"] == "150 (100 – 200)"


def test_tables_of_speed_are_made_of_one_side():
    results = make_speed_results("plain")
    results["load"]["others"] = None
    for make in (speed_tables.speed_table, speed_tables.speed_steps_table):
        head, row, *_ = make(results)
        assert len(row) == len(head) and "without oneDNN, s" not in head
        assert row[head.index("the suite, s")] != "–" == row[head.index("PyTorch, s")]
    assert ["cores that others used", "–"] in speed_tables.speed_machine_table(results)


def test_cells_of_speed_tables_have_chinese_words(tmp_path):
    results = make_speed_results("onednn", "plain", "torch")
    (tmp_path / "speed.json").write_text(json.dumps(results))
    (tmp_path / "processes.json").write_text(
        json.dumps({"rows": {"toy": {"batch": 256, "one": 0.2, "two": 0.1}}})
    )
    for name in ("speed", "speed_steps", "speed_machine", "processes"):
        table = tables.make_table(name, tmp_path, chinese=True)
        words = {*re.findall(r"\b[a-z]{3,}", table)} - {"one", "torch", "processor"}
        assert not words, words
    english = tables.make_table("processes", tmp_path)
    assert english.endswith("| toy | 256 | 0.2 | 0.1 | 2.00 |")


def test_headings_of_all_tables_have_chinese_words():
    made = set()
    for name in tables.TABLES:
        sources = tables.list_sources(name, common.RESULTS)
        if all(path.exists() for path in sources):
            head, _, *_ = tables.make_table(name, common.RESULTS).splitlines()
            cells = head.strip("| ").split(" | ")
            assert {cell for cell in cells if not cell.startswith("`")} <= {*tables.CHINESE}
            made.update(sources)
    assert made == {*common.RESULTS.glob("*.json"), *tables.FOLDERS["weights"].glob("weights.json")}


SLOW_SCRIPT = """
import pathlib, signal, sys, time

def save(*_):
    pathlib.Path("saving").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    pathlib.Path("saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
while True:
    signal.pause()
"""


def test_run_script_forwards_a_signal_and_waits(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_SCRIPT)
    (tmp_path / "none.py").write_text("")

    def wait_for(name):
        deadline = time.monotonic() + 30
        while not (tmp_path / name).exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def terminate():
        wait_for("ready")
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for("saving")
        (tmp_path / "go").touch()

    before = signal.getsignal(signal.SIGTERM)
    results.run_script("none.py", folder=tmp_path)
    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(SystemExit, match="the same command resumes here"):
        results.run_script("slow.py", folder=tmp_path)
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_script_exits_where_the_script_fails(tmp_path):
    (tmp_path / "broken.py").write_text("raise SystemExit(2)")
    with pytest.raises(SystemExit, match="broken.py a=1 failed with the error above"):
        results.run_script("broken.py", "a=1", folder=tmp_path)


def test_published_results_are_those_of_the_groups(configure):
    for path in common.RESULTS.glob("*.json"):
        if path.stem in groups.GROUPS:
            rows = json.loads(path.read_text())
            group = groups.GROUPS[path.stem]  # Some of its rows may not be trained yet.
            assert list(rows) == [name for name in group if name in rows]
            for name, row in ((name, group[name]) for name in rows):
                words = [f"wgangp_{row.script}.py", *row.model, *row.training]
                assert shlex.split(rows[name]["train"]) == ["python", *words]
                train = configure(row.script, *row.model, *row.training).TRAIN
                assert rows[name]["iterations"] == train.epochs * train.iters_per_epoch


@pytest.mark.parametrize(
    "text, part",
    (
        ("<!-- results: toy -->", "needs two markers"),
        (
            "<!-- results: toy --> <!-- results: mnist --><!-- end of results -->",
            "needs two markers",
        ),
        ("<!-- end of results -->", "needs two markers"),
        ("<!-- results: objectives-toy --><!-- end of results -->", "There is no table"),
    ),
)
def test_fill_markers_refuses_wrong_markers(text, part):
    with pytest.raises(SystemExit, match=part):
        tables.fill_markers(text, common.RESULTS)


@pytest.mark.parametrize(
    "content", ("", "[]", '{"swissroll_0": 1}', '{"swissroll_0": {"metrics": {}}}')
)
def test_make_table_names_damaged_results(content, tmp_path):
    (tmp_path / "toy.json").write_text(content)
    with pytest.raises(SystemExit, match="toy.json .*restore it"):
        tables.make_table("toy", tmp_path)


def make_pages(folder, **pages):
    """Pages below a folder, "docs__zh__page" for docs/zh/page.md."""
    paths = []
    for name, text in pages.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths


def test_find_pages_finds_markers_wherever_they_are(tmp_path):
    marked = "a <!-- results: toy --> <!-- end of results -->"
    readme, deep, torn, *_ = make_pages(
        tmp_path,
        README=marked,
        docs__en__new__page=marked,
        docs__zh__torn="<!-- end of results -->",
        docs__en__plain="no results",
        CHANGELOG=marked,
        site__page=marked,
    )
    assert tables.find_pages(tmp_path) == [readme, deep, torn]
    readme.unlink()
    assert tables.find_pages(tmp_path) == [deep, torn]


def test_pages_show_each_table_once_in_a_language():
    shown = {"en": [], "zh": []}
    for page in tables.find_pages(ROOT):
        language = "zh" if "zh" in page.relative_to(ROOT).parts else "en"
        shown[language] += re.findall(r"<!-- results: (\S+) -->", page.read_text())
    made = {
        name
        for name in tables.TABLES
        if all(path.exists() for path in tables.list_sources(name, common.RESULTS))
    }
    assert sorted(shown["en"]) == sorted(made)
    assert sorted(shown["zh"]) == sorted(made - {"headline"})


def test_tables_are_checked_and_written(tmp_path):
    text = "before <!-- results: {} -->old<!-- end of results --> after"
    readme, english, chinese = make_pages(
        tmp_path,
        README=text.format("headline"),
        docs__en__page=text.format("mistakes"),
        docs__zh__page=text.format("mistakes"),
    )
    command = [f"--root={tmp_path}"]
    with pytest.raises(SystemExit, match="README.md: its tables differ"):
        tables.main([*command, "--check"])
    assert "old" in readme.read_text()
    tables.main(command)
    tables.main([*command, "--check"])
    for page in (readme, english, chinese):
        first, *_, last = page.read_text().splitlines()
        assert first.startswith("before <!-- results: ") and "old" not in page.read_text()
        assert last == "<!-- end of results --> after"
    row = json.loads((common.RESULTS / "mistakes.json").read_text())
    assert f"| （真值） | {row['distance']:.2f} | 1 | – |" in chinese.read_text().splitlines()
    assert f"| (truth) | {row['distance']:.2f} | 1 | – |" in english.read_text().splitlines()
    assert "| 错误 | 估计的距离 |" in chinese.read_text()
    assert tables.make_table("headline", common.RESULTS) in readme.read_text()
    chinese.write_text(chinese.read_text().replace("| 1 |", "| 2 |", 1))
    with pytest.raises(SystemExit, match="zh/page.md: its tables differ"):
        tables.main([*command, "--check"])
