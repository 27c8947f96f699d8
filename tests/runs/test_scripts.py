# SPDX-License-Identifier: Apache-2.0
"""The commands that a user types, as processes, in each mode."""

import json
import re

import matplotlib.image
import numpy as np
import pytest
from helpers import SCRIPTS
from PIL import Image

TINY_RUN = ["TRAIN.epochs=2", "TRAIN.iters_per_epoch=2", "log_freq=1", "TRAIN.eval_freq=1"]
TINY_RUN += ["TRAIN.eval_num_samples=50", "EVAL.num_samples=50"]
TINY = {
    "toy": ["MODEL.gen_net.dim=8", "MODEL.dis_net.dim=8", "TRAIN.batch_size=16"],
    "mnist": [
        *("DATA.source=digits", "MODEL.gen_net.dim=2", "MODEL.dis_net.dim=2"),
        "TRAIN.batch_size=4",
    ],
    "cifar10": [
        *("DATA.source=synthetic", "MODEL.gen_net.dim=4", "MODEL.dis_net.dim=4"),
        *("TRAIN.batch_size=2", "EVAL.inception=false"),
    ],
}
GENERATED = {  # figures that need no critic
    "toy": {"modes", "high_quality", "reverse_kl", "wasserstein_2"},
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


@pytest.mark.parametrize("name", TINY)
def test_train_then_evaluate(name, run_script, tmp_path):
    folder = tmp_path / "run"
    done = run_script(name, *TINY[name], *TINY_RUN, f"hydra.run.dir={folder}")
    # in a pipe the progress is lines, with speed and the Wasserstein estimate
    lines = re.findall(
        r"\[(\d)/4\] wasserstein -?\d+\.\d+, .* it/s, \d\d:\d\d:\d\d left", done.stdout
    )
    assert lines == ["1", "2", "3", "4"]
    assert "\r" not in done.stdout + done.stderr and "[Eval]" not in done.stdout
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        *("metrics.jsonl", "config.yaml", "train.log", "losses.png"),
        *("model_generator.pdparams", "model_discriminator.pdparams"),
        *("samples/iteration_0.png", "samples/iteration_2.png", "samples/iteration_4.png"),
    } <= left
    assert re.search(r"wasserstein", (folder / "train.log").read_text())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert METRICS[name] <= set(records[-1])
    # the toy sets' default keeps a moving average, and evaluates that
    average = "average_" if name == "toy" else ""
    has_best = (folder / "checkpoints" / f"best_{average}generator.pdparams").exists()
    assert has_best == any(record.get("best") for record in records) == (name != "cifar10")
    # without the Inception there is nothing to rank by, and that is said
    assert ("no best generator is kept" in done.stdout) == (name == "cifar10")

    weights = {
        "EVAL.pretrained_gen_model_path": folder / f"model_{average}generator",
        "EVAL.pretrained_dis_model_path": folder / "model_discriminator.pdparams",
    }
    named = [f"{key}={path}" for key, path in weights.items()]
    evaluated = tmp_path / "evaluated"
    done = run_script(
        name, "mode=eval", *TINY[name], *TINY_RUN, *named, f"hydra.run.dir={evaluated}"
    )
    report = json.loads((evaluated / "metrics.json").read_text())
    assert set(report["metrics"]) == METRICS[name]
    # the run's last evaluation saw the same weights and the same draws
    for key, row in report["metrics"].items():
        assert row["value"] == records[-1][key], key
        assert row["num_samples"] == 50
        assert (row["real"] is None) == key.startswith("test_"), key
        assert row["real_num_samples"] == (None if row["real"] is None else 50), key
        assert row["better"] in ("higher", "lower", None)
    assert report["seed"] == 42
    assert report["command"].startswith(f"python wgangp_{name}.py mode=eval ")
    assert matplotlib.image.imread(evaluated / "samples.png").std() > 0
    # the table says the same
    table = [line.split() for line in done.stdout.splitlines()]
    for key, row in report["metrics"].items():
        (line,) = (cells for cells in table if cells[:1] == [key])
        assert float(line[1]) == pytest.approx(row["value"], rel=1e-4)
        assert line[4:6] == [row["better"] or "-", "50"]
    if name == "mnist":
        by = report["metrics"]["classifier_score"]["measured_by"]
        assert by["network"] == "MNIST classifier"
        note = json.loads((SCRIPTS / "weights" / "mnist_classifier.json").read_text())
        assert by["sha256"] == note["sha256"]
        assert report["metrics"]["classifier_score"]["deviation"] > 0
        shares = [report["metrics"][f"digit_{digit}"]["value"] for digit in range(10)]
        assert sum(shares) == pytest.approx(1)

    if name == "toy":
        return
    # the generator alone is enough for what needs no critic
    alone = tmp_path / "alone"
    done = run_script(name, "mode=eval", *TINY[name], *TINY_RUN, named[0], f"hydra.run.dir={alone}")
    assert "EVAL.pretrained_dis_model_path is null" in done.stdout
    report = json.loads((alone / "metrics.json").read_text())
    assert set(report["metrics"]) == GENERATED[name]
    assert (alone / "samples.png").is_file()


def test_weights_of_another_network_are_refused_in_one_line(run_script, tmp_path):
    folder = tmp_path / "run"
    run_script("toy", *TINY["toy"], *TINY_RUN, f"hydra.run.dir={folder}")
    done = run_script(
        *("toy", "mode=eval", f"EVAL.pretrained_gen_model_path={folder}/model_generator"),
        f"hydra.run.dir={tmp_path}/x",
        status=2,
    )
    assert "does not fit WganGpToyGenerator" in done.stderr
    assert "[2, 8] where [2, 128] is expected" in done.stderr
    assert "does not fit" in (tmp_path / "x" / "eval.log").read_text()
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("name", "way"), [("mnist", "digits"), ("cifar10", "synthetic")])
def test_offline_the_error_names_every_way_out(name, way, run_script, tmp_path):
    done = run_script(name, f"hydra.run.dir={tmp_path}/x", status=2)
    for part in (
        f"{tmp_path}/.paddlesci/datasets/",
        "https://",
        "put it at",
        "DATA.data_path=",
        f"DATA.source={way}",
    ):
        assert part in done.stderr, part
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("name", "slip", "part"),
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
def test_slips_get_one_line(name, slip, part, run_script, tmp_path):
    folder = [] if slip == "TRAIN.resume=auto" else [f"hydra.run.dir={tmp_path}/x"]
    done = run_script(name, slip, *folder, status=2)
    assert part in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_folder_that_cannot_be_written_to_gets_one_line(run_script, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file" / "run", "/proc/nowhere", "/proc/a/${seed}"):
        done = run_script("toy", f"hydra.run.dir={place}", status=2)
        assert f"{str(place).partition('/${')[0]} can't be written to" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_cifar10_on_real_pictures_without_labels(run_script, shared, tmp_path):
    archive = shared("emoji-cifar10-layout.tar.gz")
    tiny = [part for part in TINY["cifar10"] if "source" not in part]
    run_script(
        *("cifar10", *tiny, *TINY_RUN, f"DATA.data_path={archive}"),
        *("MODEL.use_label=false", f"hydra.run.dir={tmp_path}"),
    )
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 4 and not any("accuracy" in key for key in record)


def test_mnist_on_the_real_set(run_script, shared, tmp_path):
    archive = shared("mnist.pkl.gz")
    tiny = [part for part in TINY["mnist"] if "source" not in part]
    run_script("mnist", *tiny, *TINY_RUN, f"DATA.data_path={archive}", f"hydra.run.dir={tmp_path}")
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 4 and record["learning_rate"] == 1e-4


def test_pictures_alone_want_no_data(run_script, tmp_path):
    folder = tmp_path / "run"
    run_script("cifar10", *TINY["cifar10"], *TINY_RUN, f"hydra.run.dir={folder}")
    done = run_script(
        *("cifar10", "mode=eval", "MODEL.gen_net.dim=4", "MODEL.dis_net.dim=4"),
        *("EVAL.inception=false", f"EVAL.pretrained_gen_model_path={folder}/model_generator"),
        f"hydra.run.dir={tmp_path}/x",
    )
    assert "Wrote" in done.stdout and (tmp_path / "x" / "samples.png").is_file()


def test_a_runs_pictures_as_an_animation(run_script, tmp_path):
    for number, grey in ((0, 0), (10000, 250), (9999, 120)):
        Image.new("L", (80, 40), grey).save(tmp_path / f"iteration_{number:04d}.png")
    path = tmp_path / "run.gif"
    done = run_script("animate", str(tmp_path), "--output", str(path), "--width", "20")
    assert "3 pictures" in done.stdout
    with Image.open(path) as animation:
        assert animation.size == (20, 10) and animation.n_frames == 3
        shades = []
        for frame in range(3):
            animation.seek(frame)
            shades.append(animation.convert("L").getpixel((5, 5)))
    assert np.abs(np.array(shades) - [0, 120, 250]).max() <= 2
    (tmp_path / "empty").mkdir()
    slips = (("nothing", "No such file"), ("empty", "holds no PNG files"))
    for folder, part in slips:
        done = run_script(
            *("animate", str(tmp_path / folder), "--output", str(path)),
            status=2,
        )
        assert part in done.stderr and "Traceback" not in done.stderr
