"""The page of beat: its entries, what is overdue, and who leads."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from unstuck import Celery
from unstuck.beat.leadership import NAME
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Owner
from unstuck.models import PeriodicEntry

pytestmark = pytest.mark.django_db

BEAT = f"{NAME}shop"
LEADER = Owner(token="1", born=1.0, pid=4711, node="celerybeat@w1")


def entry(name: str, wait: float = 60, **known: Any) -> None:
    """One that is due in so many seconds."""
    now = timezone.now()
    PeriodicEntry.objects.create(
        beat=BEAT,
        name=name,
        task_name="shop.run",
        schedule="freq: 1.00 minute",
        last_run_at=now - timedelta(seconds=30),
        next_run_at=now + timedelta(seconds=wait),
        runs=3,
        told_by="celerybeat@w1",
        told_at=now,
        **known,
    )


def shown(client: Client) -> str:
    return client.get(reverse("unstuck:periodic")).content.decode()


def test_what_is_overdue_comes_first_and_what_is_disabled_last(
    viewer: Client, locks: Backend
) -> None:
    """Each with its schedule, when it was sent and will be, and why it is not."""
    entry("a disabled one", wait=-9_999, enabled=False)
    entry("on time")
    entry("late", wait=-90, last_error="Connection refused")
    locks.take(BEAT, LEADER, 30)

    page = shown(viewer)

    order = [
        page.index(f"<b>{name}</b>") for name in ("late", "on time", "a disabled one")
    ]
    assert order == sorted(order)
    assert "<b>2</b> enabled" in page
    assert "<b>1</b> overdue" in page
    assert "1 min 30 s late" in page
    assert "Connection refused" in page
    assert "freq: 1.00 minute" in page
    assert "celerybeat@w1 (pid 4711) leads." in page


def test_no_leader_is_said(viewer: Client, locks: Backend) -> None:
    """With what to do; what was told before is still shown."""
    entry("nightly")

    page = shown(viewer)

    assert "No beat leads now, so nothing is sent." in page
    assert "<b>nightly</b>" in page


def test_no_entry_says_what_to_do(viewer: Client, locks: Backend) -> None:
    """And no table without rows."""
    page = shown(viewer)

    assert "No beat has told of an entry yet." in page
    assert "<table" not in page


def test_locks_that_cannot_be_reached_hide_the_leader_only(
    viewer: Client, app: Celery
) -> None:
    """The entries are in the database, and shown."""
    entry("nightly")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        backends.use(backends.at(f"redis://127.0.0.1:{closed.getsockname()[1]}/0"))
        page = shown(viewer)
    backends.use(None)

    assert "Which beat leads is not known:" in page
    assert "<b>nightly</b>" in page
