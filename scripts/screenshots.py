"""Write the pictures of the dashboard that docs/ shows: ``python scripts/screenshots.py``.

They are of the example shop on a bad day, as the tests fill it, in a real browser.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.shop import Shop  # noqa: E402
from tests.services import PostgreSQL  # noqa: E402

TARGET = ROOT / "docs" / "screenshots"
DESKTOP = {"width": 1200, "height": 760}
PHONE = {"width": 390, "height": 760}
PICTURES = (
    ("overview", "", DESKTOP, "light"),
    ("groups", "letters/groups/", DESKTOP, "dark"),
    ("letters", "letters/", PHONE, "light"),
    ("running", "running/", DESKTOP, "light"),
    ("queues", "queues/", DESKTOP, "light"),
    ("periodic", "periodic/", DESKTOP, "light"),
    ("workers", "workers/", PHONE, "dark"),
    ("letter", "letters/{letter}/", DESKTOP, "light"),
    ("tasks", "tasks/?sort=rate&window=1h", DESKTOP, "light"),
    (
        "task",
        "tasks/one/?window=1h&name=shop.tasks.notify_without_timeout",
        DESKTOP,
        "dark",
    ),
)


def main(target: Path) -> None:
    """Start a shop, take the pictures, end the shop."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "postgresql").mkdir()
        postgres = PostgreSQL(directory / "postgresql")
        postgres.start()
        try:
            url = postgres.database().url.replace("postgresql://", "postgres://")
            _photograph(Shop(directory, "memory://", url), target)
        finally:
            postgres.stop()


def _photograph(shop: Shop, target: Path) -> None:
    shop.prepare()
    with shop.connection() as connection:
        found = connection.execute(
            "SELECT min(id) FROM unstuck_deadletter WHERE reason = 'hard_limit'"
        ).fetchone()
    letter = found[0] if found else 0
    shop.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = _logged_in(browser, shop)
            for name, path, size, scheme in PICTURES:
                page.set_viewport_size(size)  # type: ignore[arg-type]
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                page.goto(shop.url + path.format(letter=letter))
                page.screenshot(path=str(target / f"{name}.png"))
    finally:
        shop.stop()


def _logged_in(browser: Browser, shop: Shop) -> Page:
    page = browser.new_page()
    page.goto(shop.url)
    page.fill("#id_username", "operator")
    page.fill("#id_password", "operator")
    page.click("input[type=submit]")
    return page


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
