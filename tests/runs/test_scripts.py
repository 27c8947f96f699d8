# SPDX-License-Identifier: Apache-2.0
"""The commands that a user types, as processes, in each mode."""

import html
import json
import re

import matplotlib.image
import pytest
from helpers import SCRIPTS
from ppsci.utils import logger
from trainings import read_records

import functions
import wgangp_cifar10
import wgangp_mnist
from modes.evaluate import evaluate
from support import weight_files

EXPERIMENTS = {"mnist": wgangp_mnist.Mnist, "cifar10": wgangp_cifar10.Cifar10}
LENGTH = (
    "TRAIN.epochs=2 TRAIN.iters_per_epoch=2 log_freq=1 TRAIN.eval_freq=1 "
    "TRAIN.eval_num_samples=50 EVAL.num_samples=50"
)
NETWORKS = {
    "toy": "MODEL.gen_net.dim=8 MODEL.dis_net.dim=8 TRAIN.batch_size=16",
    "mnist": "MODEL.gen_net.dim=2 MODEL.dis_net.dim=2 TRAIN.batch_size=4",
    "cifar10": "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 TRAIN.batch_size=2 EVAL.inception=false",
}
SOURCES = {"toy": "", "mnist": "DATA.source=digits", "cifar10": "DATA.source=synthetic"}
TINY = {name: f"{NETWORKS[name]} {SOURCES[name]} {LENGTH}" for name in NETWORKS}
GENERATED = {  # These figures need no critic.
    "toy": {"modes", "high_quality", "reverse_kl", "wasserstein_1", "wasserstein_2"},
    "mnist": {
        *("classifier_score", "frechet_distance", "digit_kl"),
        *(f"digit_{digit}" for digit in range(10)),
    },
    "cifar10": set(),
}
METRICS = {
    "toy": GENERATED["toy"],
    "mnist": GENERATED["mnist"] | {"test_wasserstein"},
    "cifar10": {"test_wasserstein", "test_accuracy_real", "test_accuracy_fake"},
}


def assert_shown(name, report, folder, evaluated, output):
    """Pages, a picture and the printed table show a report of mode=eval."""
    assert report["seed"] == 42
    assert report["command"].startswith(f"python wgangp_{name}.py mode=eval ")
    # Both pages show the command, and the figures next to those of real data.
    for place, command in ((folder, f"python wgangp_{name}.py"), (evaluated, report["command"])):
        page = (place / "report.html").read_text()
        assert html.escape(command) in page
        assert all(f">{key}" in page for key in METRICS[name])
    assert matplotlib.image.imread(evaluated / "samples.png").std() > 0
    # The printed table has the same figures.
    table = [line.split() for line in output.splitlines()]
    for key, row in report["metrics"].items():
        (line,) = (cells for cells in table if cells[:1] == [key])
        assert float(line[1]) == pytest.approx(row["value"], rel=1e-4)
        assert line[4:6] == [row["better"] or "-", "50"]


@pytest.mark.parametrize("name", TINY)
def test_a_command_trains_and_evaluates(name, run_script, tmp_path):
    folder = tmp_path / "run"
    done = run_script(name, TINY[name], f"hydra.run.dir={folder}", is_copy=False)
    # In a pipe the progress is lines, with the speed and the Wasserstein estimate.
    lines = re.findall(
        r"\[(\d)/4\] wasserstein -?\d+\.\d+, .* it/s, \d\d:\d\d:\d\d left", done.stdout
    )
    assert lines == ["1", "2", "3", "4"]
    assert "\r" not in done.stdout + done.stderr and "[Eval]" not in done.stdout
    assert "[Train]" not in done.stdout
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        *("metrics.jsonl", "config.yaml", "run.json", "train.log", "losses.png", "report.html"),
        *("model_generator.pdparams", "model_discriminator.pdparams"),
        *("samples/iteration_0.png", "samples/iteration_2.png", "samples/iteration_4.png"),
    } <= files
    assert re.search(r"wasserstein", (folder / "train.log").read_text())
    records = read_records(folder)
    assert METRICS[name] <= set(records[-1])
    # By default the toy sets keep a moving average, and it is what they evaluate.
    average = "average_" if name == "toy" else ""
    has_best = (folder / "checkpoints" / f"best_{average}generator.pdparams").exists()
    assert has_best == any(record.get("best") for record in records) == (name != "cifar10")
    # Without the Inception nothing ranks CIFAR-10's generators, and the log says so.
    assert ("no best generator is kept" in done.stdout) == (name == "cifar10")

    generator = f"EVAL.pretrained_gen_model_path={folder}/model_{average}generator"
    critic = f"EVAL.pretrained_dis_model_path={folder}/model_discriminator.pdparams"
    evaluated = tmp_path / "evaluated"
    done = run_script(
        *(name, "mode=eval", TINY[name], generator, critic, f"hydra.run.dir={evaluated}"),
        is_copy=name != "toy",
    )
    report = json.loads((evaluated / "metrics.json").read_text())
    assert set(report["metrics"]) == METRICS[name]
    # The run's last evaluation used the same weights and the same draws.
    for key, row in report["metrics"].items():
        assert row["value"] == records[-1][key], key
        assert row["num_samples"] == 50
        assert (row["real"] is None) == key.startswith("test_"), key
        assert row["real_num_samples"] == (None if row["real"] is None else 50), key
        assert row["better"] in ("higher", "lower", None)
    assert_shown(name, report, folder, evaluated, done.stdout)
    if name == "mnist":
        by = report["metrics"]["classifier_score"]["measured_by"]
        assert by["network"] == "MNIST classifier, last layer refitted"
        note = json.loads((SCRIPTS / "weights" / "mnist_classifier.json").read_text())
        assert by["sha256"] == note["sha256"]
        assert report["metrics"]["classifier_score"]["deviation"] > 0
        shares = [report["metrics"][f"digit_{digit}"]["value"] for digit in range(10)]
        assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_generator_alone_gets_the_figures_that_need_no_critic(
    name, configure, tmp_path, monkeypatch
):
    experiment = EXPERIMENTS[name](configure(name, "mode=eval", TINY[name]))
    generator, _ = experiment.make_networks()
    weight_files.save_weights(generator, str(tmp_path / "g.pdparams"))
    experiment.cfg.EVAL.pretrained_gen_model_path = str(tmp_path / "g")
    warnings = []
    monkeypatch.setattr(logger, "warning", warnings.append)
    evaluate(experiment)
    assert any("EVAL.pretrained_dis_model_path is null" in text for text in warnings)
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert set(report["metrics"]) == GENERATED[name]
    assert (tmp_path / "samples.png").is_file()


def test_weights_of_another_network_are_refused_in_one_line(run_script, tmp_path):
    weight_files.save_weights(functions.WganGpToyGenerator(8), str(tmp_path / "g.pdparams"))
    done = run_script(
        "toy",
        f"mode=eval EVAL.pretrained_gen_model_path={tmp_path}/g hydra.run.dir={tmp_path}/x",
        "MODEL.gen_net.dim=128",  # the default, but given
        status=2,
    )
    assert "MODEL.gen_net.dim=128 was given, but EVAL.pretrained_gen_model_path" in done.stderr
    assert "Leave MODEL.gen_net.dim out" in (tmp_path / "x" / "eval.log").read_text()
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("name", "source"), [("mnist", "digits"), ("cifar10", "synthetic")])
def test_an_offline_error_names_every_solution(name, source, run_script, tmp_path):
    done = run_script(name, f"hydra.run.dir={tmp_path}/x", status=2)
    for part in (
        f"{tmp_path}/.paddlesci/datasets/",
        "https://",
        "put it at",
        "DATA.data_path=",
        f"DATA.source={source}",
    ):
        assert part in done.stderr, part
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("name", "override", "part"),
    [
        ("toy", "TRAIN.epochz=3", "Did you mean TRAIN.epochs?"),
        ("toy", "DATA.mode=8gaussian", "8gaussians, 25gaussians, swissroll"),
        ("mnist", "DATA.source=digit", "mnist, digits"),
        ("cifar10", "mode=eval", "EVAL.pretrained_gen_model_path"),
        ("toy", "MODEL.arch=published", "MODEL.arch=published is for mode=eval"),
        ("toy", "TRAIN.resume=auto", "a folder that is named: give hydra.run.dir="),
        ("toy", "TRAIN.resume=5", "TRAIN.resume=5 is not a path"),
        ("toy", "TRAIN.ema=true", "TRAIN.ema is a group of settings. Set one of TRAIN.ema.use_ema"),
        ("toy", "TRAIN.ema.decay=0", "TRAIN.ema.decay=0 must be at least 1e-06 and below 1"),
        ("mnist", "EVAL.classifier_weights=5", "is not a path"),
        ("cifar10", "EVAL.inception_weights=null", "is not a path"),
        ("cifar10", "DATA.data_path=/nowhere/x.tar.gz", "neither this file nor its folder"),
    ],
)
def test_invalid_overrides_get_one_line(name, override, part, run_script, tmp_path):
    folder = "" if override == "TRAIN.resume=auto" else f"hydra.run.dir={tmp_path}/x"
    done = run_script(name, override, folder, status=2)
    assert part in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_folder_that_cannot_be_written_to_gets_one_line(run_script, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file" / "run", "/proc/nowhere", "/proc/a/${seed}"):
        done = run_script("toy", f"'hydra.run.dir={place}'", status=2)
        assert f"{str(place).partition('/${')[0]} can't be written to" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_cifar10_trains_on_real_pictures_without_labels(run_script, shared, tmp_path):
    data = f"DATA.data_path={shared('emoji-cifar10-layout.tar.gz')} MODEL.use_label=false"
    run_script("cifar10", NETWORKS["cifar10"], LENGTH, data, f"hydra.run.dir={tmp_path}")
    record = read_records(tmp_path)[-1]
    assert record["step"] == 4 and not any("accuracy" in key for key in record)


def test_mnist_trains_on_the_real_set(run_script, shared, tmp_path):
    data = f"DATA.data_path={shared('mnist.pkl.gz')}"
    run_script("mnist", NETWORKS["mnist"], LENGTH, data, f"hydra.run.dir={tmp_path}")
    record = read_records(tmp_path)[-1]
    assert record["step"] == 4 and record["learning_rate"] == 1e-4


def test_pictures_alone_need_no_data(run_script, tmp_path):
    weight_files.save_weights(functions.WganGpCifar10Generator(4), str(tmp_path / "g.pdparams"))
    done = run_script(
        "cifar10",
        "mode=eval MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 EVAL.inception=false",
        f"EVAL.pretrained_gen_model_path={tmp_path}/g hydra.run.dir={tmp_path}/x",
    )
    assert "Wrote" in done.stdout and (tmp_path / "x" / "samples.png").is_file()
