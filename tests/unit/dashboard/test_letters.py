"""Dead letters on the dashboard: found, grouped, paged, shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.unit.dead import BURIED_AT, archived, buried
from tests.unit.recorder.seen import run
from unstuck import Celery
from unstuck.core.verdict import Reason
from unstuck.dashboard import paging
from unstuck.models import DeadLetter
from unstuck.operations import replay_letter
from unstuck.recorder import archive, facts

pytestmark = pytest.mark.django_db

LIST = reverse("unstuck:letters")
GROUPS = reverse("unstuck:letters_groups")
STACK = """Stack (most recent call last):
  File "/srv/shop/pay/api.py", line 88, in charge
    return requests.post(URL, json=payload)
  File "/usr/lib/python3.11/ssl.py", line 1166, in read
    return self._sslobj.read(len, buffer)
"""


def one(letter: DeadLetter) -> str:
    return reverse("unstuck:letters_one", args=[letter.pk])


def text_of(client: Client, url: str, **query: Any) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return str(response.content.decode())


@pytest.mark.parametrize(
    "query",
    [
        {"task": "shop.charge"},
        {"task": "shop.ch*"},
        {"task": "*charge"},
        {"task": "*HARG*"},
        {"id": "abcd-1"},
        {"id": "abcd"},
        {"exception": "valueERROR"},
        {"exception": "card refused"},
        {"argument": "Köln"},
        {"argument": "1234"},
        {"reason": "failed", "state": "open"},
        {"task": "shop.charge", "argument": "Köln"},
    ],
)
def test_letters_are_found(
    operator: Client, app: Celery, query: dict[str, str]
) -> None:
    """By task, id, exception, argument, reason; together they narrow."""
    wanted = archived(
        app,
        task_id="abcd-1",
        exception_message="card refused",
        args=[1234],
        kwargs={"city": "Köln"},
    )
    other = archived(
        app,
        task_id="zz-9",
        task="shop.send",
        reason=Reason.LOST,
        exception_type="",
        exception_message="",
    )
    replay_letter(app, other, who="olga")

    listed = text_of(operator, LIST, **query)

    assert one(wanted) in listed
    assert one(other) not in listed


@pytest.mark.parametrize(
    "query",
    [{"reason": "no-such"}, {"since": "1y"}, {"state": "x"}, {"task": "x" * 501}],
)
def test_a_filter_that_is_wrong_finds_nothing_and_says_so(
    operator: Client, app: Celery, query: dict[str, str]
) -> None:
    """An action on what it finds must never hit more than meant."""
    letter = archived(app)

    listed = text_of(operator, LIST, **query)
    asked = text_of(operator, reverse("unstuck:letters_purge"), all="1", **query)

    assert one(letter) not in listed
    assert 'role="alert"' in listed
    assert "No letter is selected." in asked


def test_groups_say_how_many_hang_where(operator: Client, app: Celery) -> None:
    """By fingerprint, the largest first, with the line and its code."""
    hung = {"reason": Reason.HARD_LIMIT, "exception_type": "", "traceback": ""}
    for _ in range(3):
        archived(app, stack=STACK, **hung)
    archived(app)

    shown = " ".join(text_of(operator, GROUPS).split())

    assert "<b>3</b> of 4 hang in <code>charge</code>" in shown
    assert "pay/api.py:88" in shown
    assert "return requests.post(URL, json=payload)" in shown
    assert shown.index("hang in") < shown.index("fail in")
    group = DeadLetter.objects.filter(reason="hard_limit")[0].fingerprint
    listed = text_of(operator, LIST, group=group)
    assert listed.count("/unstuck/letters/") > 3
    assert "3" in listed


def test_lists_are_paged_by_key(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There and back, also where many were buried at the same instant."""
    monkeypatch.setattr(paging.slice_of, "__defaults__", (2,))
    for _ in range(5):
        archived(app)
    rows = list(DeadLetter.objects.order_by("-pk").values_list("pk", flat=True))

    seen, url, back = [], LIST, ""
    for _ in range(3):
        response = operator.get(url)
        part = response.context["slice"].value if response.context else None
        assert part is not None
        seen.append([row.pk for row in part.rows])
        back = f"{LIST}?newer={part.newer}".replace("+", "%2B")
        url = f"{LIST}?older={part.older}".replace("+", "%2B")

    assert seen == [rows[:2], rows[2:4], rows[4:]]
    before = operator.get(back).context["slice"].value
    assert [row.pk for row in before.rows] == rows[2:4]


@pytest.mark.parametrize(
    "key", ["x", "2026-01-01_1", "2026-01-01T00:00:00+00:00_x", "_"]
)
def test_a_key_that_is_none_gives_the_newest(
    operator: Client, app: Celery, key: str
) -> None:
    """A mangled address is no error."""
    letter = archived(app)

    assert one(letter) in text_of(operator, LIST, older=key)


def test_a_count_that_stops_says_so(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody counts a million rows for a headline."""
    monkeypatch.setattr(paging.count, "__defaults__", (2,))
    for _ in range(3):
        archived(app)

    shown = " ".join(text_of(operator, LIST).split())

    assert "<b>2+</b> letters: more than are counted" in shown


def test_a_letter_shows_what_ended_it(operator: Client, app: Celery) -> None:
    """Reason and remedy, place, stack, what it waited for, traceback, arguments, runs."""
    letter = archived(
        app,
        task_id="t-1",
        reason=Reason.HARD_LIMIT,
        stack=STACK,
        waiting_for="read on 10.0.0.5:443",
        kwargs={"city": "Köln", "password": "pw"},
    )
    facts.store([run("t-1", ending="hard_limit", node="celery@w7")])

    shown = text_of(operator, one(letter))

    for words in (
        "hard limit",
        "a call without a time-out",
        "pay/api.py:88",
        "read on 10.0.0.5:443",
        "raise ValueError",
        "Köln",
        "[redacted]",
        "celery@w7",
    ):
        assert words in shown
    assert "&quot;pw&quot;" not in shown


def test_the_chain_of_replays_is_shown(operator: Client, app: Celery) -> None:
    """From each of its letters to all others."""
    first = archived(app, task_id="a")
    second_id = replay_letter(app, first, who="olga")
    replayed = buried(app, task_id=second_id)
    headers = {**replayed.message.headers, "unstuck": {"replay_of": "a"}}
    archive.store(
        app, [_with(replayed, message=replayed.message.with_headers(**headers))]
    )
    second = DeadLetter.objects.get(task_id=second_id)

    for letter in (first, second):
        shown = text_of(operator, one(letter))
        assert f"{one(first)}" in shown
        assert f"{one(second)}" in shown


def _with(letter: Any, **changed: Any) -> Any:
    import dataclasses

    return dataclasses.replace(letter, **changed)


def test_what_tasks_say_is_escaped(operator: Client, app: Celery) -> None:
    """On every page that shows it."""
    script = "<script>alert(1)</script>"
    letter = archived(
        app,
        task_id=script,
        task=f"shop.{script}",
        args=[script],
        cause=script,
        exception_type=script,
        exception_message=script,
        traceback=script,
        stack=script,
        waiting_for=script,
    )

    for url in (LIST, GROUPS, one(letter), reverse("unstuck:overview")):
        shown = text_of(operator, url)
        assert script not in shown
        assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(("many", "most"), [(1, 18), (40, 18)])
def test_pages_ask_few_questions_however_many_rows_there_are(
    operator: Client,
    app: Celery,
    many: int,
    most: int,
    django_assert_max_num_queries: Any,
) -> None:
    """Session, user and permissions counted."""
    letters = [
        buried(app, buried_at=BURIED_AT + timedelta(seconds=n)) for n in range(many)
    ]
    archive.store(app, letters)
    pages = (
        LIST,
        GROUPS,
        one(DeadLetter.objects.all()[0]),
        reverse("unstuck:overview"),
        reverse("unstuck:incidents"),
        reverse("unstuck:workers"),
        reverse("unstuck:audit"),
        reverse("unstuck:letters_replay") + "?all=1",
        reverse("unstuck:letters_purge") + "?all=1",
        reverse("unstuck:search") + "?q=shop",
    )
    for url in pages:
        with django_assert_max_num_queries(most):
            assert operator.get(url).status_code == 200


@pytest.mark.parametrize(
    ("headers", "offered"), [({"task": "shop.charge"}, True), ({"id": "1"}, False)]
)
def test_a_replay_is_offered_where_it_can_be_done(
    operator: Client, app: Celery, headers: dict[str, str], offered: bool
) -> None:
    """Also of a body that nobody can read, as long as the message names its task."""
    unread = archived(app, body=b"\xff", reason=Reason.UNDECODABLE)
    plain = archived(app)
    DeadLetter.objects.update(headers=headers)

    for letter in (unread, plain):
        shown = text_of(operator, one(letter))
        assert (f"replay/?row={letter.pk}" in shown) is offered
        assert f"purge/?row={letter.pk}" in shown
    edit = reverse("unstuck:letters_edit", args=[plain.pk])
    assert (edit in shown) is offered


def test_a_letter_that_is_not_there_need_not_have_been(operator: Client) -> None:
    """Its number may be a mistake."""
    response = operator.get(reverse("unstuck:letters_one", args=[99999]))

    assert response.status_code == 404
    assert b"It was purged, or there never was one." in response.content
