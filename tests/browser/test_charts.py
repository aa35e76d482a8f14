"""Charts in a real browser: drawn, drawn again, and as tables without a script."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.browser.conftest import Window
from tests.browser.history import HANGS
from tests.browser.shop import Shop
from tests.browser.test_pages import DESKTOP, PHONE
from tests.waiting import eventually

PATHS = {"": 5, f"tasks/one/?name={HANGS}": 4}
"""How many charts each page has."""

INK = """() => [...document.querySelectorAll(".chart canvas")].map((canvas) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, place) => place % 4 === 3 && value).length;
})"""
"""How many pixels of each chart are not empty."""

NUMBER = "document.querySelectorAll('canvas').length"
WIDTH = "document.querySelector('canvas').clientWidth"


@pytest.fixture
def full(shop: Shop) -> Shop:
    """A shop on a bad day."""
    shop.fill()
    return shop


@pytest.mark.parametrize("path", PATHS)
def test_charts_are_drawn_and_drawn_again(
    full: Shop, operator: Window, path: str
) -> None:
    """Within the strict policy; after a refresh, and when the window is narrowed."""
    operator.page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    page = operator.open(path)
    assert min(page.evaluate(INK)) > 500
    assert len(page.evaluate(INK)) == PATHS[path]

    page.evaluate("document.querySelector('.chart canvas').id = 'old'")
    page.evaluate("document.getElementById('live').dispatchEvent(new Event('refresh'))")
    page.wait_for_selector("#old", state="detached")
    # Not wait_for_function(): what it polls is evaluated in the page, which forbids that.
    eventually(lambda: page.evaluate(NUMBER) == PATHS[path])
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    eventually(lambda: page.evaluate(WIDTH) < PHONE["width"])

    eventually(lambda: min(page.evaluate(INK)) > 500)
    assert operator.complaints == []


def test_the_numbers_can_be_opened(full: Shop, operator: Window) -> None:
    """And axe finds nothing in the tables."""
    page = operator.open(f"tasks/one/?name={HANGS}")
    for summary in page.locator(".graph summary").all():
        summary.click()

    assert page.locator("table.numbers:visible").count() == 4
    assert Axe().run(page).violations_count == 0


def test_what_is_under_the_pointer_is_written_out(full: Shop, operator: Window) -> None:
    """In the unit of the chart."""
    page = operator.open(f"tasks/one/?name={HANGS}")
    chart = page.locator(".chart").nth(1)

    chart.scroll_into_view_if_needed()
    chart.locator(".u-over").hover()

    said = chart.locator(".u-value").all_inner_texts()
    assert all(text.endswith(("ms", "s")) for text in said[1:]), said


def test_without_a_script_there_are_tables(full: Shop, browser: Browser) -> None:
    """And no empty boxes."""
    context = browser.new_context(java_script_enabled=False)
    page = Window(context, full, "viewer").open(f"tasks/one/?name={HANGS}")

    assert page.locator(".chart:visible").count() == 0
    page.locator(".graph summary").first.click()
    assert page.locator("table.numbers:visible tbody tr").count() > 50
    context.close()


def test_tasks_are_sorted_and_opened(full: Shop, operator: Window) -> None:
    """From the list, by a head of the table, to the page of one."""
    operator.page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    page = operator.open("tasks/")
    page.click("thead >> text=In trouble")
    assert page.locator("th[aria-sort] a").inner_text().startswith("In trouble")
    page.click("nav.tabs >> text=1h")
    assert page.locator("tbody a").first.inner_text() == HANGS

    page.click(f"text={HANGS}")

    assert page.inner_text("h1") == HANGS
    assert "hard 10 s" in " ".join(page.inner_text("main").split())
    assert operator.complaints == []
