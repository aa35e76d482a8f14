"""Alerts on both databases, whoever leads, and from a real node to a real webhook."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.sending import send
from tests.node import Site
from tests.sites import MakeSite
from tests.waiting import eventually
from tests.webhook import Webhook, listening

PRELUDE = """
import os, signal, time
from datetime import timedelta
from django.db import connections
from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.models import Alert, QueueSample
from unstuck.recorder import database
from unstuck.recorder.alerts import rows
from unstuck.recorder.alerts.teller import Teller
from unstuck.recorder.leader import leader_of
from unstuck.models import DeadLetter
from uuid import uuid4

targets = conf.current().alerts

def tell(until):
    teller = Teller(targets)
    give_up_at = time.monotonic() + 20
    while not until():
        assert time.monotonic() < give_up_at, list(Alert.objects.values())
        teller.work()
        time.sleep(0.02)

def sample(at, seconds):
    QueueSample.objects.create(queue="work", at=at, waiting=3, oldest_seconds=seconds)
"""


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with listening() as hook:
        yield hook


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest) -> MakeSite:
    """Makes a site with our tables in each database in turn."""
    found: MakeSite = request.getfixturevalue(f"{request.param}_archive")
    return found


def alerts(hook: Webhook) -> dict[str, Any]:
    """The setting by which this webhook is told of all."""
    return {"ALERTS": [{"to": hook.url}]}


def test_a_leader_that_is_killed_before_it_has_noted_is_followed_by_one_that_tells(
    make: MakeSite, hook: Webhook
) -> None:
    """Twice rather than never; what was noted is not told again but that it is over."""
    site = make(UNSTUCK=alerts(hook))

    answer = site.python(PRELUDE + KILLED)

    assert answer == [-9, "firing", "over", 1]
    assert len(hook.heard) == 3
    first, again, over = hook.heard
    assert first == again
    assert first["alerts"][0]["state"] == "firing"
    assert over["text"].startswith("RESOLVED The oldest of 3 messages in work")


KILLED = """
now = system_clock()
sample(now, 1000.0)
rows.look(targets, now, "unstuck.dead")
connections.close_all()
if not (child := os.fork()):
    rows.told = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    tell(lambda: False)
_, status = os.waitpid(child, 0)
tell(lambda: Alert.objects.filter(told_at__isnull=False).exists())
tell(iter([False, False, True]).__next__)
states = ["firing" if Alert.objects.get().is_firing else "over"]
later = now + timedelta(minutes=10)
sample(later, 1.0)
rows.look(targets, later, "unstuck.dead")
Alert.objects.update(told_at=now - timedelta(minutes=5), due_at=now)
tell(lambda: Alert.objects.filter(due_at=None).exists())
states.append("firing" if Alert.objects.get().is_firing else "over")
answer = [-os.WTERMSIG(status), *states, Alert.objects.count()]
"""


def test_two_who_lead_at_once_have_one_row_of_each(
    make: MakeSite, hook: Webhook
) -> None:
    """And a storm is one message."""
    site = make(UNSTUCK=alerts(hook))

    assert site.python(PRELUDE + TOGETHER) == [[0, 0, 0], 200, 200]
    (message,) = hook.heard
    assert (len(message["alerts"]), message["more"]) == (6, 194)


TOGETHER = """
now = system_clock()
DeadLetter.objects.bulk_create(
    DeadLetter(
        letter_id=uuid4(), task_id="id", task_name="shop.send", reason="failed",
        fingerprint=f"trouble {place % 199}", message=b"", buried_at=now,
    )
    for place in range(200)
)
connections.close_all()
children = []
for _ in range(3):
    if not (child := os.fork()):
        database.prepare()
        rows.look(targets, system_clock(), "unstuck.dead")
        os._exit(0)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
tell(lambda: not Alert.objects.filter(told_at=None).exists())
answer = [statuses, Alert.objects.count(), Alert.objects.values("alert_id").count()]
"""


def test_chores_go_on_while_a_webhook_hangs(
    sqlite_archive: MakeSite, hook: Webhook
) -> None:
    """Samples are taken, and the lease is kept."""
    hook.answer = None
    site = sqlite_archive(UNSTUCK=alerts(hook))

    assert site.python(PRELUDE + HANGS) == [True, 0]
    assert len(hook.heard) == 1


HANGS = """
now = system_clock()
sample(now, 1000.0)
clock = [1000.0]
leader = leader_of(app, "one@host", lambda: clock[0])
for _ in range(40):
    while leader.work():
        pass
    clock[0] += 1
    time.sleep(0.01)
answer = [QueueSample.objects.filter(queue="celery").count() >= 3, leader.failed]
"""


def test_a_new_trouble_is_told_from_a_real_node(
    postgresql_archive: MakeSite, hook: Webhook
) -> None:
    """Once, whichever node leads."""
    site: Site = postgresql_archive(UNSTUCK=alerts(hook), CELERY_TASK_MAX_RETRIES=0)
    with site.node("-n", "one@%h") as one:
        task_id = send(site, "fail")
        site.letter(task_id)
        one.send(signal.SIGTERM)
        one.wait()
    with site.node("-n", "two@%h"):
        heard = eventually(lambda: about(hook), 40)
        status, text = site.unstuck("alerts", "list", "--all")

    assert status == 0, text
    assert "new_fingerprint" in text
    assert len(heard) == 1
    (alert,) = heard
    assert alert["facts"]["task_name"] == "tests.project.tasks.fail"
    assert alert["remedy"].startswith("manage.py unstuck dead show")


def about(hook: Webhook) -> list[dict[str, Any]]:
    """All that was told of new fingerprints."""
    told = [alert for message in hook.heard for alert in message["alerts"]]
    return [alert for alert in told if alert["condition"] == "new_fingerprint"]
