"""``manage.py unstuck outbox …``, and the outbox in the admin."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.unit.command import unstuck
from tests.unit.dead import published
from unstuck import Celery
from unstuck.core.clock import system_clock
from unstuck.models import OutboxMessage

pytestmark = pytest.mark.django_db

SECRET = "s3cret"


@pytest.fixture
def waiting(app: Celery) -> list[OutboxMessage]:
    """Three messages, written an hour ago; the second was refused."""
    for number in range(3):
        app.send_task(
            "shop.charge",
            (number, SECRET),
            queue="work",
            publish="on_commit",
            task_id=f"id-{number}",
        )
    earlier = system_clock() - timedelta(hours=1)
    OutboxMessage.objects.update(written_at=earlier, due_at=earlier)
    rows = list(OutboxMessage.objects.all())
    OutboxMessage.objects.filter(pk=rows[1].pk).update(
        attempts=4, last_error="NotFound: <no such exchange>", due_at=system_clock()
    )
    return rows


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What the verb says in JSON."""
    assert unstuck("outbox", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_list_shows_what_waits_and_for_how_long(
    waiting: list[OutboxMessage], capsys: pytest.CaptureFixture[str]
) -> None:
    """The oldest first, without arguments."""
    assert unstuck("outbox", "list") == 0

    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["id-0", "id-1", "id-2"]
    assert re.search(r" 36\d\d s", lines[1])
    assert lines[2].split()[6:8] == ["4", "NotFound:"]
    assert SECRET not in said.out
    assert said.err == "3 messages.\n"


def test_list_in_json_counts_what_it_does_not_show(
    waiting: list[OutboxMessage], capsys: pytest.CaptureFixture[str]
) -> None:
    """And says how old the oldest is."""
    said = answer(capsys, "list", "--limit", "2")

    assert [row["task_id"] for row in said["messages"]] == ["id-0", "id-1"]
    assert said["messages"][1]["attempts"] == 4
    assert said["total"] == 3
    assert 3600 <= said["oldest_seconds"] < 3700
    assert unstuck("outbox", "list", "--limit", "2") == 0
    assert capsys.readouterr().err == "3 messages, 2 shown (--limit).\n"
    assert unstuck("outbox", "list", "--limit", "0") == 2


def test_an_empty_outbox_is_no_error(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing waits, nothing is sent."""
    assert answer(capsys, "list") == {
        "messages": [],
        "total": 0,
        "oldest_seconds": None,
    }
    assert answer(capsys, "send") == {"sent": 0, "left": 0}


def test_send_sends_all_in_order(
    app: Celery, waiting: list[OutboxMessage], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also what was put off because it was refused."""
    later = system_clock() + timedelta(hours=1)
    OutboxMessage.objects.filter(attempts=4).update(due_at=later)

    assert answer(capsys, "send") == {"sent": 3, "left": 0}

    messages = published(app)
    assert [message.headers["id"] for message in messages] == ["id-0", "id-1", "id-2"]
    assert not OutboxMessage.objects.exists()


def test_send_leaves_what_was_written_just_now_to_its_process(
    waiting: list[OutboxMessage], capsys: pytest.CaptureFixture[str]
) -> None:
    """And says so by its status."""
    later = system_clock() + timedelta(seconds=5)
    OutboxMessage.objects.filter(pk=waiting[2].pk).update(due_at=later)

    assert unstuck("outbox", "send") == 1

    assert capsys.readouterr().out == "2 messages sent, 1 left.\n"


def test_the_admin_shows_it_to_read(
    waiting: list[OutboxMessage], admin_client: Client
) -> None:
    """The list and a message, escaped, without what is in it."""
    row = reverse("admin:unstuck_outboxmessage_change", args=[waiting[1].pk])
    for url in (reverse("admin:unstuck_outboxmessage_changelist"), row):
        shown = admin_client.get(url).content.decode()
        assert "shop.charge" in shown
        assert "NotFound: &lt;no such exchange&gt;" in shown
        assert SECRET not in shown
    assert admin_client.post(row, {"task_name": "other"}).status_code == 403
