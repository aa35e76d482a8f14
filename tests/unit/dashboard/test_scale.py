"""However much there is: few questions, none for each row, and what is left out is told."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.unit.dashboard.conftest import HOLDER
from tests.unit.dashboard.counted import TASK, minute, took
from tests.unit.dead import buried
from tests.unit.recorder.seen import incident, run
from unstuck import Celery
from unstuck.dashboard import paging, urls
from unstuck.dashboard.queries import archive as nodes
from unstuck.dashboard.queries import find, letters, minutes, running
from unstuck.dashboard.reading import PAGE_SECONDS
from unstuck.dashboard.views import locks as locks_page
from unstuck.locks import backends
from unstuck.models import (
    AuditEntry,
    DeadLetter,
    Incident,
    Node,
    OutboxMessage,
    QueueSample,
    TaskMinute,
)
from unstuck.recorder import archive, facts

pytestmark = pytest.mark.django_db

FEW, MANY = 10, 100
MOST_QUERIES = 20
"""Session, user and permissions counted."""

SLOW_SECONDS = 0.2

ASKED: Mapping[str, Mapping[str, str]] = {
    "search": {"q": "abcd"},
    "task": {"id": "abcd-0"},
    "letters_replay": {"all": "1"},
    "letters_purge": {"all": "1"},
    "tasks_one": {"name": TASK},
    "locks_release": {"name": "lock-1"},
    "queues_pause": {"name": "queue-1"},
    "queues_resume": {"name": "queue-1"},
}
"""Pages that show little unless they are asked for something. None of them is asked about a
task that runs: that is a question to workers."""

NAMES = [str(pattern.name) for pattern in urls.urlpatterns]


@pytest.fixture
def plenty(app: Celery) -> Iterator[Callable[[int], None]]:
    """Makes the tables have so many rows of each kind."""
    backends.use(None)
    yield lambda number: _fill(app, number)
    backends.use(None)


def _fill(app: Celery, number: int) -> None:
    now = timezone.now()
    some = [
        buried(
            app,
            task_id=f"abcd-{n}",
            task=TASK,
            exception_type=f"shop.Error{n}",
            traceback="",
            buried_at=now - timedelta(minutes=n),
        )
        for n in range(number)
    ]
    archive.store(app, some)
    facts.store([run(f"abcd-{n}", task_name=TASK, ended_at=now) for n in range(number)])
    facts.store([run("abcd-0", task_name=TASK, ended_at=now) for _ in range(number)])
    facts.store([incident(at=now - timedelta(minutes=n)) for n in range(number)])
    TaskMinute.objects.bulk_create(
        minute(name, n % 50, node=f"{n // 50}@host", succeeded=1, runtimes=took(1))
        for n in range(number)
        for name in (TASK, f"shop.task{n}")
    )
    QueueSample.objects.bulk_create(
        QueueSample(queue=f"queue-{n}", at=now, waiting=n) for n in range(number)
    )
    AuditEntry.objects.bulk_create(
        AuditEntry(who="olga", what="replay", target=f"abcd-{n}") for n in range(number)
    )
    OutboxMessage.objects.bulk_create(
        OutboxMessage(message_id=uuid4(), task_id="abcd-0", written_at=now, due_at=now)
        for _ in range(number)
    )
    told = {"task_id": "abcd-0", "task_name": TASK, "started_at": now.isoformat()}
    Node.objects.bulk_create(
        Node(
            name=f"abcd{n}@host",
            state="ready",
            started_at=now,
            seen_at=now,
            queues=[f"queue-{n}"],
            running=[told],
        )
        for n in range(number)
    )
    for n in range(number):
        backends.current().take(f"lock-{n}", HOLDER, 60)


def url_of(name: str) -> str:
    """Its address; of a page for a row, with one that is there."""
    pattern = next(one for one in urls.urlpatterns if one.name == name)
    takes_row = "pk" in pattern.pattern.converters
    model = Incident if name.startswith("incident") else DeadLetter
    first = model._default_manager.order_by("pk")
    return reverse(f"unstuck:{name}", args=[first[0].pk] if takes_row else [])


@contextmanager
def asked(before: Callable[[], None] = lambda: None) -> Iterator[list[str]]:
    """The statements that are sent meanwhile; ``before`` each something is done."""
    said: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        before()
        said.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield said


@pytest.mark.parametrize("name", NAMES)
def test_a_page_asks_as_little_of_many_rows_as_of_few(
    operator: Client, plenty: Callable[[int], None], name: str
) -> None:
    """Each page there is, and each that is added to the URLs."""
    questions = []
    for number in (FEW, MANY):
        plenty(number)
        with asked() as said:
            response = operator.get(url_of(name), ASKED.get(name))
        assert response.status_code in {200, 302}
        questions.append(len(said))
        _empty()

    few, many = questions
    assert few == many <= MOST_QUERIES


def _empty() -> None:
    for model in (Node, DeadLetter, TaskMinute, QueueSample, AuditEntry, OutboxMessage):
        model._default_manager.all().delete()


@pytest.mark.parametrize("name", ["overview", "letters_one", "tasks_one"])
def test_a_page_is_there_also_when_each_question_takes_long(
    operator: Client, plenty: Callable[[int], None], name: str
) -> None:
    """Those that ask most: within a bound, and with all that there was time for."""
    plenty(2)
    began = time.monotonic()
    with asked(before=lambda: time.sleep(SLOW_SECONDS)):
        response = operator.get(url_of(name), ASKED.get(name))

    assert response.status_code == 200
    assert time.monotonic() - began < 4 * PAGE_SECONDS


CAPPED: Mapping[str, tuple[Any, str, str]] = {
    "overview": (paging, "MOST_READ", "Of the newest 10,000; there are more."),
    "search": (find, "MOST_FOUND", "The first 4; there may be more."),
    "task": (find, "MOST_FOUND", "The first 4; there may be more."),
    "letters_groups": (paging, "MOST_READ", "Of the newest 10,000; there are more."),
    "letters_one": (letters, "MOST_RUNS", "The first 4; there may be more."),
    "tasks": (minutes, "MOST_TASKS", "The first 4; there are more."),
    "workers": (nodes, "MOST_NODES", "The 4 that were seen last"),
    "running": (running, "MOST_RUNS", "The longest; 6 more run."),
    "locks": (locks_page, "MOST", "The first 4, those"),
}
"""What bounds each list that has no next page, and what is said of it."""

PAGED = ("letters", "incidents", "audit")


@pytest.mark.parametrize("name", CAPPED)
def test_a_list_that_is_capped_says_so(
    operator: Client,
    plenty: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """And one that is not does not."""
    module, bound, said = CAPPED[name]
    plenty(FEW)

    def page() -> str:
        response = operator.get(url_of(name), ASKED.get(name))
        return response.content.decode()

    assert said not in page()
    monkeypatch.setattr(module, bound, 4)
    assert said in page()


@pytest.mark.parametrize("name", PAGED)
def test_a_list_of_pages_leads_to_the_next(
    operator: Client,
    plenty: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """As long as there is one."""
    plenty(FEW)
    assert 'rel="next"' not in operator.get(url_of(name)).content.decode()

    monkeypatch.setattr(paging.slice_of, "__defaults__", (4,))
    assert 'rel="next"' in operator.get(url_of(name)).content.decode()


def test_groups_and_workers_that_are_left_out_are_counted(
    operator: Client, plenty: Callable[[int], None]
) -> None:
    """On the first page, where there is little room."""
    plenty(50)

    page = operator.get(reverse("unstuck:overview")).content.decode()

    assert "The 5 largest groups; there are more." in page
    assert "10 more</a>" in page


@pytest.mark.parametrize("name", ["letters", "audit"])
def test_a_text_is_read_for_in_parts(
    operator: Client,
    plenty: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Each page reads so many rows and leads on, there and back, and none is left out."""
    monkeypatch.setattr(paging, "MOST_READ", 4)
    plenty(FEW)
    text = {"letters": "exception", "audit": "text"}[name]
    wanted = {"letters": "shop.Error9", "audit": "abcd-0"}[name]

    def turn(link: str, page: str) -> str:
        found = re.search(rf'rel="{link}" href="([^"]*)"', page)
        assert found is not None
        url = reverse(f"unstuck:{name}") + html.unescape(found[1])
        return operator.get(url).content.decode()

    first = operator.get(reverse(f"unstuck:{name}"), {text: wanted}).content.decode()
    second = turn("next", first)
    third = turn("next", second)

    for page in (first, second):
        assert "rows were read" in page
        assert f">{wanted}<" not in page
    assert "rows were read" not in third
    assert f">{wanted}<" in third
    assert f">{wanted}<" in turn("next", turn("prev", third))
