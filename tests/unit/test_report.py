# SPDX-License-Identifier: Apache-2.0
"""The report of mode=eval."""

import errno
import functools
import hashlib
import json
import sys

import numpy as np
import paddle
import pytest

import functions
import wgangp_toy
from measures import report as report_module
from measures.evaluation import Evaluator
from measures.report import describe_figure
from measures.report import make_table
from measures.report import report
from measures.validators import make_measure
from modes.evaluate import evaluate
from pages.run_folder import make_rows
from support import weight_files
from support.errors import UserError

NETWORK = {"network": "some network", "sha256": "abc" * 20}


def measure_of(count, metric=None, **more):
    noise = np.zeros((count, 2), "float32")
    expressions = {"fake": lambda batch: batch["fake"]}
    return make_measure("generated", {"noise": noise}, expressions, metric, 50, **more)


def test_rows_and_table():
    figures = {"fid": 12.3456789, "inception_score": 5.0, "inception_score_deviation": 0.25}
    figures.update(modes=7.0, test_wasserstein=1.5)
    real = {"modes": 8.0, "modes_deviation": 0.5}
    measure = measure_of(50, measured_by=NETWORK, real=real, real_count=30)
    rows = make_rows(figures, functools.partial(describe_figure, measure=measure))
    assert set(rows) == {"fid", "inception_score", "modes", "test_wasserstein"}
    assert rows["inception_score"] == {
        **{"value": 5.0, "deviation": 0.25, "num_samples": 50, "better": "higher"},
        **{"real": None, "real_deviation": None, "real_num_samples": None},
        "measured_by": NETWORK,
    }
    assert rows["modes"]["real"] == 8.0 and rows["modes"]["real_deviation"] == 0.5
    assert rows["modes"]["real_num_samples"] == 30
    assert rows["test_wasserstein"]["better"] is None
    by = "some network (abcabcabcabc)"
    assert make_table(rows).splitlines() == [
        "figure            value   deviation  real  better  samples       measured by",
        f"fid               12.346  -          -     lower   50            {by}",
        f"inception_score   5       0.25       -     higher  50            {by}",
        f"modes             7       -          8     higher  50 (30 real)  {by}",
        f"test_wasserstein  1.5     -          -     -       50            {by}",
    ]


@pytest.fixture
def lines(monkeypatch):
    found = []
    monkeypatch.setattr(report_module.logger, "info", found.append)
    return found


def write_report(folder, measures):
    """Writes a report of a toy generator; returns its file of weights and the pictures drawn."""
    generator, weights = functions.WganGpToyGenerator(4), folder / "g.pdparams"
    drawn = []
    evaluator = Evaluator(generator, measures, str(folder), 7, "cpu")
    sources = {"pretrained_gen_model_path": {"source": str(weights), "sha256": "12" * 32}}
    report(evaluator, drawn.append, str(folder), 7, sources, "wgangp_toy")
    return weights, drawn


def test_report_writes_figures_and_a_picture(tmp_path, monkeypatch, lines):
    monkeypatch.setattr(sys, "argv", ["wgangp_toy.py", "mode=eval", "output_dir=a b"])
    figures = {"modes": 7.0, "modes_deviation": 0.5, "wasserstein_2": 1 / 3}
    measure = measure_of(20, lambda _: figures, real={"modes": 8.0}, real_count=30)
    weights, drawn = write_report(tmp_path, {"generated": measure})
    assert drawn == [str(tmp_path / "samples.png")]
    checksum = "12" * 32
    absent = dict.fromkeys(("deviation", "real", "real_deviation", "real_num_samples"))
    absent["measured_by"] = None
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content.pop("machine")["device"] == "cpu" and content.pop("date")
    assert content.pop("versions")["paddlepaddle"] == paddle.__version__
    assert content == {
        "script": "wgangp_toy",
        "command": "python wgangp_toy.py mode=eval 'output_dir=a b'",
        "seed": 7,
        "weights": {"pretrained_gen_model_path": {"source": str(weights), "sha256": checksum}},
        "metrics": {
            "modes": {
                **absent,
                **{"value": 7.0, "deviation": 0.5, "num_samples": 20, "better": "higher"},
                **{"real": 8.0, "real_num_samples": 30},
            },
            "wasserstein_2": {**absent, "value": 1 / 3, "num_samples": 20, "better": "lower"},
        },
    }
    assert f"Evaluated {weights} (EVAL.pretrained_gen_model_path), SHA-256 {checksum}" in lines
    table = make_table(make_rows(figures, functools.partial(describe_figure, measure=measure)))
    assert f"Figures of seed 7:\n{table}" in lines
    assert lines[-1] == f"Wrote {tmp_path}/metrics.json"


def test_a_folder_that_cannot_be_written_to_costs_no_figures(tmp_path, lines):
    def draw(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    evaluator = Evaluator(
        functions.WganGpToyGenerator(4),
        {"generated": measure_of(3, lambda _: {"modes": 7.0})},
        *(str(tmp_path), 7, "cpu"),
    )
    given = (str(tmp_path), 7, {}, "wgangp_toy")
    with pytest.raises(UserError, match=f"^{tmp_path} can't be written to .*hydra.run.dir="):
        report(evaluator, draw, *given)
    assert any(line.startswith("Figures of seed 7") for line in lines)
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["modes"]["value"] == 7
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(UserError, match="can't be written to"):
        report(evaluator, lambda path: None, *given)


def test_the_log_has_a_line_for_each_network_that_measured(tmp_path, lines):
    figures = {"fid": 1.0, "inception_score": 2.0}
    measure = measure_of(3, lambda _: figures, measured_by={"reference": "x", **NETWORK})
    write_report(tmp_path, {"generated": measure})
    assert lines.count(f"Measured by some network, SHA-256 {'abc' * 20}") == 1
    assert sum("SHA-256" in line for line in lines) == 2


def test_report_of_several_measures_has_the_rows_of_all(tmp_path):
    first, second = (measure_of(count, lambda _, c=count: {f"of_{c}": 1.0}) for count in (3, 5))
    second.validator.name = "second"
    second.validator.metric = {"second": second.validator.metric["generated"]}
    write_report(tmp_path, {"a": first, "b": second})
    rows = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert {name: row["num_samples"] for name, row in rows.items()} == {"of_3": 3, "of_5": 5}


def test_evaluation_names_the_checksums_of_what_it_read(configure, tmp_path, lines):
    experiment = wgangp_toy.Toy(
        configure("toy", "mode=eval MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 EVAL.num_samples=50")
    )
    settings, digests = experiment.cfg.EVAL, {}
    for short, network in zip(("gen", "dis"), experiment.make_networks()):
        path = tmp_path / f"{short}.pdparams"
        weight_files.save_weights(network, str(path))
        key = f"pretrained_{short}_model_path"
        settings[key] = str(path)
        digests[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    evaluate(experiment)
    written = json.loads((tmp_path / "metrics.json").read_text())["weights"]
    assert {key: part["sha256"] for key, part in written.items()} == digests
    for key, digest in digests.items():
        assert f"Evaluated {settings[key]} (EVAL.{key}), SHA-256 {digest}" in lines


@pytest.mark.parametrize("short", ["gen", "dis"])
def test_evaluation_refuses_weights_with_another_checksum(short, configure, tmp_path):
    (tmp_path / "nonsense.pdparams").write_bytes(b"nonsense")
    experiment = wgangp_toy.Toy(configure("toy", "mode=eval MODEL.gen_net.dim=4"))
    settings = experiment.cfg.EVAL
    if short == "dis":
        weight_files.save_weights(experiment.make_networks()[0], str(tmp_path / "g.pdparams"))
        settings.pretrained_gen_model_path = str(tmp_path / "g")
    settings[f"pretrained_{short}_sha256"] = "0" * 64
    if short == "dis":
        with pytest.raises(UserError, match="EVAL.pretrained_dis_sha256 needs EVAL.pretrained_dis"):
            evaluate(experiment)
    settings[f"pretrained_{short}_model_path"] = str(tmp_path / "nonsense")
    digest = hashlib.sha256(b"nonsense").hexdigest()
    message = f"SHA-256 {digest}, but EVAL.pretrained_{short}_sha256 demands {'0' * 64}"
    with pytest.raises(UserError, match=message):
        evaluate(experiment)


def test_report_without_measures_has_no_table(tmp_path, lines):
    _, drawn = write_report(tmp_path, {})
    assert len(drawn) == 1
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"] == {}
    assert not any("Figures" in line for line in lines)


def test_report_is_written_by_the_first_process_only(tmp_path, monkeypatch):
    evaluated = []

    def metric(_):
        evaluated.append(1)
        return {"modes": 1.0}

    monkeypatch.setattr(report_module.dist, "get_rank", lambda: 1)
    _, drawn = write_report(tmp_path, {"generated": measure_of(3, metric)})
    assert evaluated and not drawn
    assert sorted(path.name for path in tmp_path.iterdir()) == []
