"""``manage.py unstuck alerts …``, and what other verbs say of alerts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.unit.command import unstuck
from tests.unit.recorder.test_alerts import late_queue, letter
from tests.webhook import SECRET, listening
from unstuck import Celery, conf
from unstuck.core.clock import system_clock
from unstuck.models import Alert
from unstuck.recorder.alerts import rows

pytestmark = pytest.mark.django_db

HOOK = f"https://hooks.example/{SECRET}"


@pytest.fixture
def told(app: Celery, settings: Any) -> None:
    """Two alerts for one target, which was told of one; the other failed."""
    settings.UNSTUCK = {"ALERTS": [{"to": HOOK}]}
    targets, now = conf.current().alerts, system_clock()
    late_queue(now)
    rows.look(targets, now, "unstuck.dead")
    rows.told("default", rows.due("default", targets[0], now), now)
    letter(now)
    rows.look(targets, now, "unstuck.dead")
    rows.failed("default", [Alert.objects.get(told_at=None)], f"no {HOOK}", now)


def test_list_shows_what_fires_and_what_is_still_to_be_told(
    told: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where and why it could not be told, and no secret."""
    assert unstuck("alerts", "list") == 1

    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("firing") for line in lines[1:])
    (failed,) = [line for line in lines if "new_fingerprint" in line]
    assert "not yet" in failed
    assert "no https://hooks.example/…" in failed
    assert said.err == "1 target.\n"
    assert SECRET not in said.out


def test_times_are_those_of_the_project(
    told: None, capsys: pytest.CaptureFixture[str], settings: Any
) -> None:
    """As in every other table."""
    at = datetime(2026, 5, 31, 22, 30, tzinfo=UTC)
    Alert.objects.update(since=at, told_at=at, due_at=None, attempts=0)
    settings.TIME_ZONE = "Asia/Seoul"

    assert unstuck("alerts", "list") == 0

    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.count("2026-06-01 07:30:00") for line in lines] == [2, 2]


def test_the_admin_shows_alerts_and_changes_none(
    told: None, admin_client: Client
) -> None:
    """With what was said of them, and no secret."""
    listed = admin_client.get(reverse("admin:unstuck_alert_changelist"))
    row = Alert.objects.get(attempts=1)
    page = reverse("admin:unstuck_alert_change", args=[row.pk])
    shown = admin_client.get(page).content.decode()

    assert "new_fingerprint" in listed.content.decode()
    assert "hooks.example" in shown
    assert SECRET not in shown
    assert admin_client.post(page, {"what": "other"}).status_code == 403


def test_list_in_json_and_all(told: None, capsys: pytest.CaptureFixture[str]) -> None:
    """What is over and told is shown when asked for."""
    Alert.objects.filter(attempts=0).update(resolved_at=system_clock(), due_at=None)

    assert unstuck("alerts", "list", "--json") == 1
    (alert,) = json.loads(capsys.readouterr().out)["alerts"]
    assert alert["condition"] == "new_fingerprint"
    assert alert["attempts"] == 1
    assert unstuck("alerts", "list", "--all") == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_status_says_what_fires_and_who_is_not_reached(
    told: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line each."""
    assert unstuck("status") == 0

    said = capsys.readouterr().out
    assert "Alerts: 2 firing (`unstuck alerts list`)" in said
    assert "Alerts do not reach https://hooks.example/…: 1 try has failed: no " in said
    assert unstuck("status", "--json") == 0
    found = json.loads(capsys.readouterr().out)["alerts"]
    assert found["firing"] == 2
    (unreached,) = found["unreached"]
    assert unreached["target"] == "https://hooks.example/…"
    assert unreached["attempts"] == 1


def test_settings_do_not_show_a_web_address(
    told: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """In text and in JSON."""
    for options in ([], ["--json"]):
        assert unstuck("settings", *options) == 0
        said = capsys.readouterr().out
        assert "https://hooks.example/…" in said
        assert SECRET not in said


def test_test_tells_each_target_and_says_what_came_of_it(
    settings: Any, capsys: pytest.CaptureFixture[str], mailoutbox: list[Any]
) -> None:
    """1 when one of them could not be told."""
    with listening() as hook:
        settings.UNSTUCK = {
            "ALERTS": [{"to": hook.url}, {"to": "mailto:ops@example.com"}]
        }
        assert unstuck("alerts", "test") == 0
        hook.answer = 500
        assert unstuck("alerts", "test", "--json") == 1

    said = capsys.readouterr().out
    assert said.count("  told\n") == 2
    assert "HTTP Error 500" in said
    assert SECRET not in said
    assert len(mailoutbox) == 2
    assert hook.texts[0].startswith("TEST ")


@pytest.mark.parametrize("verb", ["list", "test"])
def test_without_targets_it_says_so(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to try."""
    assert unstuck("alerts", verb) == (1 if verb == "test" else 0)

    assert "has no target" in capsys.readouterr().err
