"""The outbox: tasks that are published when their transaction commits."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import kombu
import pytest
from celery import chain, chord, group
from celery.exceptions import SoftTimeLimitExceeded
from django.db import transaction
from django.test import TestCase
from django.test.utils import override_settings
from kombu.exceptions import EncodeError, OperationalError

from tests.integration.test_publishing import (
    BROKERS,
    closing_app,
    has_one_id,
    received,
    shape_of,
)
from tests.sites import STREAMS
from unstuck import Celery, OutboxError, OutboxFull
from unstuck.leases import alone
from unstuck.models import Lease, OutboxMessage
from unstuck.outbox import dispatch, relay, rows
from unstuck.outbox.publication import Publication
from unstuck.profile import PUBLISH_SECONDS
from unstuck.rabbit.queues import PatientQueue, SafeQueue

pytestmark = pytest.mark.django_db(transaction=True)

kombu.serialization.register(
    "reversed",
    lambda data: kombu.utils.json.dumps(data)[::-1].encode(),
    lambda body: kombu.utils.json.loads(bytes(body)[::-1]),
    content_type="application/x-reversed",
    content_encoding="binary",
)

ETA = datetime(2126, 1, 1, tzinfo=UTC)
IN_A_WEEK = datetime.now(UTC) + timedelta(days=7)
MEDIA = kombu.Exchange("media", type="topic")
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "eta": {"eta": ETA},
    "expires": {"expires": IN_A_WEEK},
    "priority": {"priority": 3},
    "headers": {"headers": {"tenant": "é", "at": ETA, "price": Decimal("1.5")}},
    "compression": {"compression": "gzip"},
    "serializer": {"serializer": "reversed"},
    "limits": {"time_limit": 20, "soft_time_limit": 10, "shadow": "other"},
    "result": {"ignore_result": True, "reply_to": "me", "retries": 2},
    "exchange": {
        "exchange": MEDIA,
        "routing_key": "media.video",
        "declare": [kombu.Queue("celery", MEDIA, routing_key="media.#")],
    },
}


@pytest.fixture(autouse=True)
def _nothing_is_left_over() -> Iterator[None]:
    dispatch._order._first = dispatch._order._last = None
    rows._room._counted_at = -1.0
    yield
    dispatch._order._first = dispatch._order._last = None


@pytest.fixture(params=BROKERS)
def app(request: pytest.FixtureRequest, valkey: Any) -> Iterator[Celery]:
    """An app on an empty broker of each kind, whose tasks wait for a commit."""
    valkey.flush()
    url = {"streams": STREAMS, "redis": ""}.get(request.param, "") + valkey.url(0)
    if request.param == "amqp":
        rabbitmq = request.getfixturevalue("rabbitmq")
        url = rabbitmq.url(rabbitmq.vhost())
    with closing_app(url) as app:
        app.conf.task_publish = "on_commit"
        yield app


@pytest.fixture
def streams(valkey: Any) -> Iterator[Celery]:
    """The same on Redis Streams."""
    valkey.flush()
    with closing_app(STREAMS + valkey.url(0)) as app:
        app.conf.task_publish = "on_commit"
        yield app


@pytest.fixture
def own_streams(own_valkey: Any) -> Iterator[Celery]:
    """The same on a server that the test may stop."""
    with closing_app(STREAMS + own_valkey.url(0)) as app:
        app.conf.task_publish = "on_commit"
        yield app


class TakenBack(Exception):
    """Rolls a transaction back."""


@contextlib.contextmanager
def taken_back() -> Iterator[None]:
    """A transaction, or a savepoint, that is rolled back."""
    with contextlib.suppress(TakenBack), transaction.atomic():
        yield
        raise TakenBack


def one_more(x: int) -> None:
    """Takes one argument."""


def all_due() -> None:
    """Let the time of grace be over."""
    OutboxMessage.objects.update(due_at=datetime(2020, 1, 1, tzinfo=UTC))


def arguments(app: Celery, count: int) -> list[Any]:
    """The first argument of each message in the queue."""
    return [payload[0][0] for _, payload, _ in received(app, count)]


# What is stored.


# kombu declares a queue of one name once, by whichever exchange.
@pytest.mark.parametrize("names", [[*OPTIONS][:-1], [*OPTIONS][-1:]], ids=len)
def test_the_message_is_the_one_that_celery_would_have_sent(
    app: Celery, names: list[str]
) -> None:
    """By this process after the commit, outside of a transaction, and by the recorder."""
    for options in map(OPTIONS.__getitem__, names):
        results = publish_in_each_way(app, options)

        messages = received_late(app, 4) if "eta" in options else received(app, 4)

        by_id = {message[0]["id"]: message for message in messages}
        ordered = [by_id[result.id] for result in results]
        assert all(has_one_id(message) for message in ordered)
        shapes = [without_expiration(shape_of(message)) for message in ordered]
        assert shapes[1:] == shapes[:1] * 3, options
        assert {result.ignored for result in results} == {results[0].ignored}


def publish_in_each_way(app: Celery, options: dict[str, Any]) -> list[Any]:
    """At once, outside of a transaction, within one, and behind another message."""
    call = {"args": (1, "é\0"), "kwargs": {"k": [ETA]}, **options}
    anything = app.tasks["anything"]
    results = [anything.apply_async(**call, publish="at_once")]
    results.append(anything.apply_async(**call))
    with transaction.atomic():
        results.append(anything.apply_async(**call))
        assert OutboxMessage.objects.get().task_id == results[-1].id
    earlier = OutboxMessage(message_id=uuid.uuid4(), written_at=ETA, due_at=ETA)
    earlier.save()
    dispatch._order._first = dispatch._order._last = earlier.pk
    results.append(anything.apply_async(**call))
    earlier.delete()
    all_due()
    assert relay.send_due(app) == 1
    return results


def received_late(app: Celery, count: int) -> list[Any]:
    """So many messages, also those that a broker keeps for their time."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        if not hasattr(channel, "in_place_of"):
            return received(app, count)
    return [(m.headers, m.payload, dict(m.properties)) for m in delayed(app, count)]


def delayed(app: Celery, count: int) -> list[kombu.Message]:
    """What waits for its time on Redis Streams."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        entries = channel.client.zrange("unstuck:delayed:celery", 0, -1)
        bodies = [entry.partition(b"|")[2] for entry in entries]
        channel.client.delete("unstuck:delayed:celery", "unstuck:due")
        assert len(bodies) == count
        return [channel.Message(json.loads(body), channel=channel) for body in bodies]


def without_expiration(shape: Any) -> Any:
    """RabbitMQ is told how long is left, which is not the same a moment later."""
    headers, payload, properties = shape
    return headers, payload, {k: v for k, v in properties.items() if k != "expiration"}


def test_a_countdown_counts_from_the_call(streams: Celery) -> None:
    """Not from the commit, and not from when the recorder sends it."""
    before = datetime.now(UTC)
    with taken_back():
        streams.tasks["one"].apply_async((1,), countdown=60, expires=90)
        row = OutboxMessage.objects.get()
        after = datetime.now(UTC)
        headers = relay.Publication.of_row(row).options["headers"]

    eta = datetime.fromisoformat(headers["eta"])
    assert before <= eta - timedelta(seconds=60) <= after
    expires = datetime.fromisoformat(headers["expires"])
    assert before <= expires - timedelta(seconds=90) <= after


def test_what_cannot_be_encoded_is_not_written(streams: Celery) -> None:
    """Arguments and headers; the transaction goes on."""
    anything = streams.tasks["anything"]
    with transaction.atomic():
        with pytest.raises(EncodeError):
            anything.delay(object())
        with pytest.raises(EncodeError, match="headers or options of anything"):
            anything.apply_async(headers={"x": object()})
        with pytest.raises(TypeError):
            streams.tasks["one"].delay(1, 2)
        assert not OutboxMessage.objects.exists()


# Commits.


def test_sent_after_the_commit_and_in_order(app: Celery) -> None:
    """Nothing is on the broker before it, and no row is left after it."""
    app.tasks["one"].delay(0)
    assert arguments(app, 1) == [0]
    with transaction.atomic():
        results = [app.tasks["one"].delay(n) for n in range(5)]
        assert received(app, 0) == []
    assert not OutboxMessage.objects.exists()

    messages = received(app, 5)

    assert [message[0]["id"] for message in messages] == [r.id for r in results]
    assert [message[1][0] for message in messages] == [[n] for n in range(5)]


def test_what_is_rolled_back_is_not_sent(streams: Celery) -> None:
    """A transaction, and a savepoint, in all orders."""
    one = streams.tasks["one"]
    with taken_back():
        one.delay(1)
    with transaction.atomic():
        with taken_back():
            one.delay(2)
        one.delay(3)
        with transaction.atomic():
            one.delay(4)
        with taken_back():
            one.delay(5)
            with transaction.atomic():
                one.delay(6)
        one.delay(7)
    with transaction.atomic(), taken_back():
        one.delay(8)

    assert arguments(streams, 3) == [3, 4, 7]
    assert not OutboxMessage.objects.exists()


def test_many_in_one_transaction_are_sent_once(streams: Celery) -> None:
    """Also those that were due before the commit, as a transaction may be long."""
    one = streams.tasks["one"]
    with transaction.atomic():
        results = one.delay_many([(n,) for n in range(700)])
        all_due()
    assert [result.id for result in results] == [
        headers["id"] for headers, _, _ in received(streams, 700)
    ]
    assert not OutboxMessage.objects.exists()


def test_a_test_case_that_captures_commits_sends(streams: Celery) -> None:
    """`captureOnCommitCallbacks(execute=True)`, twice in one transaction."""
    one = streams.tasks["one"]
    with transaction.atomic():
        for n in range(2):
            with TestCase.captureOnCommitCallbacks(execute=True):
                one.delay(n)

    assert arguments(streams, 2) == [0, 1]


def test_a_transaction_by_hand_is_sent_by_the_recorder(streams: Celery) -> None:
    """Nobody tells when it is committed: it need not wait for anybody either."""
    with transaction.atomic():
        pass
    transaction.set_autocommit(False)
    try:
        streams.tasks["one"].delay(1)
        assert received(streams, 0) == []
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert relay.send_due(streams) == 1

    assert arguments(streams, 1) == [1]


def test_canvas_waits_as_far_as_it_is_published(streams: Celery) -> None:
    """Each task of a group, the first of a chain, the header of a chord."""
    streams.conf.result_backend = "cache+memory://"
    one = streams.tasks["one"]
    with taken_back():
        group(one.si(1), one.si(2)).delay()
        chain(one.si(3), one.si(4)).delay()
    with transaction.atomic():
        result = group(one.si(1), one.si(2)).delay()
        chain(one.si(3), one.si(4)).delay()
        assert received(streams, 0) == []

    assert len(result.children) == 2
    assert arguments(streams, 3) == [1, 2, 3]


# With the newest client of Redis: Celery's result store calls what it deprecates.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_a_chord_waits(valkey: Any, streams: Celery) -> None:
    """Its header; what it notes in the result store is noted at once."""
    streams.conf.update(task_ignore_result=False, result_backend=valkey.url(1))
    streams.backend.on_task_call = lambda *_: None
    one = streams.tasks["one"]
    try:
        with transaction.atomic():
            chord([one.si(1), one.si(2)], one.si(3)).delay()
            assert received(streams, 0) == []
        assert arguments(streams, 2) == [1, 2]
    finally:
        streams.backend.remove_pending_result = lambda *_: None
        streams.backend.client.connection_pool.disconnect()


# Who says so.


def test_the_nearest_one_decides(streams: Celery) -> None:
    """Call over task over setting; `send_task` asks the task that it names."""
    project = streams.tasks["one"]
    own = streams.task(name="own", shared=False, publish="at_once")(one_more)
    with transaction.atomic():
        project.delay(1)
        project.apply_async((2,), publish="at_once")
        project.si(3).apply_async(publish="at_once")
        own.delay(4)
        streams.send_task("own", (5,))
        own.apply_async((6,), publish="on_commit")
        streams.send_task("unknown", (7,))
        assert arguments(streams, 4) == [2, 3, 4, 5]
    assert arguments(streams, 3) == [1, 6, 7]

    streams.conf.task_publish = "at_once"
    own.publish = "on_commit"
    with transaction.atomic():
        project.delay(8)
        project.delay(9)
        own.delay(10)
        own.delay(11)
        own.delay_many([(12,), (13,)])
        assert arguments(streams, 2) == [8, 9]
    assert arguments(streams, 4) == [10, 11, 12, 13]


def test_what_is_no_choice_raises(streams: Celery) -> None:
    """It names the value and what was meant."""
    one = streams.tasks["one"]
    with pytest.raises(ValueError, match=r"'commit' must be .* mean 'on_commit'"):
        one.apply_async((1,), publish="commit")
    one.publish = True
    with pytest.raises(ValueError, match="publish=True must be 'at_once' or"):
        one.delay(1)

    assert received(streams, 0) == []


def test_a_method_of_that_name_is_no_option(streams: Celery) -> None:
    """A base class of the project's own may have one."""

    class Base(streams.Task):  # type: ignore[name-defined,misc]
        def publish(self) -> None: ...

    streams.task(name="based", shared=False, base=Base)(one_more).delay(1)

    assert arguments(streams, 1) == [1]


# Outages.


def test_delay_does_not_fail_while_the_broker_is_away(
    own_streams: Celery, own_valkey: Any
) -> None:
    """Within a transaction and outside; in order, and once the broker is back at once."""
    one = own_streams.tasks["one"]
    one.delay(0)
    own_valkey.stop()
    with transaction.atomic():
        one.delay(1)
        one.delay(2)
    one.delay(3)
    assert len(one.delay_many([(4,), (5,)])) == 2
    with transaction.atomic():
        one.delay(6)
    assert OutboxMessage.objects.count() == 6
    with pytest.raises(OperationalError):
        one.apply_async((9,), publish="at_once")

    own_valkey.start()
    one.delay(7)  # The first one waits still: who knows whether the broker is back.
    assert OutboxMessage.objects.count() == 7
    assert relay.send_due(own_streams) == 7
    one.delay(8)

    assert not OutboxMessage.objects.exists()
    assert arguments(own_streams, 9) == list(range(9))


def test_who_writes_all_the_time_catches_up(
    own_streams: Celery, own_valkey: Any
) -> None:
    """The recorder has sent the first, so the broker is back: no need to wait for it."""
    one = own_streams.tasks["one"]
    own_valkey.stop()
    for n in range(3):
        one.delay(n)
    own_valkey.start()
    own = OutboxMessage.objects.first()
    assert own is not None
    relay._send(own_streams, [own])

    one.delay(3)

    assert not OutboxMessage.objects.exists()
    assert arguments(own_streams, 4) == [0, 1, 2, 3]


def test_a_result_store_that_is_away_keeps_no_task(
    streams: Celery, own_valkey: Any
) -> None:
    """It is told of each call; the message waits in the outbox instead."""
    streams.conf.update(task_ignore_result=False, result_backend=own_valkey.url(1))
    streams.backend.remove_pending_result = lambda *_: None
    own_valkey.stop()
    with transaction.atomic():
        streams.tasks["one"].delay(1)
    streams.tasks["one"].delay(2)
    assert OutboxMessage.objects.count() == 2
    assert relay.send_due(streams) == 2

    assert arguments(streams, 2) == [1, 2]


def test_a_soft_limit_amidst_the_sending_is_the_tasks(
    streams: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised from the commit, and the message waits for the recorder."""

    def tell(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    streams.conf.task_ignore_result = False
    monkeypatch.setattr(streams.backend, "on_task_call", tell)
    with pytest.raises(SoftTimeLimitExceeded), transaction.atomic():
        streams.tasks["one"].apply_async((1,), ignore_result=False)
    all_due()
    assert relay.send_due(streams) == 1

    assert arguments(streams, 1) == [1]


def test_nothing_to_send_is_no_error(streams: Celery) -> None:
    """Many calls that are none."""
    assert streams.tasks["one"].delay_many([]) == []


def test_whoever_catches_an_error_can_go_on(streams: Celery) -> None:
    """What could not be written takes nothing else of the transaction with it."""
    one = streams.tasks["one"]
    with override_settings(UNSTUCK={"OUTBOX_LIMIT": 2}), transaction.atomic():
        one.delay(1)
        with pytest.raises(OutboxFull):
            one.delay_many([(2,), (3,)])
        one.delay(4)

    assert arguments(streams, 2) == [1, 4]


def test_the_outbox_is_bounded(own_streams: Celery, own_valkey: Any) -> None:
    """Over its limit a call raises; what was sent or rolled back does not count."""
    one = own_streams.tasks["one"]
    own_valkey.stop()
    with override_settings(UNSTUCK={"OUTBOX_LIMIT": 3}):
        with taken_back():
            one.delay_many([(1,), (2,), (3,)])
        for n in range(3):
            one.delay(n)
        with pytest.raises(OutboxFull, match="holds 3 messages and may hold 3") as full:
            one.delay(3)
        with (
            pytest.raises(OutboxFull, match="OUTBOX_LIMIT"),
            transaction.atomic(),
        ):
            one.delay(3)
        own_valkey.start()
        assert relay.send_due(own_streams) == 3
        one.delay(3)

    assert not isinstance(full.value, OperationalError)
    assert arguments(own_streams, 4) == [0, 1, 2, 3]


def test_a_database_without_our_table_is_named(streams: Celery) -> None:
    """What could not be written was not sent, and the remedy is said."""
    from django.db import connection

    with connection.schema_editor() as editor:
        editor.delete_model(OutboxMessage)
    try:
        with (
            pytest.raises(OutboxError, match=r"one was not sent.*migrate unstuck"),
            transaction.atomic(),
        ):
            streams.tasks["one"].delay(1)
        streams.tasks["one"].delay(2)
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(OutboxMessage)

    assert arguments(streams, 1) == [2]


# The relay.


def test_the_recorder_leaves_a_row_to_its_process_for_a_while(streams: Celery) -> None:
    """So that a message is not sent by both."""
    with taken_back():
        streams.tasks["one"].delay(1)
        assert relay.send_due(streams) == 0
        all_due()
        assert relay.send_due(streams) == 1


def test_a_slow_broker_has_nothing_sent_twice(
    streams: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder looks after each message, and all take longer than the time of grace."""
    patience = timedelta(seconds=dispatch.HOLD_SECONDS + PUBLISH_SECONDS)
    assert patience < rows.GRACE
    monkeypatch.setattr(dispatch, "GRACE", rows.GRACE / 10)
    monkeypatch.setattr(dispatch, "HOLD_SECONDS", dispatch.HOLD_SECONDS / 10)
    looks = []

    def look(_: Any) -> None:
        time.sleep(0.3)
        looks.append(relay.send_due(streams))

    before_each_publish(monkeypatch, look)
    with transaction.atomic():
        for n in range(10):
            streams.tasks["one"].delay(n)

    assert looks == [0] * 10
    assert not OutboxMessage.objects.exists()
    assert arguments(streams, 10) == [*range(10)]


def test_the_recorder_leaves_what_its_process_is_at_after_all(
    streams: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was due when the recorder looked; the one before it took long to send."""
    publications = [publication(streams, n) for n in range(4)]
    with transaction.atomic():
        written = rows.write(publications, dispatch.NOW)

    def go_on(_: Any) -> None:
        rows.remove([written[1][0]])
        rows.hold(written[2:3], rows.GRACE)

    before_each_publish(monkeypatch, go_on)

    assert relay.send_due(streams) == 2
    assert arguments(streams, 2) == [0, 3]
    assert OutboxMessage.objects.get().pk == written[2][0]


def before_each_publish(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[Publication], None]
) -> None:
    """Have something else happen while a message is on its way."""
    publish = Publication.publish

    def publish_late(self: Publication, producer: Any, **patience: Any) -> None:
        function(self)
        publish(self, producer, **patience)

    monkeypatch.setattr(Publication, "publish", publish_late)


def test_one_sends_at_a_time(streams: Celery) -> None:
    """While somebody holds the lease, others leave it; one who died holds it no more."""
    with transaction.atomic():
        written = rows.write([publication(streams, n) for n in range(2)], dispatch.NOW)
    assert len(written) == 2
    with alone(relay.LEASE, relay.LEASE_LENGTH) as ours:
        assert ours
        assert relay.send_due(streams) == 0
    Lease.objects.update(until=datetime.now(UTC) + timedelta(hours=1))
    assert relay.send_due(streams) == 0
    Lease.objects.update(until=datetime.now(UTC) - timedelta(seconds=1))

    assert relay.send_due(streams) == 2
    assert Lease.objects.count() == 1


def publication(app: Celery, n: int) -> relay.Publication:
    """A message that is not sent."""
    found = []
    with taken_back():
        app.tasks["one"].delay(n)
        found = [relay.Publication.of_row(row) for row in OutboxMessage.objects.all()]
    return found[0]


def test_a_message_that_the_broker_refuses_does_not_block_the_others(
    streams: Celery,
) -> None:
    """It is tried three times, then others go first; it stays, with what was said."""
    with transaction.atomic():
        written = rows.write([publication(streams, n) for n in range(2)], dispatch.NOW)
    broken = OutboxMessage.objects.filter(pk=written[0][0])
    broken.update(envelope='{"options": {}, "declare": []}')
    for _ in range(3):
        with pytest.raises(KeyError):
            relay.send_due(streams)
    assert relay.send_due(streams) == 1

    row = broken.get()
    assert row.attempts == 3
    assert row.last_error == "KeyError: 'headers'"
    assert row.due_at > datetime.now(UTC)
    assert arguments(streams, 1) == [1]


def test_what_is_left_of_its_time_is_worked_out_when_it_is_sent(
    app: Celery,
) -> None:
    """RabbitMQ is not told an expiration that begins anew."""
    with transaction.atomic():
        app.tasks["one"].apply_async((1,), expires=1000)
        row = OutboxMessage.objects.get()
        shorter = (datetime.now(UTC) + timedelta(seconds=100)).isoformat()
        wire = kombu.utils.json.loads(row.envelope)
        wire["options"]["headers"]["expires"] = shorter
        row.envelope = kombu.utils.json.dumps(wire)
        found = relay.Publication.of_row(row)

    assert 90 < found._seconds_left() <= 100
    with app.producer_or_acquire() as producer:
        found.publish(producer)
    assert received(app, 2)[1][2].get("expiration", "99999")[:2] == "99"


def test_the_relay_looks_once_a_second(streams: Celery) -> None:
    """An outbox that nobody uses costs next to nothing."""
    looking = relay.Relay(streams)
    assert looking.work() is False
    with transaction.atomic():
        rows.write([publication(streams, 1)], dispatch.NOW)
    assert looking.work() is False
    time.sleep(1.1)
    assert looking.work() is True

    assert arguments(streams, 1) == [1]


@pytest.mark.parametrize("kind", [kombu.Queue, PatientQueue, SafeQueue])
def test_a_queue_is_declared_as_it_would_have_been(kind: type[kombu.Queue]) -> None:
    """In another way, RabbitMQ would refuse it, and the message with it."""
    queue = kind("media", MEDIA, routing_key="media.#", max_length=10)
    kept = Publication(
        task_id="1",
        task_name="one",
        body=b"",
        options={"headers": {}},
        declare=[queue],
    )
    row = OutboxMessage(message_id=kept.message_id, envelope=kept.envelope())

    (found,) = Publication.of_row(row).declare

    assert type(found) is kind
    assert found.as_dict(recurse=True) == queue.as_dict(recurse=True)
