# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of pages: Chromium without a screen."""

import shutil

import pytest


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
