# SPDX-License-Identifier: Apache-2.0
"""report.html: what the page of a run holds, how it stays small, and what ends where it fails."""

import base64
import hashlib
import html
import io
import json
import logging
import re
import sys

import numpy as np
import pytest
from fabricated_runs import SHADES
from fabricated_runs import make_evaluation
from fabricated_runs import make_training
from PIL import Image

import report
from pages import curves
from pages import frames
from pages import origin
from pages import page
from pages import run_folder
from support import shipped_weights
from support.errors import UserError


def write(folder, *folders):
    """Writes the page of runs; returns its HTML."""
    path = folder / "page.html"
    page.write([str(part) for part in folders], str(path))
    return path.read_text(encoding="utf-8")


def cells(text):
    """The texts of the cells of each table row, by the row's head."""
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", text, re.S)
    return {
        plain(head): [plain(cell) for cell in re.findall(r"<td.*?</td>", row, re.S)]
        for head, row in rows
    }


def plain(text):
    return html.unescape(re.sub(r"<[^>]+>", "", text)).replace("\xa0", " ").strip()


def test_a_page_shows_figures_settings_and_origin(tmp_path):
    overrides = {"TRAIN.learning_rate": 5e-3, "LOSS.penalty_weight": 2.0}
    run = make_training(tmp_path / "run", overrides)
    text = write(tmp_path, make_evaluation(run))
    rows = cells(text)
    # the newest evaluation of the training, then that of mode=eval; each next to real data
    assert rows["wasserstein_2 ↓"] == ["0.1235", "0.0987 ± 0.011", "–", "–"]
    assert rows["classifier_score ↑"] == ["–", "–", "7.874 ± 0.1234", "9.5"]
    assert rows["modes"][0] == "7"
    assert "average at iteration 1,500: 2,500 samples, 2,500 real ones." in plain(text)
    assert "50,000 samples, 10,000 real ones, measured by Classifier <b>X</b> (SHA-256 abab" in (
        plain(text)
    )
    assert {key for key in rows if "." in key} == {"TRAIN.epochs", *overrides}
    assert rows["TRAIN.learning_rate"] == ["0.005", "0.01"]  # the critic's default follows it
    assert "stopped: records" not in text and "1,500 iterations in 2 min" in text
    for part in ("python wgangp_toy.py mode=eval", "paddlepaddle 3.2.2", "cd" * 32, "2026-01-02"):
        assert part in text
    titles = re.findall(r'aria-label="([^"]+)"', text)
    assert {"losses", "Wasserstein estimate", "distances (lower is better)"} <= set(titles)


def test_texts_from_outside_are_escaped_and_nothing_is_loaded(tmp_path):
    run = make_training(tmp_path / "<img src=x onerror=alert(1)>", {"DATA.mode": "</script>$_{x^"})
    text = write(tmp_path, make_evaluation(run))
    for part in ("<img src=x", "<b>", "<i>", "<model>", "</script>$"):
        assert part not in text
    assert text.count("<script>") == text.count("</script>") == 1
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", text) == []
    assert set(re.findall(r"https?://[^\"\s]+", text)) <= {
        "http://www.w3.org/2000/svg",  # names of formats
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in text


def test_a_stopped_run_and_one_of_an_earlier_version_have_pages(tmp_path):
    run = make_training(tmp_path / "run", {"TRAIN.epochs": 9})
    assert "stopped: records of 1,500 of 4,500 iterations" in write(tmp_path, run)
    (run / "run.json").unlink()
    text = write(tmp_path, run)
    assert "defaults are not known" in text and "Command and machine" not in text
    assert cells(text)["wasserstein_2"] == ["0.1235", "–"]
    text = write(tmp_path, make_evaluation(tmp_path / "evaluated"))
    assert "Samples during" not in text and "EVAL.num_samples" in cells(text)


def test_pages_compare_runs(tmp_path):
    first = make_training(tmp_path / "a" / "run", {"seed": 1})
    second = make_training(tmp_path / "b" / "run", {"seed": 2}, shift=1.0)
    text = write(tmp_path, first, second)
    rows = cells(text)
    assert rows["wasserstein_2 ↓"] == ["0.1235", "0.0987 ± 0.011", "1.123", "0.0987 ± 0.011"]
    assert rows["seed"] == ["1", "2", "42"] and rows["TRAIN.epochs"] == ["3", "3", "16"]
    assert "a/run" in plain(text) and "b/run" in plain(text)
    assert text.count('<div class="frames">') == 2
    panel = text[text.index('aria-label="losses"') :].split("</svg>")[0]
    assert curves.COLORS[0] in panel and curves.COLORS[1] in panel


def test_a_picture_of_other_samples_is_not_called_one_of_the_evaluation(tmp_path):
    run = make_evaluation(tmp_path / "run")
    title = "Samples of the evaluated weights"
    Image.new("L", (8, 8)).save(run / "samples.png")
    assert title in write(tmp_path, run)
    digest = hashlib.sha256((run / "samples.png").read_bytes()).hexdigest()
    (run / "samples.sha256").write_text(f"{digest}  samples.png\n")
    assert title not in write(tmp_path, run)
    (run / "samples.sha256").write_text(f"{'0' * 64}  samples.png\n")  # replaced since
    assert title in write(tmp_path, run)


def test_a_page_shows_samples_of_other_weights_and_says_so(tmp_path):
    run, drawn = make_training(tmp_path / "run"), make_evaluation(tmp_path / "drawn")
    (drawn / "metrics.json").unlink()
    files = shipped_weights.read_table(shipped_weights.FOLDER)["colored_digits"]["files"]
    for digest, part in (
        (files["generator"]["sha256"], "Weights that ship with the suite, not those of this train"),
        ("0" * 64, "Not the weights of this training."),
    ):
        content = {"command": "python <x>", "weights": {"source": "colored_digits"}}
        content["weights"]["sha256"] = digest
        (drawn / "infer.json").write_text(json.dumps(content))
        text = write(tmp_path, run, drawn)
        assert part in text and ("10,000 iterations" in text) == (digest != "0" * 64)
        assert "<h3>colored_digits</h3>" in text and "python &lt;x&gt;" in text
        assert cells(text)["wasserstein_2 ↓"] == ["0.1235", "0.0987 ± 0.011"]  # of one run
        assert text.count("data:image/webp") == len(SHADES) + 1
    with pytest.raises(UserError, match="holds samples of mode=infer only"):
        write(tmp_path, drawn)


@pytest.mark.parametrize(
    ("overrides", "has_note"),
    [
        ({"MODEL.use_label": True}, True),
        ({"MODEL.use_label": True, "MODEL.num_classes": 11}, False),
        ({}, False),
    ],
)
def test_a_page_says_that_columns_are_classes(tmp_path, overrides, has_note):
    text = write(tmp_path, make_training(tmp_path / "run", overrides))
    assert ("Each column is a class" in text) == has_note


def test_frames_are_thinned_to_a_budget(tmp_path):
    rng, paths = np.random.default_rng(0), {}
    for step in range(0, 100):
        noise = rng.integers(0, 256, (50, 50, 3), "uint8")
        paths[step] = tmp_path / f"{step}.png"
        Image.fromarray(noise.repeat(2, 0).repeat(2, 1)).save(paths[step])
    chosen = frames.choose(paths)
    assert len(chosen) == frames.MAX_FRAMES and (chosen[0].step, chosen[-1].step) == (0, 99)
    gaps = np.diff([frame.step for frame in chosen])
    assert gaps.min() >= 2 and gaps.max() <= 3
    assert chosen[0].size == (50, 50) and chosen[0].is_reduced
    one = len(chosen[0].content)
    few = frames.choose(paths, 10 * one)
    assert 7 <= len(few) <= 10 and sum(len(frame.content) for frame in few) <= 10 * one
    assert (few[0].step, few[-1].step) == (0, 99)
    assert [frame.step for frame in frames.choose(paths, 1)] == [0, 99]
    assert frames.choose({}) == []


def test_a_page_says_that_frames_were_left_out(tmp_path, monkeypatch):
    run = make_training(tmp_path / "run")
    assert "to keep this page small" not in write(tmp_path, run)
    monkeypatch.setattr(frames, "MAX_FRAMES", 3)
    text = write(tmp_path, run)
    assert "3 of 4 pictures, to keep this page small" in text
    steps = re.findall(r'data-step="(\d+)"', text)
    assert steps == ["0", "1000", "1500"]
    uris = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    shades = [Image.open(io.BytesIO(base64.b64decode(uri))).getpixel((5, 5))[0] for uri in uris]
    assert np.abs(np.array(shades) - [SHADES[int(step)] for step in steps]).max() <= 3


def test_long_curves_stay_small_and_keep_their_extremes():
    values = np.zeros(20000)
    values[7777] = 50.0
    records = [{"step": step, "wasserstein": value} for step, value in enumerate(values)]
    panels = curves.draw_panels([records], {"wasserstein": 1.5})
    assert list(panels) == ["Wasserstein estimate"]
    svg = panels["Wasserstein estimate"]
    assert len(svg) < 60_000 and "currentColor" in svg and curves.INK not in svg
    assert re.findall(r">([\d.]+)</text>", svg)[-1] >= "50"  # the axis goes up to the extreme
    assert curves.draw_panels([records[:1]], {}) == {}


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    folder = make_training(tmp_path / "run")
    text = write(tmp_path, folder)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 99')
    assert write(tmp_path, folder) == text


def test_runs_on_several_drives_of_windows_have_their_paths_as_names(monkeypatch, tmp_path):
    runs = [run_folder.read(make_training(tmp_path / name)) for name in "ab"]
    assert page._name(runs) == ["a", "b"]
    monkeypatch.setattr(page.osp, "commonpath", lambda _: int("several drives"))
    assert page._name(runs) == [run.folder for run in runs]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("metrics.jsonl", '{"step": 1}\n{"st\n', "line 2 of "),
        ("metrics.jsonl", "[1]\n", "is damaged"),
        ("config.yaml", "a: [", "does not hold settings"),
        ("run.json", b"\xff", "can't be read"),
    ],
)
def test_damaged_files_are_one_line(name, content, part, tmp_path, caplog, monkeypatch):
    run = make_training(tmp_path / "run")
    (run / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=part):
        run_folder.read(str(run))
    warnings = []
    monkeypatch.setattr(page.logger, "warning", warnings.append)
    page.write_or_warn(str(run))
    assert len(warnings) == 1 and part in warnings[0] and "\n" not in warnings[0]
    assert not (run / "report.html").exists()


def test_a_failure_of_any_kind_is_a_warning(tmp_path, monkeypatch):
    run = make_training(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "jinja2", None)  # It can't be imported then.
    warnings = []
    monkeypatch.setattr(page.logger, "warning", warnings.append)
    page.write_or_warn(str(run))
    assert len(warnings) == 1 and "report.html was not written" in warnings[0]
    monkeypatch.setattr(logging.getLogger("ppsci"), "warning", warnings.append)
    origin.save(str(run / "run.json" / "nothing"), origin.NAME, {})  # a folder that can't be made
    assert len(warnings) == 2 and "was not written" in warnings[1]


def test_origin_names_versions_and_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wgangp_toy.py", "a b=1"])
    content = origin.describe("wgangp_toy", "cpu", 2)
    assert content["command"] == "python wgangp_toy.py 'a b=1'"
    assert content["versions"]["numpy"] == np.__version__
    assert content["machine"]["cores"] >= 1 and content["machine"]["processor"]
    origin.save(str(tmp_path), origin.NAME, content)
    assert json.loads((tmp_path / "run.json").read_text()) == content


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
    report.main()


def test_the_program_writes_pages_and_animations(tmp_path, monkeypatch, capsys):
    run = make_training(tmp_path / "run")
    call(monkeypatch, run)
    assert (run / "report.html").is_file()
    path = tmp_path / "run.gif"
    call(monkeypatch, run, "--output", path)
    with Image.open(path) as animation:
        assert animation.size == (400, 266) and animation.n_frames == len(SHADES)
        shades = []
        for frame in range(animation.n_frames):
            animation.seek(frame)
            shades.append(animation.convert("L").getpixel((5, 5)))
    assert np.abs(np.array(shades) - list(SHADES.values())).max() <= 2
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    (run / "metrics.json").write_text('{"metrics": {"fid": 3}}')
    for arguments, part in (
        ([tmp_path / "empty"], "holds neither records"),
        ([run, run, "--output", path], "a GIF shows"),
        ([run, "--output", tmp_path / "x"], "is damaged"),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, *arguments)
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1
