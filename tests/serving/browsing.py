"""A headless Chromium for the page's tests, and what its pages complained of."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """Skips the tests where playwright or a Chromium is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)} on the PATH")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield chromium
        finally:
            chromium.close()


@contextlib.contextmanager
def open_page(browser: Any, url: str, *, expected: tuple[str, ...] = (), **options: Any) -> Iterator[Any]:
    """The page at `url`, ready; afterwards it must have made no request elsewhere, and no complaint on the console but
    those that contain one of `expected`."""
    context = browser.new_context(**{"locale": "en-US", "reduced_motion": "reduce", **options})
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints, outside = [], []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(url) else outside.append(request.url))
    page.goto(url)
    page.wait_for_selector("[role=tab], .notice")
    try:
        yield page
    finally:
        context.close()
    assert not outside
    assert not [text for text in complaints if not any(part in text for part in expected)]


def chat(page: Any, text: str, *, wait: bool = True) -> None:
    """Sends a message, and waits for the end of the answer."""
    page.click("#tab-chat")
    page.fill("#message", text)
    page.keyboard.press("Enter")
    if wait:
        page.wait_for_selector("button:visible:text-is('Regenerate'), button:visible:text-is('重新生成')")


def complete(page: Any, text: str) -> None:
    """Writes a text, has it continued, and waits for the end."""
    page.click("#tab-completion")
    page.fill("#text", text)
    page.click("button:visible:text-is('Continue')")
    page.wait_for_selector("button:visible:text-is('Undo')")


def last_answer(page: Any) -> Any:
    """The answer of a chat that came last."""
    return page.locator(".turn.assistant .answer").last
