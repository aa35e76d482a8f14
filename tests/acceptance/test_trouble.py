"""The whole product from the outside: the shop in a browser's place, real processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest

from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.ports import HOST, free_port

EXAMPLE = Path(__file__).resolve().parents[2] / "example"
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
PATIENCE_SECONDS = 10


class Shop:
    """The shop under `manage.py unstuck dev`, and a person in front of it."""

    def __init__(self, directory: Path) -> None:
        self.port, self._valkey_port = free_port(), free_port()
        self._log = directory / "output.log"
        self._environment = {
            **os.environ,
            "SHOP_DATA_DIR": str(directory),
            "CELERY_BROKER_URL": f"redis://{HOST}:{self._valkey_port}/0",
        }
        for variable in ("CELERY_RESULT_BACKEND", "DJANGO_SETTINGS_MODULE"):
            self._environment.pop(variable, None)
        command = [
            *(sys.executable, "manage.py", "unstuck", "dev", "--no-beat"),
            *("--port", str(self.port), "--valkey-port", str(self._valkey_port)),
            *("--directory", str(directory / "dev")),
        ]
        with self._log.open("wb") as log:
            self.process = tether.spawn(
                command,
                cwd=EXAMPLE,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._browser = build_opener(HTTPCookieProcessor(CookieJar()))

    def output(self) -> str:
        """All that it said."""
        return self._log.read_text(errors="replace")

    def is_ready(self) -> bool:
        """Whether the web server answers and the worker takes tasks."""
        assert self.process.poll() is None or pytest.fail(self.output())
        output = self.output()
        return f":{self.port}/" in output and " ready." in output

    def get(self, path: str) -> str:
        """A page."""
        with self._browser.open(self._url(path), timeout=30) as answer:
            return str(answer.read().decode())

    def press(self, page: str, action: str, **fields: str) -> str:
        """Send the form of a page, as a browser does; the page that follows."""
        token = TOKEN.search(self.get(page))
        assert token, f"no form on {page}"
        data = urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        request = Request(self._url(action), data, {"Referer": self._url(page)})
        with self._browser.open(request, timeout=60) as answer:
            return str(answer.read().decode())

    def manage(self, *arguments: str) -> str:
        """What a management command prints."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=EXAMPLE,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def letters(self) -> list[dict[str, Any]]:
        """What `manage.py unstuck dead list` knows."""
        listed = json.loads(self.manage("unstuck", "dead", "list", "--json"))
        return list(listed["letters"])

    def _url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}{path}"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A running shop."""
    running = Shop(tmp_path)
    try:
        eventually(running.is_ready, 60)
        yield running
    except BaseException:
        print(running.output()[-30_000:])
        raise
    finally:
        running.process.send_signal(tether.END_NOW)
        running.process.wait()


def test_each_button_of_the_trouble_page_ends_as_it_says(shop: Shop) -> None:
    """Sent = succeeded + buried, each for its reason; and a letter can be put back."""
    expected = dict(re.findall(r"^(\w+) (\w*)$", registry(shop), re.M))
    assert len(expected) == 14

    for key in expected:
        shop.press("/trouble/", f"/trouble/{key}/")

    buried = {key: reason for key, reason in expected.items() if reason != "None"}
    letters = eventually(lambda: letters_of(shop, len(buried)), 60)
    sent = sent_ids(shop)
    by_id = {letter["task_id"]: letter["reason"] for letter in letters}
    assert {key: by_id.get(sent[key]) for key in buried} == buried
    assert len(letters) == len(buried), "one letter each"
    assert len(sent) == len(buried) + 1, "and the one that succeeds"
    late = {key: seconds for key, seconds in delays(shop).items() if seconds > 5}
    assert not late, "each within its limit + 5 s"

    rejected = next(letter for letter in letters if letter["reason"] == "rejected")
    shop.manage("unstuck", "dead", "replay", rejected["task_id"], "--why", "once more")
    again = eventually(lambda: letters_of(shop, len(buried) + 1), 30)
    replay = next(letter for letter in again if letter["task_id"] not in by_id)
    assert replay["reason"] == "rejected"
    assert replay["replay_of"] == rejected["task_id"]


def test_the_admin_shows_the_letter_and_replays_it(shop: Shop) -> None:
    """Log in, find the letter by its task id, read its traceback, press replay."""
    shop.manage("seed")
    shop.press("/trouble/", "/trouble/exception/")
    (letter,) = eventually(lambda: letters_of(shop, 1), 40)

    login = "/admin/login/"
    shop.press(login, login + "?next=/admin/", username="demo", password="demo")
    found = shop.get(f"/admin/unstuck/deadletter/?q={letter['task_id']}")
    page = shop.get(f"/admin/unstuck/deadletter/{letter['id']}/change/")

    assert letter["task_id"] in found
    assert "the exception of the trouble page" in page
    assert "Traceback (most recent call last)" in page


def letters_of(shop: Shop, count: int) -> list[dict[str, Any]]:
    """The letters, once there are so many."""
    letters = shop.letters()
    assert len(letters) >= count, sorted(letter["reason"] for letter in letters)
    return letters


def registry(shop: Shop) -> str:
    """Each trouble and its reason, a line each."""
    code = (
        "from shop.trouble import REGISTRY\n"
        "print(*(f'{t.key} {t.expected_reason}' for t in REGISTRY.values()), sep='\\n')"
    )
    return shop.manage("shell", "-v", "0", "-c", code)


def delays(shop: Shop) -> dict[str, float]:
    """How many seconds after its limit each message was buried."""
    code = (
        "from shop.models import TroubleSent\n"
        "from shop.trouble import REGISTRY\n"
        "from unstuck.models import DeadLetter\n"
        "for s in TroubleSent.objects.all():\n"
        "    limit = REGISTRY[s.kind].limit_seconds or PATIENCE\n"
        "    for letter in DeadLetter.objects.filter(task_id=s.task_id):\n"
        "        took = (letter.buried_at - s.sent_at).total_seconds()\n"
        "        print(s.kind, took - limit)\n"
    ).replace("PATIENCE", str(PATIENCE_SECONDS))
    lines = shop.manage("shell", "-v", "0", "-c", code).splitlines()
    print(*lines, sep="\n")
    return {kind: float(late) for kind, late in map(str.split, filter(None, lines))}


def sent_ids(shop: Shop) -> dict[str, str]:
    """The task id that each button sent."""
    code = (
        "from shop.models import TroubleSent\n"
        "print(*(f'{s.kind} {s.task_id}' for s in TroubleSent.objects.all()), sep='\\n')"
    )
    lines = shop.manage("shell", "-v", "0", "-c", code).splitlines()
    return dict(line.split() for line in lines if line)
