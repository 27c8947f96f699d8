# SPDX-License-Identifier: Apache-2.0
"""report.html in a real browser: the slider, touch, the keyboard, a phone, the dark."""

import json

import pytest
from fabricated_runs import make_evaluation
from fabricated_runs import make_training

from pages import page


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """The page of two runs, opened from its file, with what the browser logged."""
    folder = tmp_path_factory.mktemp("runs")
    first = make_evaluation(make_training(folder / "first"))
    second = make_training(folder / "second", {"TRAIN.epochs": 4}, shift=1.0)
    (second / "samples" / "iteration_500.png").unlink()
    page.write([str(first), str(second)], str(folder / "report.html"))
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(f"file://{folder}/report.html")
    return browser


def ask(browser, script):
    return browser.execute_script(f"return {script}")


def shown(browser):
    """The iterations of the pictures that can be seen, one a run."""
    return ask(
        browser,
        "[...document.querySelectorAll('.frames img')].filter(i => i.checkVisibility())"
        ".map(i => Number(i.dataset.step))",
    )


def press(browser, key):
    ask(browser, f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")


def test_nothing_is_asked_for_and_nothing_fails(opened):
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("data:", "file:///"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1


def test_slider_keys_and_fingers_move_the_pictures(opened):
    assert shown(opened) == [1500, 1500]
    ask(
        opened,
        "(slider => { slider.value = 1; slider.dispatchEvent(new Event('input')); })"
        "(document.getElementById('slider'))",
    )
    # The second run has no picture of iteration 500: it shows the one before.
    assert shown(opened) == [500, 0]
    assert ask(opened, "document.querySelector('output').textContent") == "iteration 500"
    press(opened, "ArrowRight")
    assert shown(opened) == [1000, 1000]
    press(opened, "Home")
    press(opened, "ArrowLeft")
    assert shown(opened) == [0, 0]
    press(opened, "End")
    assert shown(opened) == [1500, 1500]
    ask(
        opened,
        "(box => { const area = box.getBoundingClientRect(); box.dispatchEvent("
        "new PointerEvent('pointermove', {pointerType: 'touch', clientX: area.left + 2})); })"
        "(document.querySelector('.frames'))",
    )
    assert shown(opened) == [0, 0]


def test_play_runs_to_the_end(opened):
    press(opened, "Home")
    assert shown(opened) == [0, 0]
    opened.execute_async_script(
        "const done = arguments[0], play = document.getElementById('play');"
        "window.setInterval(() => play.textContent === 'Play' && done(), 20); play.click();"
    )
    assert shown(opened) == [1500, 1500]


def test_nothing_is_wider_than_a_phone(opened):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "mobile": True, "deviceScaleFactor": 1},
    )
    assert ask(opened, "document.documentElement.scrollWidth") <= 390
    assert ask(opened, "[...document.querySelectorAll('svg')].every(s => s.clientWidth > 300)")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_curves_differ_from_the_page(opened, scheme):
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    colors = ask(
        opened,
        "(() => { const of = (e, name) => getComputedStyle(document.querySelector(e))[name]"
        ".match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3;"
        "return [of('body', 'backgroundColor'), of('body', 'color'), of('svg text', 'fill')]; })()",
    )
    background, ink, axis = colors
    assert ink == axis and abs(ink - background) > 150
    assert (background > 128) == (scheme == "light")
