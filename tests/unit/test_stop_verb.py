"""``manage.py unstuck stop TASK_ID``: what it says when nothing is stopped."""

from __future__ import annotations

import pytest

from tests.unit.command import unstuck
from unstuck import Celery
from unstuck.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("words", [("--reason", " "), ("--timeout", "0")])
def test_a_stop_that_makes_no_sense_is_refused(
    app: Celery, words: tuple[str, str]
) -> None:
    """Before any node is told."""
    assert unstuck("stop", "5f1c", "--reason", "it hangs", *words) == 2

    assert not AuditEntry.objects.exists()


def test_nobody_who_answers_is_said_so(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not the same as "stopped", and somebody may still do it."""
    words = ("--reason", "it hangs", "--timeout", "0.2")

    assert unstuck("stop", "5f1c", *words) == 1

    assert "A slow one may still do it" in capsys.readouterr().err
    assert AuditEntry.objects.get().what == "stop task"
