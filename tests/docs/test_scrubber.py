# SPDX-License-Identifier: Apache-2.0
"""The training that readers step through: what the maker writes, and a browser that shows it."""

import io
import json
import shutil

import numpy as np
import pytest
import scrubber
from fabricated_runs import SHADES
from fabricated_runs import make_training
from figure_style import read_run
from helpers import ROOT
from PIL import Image

STEPS = list(SHADES)
PAGE = """<!DOCTYPE html><html lang="{language}"><meta charset="utf-8"><title>Page</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="site.css"><body class="md-typeset">
<p><img class="scrubber" alt="A training" src="toy_training.png"></p>
<script>
document.title = "Page with scripts";
const document$ = {{ subscribe: (act) => act(document) }};
</script>
<script src="scrubber.js"></script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small pages in both languages, with a fabricated training to step through."""
    folder = tmp_path_factory.mktemp("pages")
    run = make_training(folder / "run")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps({**record, "gradient_norm": 2.0}) + "\n" for record in records]
    (run / "metrics.jsonl").write_text("".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scrubber, "COLUMNS", 3)
        scrubber.write(read_run(run), folder)
    for name in ("scrubber.js", "site.css"):
        shutil.copy(ROOT / "docs" / "assets" / name, folder)
    for language in ("en", "zh"):
        (folder / f"{language}.html").write_text(PAGE.format(language=language), "utf-8")
    return folder


def test_iterations_are_chosen_more_densely_at_the_beginning():
    chosen = scrubber.choose(list(range(0, 3001, 5)), 20)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 3000, 20)
    distances = np.diff(chosen)
    assert distances[0] < distances[-1] and (np.diff(distances) >= -5).all()
    assert scrubber.choose([0, 10, 20], 20) == [0, 10, 20]


def test_the_sheet_has_each_frame_at_its_place(folder):
    sheet = np.asarray(Image.open(folder / "toy_training.webp").convert("RGB"))
    assert sheet.shape == (2 * 40, 3 * 60, 3)
    for place, shade in enumerate(SHADES.values()):
        row, column = divmod(place, 3)
        frame = sheet[40 * row : 40 * row + 40, 60 * column : 60 * column + 60]
        assert abs(frame.astype(int) - shade).max() <= 8
    still = Image.open(folder / "toy_training.png")
    assert still.width > 1000


def test_the_curves_are_those_of_the_run(folder):
    content = json.loads((folder / "toy_training.json").read_text())
    assert content["frames"] == STEPS and content["columns"] == 3
    steps, values = content["curves"]["wasserstein"]
    assert steps == list(range(200, 1501, 100))  # without the first record
    np.testing.assert_allclose(values, [100 / step for step in steps], rtol=1e-3)


def test_a_run_without_gradient_norms_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scrubber.py", str(make_training(tmp_path / "run"))])
    with pytest.raises(SystemExit) as caught:
        scrubber.main()
    assert caught.value.code == 2 and "gradient_norm" in capsys.readouterr().err


def test_the_files_of_the_page_are_small_and_belong_together():
    files = [ROOT / "docs" / "images" / f"{scrubber.NAME}.{end}" for end in ("png", "webp", "json")]
    assert sum(path.stat().st_size for path in files) < 600_000
    content = json.loads(files[-1].read_text())
    columns, count = content["columns"], len(content["frames"])
    size = Image.open(files[1]).size
    assert size[0] % columns == 0 and size[1] % -(-count // columns) == 0
    assert 20 <= count <= 30


class Scrubber:
    """An opened page with a scrubber."""

    def __init__(self, browser):
        self.browser = browser
        browser.execute_async_script(
            "const done = arguments[0];"
            "window.setInterval(() => document.querySelector('.scrubber-box') && done(), 10);"
        )

    def ask(self, script, *arguments):
        return self.browser.execute_script(f"return {script}", *arguments)

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def check(self, step):
        """Checks that frame, text and markers all show an iteration; then returns True."""
        picture = Image.open(io.BytesIO(self.find(".scrubber-frame").screenshot_as_png))
        middle = picture.convert("L").crop((9, 9, picture.width - 9, picture.height - 9))
        assert np.abs(np.asarray(middle).astype(int) - SHADES[step]).max() <= 10
        assert f"{step:,}" in self.find(".scrubber-control output").text
        markers = self.ask(
            "[...document.querySelectorAll('.scrubber-marker')].map(e => +e.getAttribute('x1'))"
        )
        expected = 38 + step / STEPS[-1] * (326 - 38)
        assert markers == pytest.approx([expected, expected])
        dots = self.ask(
            "[...document.querySelectorAll('circle')].filter(e => e.checkVisibility())"
            ".map(e => +e.getAttribute('cx'))"
        )
        assert dots == pytest.approx([expected, expected] if step else [])
        numbers = self.ask("[...document.querySelectorAll('strong')].map(e => e.textContent)")
        assert numbers == ([f"{100 / step:.2f}", "2.00"] if step else ["–", "–"])
        return True


@pytest.fixture(scope="module")
def address(folder, serving):
    with serving(folder) as address:
        yield address


@pytest.fixture
def opened(browser, address):
    browser.get(f"{address}en.html")
    return Scrubber(browser)


def test_slider_and_keys_move_frame_and_markers(opened):
    from selenium.webdriver.common.keys import Keys

    assert opened.check(1500)
    slider = opened.find("input[type=range]")
    for key, step in (
        *((Keys.HOME, 0), (Keys.ARROW_RIGHT, 500), (Keys.ARROW_UP, 1000), (Keys.END, 1500)),
        *((Keys.ARROW_RIGHT, 1500), (Keys.ARROW_LEFT, 1000)),
    ):
        slider.send_keys(key)
        assert opened.check(step)
    assert slider.get_attribute("aria-valuetext") == "iteration 1,000"


@pytest.mark.parametrize("kind", ["touch", "mouse"])
def test_a_pointer_on_a_curve_moves_frame_and_markers(opened, kind):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    curve = opened.find(".scrubber-curves svg")
    width = curve.size["width"]
    for end, below, step in ((-width // 9, 0, 500), (width // 9, 300, 1000)):
        actions = ActionChains(opened.browser, devices=[PointerInput(kind, kind)], duration=20)
        pointer = actions.w3c_actions.pointer_action
        pointer.move_to(curve, -width // 3, 0).pointer_down()
        pointer.move_to(curve, end, below).pointer_up()
        actions.w3c_actions.perform()
        assert opened.check(step)


def test_play_runs_to_the_end_and_pauses(opened):
    opened.browser.execute_async_script(
        "const done = arguments[0], play = document.querySelector('button');"
        "window.setInterval(() => play.textContent === 'Play' && done(), 10); play.click();"
    )
    assert opened.check(1500)
    texts = opened.browser.execute_script(
        "const play = document.querySelector('button'), texts = [];"
        "for (let count = 0; count < 2; count++) { play.click();"
        " texts.push(play.textContent, document.querySelector('output').textContent); }"
        "return texts;"
    )
    assert texts == ["Pause", "iteration 0", "Play", "iteration 0"]


def test_texts_are_in_the_pages_language(browser, address):
    browser.get(f"{address}zh.html")
    opened = Scrubber(browser)
    assert opened.check(1500)
    text = opened.find(".scrubber-box").text
    for words in ("播放", "第 1,500 次迭代", "Wasserstein 估计", "梯度范数"):
        assert words in text
    assert not opened.find("img").is_displayed()


@pytest.fixture
def without_scripts(browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_still_picture_stands_there_without_scripts(browser, address, without_scripts):
    browser.get(f"{address}en.html")
    assert browser.title == "Page"  # A script would change it.
    picture = browser.find_element("css selector", "img")
    assert picture.is_displayed() and picture.size["width"] > 300
    assert browser.find_elements("css selector", ".scrubber-box") == []


def test_the_still_picture_stays_where_frames_are_missing(browser, address, folder):
    from selenium.webdriver.support.ui import WebDriverWait

    (folder / "toy_training.json").rename(folder / "moved.json")
    browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    browser.get(f"{address}en.html")
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    picture = browser.find_element("css selector", "img")
    WebDriverWait(browser, 20).until(lambda _: picture.is_displayed())  # It may load slowly.
    (folder / "moved.json").rename(folder / "toy_training.json")
