"""A browser, and a shop to look at. Both end with their module.

While it runs, Playwright has an event loop in this thread, in which Django refuses to use
a database: tests of other modules must not find it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.shop import Shop
from tests.services import PostgreSQL, Valkey

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
EXPECTED = "Failed to load resource: the server responded with a status of 503"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium, as `scripts/install-servers` installs it."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        message = "chromium is not installed"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shop(
    postgres: PostgreSQL, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """The shop with its users, on a PostgreSQL and a Valkey."""
    directory = tmp_path_factory.mktemp("shop")
    url = postgres.database().url.replace("postgresql://", "postgres://")
    shop = Shop(directory, valkey.url(5), url)
    shop.prepare()
    shop.start()
    yield shop
    shop.stop()


class Window:
    """A tab of somebody who has logged in, with everything that the console says."""

    def __init__(self, context: BrowserContext, shop: Shop, user: str) -> None:
        self.shop = shop
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self._log_in(user)

    def open(self, path: str) -> Page:
        """A page of the dashboard."""
        self.page.goto(self.shop.url + path)
        return self.page

    def _log_in(self, user: str) -> None:
        page = self.open("")
        page.fill("#id_username", user)
        page.fill("#id_password", user)
        page.click("input[type=submit]")
        page.wait_for_selector("nav.pages")
        self.complaints.clear()  # What the admin's page says is not ours.

    def _hear(self, message: Any) -> None:
        wrong = message.type in {"error", "warning"}
        if wrong and not message.text.startswith(EXPECTED):
            self.complaints.append(f"{self.page.url}: {message.text}")


@pytest.fixture(scope="module")
def operator(browser: Browser, shop: Shop) -> Iterator[Window]:
    """Sees and does everything, from Seoul."""
    context = browser.new_context(timezone_id="Asia/Seoul", color_scheme="light")
    yield Window(context, shop, "operator")
    context.close()
