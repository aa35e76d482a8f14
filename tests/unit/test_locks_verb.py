"""``manage.py unstuck locks …``: who holds what, and taking it from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.unit.command import unstuck
from unstuck import Celery, LockLost, lock, operations_locks
from unstuck.core.errors import LocksUnreachable, ReleaseError
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Owner
from unstuck.models import AuditEntry

pytestmark = pytest.mark.django_db

HOLDER = Owner(
    token="1",
    born=1.0,
    pid=4711,
    node="celery@w1",
    task_id="5f1c",
    task_name="shop.run",
)
WAITER = Owner(token="2", born=2.0, pid=4712, node="celery@w1")
REASON = ("--reason", "its host is gone")


@pytest.fixture
def locks(app: Celery) -> Iterator[Backend]:
    """What keeps the locks: the database, as the broker is no Redis."""
    backends.use(None)
    yield backends.current()
    backends.use(None)


@pytest.fixture
def held(locks: Backend) -> int:
    """A lock that is held and waited for; its fence."""
    taken = locks.take("report:42", HOLDER, 30)
    locks.take("report:42", WAITER, 30, waits=True)
    return taken.fence  # type: ignore[union-attr]


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What the verb says in JSON."""
    assert unstuck("locks", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_list_shows_who_holds_what(
    held: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each, by name."""
    assert unstuck("locks", "list") == 0

    said = capsys.readouterr()
    cells = said.out.splitlines()[1].split()
    assert cells[:5] == ["report:42", "shop.run", "5f1c", "celery@w1", "4711"]
    assert cells[-2:] == [str(held), "1"]
    assert said.err == "1 lock held, 1 waiting.\n"


def test_times_are_those_of_the_project(
    held: int, locks: Backend, capsys: pytest.CaptureFixture[str], settings: Any
) -> None:
    """As in every other table."""
    settings.TIME_ZONE = "Asia/Seoul"
    since = datetime.fromtimestamp(locks.all_held()[0].since, ZoneInfo("Asia/Seoul"))

    assert unstuck("locks", "list") == 0

    assert f"{since:%Y-%m-%d %H:%M:%S}" in capsys.readouterr().out


def test_list_in_json_has_every_fact(
    held: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times in ISO 8601, and all who wait."""
    [said] = answer(capsys, "list")["locks"]

    assert said["name"] == "report:42"
    assert said["holder"] == {
        "task_name": "shop.run",
        "task_id": "5f1c",
        "node": "celery@w1",
        "pid": 4711,
    }
    assert said["fence"] == held
    assert 0 < said["lease_seconds_left"] <= 30
    assert said["since"].endswith(("Z", "+00:00"))
    assert [waiter["pid"] for waiter in said["waiting"]] == [4712]


def test_without_locks_there_is_nothing_to_list(
    locks: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is no error."""
    assert answer(capsys, "list") == {"locks": []}
    assert unstuck("locks", "list") == 0
    assert capsys.readouterr().err == "0 locks held, 0 waiting.\n"


def test_release_takes_it_and_says_whose_it_was(
    held: int, locks: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an audit entry that says so as well."""
    assert unstuck("locks", "release", "report:42", *REASON) == 0

    said = capsys.readouterr()
    assert said.out == "report:42 released.\n"
    assert "held by shop.run[5f1c], process 4711 on celery@w1" in said.err
    assert locks.all_held() == []
    [entry] = AuditEntry.objects.all()
    assert (entry.what, entry.target, entry.why) == (
        "release lock",
        "report:42",
        "its host is gone",
    )
    assert entry.details["fence"] == held
    assert entry.details["holder"]["task_id"] == "5f1c"


def test_release_in_json(held: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The same facts as in the list."""
    said = answer(capsys, "release", "report:42", *REASON)

    assert said["released"]["holder"]["pid"] == 4711


def test_the_holder_is_told(locks: Backend) -> None:
    """By whom and why, when it asks, and at the end of its block; not the next one."""
    block, again = lock("mine"), lock("mine")
    held = block.__enter__()

    assert unstuck("locks", "release", "mine", *REASON) == 0

    by_whom = f"released by .*@.*: {REASON[-1]}"
    with pytest.raises(LockLost, match=by_whom):
        held.check()
    with pytest.raises(LockLost, match=by_whom):
        block.__exit__(None, None, None)
    again.__enter__()
    locks.evict("mine")
    with pytest.raises(LockLost, match="or somebody released it"):
        again.__exit__(None, None, None)


def test_a_name_that_nobody_holds(
    held: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Did you mean; and nothing is written."""
    assert unstuck("locks", "release", "report:41", *REASON) == 1
    assert "Did you mean 'report:42'?" in capsys.readouterr().err
    assert unstuck("locks", "release", "other", *REASON) == 1
    assert "locks list" in capsys.readouterr().err
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("words", [(), ("--reason", " ")])
def test_a_release_needs_a_reason(
    words: tuple[str, ...], held: int, locks: Backend
) -> None:
    """Bad usage, and nothing is done."""
    assert unstuck("locks", "release", "report:42", *words) == 2
    assert len(locks.all_held()) == 1
    with pytest.raises(ReleaseError, match="needs a reason"):
        operations_locks.release_lock("report:42", who="me", why=" ")


def test_locks_that_cannot_be_reached(
    locks: Backend,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A message and status 1; the audit says that nobody knows whether it was done."""

    def away(*_: Any, **__: Any) -> None:
        raise LocksUnreachable("The server did not do it.", name="")

    monkeypatch.setattr(locks, "evict", away)
    monkeypatch.setattr(locks, "all_held", away)

    assert unstuck("locks", "release", "report:42", *REASON) == 1
    assert unstuck("locks", "list") == 1
    assert "The server did not do it." in capsys.readouterr().err
    unknown = AuditEntry.objects.get().details["unknown"]
    assert unknown == "LocksUnreachable: The server did not do it."


def test_who_does_not_wait_for_the_answer_leaves_an_entry(
    held: int, locks: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock may be released."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(locks, "evict", interrupted)

    with pytest.raises(KeyboardInterrupt):
        operations_locks.release_lock("report:42", who="olga", why="gone")

    assert AuditEntry.objects.get().details["unknown"] == "KeyboardInterrupt"
