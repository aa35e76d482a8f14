"""The page of the locks: who holds what, and taking it from them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.unit.dashboard.conftest import HOLDER, WAITER
from unstuck import Celery, LockLost, lock, operations_locks
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Claim, Held
from unstuck.models import AuditEntry

pytestmark = pytest.mark.django_db


def shown(client: Client) -> str:
    return client.get(reverse("unstuck:locks")).content.decode()


def release(client: Client, held: Held, **said: Any) -> Any:
    url = reverse("unstuck:locks_release", query={"name": held.name})
    return client.post(url, {"fence": held.fence, "why": "its host is gone", **said})


def test_a_lock_says_who_holds_it_and_who_waits(viewer: Client, held: Held) -> None:
    """The task leads to its page; nothing to act is offered to who may not."""
    page = shown(viewer)

    assert "report:42" in page
    assert f"{reverse('unstuck:task')}?id=5f1c" in page
    assert "celery@w1" in page
    assert "pid 4711" in page
    assert "web-1 · pid 4712" in page
    assert "1 waits" in page
    assert reverse("unstuck:locks_release") not in page


def test_no_lock_is_a_good_thing(viewer: Client, locks: Backend) -> None:
    """And no table without rows."""
    page = shown(viewer)

    assert "No lock is held." in page
    assert "<table" not in page


def test_a_release_takes_it_and_is_in_the_audit(operator: Client, held: Held) -> None:
    """Asked first; the holder learns of it."""
    url = reverse("unstuck:locks_release", query={"name": held.name})
    question = operator.get(url).content.decode()
    assert "Release the lock report:42?" in question
    assert "shop.run" in question

    assert release(operator, held).status_code == 302

    assert "No lock is held." in shown(operator)
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.what, entry.target) == ("olga", "release lock", held.name)
    assert entry.why == "its host is gone"
    audit = operator.get(reverse("unstuck:audit")).content.decode()
    assert "release lock" in audit


def test_a_holder_learns_of_its_release(operator: Client, locks: Backend) -> None:
    """By ``LockLost``, at the end of its block."""
    with pytest.raises(LockLost), lock("here"):
        assert release(operator, locks.all_held()[0]).status_code == 302


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"why": "  "}, "Give a reason"),
        ({"fence": "0"}, "Somebody else holds it by now."),
        ({"fence": ""}, "Somebody else holds it by now."),
    ],
)
def test_a_release_that_is_not_meant_does_nothing(
    operator: Client, held: Held, locks: Backend, said: Any, why: str
) -> None:
    """Without a reason, or when the lock has gone to somebody else meanwhile."""
    assert why in release(operator, held, **said).content.decode()

    assert locks.all_held()[0].owner == HOLDER
    assert not AuditEntry.objects.exists()


def test_a_lock_that_changes_hands_at_the_last_moment_is_not_released(
    operator: Client, held: Held, locks: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release hits the holder that was shown, and no other."""
    taken_away = operations_locks.release_lock

    def handed_over(name: str, **how: Any) -> Held:
        locks.release(Claim(name, HOLDER.token))
        locks.take(name, WAITER, 30)
        return taken_away(name, **how)

    monkeypatch.setattr(operations_locks, "release_lock", handed_over)

    page = release(operator, held).content.decode()

    assert f"no longer held by fence {held.fence}" in page
    assert locks.all_held()[0].owner == WAITER
    assert not AuditEntry.objects.exists()


def test_a_lock_that_nobody_holds_is_not_here(operator: Client, locks: Backend) -> None:
    """It was released, or its name is wrong."""
    url = reverse("unstuck:locks_release", query={"name": "nobody"})

    response = operator.get(url)

    assert response.status_code == 404
    assert "Nobody holds the lock nobody now." in response.content.decode()


@pytest.fixture
def unreachable(app: Celery) -> Iterator[None]:
    """Locks in a Redis that takes connections no more."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        backends.use(backends.at(f"redis://127.0.0.1:{closed.getsockname()[1]}/0"))
        yield
    backends.use(None)


def test_locks_that_cannot_be_reached_say_so(
    operator: Client, unreachable: None
) -> None:
    """On both pages, in one line."""
    release = reverse("unstuck:locks_release", query={"name": "report:42"})
    for url in (reverse("unstuck:locks"), release):
        response = operator.get(url)
        assert response.status_code == 200
        assert "What keeps the locks does not answer." in response.content.decode()
