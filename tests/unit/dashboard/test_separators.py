"""A project that writes 1,234: for people, and not where a number comes back."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils.formats import localize

from tests.unit.dead import archived, published
from unstuck import Celery, planned
from unstuck.core.planned import Planned, Where
from unstuck.locks.backend import Held
from unstuck.models import AuditEntry, DeadLetter, Lock
from unstuck.planned import Live

pytestmark = pytest.mark.django_db

ROW = 1_234


@pytest.fixture(autouse=True)
def _separators(settings: Any) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    assert localize(ROW) == "1,234"


@pytest.fixture
def letter(app: Celery) -> DeadLetter:
    """One of a table that has had many."""
    return _numbered(archived(app), id=ROW)


def _numbered(row: Any, **changed: int) -> Any:
    """The same row of a table, with a larger number."""
    rows: models.QuerySet[Any] = type(row).objects
    rows.filter(pk=row.pk).update(**changed)
    return rows.get(**changed)


def field(client: Client, url: str, name: str) -> str:
    """What the page has in a field of this name."""
    page = client.get(url).content.decode()
    (value,) = re.findall(f'name="{name}" value="([^"]*)"', page)
    return str(value)


def test_a_letter_that_is_ticked_is_replayed(
    operator: Client, letter: DeadLetter, app: Celery
) -> None:
    """By its row, as the box in the list says it."""
    row = field(operator, reverse("unstuck:letters"), "row")

    operator.post(f"{reverse('unstuck:letters_replay')}?row={row}", {"why": "fixed"})

    assert len(published(app)) == 1


def test_a_purge_takes_what_was_confirmed(operator: Client, letter: DeadLetter) -> None:
    """Up to the row that the page was asked with."""
    url = f"{reverse('unstuck:letters_purge')}?all=1"

    upto = field(operator, url, "upto")
    operator.post(url, {"why": "noise", "upto": upto})

    assert not DeadLetter.objects.exists()


def test_a_lock_is_released(operator: Client, held: Held) -> None:
    """By its fence, which only grows."""
    _numbered(Lock.objects.get(), fence=ROW)
    url = f"{reverse('unstuck:locks_release')}?name={held.name}"

    fence = field(operator, url, "fence")
    operator.post(url, {"why": "its host is gone", "fence": fence})

    assert AuditEntry.objects.get().what == "release lock"


@pytest.fixture
def due(app: Celery, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """When something on the broker is due."""
    at = datetime(2026, 5, 31, 12, tzinfo=UTC)
    facts: dict[str, Any] = {"task_name": "a", "queue": "work", "where": Where.BROKER}
    one = Planned(task_id="5f1c", due_at=at, **facts)
    monkeypatch.setattr(
        planned, "_on_broker", lambda app, wanted, arguments: Live(rows=[one])
    )
    return at


def test_a_run_is_meant_at_its_time(operator: Client, due: datetime) -> None:
    """The address of each button says when it is due."""
    page = operator.get(reverse("unstuck:planned")).content.decode()

    assert page.count(f"?id=5f1c&amp;due={due.timestamp() * 1000:.0f}") == 2


@pytest.mark.parametrize("name", ["planned_run", "planned_drop"])
@pytest.mark.parametrize("due_ms", ["1,763,000", "soon", "-1"])
def test_a_time_that_cannot_be_read_does_nothing(
    operator: Client, app: Celery, name: str, due_ms: str
) -> None:
    """Without it another run of this id could be meant."""
    url = f"{reverse(f'unstuck:{name}')}?id=5f1c&due={due_ms}"

    page = operator.post(url, {"why": "late"}).content.decode()

    assert f"Nothing was done: due={due_ms} in the address is no time" in page
    assert not AuditEntry.objects.exists()
