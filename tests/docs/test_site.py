# SPDX-License-Identifier: Apache-2.0
"""The built site in a real browser: Chromium without a screen, and nothing from elsewhere.

Skipped where mkdocs, node_modules or Chromium are absent; `make docs browser` brings them.
"""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is absent: `make docs` installs it")
if not (ROOT / "node_modules").is_dir():
    pytest.skip("node_modules is absent: `make docs`", allow_module_level=True)

LANGUAGES = {"zh": "", "en": "en/"}  # each with the beginning of its pages' addresses
TUTORIAL = "examples/wgangp.md"
# A small page with a picture: what all pages share is tried there.
LEAST = "index.md"
# These pages are known to have code and pictures.
ILLUSTRATED = ("quickstart.md", TUTORIAL, "results.md")


def sources(entry):
    """The Markdown files of a navigation, or of a part of it."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [source for part in parts for source in sources(part)]


def address(language, source):
    """Where the page of a source is on the site."""
    name = source[: -len(".md")]
    return LANGUAGES[language] + ("" if name == "index" else f"{name}/")


NAVIGATION = sources(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
PAGES = [(language, source) for language in LANGUAGES for source in NAVIGATION]


def prose(text):
    """Markdown without its code."""
    text = re.sub(r"^( *)(```+)[^`\n]*\n.*?^\1\2$", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`", "", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site, built strictly."""
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
    return folder


@pytest.fixture(scope="module")
def site(folder, serving):
    """The address that the site is served at."""
    with serving(folder) as address:
        yield address


class Page:
    """An opened page, with what the browser logged while it opened."""

    def __init__(self, browser, site, language, source):
        self.browser, self.site, self.language, self.source = browser, site, language, source
        self.address = address(language, source)
        self.text = (ROOT / "docs" / language / source).read_text(encoding="utf-8")
        self.screen(1280)
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # This drops what another page left.
        browser.get(site + self.address)
        # pictures load when they are scrolled to
        browser.execute_async_script(
            "const done = arguments[0];"
            "const pictures = [...document.querySelectorAll('article img')];"
            "pictures.forEach(picture => picture.loading = 'eager');"
            "Promise.all([document.fonts.ready, ...pictures.map(p => p.decode().catch(() => 0))])"
            ".then(() => done());"
        )
        self.console = browser.get_log("browser")
        self.network = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]

    def screen(self, width):
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 844, "mobile": width < 600, "deviceScaleFactor": 1},
        )

    def ask(self, script, *arguments):
        return self.browser.execute_script(f"return {script}", *arguments)

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def click(self, selector):
        self.ask("arguments[0].click()", self.find(selector)[0])


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: address(*page) or "/")
def page(request, browser, site):
    return Page(browser, site, *request.param)


def test_the_navigation_has_all_pages(folder):
    for language in LANGUAGES:
        docs = ROOT / "docs" / language
        found = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
        assert found == set(NAVIGATION)
    built = {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")}
    pages = {f"{address(*page)}index.html" for page in PAGES}
    assert built - {"404.html", "en/404.html"} == pages
    assert len(PAGES) == len(pages) == 2 * len(NAVIGATION)


def test_no_error_and_no_request_off_the_machine(page):
    assert [entry for entry in page.console if entry["level"] == "SEVERE"] == []
    asked = [
        message["params"]["request"]["url"]
        for message in page.network
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 5
    own = (page.site, "data:", f"blob:{page.site}")
    assert [url for url in asked if not url.startswith(own)] == []


def test_navigation_in_the_pages_language(page):
    assert page.ask("document.documentElement.lang") == page.language
    links = page.ask(
        "[...document.querySelectorAll('.md-nav--primary a.md-nav__link')]"
        ".filter(e => !e.closest('.md-nav--secondary') && !e.getAttribute('href').startsWith('#'))"
        ".map(e => [e.href, e.innerText.trim() || e.textContent.trim(), e.checkVisibility()])"
    )
    expected = {page.site + address(page.language, source) for source in NAVIGATION}
    assert {link for link, *_ in links} == expected
    for _, title, visible in links:
        chinese = re.search(r"[\u4e00-\u9fff]", title) is not None
        assert title and chinese == (page.language == "zh"), title
        # the tutorial has its whole width for code
        assert visible or page.source == TUTORIAL


def test_code_sections_are_not_empty(page):
    texts = page.ask(
        "[...document.querySelectorAll('article pre code')].map(e => e.textContent.trim())"
    )
    assert len(texts) == len(re.findall(r"^ *```+ ?\w", page.text, re.M))
    assert texts or page.source not in ILLUSTRATED
    shortest = 20 if page.source in ILLUSTRATED else 6
    assert all(len(text) > shortest for text in texts)
    assert not any("--8<--" in text for text in texts)


def test_tables_are_tables(page):
    expected = len(re.findall(r"^ *\|(?: ?:?-+:? ?\|)+$", prose(page.text), re.M))
    rows = page.ask(
        "[...document.querySelectorAll('article table:not(.highlighttable)')]"
        ".map(e => e.querySelectorAll('tbody tr').length)"
    )
    assert len(rows) == expected
    assert all(rows)
    shown = page.ask("document.querySelector('article').innerText")
    assert not re.search(r"\| *---|<!--", shown)


def test_formulas_are_typeset(page):
    count = "document.querySelectorAll(arguments[0]).length"
    marked = page.ask(count, ".arithmatex")
    assert marked == len(re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", prose(page.text), re.S))
    assert marked > 20 or page.source != TUTORIAL
    assert page.ask(count, ".arithmatex .katex-html") == marked
    assert page.ask(count, ".katex-error") == 0
    if marked:
        loaded = "[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)"
        families = {family.strip("\"'") for family in page.ask(loaded)}
        assert {"KaTeX_Math", "Roboto", "Roboto Mono"} <= families
    # Text outside of code and formulas holds no TeX.
    shown = page.ask(
        "[...document.querySelectorAll('article p, article li, article td')].map(e => {"
        " const copy = e.cloneNode(true);"
        " copy.querySelectorAll('code, .katex').forEach(part => part.remove());"
        " return copy.textContent; }).join(' ')"
    )
    assert not re.search(r"\$|\\[a-z(\[]", shown)


def test_nothing_is_wider_than_a_phone(page):
    page.screen(390)
    assert page.ask("document.documentElement.scrollWidth") <= 390
    page.screen(1280)


def test_the_other_language_is_a_click_away(page):
    links = page.ask(
        "[...document.querySelectorAll('.md-select__link')].map(e => [e.hreflang, e.href])"
    )
    expected = {(language, page.site + address(language, page.source)) for language in LANGUAGES}
    assert set(map(tuple, links)) == expected


def test_tabs_switch(page):
    first = ".tabbed-set:first-of-type"
    blocks = page.find(f"{first} > .tabbed-content > .tabbed-block")[:2]
    if not re.search(r"^=== ", page.text, re.M):
        assert blocks == [] and page.source != TUTORIAL
        return
    assert [block.is_displayed() for block in blocks] == [True, False]
    page.click(f"{first} > .tabbed-labels > label:nth-of-type(2)")
    assert [block.is_displayed() for block in blocks] == [False, True]
    assert "mode=eval" in blocks[1].text or page.source != TUTORIAL


def test_pictures_have_size_and_can_be_enlarged(page):
    sizes = page.ask("[...document.querySelectorAll('article img')].map(e => e.naturalWidth)")
    assert len(sizes) == len(re.findall(r"!\[", prose(page.text)))
    if not sizes:
        assert page.source not in ILLUSTRATED
        return
    assert min(sizes) > 50
    assert page.find("article a.glightbox img")
    if page.source == LEAST:
        page.click("article a.glightbox img")
        assert page.find(".glightbox-container")


def test_dark_mode(page):
    if page.source != LEAST:
        assert page.find("form[data-md-component=palette]")
        return
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    first = page.ask(scheme)
    page.click("form[data-md-component=palette] label:not([hidden])")
    assert {first, page.ask(scheme)} == {"default", "slate"}
    page.click("form[data-md-component=palette] label:not([hidden])")
    assert page.ask(scheme) == first


@pytest.mark.parametrize(
    "page", [(language, "reading-a-run.md") for language in LANGUAGES], indirect=True, ids=LANGUAGES
)
def test_a_training_can_be_stepped_through(page):
    page.browser.execute_async_script(
        "const done = arguments[0];"
        "setInterval(() => document.querySelector('article .scrubber-box') && done(), 20);"
    )
    texts = [page.find("article .scrubber-box")[0].text]
    page.ask(
        "(slider => { slider.value = 3; slider.dispatchEvent(new Event('input')); })"
        "(document.querySelector('.scrubber-box input'))"
    )
    texts.append(page.find("article .scrubber-box")[0].text)
    assert texts[0] != texts[1]
    assert all(("播放" in text) == (page.language == "zh") for text in texts)
    assert not page.find("img.scrubber")[0].is_displayed()


@pytest.mark.parametrize(
    "page, words",
    [(("zh", "index.md"), "梯度惩罚"), (("en", "index.md"), "penalty")],
    indirect=["page"],
    ids=LANGUAGES,
)
def test_search_finds(page, words):
    found = page.browser.execute_async_script(
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
