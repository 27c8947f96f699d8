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


"""The built site in a real browser: Chromium without a screen, and nothing from elsewhere.

Skipped where mkdocs, node_modules or Chromium are absent; `make docs browser` brings them.
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is absent: `make docs` installs it")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is absent: `make docs`")
if not (ROOT / "node_modules").is_dir():
    pytest.skip("node_modules is absent: `make docs`", allow_module_level=True)
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("Chromium is absent: `make browser`", allow_module_level=True)

# each page's address, and its source
PAGES = {
    "": "zh/index.md",
    "en/": "en/index.md",
    "examples/wgangp/": "zh/examples/wgangp.md",
    "en/examples/wgangp/": "en/examples/wgangp.md",
}
TUTORIALS = [address for address in PAGES if address.endswith("wgangp/")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, built strictly and served."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path_factory.mktemp('profile')}"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


def opened(browser, address, phone=False):
    screen = {"width": 390 if phone else 1280, "height": 844, "mobile": phone}
    screen["deviceScaleFactor"] = 1
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what another page left
    browser.get(address)
    # pictures load when they are scrolled to
    browser.execute_async_script(
        "const done = arguments[0];"
        "const pictures = [...document.querySelectorAll('article img')];"
        "pictures.forEach(picture => picture.loading = 'eager');"
        "Promise.all([document.fonts.ready, ...pictures.map(p => p.decode().catch(() => 0))])"
        ".then(() => done());"
    )
    return browser


def source(address):
    return (ROOT / "docs" / PAGES[address]).read_text(encoding="utf-8")


@pytest.mark.parametrize("address", PAGES)
def test_no_error_and_no_request_off_the_machine(browser, site, address):
    opened(browser, site + address)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((site, "data:", "blob:" + site))] == []


@pytest.mark.parametrize("address", TUTORIALS)
def test_formulas_are_typeset(browser, site, address):
    opened(browser, site + address)
    count = "return document.querySelectorAll(arguments[0]).length"
    marked = browser.execute_script(count, ".arithmatex")
    assert marked > 20
    assert browser.execute_script(count, ".arithmatex .katex-html") == marked
    assert browser.execute_script(count, ".katex-error") == 0
    shown = browser.execute_script("return document.querySelector('article').innerText")
    assert "$" not in re.sub(r"\$\{?\w+", "", shown).split("4. ")[0] and "\\frac" not in shown
    assert browser.execute_script("return document.fonts.check('16px KaTeX_Math')")


@pytest.mark.parametrize("address", TUTORIALS)
def test_tabs_switch(browser, site, address):
    opened(browser, site + address)
    tabs = browser.find_elements("css selector", ".tabbed-set:first-of-type .tabbed-labels label")
    blocks = browser.find_elements("css selector", ".tabbed-set:first-of-type .tabbed-block")
    blocks = blocks[: len(tabs)]
    tabs = tabs[: len(blocks)]
    assert len(tabs) >= 4
    assert [block.is_displayed() for block in blocks[:2]] == [True, False]
    browser.execute_script("arguments[0].click()", tabs[1])
    assert [block.is_displayed() for block in blocks[:2]] == [False, True]
    assert "mode=eval" in blocks[1].text


@pytest.mark.parametrize("address", PAGES)
def test_code_sections_are_not_empty(browser, site, address):
    opened(browser, site + address)
    texts = browser.execute_script(
        "return [...document.querySelectorAll('article pre code')].map(e => e.textContent.trim())"
    )
    assert len(texts) == len(re.findall(r"^ *``` \w", source(address), re.M)) > 0
    assert all(len(text) > 20 for text in texts)
    assert not any("--8<--" in text for text in texts)


@pytest.mark.parametrize("address", PAGES)
def test_pictures_have_size_and_can_be_enlarged(browser, site, address):
    opened(browser, site + address)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('article img')].map(e => e.naturalWidth)"
    )
    assert len(sizes) == len(re.findall(r"!\[", source(address))) > 0
    assert min(sizes) > 50
    picture = browser.find_element("css selector", "article a.glightbox img")
    browser.execute_script("arguments[0].click()", picture)
    assert browser.execute_script("return !!document.querySelector('.glightbox-container')")


@pytest.mark.parametrize("address", PAGES)
def test_nothing_is_wider_than_a_phone(browser, site, address):
    opened(browser, site + address, phone=True)
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) <= 0


def test_dark_mode(browser, site):
    opened(browser, site)
    scheme = "return document.body.getAttribute('data-md-color-scheme')"
    first = browser.execute_script(scheme)
    label = browser.find_element(
        "css selector", "form[data-md-component=palette] label:not([hidden])"
    )
    browser.execute_script("arguments[0].click()", label)
    assert {first, browser.execute_script(scheme)} == {"default", "slate"}


@pytest.mark.parametrize("address, words", [("", "梯度惩罚"), ("", "截断"), ("en/", "penalty")])
def test_search_finds(browser, site, address, words):
    opened(browser, site + address)
    found = browser.execute_async_script(
        """
        const done = arguments[1];
        document.querySelector('[data-md-toggle=search]').click();
        const field = document.querySelector('[data-md-component=search-query]');
        field.focus();
        field.value = arguments[0];
        field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}));
        field.dispatchEvent(new Event('input', {bubbles: true}));
        const wait = setInterval(() => {
          const links = [...document.querySelectorAll('.md-search-result__link')];
          if (links.length) { clearInterval(wait); done(links.map(l => l.textContent)); }
        }, 100);
        """,
        words,
    )
    # U+200B parts the words of Chinese text
    assert any(words in text.replace("\u200b", "") for text in found)


@pytest.mark.parametrize("address", PAGES)
def test_the_other_language_is_a_click_away(browser, site, address):
    opened(browser, site + address)
    links = browser.execute_script(
        "return [...document.querySelectorAll('.md-select__link')].map(e => [e.hreflang, e.href])"
    )
    zh = address[len("en/") :] if address.startswith("en/") else address
    assert sorted(map(tuple, links)) == sorted([("zh", site + zh), ("en", f"{site}en/{zh}")])
