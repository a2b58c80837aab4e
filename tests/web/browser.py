"""A real Chromium for tests, driven through WebDriver. Debian: apt install chromium chromium-driver."""

from __future__ import annotations

import shutil
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
DRIVER = shutil.which("chromedriver") or ""
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver here: apt install chromium chromium-driver"
)


SETTLED = """
const state = document.querySelector("[data-run-state]");
return [...document.images].every((own) => own.complete) && state?.textContent !== "…";
"""
PROVOKED = ("status of 400", "ERR_CONNECTION_REFUSED")


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def size(self, width: int, height: int, dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, url: str) -> None:
        """Waits for the page itself: on a busy machine the driver comes back while the last one is still there."""
        self.run("window.isLast = true")
        self.driver.get(url)
        self.until(lambda: self.run("return !window.isLast && document.readyState === 'complete'"), what=url)

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def until(self, true: Callable[[], Any], seconds: float = 60, what: str = "") -> Any:
        """The first thing that is true; a page that is just being replaced is asked again."""
        end = time.monotonic() + seconds
        while True:
            try:
                if found := true():
                    return found
            except (StaleElementReferenceException, WebDriverException):
                pass
            assert time.monotonic() < end, f"{what or 'it'} did not come; the page says:\n{self.text()[:1500]}"
            time.sleep(0.1)

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def run_is(self, state: str, seconds: float) -> None:
        """Waits until the run bar says so; a run that failed is not waited for."""

        def there() -> bool:
            shown = self.find("[data-run-state]").text
            assert shown != "It failed", self.text()[:1500]
            return shown == state

        self.until(there, seconds, f"a run that is {state!r}")

    def see(self, text: str, seconds: float = 60) -> None:
        self.until(lambda: text.lower() in self.text().lower(), seconds, repr(text))

    def find(self, selector: str, seconds: float = 30) -> WebElement:
        """Seen on the page."""
        return self.until(
            lambda: next(
                (own for own in self.driver.find_elements("css selector", selector) if own.is_displayed()), None
            ),
            seconds,
            selector,
        )  # type: ignore[no-any-return]

    def button(self, text: str) -> WebElement:
        def wanted() -> WebElement | None:
            some = self.driver.find_elements("css selector", "button, a")
            return next((own for own in some if own.is_displayed() and own.text.strip() == text), None)

        return self.until(wanted, 30, f"button {text!r}")  # type: ignore[no-any-return]

    def press(self, text: str) -> None:
        self.click(self.button(text))

    def click(self, element: WebElement) -> None:
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def write(self, selector: str, text: str) -> None:
        own = self.find(selector)
        own.clear()
        own.send_keys(text)

    def download(self, selector: str, folder: Path) -> Path:
        """Presses a link, and waits until the browser has saved the whole file that it leads to in an empty folder."""
        wanted = {"behavior": "allow", "downloadPath": str(folder)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", wanted)
        self.until(lambda: (self.click(self.find(selector)), True)[1], what=selector)

        def saved() -> Path | None:
            found = list(folder.iterdir())
            under_way = [own for own in found if own.suffix == ".crdownload" or own.name.startswith(".")]
            return found[0] if found and not under_way else None

        return self.until(saved, what="the whole file")  # type: ignore[no-any-return]

    def shoot(self, file: Path) -> None:
        """A picture of the whole page, as long as it is, when it has all that it fetches."""
        self.run("for (const own of document.images) own.loading = 'eager'")
        self.until(lambda: self.run(SETTLED), what="all of the page")
        whole = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        wanted = {"captureBeyondViewport": True, "clip": {**whole, "scale": 1}}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", wanted)
        file.write_bytes(b64decode(shot["data"]))

    def slide(self, selector: str, value: float) -> None:
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.run(script, self.find(selector), value)

    def complaints(self) -> list[str]:
        """Errors of the page's own since the last call; what a test provoked (a refusal, a server away) is none."""
        found = [str(own["message"]) for own in self.driver.get_log("browser") if own["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
        return [text for text in found if not any(own in text for own in PROVOKED)]


@contextmanager
def chromium() -> Iterator[Browser]:
    options = Options()
    options.binary_location = CHROMIUM
    for own in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,800"):
        options.add_argument(own)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(120)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
