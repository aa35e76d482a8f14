"""How much of the broker one look at what waits reads, and what it says of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from unstuck import Celery, planned, whereabouts
from unstuck.planned import MOST_LOOKED_AT, MOST_SHOWN, Wanted
from unstuck.transport.lookup import Search

SOME = Wanted(task="shop")
QUEUES = 40
EACH = 100


class Channel:
    """A broker with many queues, in which many messages wait for their time."""

    def __init__(self, content: str = "{}") -> None:
        self._content = content
        self.read = 0

    def queues_with_delayed(self) -> list[str]:
        return [f"q{number}" for number in range(QUEUES)]

    def count_delayed(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, EACH)

    def first_delayed(self, queue: str, most: int) -> Iterator[Any]:
        for number in range(min(most, EACH)):
            self.read += 1
            due_at = 1e9 + number * QUEUES + int(queue[1:])
            yield SimpleNamespace(queue=queue, due_at=due_at, content=self._content)

    def search(self, queue: str, text: str, most: int, until: float) -> Search:
        return Search(found=[], looked_at=0, is_whole=True)

    def delayed_with(
        self, queue: str, text: str, until: float
    ) -> tuple[list[Any], bool]:
        return [], True


Use = Callable[[Channel], Channel]


@pytest.fixture
def use(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Have that be the broker."""

    def use(channel: Channel) -> Channel:
        connection = SimpleNamespace(default_channel=channel)
        for module in (planned, whereabouts):
            monkeypatch.setattr(module, "asking", lambda app: nullcontext(connection))
            monkeypatch.setattr(module.broker, "lasting", lambda channel: channel)
        monkeypatch.setattr(
            planned, "_of_message", lambda app, channel, one, arguments: one
        )
        return channel

    return use


def test_those_that_are_due_first_of_all_queues(app: Celery, use: Use) -> None:
    """As many as one page can use, and the rest is told."""
    channel = use(Channel())

    found = planned._on_broker(app, SOME, False)

    due = [row.due_at for row in found.rows]
    assert due == [1e9 + number for number in range(MOST_LOOKED_AT)]
    assert found.cut == dict.fromkeys(channel.queues_with_delayed(), EACH)
    assert channel.read <= MOST_LOOKED_AT + QUEUES


def test_of_all_those_that_are_shown_are_enough(app: Celery, use: Use) -> None:
    """How many there are is told, and nothing that matters was left out."""
    channel = use(Channel())

    found = planned._on_broker(app, Wanted(), False)

    due = [row.due_at for row in found.rows]
    assert due == [1e9 + number for number in range(MOST_SHOWN)]
    assert (found.cut, found.total) == ({}, QUEUES * EACH)
    assert channel.read <= MOST_SHOWN + QUEUES


def test_no_more_than_so_much_is_read(
    app: Celery, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages may be large."""
    monkeypatch.setattr(planned, "MOST_CHARACTERS", 60_000)
    channel = use(Channel("x" * 1000))

    found = planned._on_broker(app, SOME, False)

    assert len(found.rows) == channel.read == 60
    assert len(found.cut) == QUEUES


def test_no_longer_than_so_long(
    app: Celery, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker may be slow."""
    monkeypatch.setattr(planned, "LOOK_SECONDS", -1)
    channel = use(Channel())

    found = planned._on_broker(app, SOME, False)

    assert (found.rows, channel.read, len(found.cut)) == ([], 0, QUEUES)


def test_queues_that_are_too_many_are_told(
    app: Celery, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows the task is no answer then."""
    monkeypatch.setattr(whereabouts, "MOST_QUEUES", QUEUES - 3)
    channel: Any = use(Channel())

    found = whereabouts._in_streams(channel, ["q0"], "5f1c", ())

    assert [tuple(each) for each in found.untold] == [("queues", "", 3)]
