"""``manage.py unstuck planned …`` and ``where``: what they say when little can be asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.command import unstuck
from tests.unit.dead import archived
from tests.unit.recorder.seen import run
from unstuck import Celery, remote
from unstuck.models import AuditEntry
from unstuck.recorder import facts

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.05)


@pytest.mark.parametrize("action", ["run", "drop"])
def test_an_act_without_a_reason_is_refused(app: Celery, action: str) -> None:
    """Before anything is asked."""
    assert unstuck("planned", action, "5f1c", "--reason", " ") == 2

    assert not AuditEntry.objects.exists()


def test_a_reason_to_wait_that_there_is_not(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which was meant, and which there are."""
    assert unstuck("planned", "list", "--why", "retries") == 2

    assert "Did you mean 'retry'? There are: eta, retry," in capsys.readouterr().err


def test_where_tells_what_became_of_it(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Letters and runs; and what could not be asked."""
    archived(app, task_id="5f1c")
    facts.store([run("5f1c", node="celery@w7")])

    status = unstuck("where", "5f1c")

    told = capsys.readouterr()
    assert status == 0
    assert "dead: shop.charge was buried at" in told.out
    assert "on celery@w7: " in told.out
    assert "Not asked: the result, as the project has no result backend." in told.err
    assert "as this broker lets nobody look into them" in told.err


def test_nobody_who_knows_it_is_a_finding(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """As is that not all could be asked."""
    app.conf.broker_url = "redis://127.0.0.1:1/0"

    status = unstuck("where", "5f1c")

    told = capsys.readouterr()
    assert status == 1
    assert "Nobody who answered knows 5f1c; not all could be asked." in told.out
    assert "It may have succeeded" in told.err
    assert "Not asked: the broker and the workers" in told.err


def test_without_a_broker_the_list_says_so(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is in the database is listed all the same."""
    app.conf.broker_url = "redis://127.0.0.1:1/0"

    assert unstuck("planned", "list", "--json") == 0

    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["planned"] == []
    assert found["not_asked"][0]["what"] == "broker"
