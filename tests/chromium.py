"""A real Chromium without a network, for the tests of pages; they skip where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WHAT_TO_INSTALL = "apt-get install chromium chromium-driver; pip install -r requirements-dev.txt"
DESKTOP, PHONE = (1280, 900), (390, 844)
WAIT = 20  # seconds


def missing() -> str | None:
    """What lacks for a test in Chromium; None where all is there."""
    if not any(map(shutil.which, BROWSERS)) or not shutil.which("chromedriver"):
        return f"no Chromium with its chromedriver ({WHAT_TO_INSTALL})"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return f"no selenium ({WHAT_TO_INSTALL})"
    return None


@contextmanager
def chromium(dark: bool = False) -> Iterator[Any]:
    """A driver whose network is off: names do not resolve, and pages are told that they are offline."""
    lack = missing()
    if lack:
        pytest.skip(lack)
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, BROWSERS)))
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
    ]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--no-first-run"]
    for flag in [*flags, *(["--blink-settings=preferredColorScheme=0"] if dark else [])]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(60)
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield driver
    finally:
        driver.quit()


def opened(driver: Any, path: Path, size: tuple[int, int] = DESKTOP, address: str = "") -> Any:
    """The page, loaded, at this size in CSS pixels, with this behind its #."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get("about:blank")
    driver.get(f"{path.resolve().as_uri()}{address}")
    until(driver, "return document.documentElement.dataset.ready !== undefined")
    return driver


def until(driver: Any, script: str) -> Any:
    """What the script returns once that is true; TimeoutException after WAIT seconds."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, WAIT, poll_frequency=0.05).until(lambda one: one.execute_script(script))


def press(driver: Any, *keys: str) -> None:
    """Keys, as from a keyboard, to whatever has the focus."""
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(driver).send_keys(key).perform()
