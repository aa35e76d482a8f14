"""Replay and purge from the dashboard: asked first, audited, bounded."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from tests.unit.dead import archived, buried, published
from unstuck import Celery
from unstuck.core.verdict import Reason
from unstuck.dashboard import redrive
from unstuck.dashboard.redrive import Redrive
from unstuck.dashboard.views import purge as purging
from unstuck.models import AuditEntry, DeadLetter
from unstuck.recorder import archive

pytestmark = pytest.mark.django_db

REPLAY = reverse("unstuck:letters_replay")
PURGE = reverse("unstuck:letters_purge")


def test_asking_changes_nothing(operator: Client, app: Celery) -> None:
    """A GET says how many there are, and no more."""
    rows = [archived(app).pk for _ in range(3)]
    query = "&".join(f"row={row}" for row in rows[:2])

    assert b"Replay 2 dead letters?" in operator.get(f"{REPLAY}?{query}").content
    assert b"Purge 2 dead letters for good?" in operator.get(f"{PURGE}?{query}").content
    assert b"Purge 3 dead letters for good?" in operator.get(f"{PURGE}?all=1").content

    assert DeadLetter.objects.filter(replayed_at=None).count() == 3
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("url", [REPLAY, PURGE])
def test_naming_none_hits_none(operator: Client, app: Celery, url: str) -> None:
    """Neither a bare URL nor filters without ``all`` mean every letter."""
    archived(app)

    for query in ("", "?reason=failed", "?all=0", "?row=x", "?all=1&reason=x"):
        operator.post(url + query, {"why": "because", "upto": "999"})

    assert DeadLetter.objects.filter(replayed_at=None).count() == 1
    assert published(app) == []


def test_one_is_replayed_once(operator: Client, app: Celery) -> None:
    """With who and why in the audit; a second time has to be said."""
    letter = archived(app, task_id="t-1")
    url = f"{REPLAY}?row={letter.pk}"

    operator.post(url, {"why": "bank is back"})
    refused = operator.post(url, {"why": "again"})
    (message,) = published(app)
    operator.post(url, {"why": "again", "again": "1"})

    assert message.headers["unstuck"] == {"replay_of": "t-1"}
    assert b"was replayed at" in refused.content
    assert len(published(app)) == 1
    told = AuditEntry.objects.order_by("pk").values_list("who", "what", "why")
    assert list(told) == [
        ("olga", "replay", "bank is back"),
        ("olga", "replay", "again"),
    ]


def upto(client: Client, url: str) -> str:
    """Of the page that asks: the newest letter that it is about."""
    page = client.get(url).content.decode()
    return page.partition('name="upto" value="')[2].partition('"')[0]


def agree(client: Client, url: str, data: dict[str, str]) -> Any:
    """Look at the page that asks, and agree to what it shows."""
    return client.post(url, {"upto": upto(client, url), **data})


def follow(client: Client, response: Any, most: int = 20, **data: str) -> Any:
    """Press "Go on" until the run is over; the last page."""
    for _ in range(most):
        page = client.get(response["Location"])
        if b"data-goes-on" not in page.content and b'name="go"' not in page.content:
            return page
        response = client.post(response["Location"], data)
    raise AssertionError("The run does not end")


def test_all_that_fit_are_replayed_step_by_step(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is bounded, goes on where the last one ended, and the rest stays."""
    monkeypatch.setattr(redrive, "MOST_IN_A_STEP", 2)
    for _ in range(5):
        archived(app)
    other = archived(app, reason=Reason.LOST)

    first = agree(
        operator, f"{REPLAY}?all=1&reason=failed", {"why": "fixed", "rate": ""}
    )
    so_far = DeadLetter.objects.filter(replayed_at__isnull=False).count()
    page = follow(operator, first)

    assert so_far == 2
    assert len(published(app)) == 5
    assert b"The replay is done" in page.content
    other.refresh_from_db()
    assert other.replayed_at is None
    assert AuditEntry.objects.filter(what="replay", why="fixed").count() == 5


def test_what_is_buried_meanwhile_is_left_alone(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is over what there was when somebody agreed to it."""
    monkeypatch.setattr(redrive, "MOST_IN_A_STEP", 1)
    archived(app)
    archived(app)
    first = agree(operator, f"{REPLAY}?all=1", {"rate": ""})
    late = archived(app)

    follow(operator, first)

    late.refresh_from_db()
    assert late.replayed_at is None
    assert len(published(app)) == 2


def test_what_is_buried_while_the_page_is_shown_is_left_alone(
    operator: Client, app: Celery
) -> None:
    """Nobody has agreed to it; a request that agrees to nothing replays nothing."""
    url = f"{REPLAY}?all=1"
    archived(app)
    archived(app)
    shown = upto(operator, url)
    late = archived(app)

    operator.post(url, {"rate": "", "upto": shown})
    operator.post(url, {"rate": ""})

    late.refresh_from_db()
    assert late.replayed_at is None
    assert len(published(app)) == 2


@override_settings(USE_THOUSAND_SEPARATOR=True)
@pytest.mark.parametrize("url", [REPLAY, PURGE])
def test_numbers_for_people_are_not_those_for_forms(
    operator: Client, app: Celery, url: str
) -> None:
    """However the project writes large ones."""
    first = archived(app)
    DeadLetter.objects.filter(pk=first.pk).update(id=1234567)
    archived(app)

    assert upto(operator, f"{url}?all=1") == "1234568"


def test_a_filter_by_age_means_the_age_at_the_beginning(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter that grows too old meanwhile is still replayed, and counted if it dies."""
    monkeypatch.setattr(redrive, "MOST_IN_A_STEP", 3)
    young = timezone.now() - timedelta(minutes=59, seconds=55)
    for _ in range(6):
        archived(app, buried_at=young)
    first = agree(operator, f"{REPLAY}?all=1&since=1h", {"rate": ""})
    later = timezone.now() + timedelta(seconds=10)
    monkeypatch.setattr(timezone, "now", lambda: later)

    (run,) = parse_qs(urlsplit(first["Location"]).query)["run"]
    begun = Redrive.from_text(run)
    assert begun is not None
    progress = begun.progress(sees_payload=True)
    for message in published(app):
        archive.store(app, [buried(app, task_id=message.headers["id"])])

    assert (progress.done.number, progress.left.number) == (3, 3)
    assert begun.progress(sees_payload=True).dead == 3


def test_a_canary_goes_alone(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was seen of it: the others wait for somebody, and no script goes on."""
    monkeypatch.setattr(redrive, "CANARY_SECONDS", 0.0)
    for _ in range(3):
        archived(app)

    asked = {"rate": "", "canary": "1", "go": "1"}
    first = agree(operator, f"{REPLAY}?all=1", asked)
    page = operator.get(first["Location"])

    assert len(published(app)) == 1
    assert b"has not ended yet" in page.content
    assert b"data-goes-on" not in page.content
    follow(operator, first)
    assert len(published(app)) == 2


def test_a_canary_that_dies_stops_the_run(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For good: also a POST sends nothing more."""
    monkeypatch.setattr(redrive, "CANARY_SECONDS", 0.0)
    for _ in range(3):
        archived(app)
    first = agree(operator, f"{REPLAY}?all=1", {"rate": "", "canary": "1"})
    (canary,) = published(app)
    archive.store(app, [buried(app, task_id=canary.headers["id"])])

    page = operator.post(first["Location"])

    assert b"The replay has stopped itself" in page.content
    assert published(app) == []


def test_a_run_stops_when_its_replays_die(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three deaths, however many steps they were spread over."""
    monkeypatch.setattr(redrive, "MOST_IN_A_STEP", 3)
    for _ in range(6):
        archived(app)
    first = agree(operator, f"{REPLAY}?all=1", {"rate": ""})
    for message in published(app):
        archive.store(app, [buried(app, task_id=message.headers["id"])])

    page = operator.post(first["Location"])

    assert b"The replay has stopped itself" in page.content
    assert published(app) == []


def test_letters_that_cannot_be_replayed_do_not_hold_up_the_others(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are skipped, with the reason, and the run ends."""
    monkeypatch.setattr(redrive, "MOST_IN_A_STEP", 1)
    odd = archived(app)
    DeadLetter.objects.filter(pk=odd.pk).update(queue="")
    archived(app)

    first = agree(operator, f"{REPLAY}?all=1", {"rate": ""})
    said = operator.get(first["Location"]).content
    page = follow(operator, first)

    assert b"names no task or no queue" in said
    assert b"The replay is done" in page.content
    assert len(published(app)) == 1


@pytest.mark.parametrize("rate", ["0", "-1", "many", "nan", "1e9"])
def test_a_rate_that_cannot_be_is_told(
    operator: Client, app: Celery, rate: str
) -> None:
    """And nothing is sent."""
    archived(app)
    archived(app)

    page = agree(operator, f"{REPLAY}?all=1", {"rate": rate})

    assert b"The rate must be a number" in page.content
    assert published(app) == []


def test_a_run_that_somebody_made_up_is_none(operator: Client, app: Celery) -> None:
    """The address of a run is signed."""
    archived(app)
    first = agree(operator, f"{REPLAY}?all=1", {"rate": ""})
    parts = urlsplit(first["Location"])
    (run,) = parse_qs(parts.query)["run"]

    response = operator.post(parts.path + f"?run={run[:-2]}xx")

    assert response["Location"] == reverse("unstuck:letters")


def test_a_purge_needs_a_reason(operator: Client, app: Celery) -> None:
    """And says so."""
    letter = archived(app)
    url = f"{PURGE}?row={letter.pk}"

    refused = operator.post(url, {"why": "  ", "upto": str(letter.pk)})
    assert b"Give a reason" in refused.content
    assert DeadLetter.objects.exists()

    operator.post(url, {"why": "known", "upto": str(letter.pk)})
    assert not DeadLetter.objects.exists()
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.what, entry.why) == ("olga", "purge", "known")


def test_a_purge_takes_what_was_confirmed(operator: Client, app: Celery) -> None:
    """Neither letters that were buried since, nor those that do not fit."""
    first = archived(app)
    other = archived(app, reason=Reason.LOST)
    shown = upto(operator, f"{PURGE}?all=1&reason=failed")
    late = archived(app)

    operator.post(f"{PURGE}?all=1&reason=failed", {"why": "known", "upto": shown})

    left = set(DeadLetter.objects.values_list("pk", flat=True))
    assert left == {other.pk, late.pk}
    assert first.pk not in left


def test_a_purge_of_very_many_takes_the_oldest_and_says_so(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request does not run for ever."""
    monkeypatch.setattr(purging, "MOST_AT_ONCE", 2)
    rows = [archived(app).pk for _ in range(3)]

    response = operator.post(
        f"{PURGE}?all=1", {"why": "known", "upto": str(rows[-1])}, follow=True
    )

    assert b"There are more that fit" in response.content
    assert list(DeadLetter.objects.values_list("pk", flat=True)) == rows[2:]


def edit(client: Client, letter: DeadLetter, **data: Any) -> Any:
    url = reverse("unstuck:letters_edit", args=[letter.pk])
    return client.post(url, {name: _json(value) for name, value in data.items()})


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_edited_arguments_are_shown_before_they_are_sent(
    operator: Client, app: Celery
) -> None:
    """Secrets stay as they were where nobody gave new ones."""
    letter = archived(app, args=[1], kwargs={"card_token": "s3cret"})
    new = {"args": [2], "kwargs": {"card_token": "[redacted]"}, "why": "wrong order"}

    compared = edit(operator, letter, **new).content.decode()
    assert "Before and after" in compared
    assert "s3cret" not in compared
    assert published(app) == []

    edit(operator, letter, **new, confirmed="1")
    (message,) = published(app)
    assert json.loads(message.body)[:2] == [[2], {"card_token": "s3cret"}]
    details = AuditEntry.objects.get().details
    assert details["kwargs"] == {"card_token": "[redacted]"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"args": [1, 2, 3]}, "do not fit shop.charge"),
        ({"args": [1], "kwargs": {"nope": 1}}, "do not fit shop.charge"),
        ({"args": {"a": 1}}, "must be a JSON list"),
        ({"kwargs": [1]}, "must be a JSON object"),
        ({"args": "[1"}, "valid JSON"),
        ({"args": ["[redacted]", "x"]}, "has another length than before"),
        ({"args": [1], "kwargs": {"new": "[redacted]"}}, "no redacted value to keep"),
    ],
)
def test_arguments_that_cannot_be_are_told(
    operator: Client, app: Celery, data: dict[str, Any], words: str
) -> None:
    """Checked as `manage.py unstuck dead replay` checks them."""
    letter = archived(app, args=[1])

    page = edit(operator, letter, **data, confirmed="1")

    assert words in page.content.decode()
    assert published(app) == []
