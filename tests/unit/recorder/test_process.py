"""The recorder process: letters and facts, neither waiting for the other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from tests.unit.dead import buried
from tests.unit.recorder.seen import about, run
from unstuck import Celery
from unstuck.letters import queue
from unstuck.letters.letter import Letter
from unstuck.models import DeadLetter, Node, TaskRun
from unstuck.pool.board import MAIN, Board, Column
from unstuck.recorder import facts, process
from unstuck.recorder.chores import Leader
from unstuck.worker.channel import FactChannel

pytestmark = pytest.mark.django_db

MOST_SECONDS = 30


@pytest.fixture(autouse=True)
def _this_process_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its signal handler is put back, and its connections are its own."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(process, "_become_recorder", lambda _: None)
    monkeypatch.setattr(process, "PAUSE_SECONDS", 0.02)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def channel() -> Iterator[FactChannel]:
    """A channel that both ends of are in this process."""
    channel = FactChannel()
    yield channel
    channel.close()


def stop() -> None:
    """What a supervisor sends."""
    os.kill(os.getpid(), signal.SIGTERM)


def record_until(
    app: Celery, channel: FactChannel | None, is_enough: Callable[[], bool]
) -> int:
    """Run a recorder until it is enough; says how often its heart beat."""
    beats = 0
    give_up_at = time.monotonic() + MOST_SECONDS

    def beat() -> None:
        nonlocal beats
        beats += 1
        if is_enough() or time.monotonic() > give_up_at:
            stop()

    process.run(app, channel, beat)
    assert time.monotonic() < give_up_at
    return beats


def gone(*_: Any) -> Any:
    """What a broker or a database that is away does."""
    raise OperationalError("could not connect to server")


class Broker:
    """Gives what is not acknowledged to every new reader, as brokers do."""

    def __init__(self, *letters: Letter) -> None:
        self.letters = list(letters)
        self.readers = 0

    @contextmanager
    def reader(self) -> Iterator[Any]:
        """A connection of its own."""
        self.readers += 1
        unread = list(self.letters)

        def read(at_most: int, *, wait: float) -> list[Any]:
            batch = [unread.pop(0) for _ in unread[:at_most]]
            return [
                SimpleNamespace(
                    letter=lambda letter=letter: letter,
                    ack=lambda letter=letter: self.letters.remove(letter),
                )
                for letter in batch
            ]

        try:
            yield SimpleNamespace(read=read)
        finally:
            self.readers -= 1


def test_letters_and_facts_reach_the_database(
    app: Celery, channel: FactChannel
) -> None:
    """One process for both."""
    queue.bury(app, buried(app))
    channel.send(run())

    record_until(
        app, channel, lambda: DeadLetter.objects.exists() and TaskRun.objects.exists()
    )

    assert queue.waiting(app) == 0


def test_a_broker_that_is_away_keeps_no_fact_waiting(
    app: Celery, channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked now and then, and that is all."""
    monkeypatch.setattr(process, "letter_reader", gone)
    channel.send(run("1"))

    def is_enough() -> bool:
        stored = TaskRun.objects.count()
        if stored == 1:
            channel.send(run("2"))
        return stored >= 2

    record_until(app, channel, is_enough)


def test_facts_that_cannot_be_stored_keep_no_letter_waiting(
    app: Celery, channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the other way round."""
    monkeypatch.setattr(facts, "store", gone)
    queue.bury(app, buried(app))
    channel.send(run())

    record_until(app, channel, DeadLetter.objects.exists)


def test_letters_stay_on_the_broker_while_the_database_is_away(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is acknowledged before it is stored; all are archived when it is back."""
    broker = Broker(*[buried(app) for _ in range(3)])
    monkeypatch.setattr(process, "letter_reader", lambda _: broker.reader())
    with monkeypatch.context() as away:
        away.setattr(process.archive, "store", gone)
        turns = count()
        record_until(app, None, lambda: next(turns) > 9)
    assert len(broker.letters) == 3
    assert broker.readers == 0

    record_until(app, None, lambda: DeadLetter.objects.count() == 3)

    assert broker.letters == []
    assert broker.readers == 0


def test_a_database_that_is_away_costs_no_letter_a_delivery(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked first: a broker may drop what came back too often."""
    broker = Broker(buried(app))
    readers = count()
    monkeypatch.setattr(
        process, "letter_reader", lambda _: next(readers) + 1 and broker.reader()
    )
    letters = process._Letters(app)
    with monkeypatch.context() as away:
        away.setattr(process.archive, "store", gone)
        away.setattr(process.archive, "take_letters", gone)
        for _ in range(5):
            with pytest.raises(OperationalError):
                letters.archive()
    assert next(readers) == 1

    assert letters.archive()
    assert not letters.archive()
    assert broker.letters == []
    letters.close()


def test_a_letter_that_no_database_takes_stays_on_the_broker(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps no other waiting, and is said to be there."""
    odd, sound = buried(app), buried(app)
    # Nobody knows one; here, a body that is none.
    object.__setattr__(odd.message, "body", "text")
    broker = Broker(odd, sound)
    monkeypatch.setattr(process, "letter_reader", lambda _: broker.reader())

    record_until(app, None, DeadLetter.objects.exists)

    assert str(DeadLetter.objects.get().letter_id) == sound.id
    assert broker.letters == [odd]
    assert f"takes no row of these letters: {odd.id}" in caplog.text


def test_the_row_of_the_node_is_written(app: Celery, channel: FactChannel) -> None:
    """And says goodbye when it is the node that ends."""
    board = Board()
    board.row(MAIN)[Column.READY] = 1
    states = []

    def is_enough() -> bool:
        states.append(Node.objects.get().state)
        board.row(MAIN)[Column.STOPPING] = len(states) > 5
        return states[-1] == "stopping"

    give_up_at = time.monotonic() + MOST_SECONDS

    def beat() -> None:
        if is_enough() or time.monotonic() > give_up_at:
            stop()

    process.run(app, channel, beat, about(), board)

    assert (states[0], states[-1]) == ("ready", "stopping")
    assert Node.objects.get().state == "gone"


def test_without_a_channel_it_archives_letters(app: Celery) -> None:
    """`manage.py unstuck recorder` has no worker beside it."""
    queue.bury(app, buried(app))

    record_until(app, None, DeadLetter.objects.exists)


def test_without_anybody_to_watch_it_it_needs_no_heart(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`beat` is optional."""
    monkeypatch.setattr(Leader, "work", lambda _: stop())

    process.run(app)


def test_its_heart_beats_while_nothing_happens(
    app: Celery, channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while everything it needs is away."""
    monkeypatch.setattr(process, "letter_reader", gone)
    monkeypatch.setattr(facts, "store", gone)
    channel.send(run())
    began = time.monotonic()

    beats = record_until(app, channel, lambda: time.monotonic() - began > 0.5)

    assert beats >= 10


def test_what_is_there_at_the_end_is_stored(app: Celery, channel: FactChannel) -> None:
    """Main sends and buries until it ends, and ends before its recorder."""

    def sends_at_the_last_moment() -> bool:
        channel.send(run())
        queue.bury(app, buried(app))
        return True

    record_until(app, channel, sends_at_the_last_moment)

    assert TaskRun.objects.exists()
    assert DeadLetter.objects.exists()


def test_a_letter_that_is_no_letter_stops_nothing(app: Celery) -> None:
    """It is archived as undecodable, and those behind it as what they are."""
    with app.producer_or_acquire() as producer:
        producer.publish(
            b"{",
            exchange="",
            routing_key=queue.NAME,
            declare=[queue.dead_letter_queue()],
        )
    queue.bury(app, buried(app))

    record_until(app, None, lambda: DeadLetter.objects.count() == 2)
