# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of pages: Chromium without a screen, and a server of files."""

import contextlib
import functools
import http.server
import shutil
import threading

import pytest


@pytest.fixture(scope="session")
def serving():
    """A context manager that serves a folder, and gives the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    @contextlib.contextmanager
    def serve(folder):
        handler = functools.partial(Handler, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()

    return serve


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium; its logs hold the console and the network. A test skips where it is absent."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is absent: `make docs`")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("Chromium is absent: `make browser`")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path_factory.mktemp('profile')}"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
    driver.set_script_timeout(30)
    yield driver
    driver.quit()
