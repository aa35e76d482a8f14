"""Every page in a real browser: empty, full and broken, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser.conftest import Window
from tests.browser.history import HANGS
from tests.browser.shop import Shop
from tests.crash.chaos import SOAK
from tests.services import Valkey
from tests.waiting import eventually

PAGES = (
    "",
    "letters/",
    "letters/groups/",
    "letters/replay/?all=1&reason=failed",
    "letters/purge/?all=1&reason=failed",
    "incidents/",
    "workers/",
    "running/",
    "planned/",
    "queues/",
    "periodic/",
    "locks/",
    "audit/",
    "tasks/",
    f"tasks/one/?name={HANGS}",
    "search/?q=celery",
    "task/?id=nobody",
)
DESKTOP = {"width": 1280, "height": 800}
LAPTOP = {"width": 970, "height": 700}
TABLET = {"width": 820, "height": 1180}
PHONE = {"width": 390, "height": 844}
SCROLLED = """box => {
  const text = document.createRange();
  text.selectNodeContents(box);
  const [inner, outer] = [text.getBoundingClientRect(), box.getBoundingClientRect()];
  const padding = parseFloat(getComputedStyle(box).paddingTop) + 1;
  return [outer.top + padding - inner.top, inner.bottom + padding - outer.bottom];
}"""
"""How much of the text of a box is out of sight above, and how much below."""


@pytest.fixture
def full(shop: Shop) -> Shop:
    """A shop on a bad day."""
    shop.fill()
    return shop


@pytest.fixture
def empty(shop: Shop) -> Shop:
    """A shop in which nothing has happened yet."""
    shop.clear()
    return shop


def pages_of(shop: Shop) -> tuple[str, ...]:
    """All of them, also those of one row."""
    with shop.connection() as connection:
        failed = "SELECT min(id) FROM unstuck_deadletter WHERE reason = 'failed'"
        (letter,) = connection.execute(failed).fetchone() or (None,)
        (incident,) = connection.execute(
            "SELECT max(id) FROM unstuck_incident"
        ).fetchone() or (None,)
    rows = (
        f"letters/{letter}/",
        f"letters/{letter}/edit/",
        f"letters/replay/?row={letter}",
        f"incidents/{incident}/",
        "running/stack/?id=5f1c&node=celery@w1",
        "running/stop/?id=5f1c",
        "planned/run/?id=5f1c&due=1",
        "planned/drop/?id=5f1c",
        "queues/pause/?name=celery",
        "queues/resume/?name=mail",
        "locks/release/?name=report:2026-05",
    )
    return (*PAGES, *rows)


def test_full_pages_are_well_built_at_every_width(full: Shop, operator: Window) -> None:
    """Nothing scrolls sideways, nothing is complained of, axe finds nothing."""
    for path in pages_of(full):
        page = operator.open(path)
        _fits(page, path)
        _is_accessible(page, path)

    assert operator.complaints == []


def test_empty_pages_say_what_to_do(empty: Shop, operator: Window) -> None:
    """No page is blank, and none is a table without rows."""
    for path in PAGES:
        page = operator.open(path)
        assert page.locator(".empty, .needs").count(), path
        assert page.locator("table").count() == 0, path
        _fits(page, path)
        if SOAK or path in {"", "letters/"}:
            _is_accessible(page, path)

    assert operator.complaints == []


def test_broken_pages_say_what_is_missing(full: Shop, operator: Window) -> None:
    """The database lets nobody in: within our shell, and with what still works."""
    with _closed(full):
        for path in PAGES:
            page = operator.open(path)
            assert "The database cannot be reached." in page.inner_text("main"), path
            _fits(page, path)
        _is_accessible(page, "broken")

    assert operator.open("letters/").locator("tbody tr").count() == 50
    assert operator.complaints == []


@pytest.mark.parametrize(
    "path", ["", "letters/", f"tasks/one/?name={HANGS}", "running/", "queues/"]
)
def test_the_dark_has_enough_contrast(full: Shop, operator: Window, path: str) -> None:
    """As axe measures it."""
    operator.page.emulate_media(color_scheme="dark")
    try:
        _is_accessible(operator.open(path), path)
    finally:
        operator.page.emulate_media(color_scheme="light")


def test_a_long_stack_opens_at_its_innermost_frame(
    full: Shop, operator: Window
) -> None:
    """The last line is in sight, the first one can be scrolled to."""
    with full.connection() as connection:
        (row,) = connection.execute(
            "SELECT max(id) FROM unstuck_incident WHERE stack <> ''"
        ).fetchone()
        frames = "\n".join(f"  frame {number}" for number in range(200))
        connection.execute(
            "UPDATE unstuck_incident SET stack = %s WHERE id = %s", (frames, row)
        )
    box = operator.open(f"incidents/{row}/").locator("pre.stack")

    above, below = box.evaluate(SCROLLED)
    assert below < 2
    assert above > 1000
    box.evaluate("box => box.scrollBy(0, -1e6)")
    above, _ = box.evaluate(SCROLLED)
    assert above < 2


def test_times_are_those_of_whoever_looks(full: Shop, operator: Window) -> None:
    """With UTC at hand."""
    time = operator.open("letters/").locator("tbody time").first

    at = datetime.fromisoformat(time.get_attribute("datetime") or "")
    seoul = (at.astimezone(UTC) + timedelta(hours=9)).strftime("%Y-%m-%d %H:%M:%S")
    assert time.inner_text() == seoul
    assert "UTC" in (time.get_attribute("title") or "")


def test_the_keyboard_gets_everywhere(full: Shop, operator: Window) -> None:
    """The first stop leads past the navigation; a slash leads to the search."""
    page = operator.open("letters/")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.type("celery@w2")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search/**")
    assert "celery@w2" in page.inner_text("main")


def test_a_page_refreshes_itself(empty: Shop, operator: Window) -> None:
    """What is new appears without a reload, its times localised."""
    page = operator.open("letters/")
    page.evaluate("window.stillTheSame = true")
    empty.fill()

    page.evaluate("document.getElementById('live').dispatchEvent(new Event('refresh'))")
    page.wait_for_selector("tbody tr")

    assert page.evaluate("window.stillTheSame")
    assert "UTC" not in page.locator("tbody time").first.inner_text()
    assert operator.complaints == []


def test_a_refresh_after_a_logout_leads_to_the_login(
    full: Shop, browser: Browser
) -> None:
    """And does not empty the page."""
    context = browser.new_context()
    window = Window(context, full, "viewer")
    page = window.open("letters/")
    context.clear_cookies()

    page.evaluate("document.getElementById('live').dispatchEvent(new Event('refresh'))")

    page.wait_for_selector("#id_username")
    context.close()


def test_all_that_fit_are_replayed_while_somebody_watches(
    full: Shop, operator: Window, valkey: Valkey
) -> None:
    """Asked, started, step by step by itself, done, and in the audit."""
    with valkey.client(5) as client:
        client.flushdb()
    page = operator.open("letters/?reason=failed")
    page.click("text=Replay all that fit…")
    assert "Replay 9 dead letters?" in page.inner_text("h1")
    page.fill("#why", "the bank is back")
    page.fill("#rate", "4")
    page.uncheck("input[name=canary]")
    page.click("button:text-is('Replay')")

    page.wait_for_selector("h1:has-text('The replay is done')", timeout=30_000)

    assert "9 replayed" in " ".join(page.inner_text(".tiles").split())
    with valkey.client(5) as client:
        assert client.llen("celery") == 9
    assert operator.open("audit/?text=bank is back").locator("tbody tr").count() >= 9
    assert operator.complaints == []


def test_a_purge_works_without_scripts(full: Shop, browser: Browser) -> None:
    """Selected, asked for a reason, gone, and in the audit; with nothing but HTML."""
    context = browser.new_context(java_script_enabled=False)
    window = Window(context, full, "operator")
    page = window.open("letters/?reason=poison")
    boxes = page.locator('input[name="row"]')
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.click("text=Purge selected…")
    assert "Purge 2 dead letters for good?" in page.inner_text("h1")
    page.fill("#why", "known, harmless")
    page.click("button:text-is('Purge')")

    assert "2 dead letters purged." in page.inner_text("main")
    assert window.open("letters/?reason=poison").locator("tbody tr").count() == 2
    assert "known, harmless" in window.open("audit/").inner_text("tbody")
    context.close()


def test_a_letter_is_edited_and_replayed(
    full: Shop, operator: Window, valkey: Valkey
) -> None:
    """Compared first; what does not fit the task is told."""
    with valkey.client(5) as client:
        client.flushdb()
    operator.open("letters/?reason=failed")
    operator.page.locator("tbody a").first.click()
    operator.page.click("text=Edit and replay…")
    page = operator.page
    page.click("text=Compare")
    page.click("text=Replay with these")
    assert "do not fit shop.tasks.deliver_webhook" in page.inner_text("main")

    page.fill("#id_args", "[7]")
    page.fill("#id_kwargs", "{}")
    page.click("text=Compare")
    page.click("text=Replay with these")

    assert "Replayed as" in page.inner_text("main")
    with valkey.client(5) as client:
        assert eventually(lambda: client.llen("celery")) == 1
    assert operator.complaints == []


def _fits(page: Page, path: str) -> None:
    for size in (PHONE, TABLET, LAPTOP, DESKTOP):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"], (path, size, width)


def _is_accessible(page: Page, path: str) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, (path, found.generate_report())


@contextmanager
def _closed(shop: Shop) -> Iterator[None]:
    """The server takes no connection to the shop's database, and ends those there are."""
    name = shop.database.rpartition("/")[2]
    with shop.connection("postgres") as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [name],
        )
        try:
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
