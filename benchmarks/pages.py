"""Every page of the dashboard, asked for in this process as an operator: how long, how often.

What is walked is the dashboard's own table of URLs, so a new page is measured by itself: as
it is, unless ``ASKED`` says with what it is asked for. The time is the server's: middleware,
session, permissions, the database and the template, without a network.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from unstuck.dashboard import urls
from unstuck.models import DeadLetter, Incident, Lock, Node, TaskRun

SAMPLED = 200
"""Rows that are asked for by turns."""

WARM = 2


@dataclass(frozen=True, slots=True)
class Known:
    """Some of what there is, to ask for."""

    tasks: Sequence[str]
    """Names, those that run often more often."""

    letters: Sequence[tuple[int, str, str, str, str]]
    """Row, letter id, task id, fingerprint and key of paging."""

    runs: Sequence[str]
    incidents: Sequence[tuple[int, str]]
    nodes: Sequence[str]
    locks: Sequence[str]

    @classmethod
    def some(cls, lots: random.Random) -> Known:
        """Rows from all over the tables."""
        letters = [
            (row, str(letter), task, group, f"{at.isoformat()}_{row}")
            for row, letter, task, group, at in _some(
                DeadLetter,
                lots,
                "pk",
                "letter_id",
                "task_id",
                "fingerprint",
                "buried_at",
            )
        ]
        incidents = [
            (row, f"{at.isoformat()}_{row}")
            for row, at in _some(Incident, lots, "pk", "at")
        ]
        runs = _some(TaskRun, lots, "task_name", "task_id")
        return cls(
            tasks=[name for name, _ in runs],
            letters=letters,
            runs=[task_id for _, task_id in runs],
            incidents=incidents,
            nodes=list(Node.objects.values_list("name", flat=True)),
            locks=list(Lock.objects.values_list("name", flat=True)[:SAMPLED]),
        )


def _some(model: Any, lots: random.Random, *columns: str) -> list[tuple[Any, ...]]:
    first, last = (model.objects.order_by(by)[0].pk for by in ("pk", "-pk"))
    rows = [lots.randint(first, last) for _ in range(SAMPLED)]
    return list(model.objects.filter(pk__in=rows).order_by("?").values_list(*columns))


Ask = Callable[[Known, random.Random], str]
"""Makes the query of a URL."""


def _plain(query: str) -> Ask:
    return lambda known, lots: query


def _with(name: str, of: Callable[[Known, random.Random], Any], more: str = "") -> Ask:
    def ask(known: Known, lots: random.Random) -> str:
        return urlencode({name: of(known, lots)}) + more

    return ask


def _task(known: Known, lots: random.Random) -> str:
    return lots.choice(known.tasks)


def _letter(place: int) -> Callable[[Known, random.Random], Any]:
    return lambda known, lots: lots.choice(known.letters)[place]


def _part(of: Callable[[Known, random.Random], Any]) -> Callable[..., str]:
    return lambda known, lots: str(of(known, lots))[:6]


ASKED: dict[str, dict[str, Ask]] = {
    "overview": {"": _plain(""), "a day": _plain("window=24h")},
    "search": {
        "": _plain(""),
        "a task id": _with("q", lambda known, lots: lots.choice(known.runs)),
        "a letter id": _with("q", _letter(1)),
        "the start of one": _with("q", _part(_letter(1))),
        "the start of a task id": _with("q", _part(_letter(2))),
        "a row": _with("q", _letter(0)),
        "a name": _with("q", _task),
        "a worker": _with("q", lambda known, lots: lots.choice(known.nodes)),
        "nothing": _plain("q=there-is-no-such-thing"),
    },
    "task": {"": _with("id", lambda known, lots: lots.choice(known.runs))},
    "letters": {
        "": _plain(""),
        "open": _plain("state=open"),
        "replayed": _plain("state=replayed"),
        "a reason": _plain("reason=hard_limit"),
        "a rare reason, open": _plain("reason=lost&state=open"),
        "a week": _plain("since=7d"),
        "a task": _with("task", _task),
        "a task, a reason, open": _with("task", _task, "&reason=failed&state=open"),
        "the start of a name": _plain("task=billing.tasks.*"),
        "a part of a name": _plain("task=*charge*"),
        "the part of no name": _plain("task=*no_such*"),
        "a group": _with("group", _letter(3)),
        "an id": _with("id", _letter(2)),
        "the start of an id": _with("id", _part(_letter(2))),
        "an argument": _with(
            "argument", lambda known, lots: lots.randint(10**6, 10**7)
        ),
        "no argument": _plain("argument=there-is-no-such-thing"),
        "an exception": _plain("exception=Timeout"),
        "no exception": _plain("exception=there-is-no-such-thing"),
        "deep": _with("older", _letter(4)),
        "deep, back": _with("newer", _letter(4)),
        "deep, open, a task": _with("older", _letter(4), "&state=open&task=*send*"),
    },
    "letters_groups": {
        "": _plain(""),
        "open": _plain("state=open"),
        "a task": _with("task", _task),
        "a reason": _plain("reason=poison"),
        "no exception": _plain("exception=there-is-no-such-thing"),
    },
    "letters_replay": {
        "one": _with("row", _letter(0)),
        "all": _plain("all=1"),
        "all of a task": _with("task", _task, "&all=1"),
        "all of a group": _with("group", _letter(3), "&all=1"),
    },
    "letters_purge": {
        "one": _with("row", _letter(0)),
        "all": _plain("all=1"),
        "all of a task": _with("task", _task, "&all=1"),
        "all replayed": _plain("all=1&state=replayed"),
    },
    "tasks": {
        "": _plain(""),
        "an hour": _plain("window=1h"),
        "a week": _plain("window=7d"),
        "a week, by p99": _plain("window=7d&sort=run99"),
        "by rate": _plain("sort=rate"),
        "a part of a name": _plain("task=charge"),
    },
    "tasks_one": {
        "": _with("name", _task),
        "an hour": _with("name", _task, "&window=1h"),
        "a week": _with("name", _task, "&window=7d"),
    },
    "incidents": {
        "": _plain(""),
        "a kind": _plain("kind=release"),
        "no kind": _plain("kind=no-such"),
        "a node": _with("node", lambda known, lots: lots.choice(known.nodes)),
        "deep": _with("older", lambda known, lots: lots.choice(known.incidents)[1]),
    },
    "locks_release": {"": _with("name", lambda known, lots: lots.choice(known.locks))},
    "queues_pause": {"": _plain("name=queue-1")},
    "queues_resume": {"": _plain("name=queue-1")},
    "audit": {
        "": _plain(""),
        "a person": _plain("who=operator-3"),
        "an action": _plain("what=purge"),
        "a text": _plain("text=ticket+77"),
        "no text": _plain("text=there-is-no-such-thing"),
    },
}


@dataclass(slots=True)
class Page:
    """One page, asked for in one way."""

    name: str
    how: str
    path: Callable[[random.Random], str]
    seconds: list[float] = field(default_factory=list)
    own: float = 0.0
    """Seconds of the processor that this process took in all: neighbours hardly change it."""

    queries: int = 0
    """The most that it asked of the database."""

    problem: str = ""

    @property
    def p50(self) -> float:
        """Milliseconds in the middle."""
        return statistics.median(self.seconds) * 1000

    @property
    def p95(self) -> float:
        """Milliseconds that nineteen of twenty took at most."""
        return sorted(self.seconds)[-(len(self.seconds) // 20) - 1] * 1000

    @property
    def longest(self) -> float:
        """Milliseconds."""
        return max(self.seconds) * 1000

    @property
    def python(self) -> float:
        """Milliseconds of the processor that this process took, on average."""
        return self.own / len(self.seconds) * 1000

    def __str__(self) -> str:
        return f"{self.name}: {self.how}" if self.how else self.name

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        known: dict[str, Any] = {"page": self.name, "how": self.how}
        if self.problem:
            return known | {"problem": self.problem}
        times = {
            "p50": self.p50,
            "p95": self.p95,
            "max": self.longest,
            "python": self.python,
        }
        known |= {name: round(value, 1) for name, value in times.items()}
        return known | {"queries": self.queries}


def walk(known: Known) -> list[Page]:
    """All pages there are."""
    pages = []
    for pattern in urls.urlpatterns:
        for how, ask in ASKED.get(pattern.name, {"": _plain("")}).items():
            pages.append(Page(pattern.name, how, _path(pattern, ask, known)))
    return pages


def _path(pattern: Any, ask: Ask, known: Known) -> Callable[[random.Random], str]:
    takes_row = "pk" in pattern.pattern.converters
    rows = known.incidents if pattern.name.startswith("incident") else known.letters

    def path(lots: random.Random) -> str:
        row = [lots.choice(rows)[0]] if takes_row else []
        return f"{reverse(f'unstuck:{pattern.name}', args=row)}?{ask(known, lots)}"

    return path


def operator() -> Client:
    """Somebody who has logged in and may do everything, by permissions."""
    user, _ = User.objects.get_or_create(username="olga", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="unstuck")
    )
    client = Client()
    client.force_login(user)
    return client


def measure(client: Client, page: Page, times: int, lots: random.Random) -> None:
    """Ask for a page so often."""
    for number in range(WARM + times):
        path = page.path(lots)
        with counted() as asked:
            began, own = time.perf_counter(), time.process_time()
            response = client.get(path)
            took, own = time.perf_counter() - began, time.process_time() - own
        text = response.content.decode()
        if response.status_code not in {200, 302} or "took too long" in text:
            page.problem = f"{path}: {response.status_code}, or a part took too long"
            return
        page.queries = max(page.queries, len(asked))
        if number >= WARM:
            page.seconds.append(took)
            page.own += own


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    asked: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        asked.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield asked
