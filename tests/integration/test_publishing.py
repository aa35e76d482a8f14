"""Publishing one task again and again, and many at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import kombu.pools
import pytest
from celery import signals
from kombu.exceptions import EncodeError, OperationalError

from tests.sites import STREAMS
from unstuck import Celery, NotAllSent
from unstuck.letters.message import SENT

BROKERS = ("streams", "redis", "amqp")

ARGUMENTS: list[tuple[Any, ...]] = [
    (),
    (1, 2.5, None, True),
    ('é "quoted" \n\0', "x" * 2000),
    ([1, {"a": [2]}],),
    (datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.5"), uuid.UUID(int=5)),
]
OF_ONE_MESSAGE = ("id", "root_id", SENT)


@pytest.fixture(params=BROKERS)
def app(request: pytest.FixtureRequest, valkey: Any) -> Iterator[Celery]:
    """An app on an empty broker of each kind, with one task that takes anything."""
    valkey.flush()
    if request.param == "amqp":
        rabbitmq = request.getfixturevalue("rabbitmq")
        url = rabbitmq.url(rabbitmq.vhost())
    else:
        url = {"streams": STREAMS, "redis": ""}[request.param] + valkey.url(0)
    with closing_app(url) as app:
        yield app


@pytest.fixture
def streams(valkey: Any) -> Iterator[Celery]:
    """The same on Redis Streams."""
    valkey.flush()
    with closing_app(STREAMS + valkey.url(0)) as app:
        yield app


@contextmanager
def closing_app(url: str) -> Iterator[Celery]:
    app = Celery("publishing", broker=url, set_as_current=False)
    app.conf.task_ignore_result = True
    app.task(name="anything", shared=False)(anything)
    app.task(name="one", shared=False)(one)
    try:
        yield app
    finally:
        app.close()
        # kombu keeps connections for the whole process, and some for the collector.
        kombu.pools.reset()


def anything(*args: Any, **kwargs: Any) -> None:
    """Takes anything."""


def one(x: int) -> None:
    """Takes one argument."""


def received(app: Celery, count: int) -> list[Any]:
    """So many messages from the queue, and no more."""
    with app.connection_for_read() as connection:
        queue = app.amqp.queues["celery"](connection.default_channel)
        queue.declare()
        messages = [queue.get() for _ in range(count)]
        for message in messages:
            message.ack()
        assert queue.get() is None
        return [(m.headers, m.payload, dict(m.properties)) for m in messages]


def shape_of(message: Any) -> Any:
    """What a message has in common with others of its task and arguments."""
    headers, payload, properties = message
    own = {"correlation_id", "delivery_tag", "delivery_info", "application_headers"}
    return (
        {k: v for k, v in headers.items() if k not in OF_ONE_MESSAGE},
        payload,
        {k: v for k, v in properties.items() if k not in own},
    )


def has_one_id(message: Any) -> bool:
    """Whether the message says the same id wherever it says one."""
    headers, _, properties = message
    return headers["id"] == headers["root_id"] == properties["correlation_id"]


@pytest.mark.parametrize("args", ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_a_call_in_a_row_is_like_the_first(streams: Celery, args: Any) -> None:
    """The third is printed from the second; Celery has made the first."""
    task = streams.tasks["anything"]
    results = [task.delay(*args, key=args) for _ in range(3)]

    messages = received(streams, 3)

    assert [m[0]["id"] for m in messages] == [result.id for result in results]
    assert all(has_one_id(message) for message in messages)
    shapes = [shape_of(message) for message in messages]
    assert shapes[1] == shapes[0]
    assert shapes[2] == shapes[0]
    assert results[2].ignored == results[0].ignored


def test_options_amidst_calls_in_a_row_hold_for_their_call(streams: Celery) -> None:
    """And for no other."""
    task = streams.tasks["anything"]
    for _ in range(3):
        task.delay()
    task.apply_async(expires=60)
    task.delay()

    messages = received(streams, 5)

    expire = [bool(m[0]["expires"]) for m in messages]
    assert expire == [False, False, False, True, False]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("limit", [0, 1])
def test_calls_in_a_row_take_few_connections(
    streams: Celery, valkey: Any, limit: int
) -> None:
    """With a pool of one, or none, they are sent all the same, also after a break."""
    streams.conf.broker_pool_limit = limit
    task = streams.tasks["anything"]
    for number in range(4):
        task.delay(number)
    with valkey.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    for number in range(4):
        task.delay(4 + number)

    sent = [payload[0] for _, payload, _ in received(streams, 8)]

    assert sorted(sent) == [[number] for number in range(8)]


def test_eager_calls_in_a_row_are_not_sent(streams: Celery) -> None:
    """A setting that changes between two calls holds for the second."""
    task = streams.tasks["one"]
    for number in range(3):
        task.delay(number)
    streams.conf.task_always_eager = True

    assert task.delay(3).state == "SUCCESS"

    assert len(received(streams, 3)) == 3


def test_receivers_see_each_call_in_a_row(streams: Celery) -> None:
    """They may change a message before it is sent."""
    task = streams.tasks["anything"]

    def mark(headers: Any = None, **_: Any) -> None:
        headers["marked"] = True

    task.delay()
    task.delay()
    signals.before_task_publish.connect(mark)
    try:
        task.delay()
        task.delay_many([(), ()])
    finally:
        signals.before_task_publish.disconnect(mark)

    marked = [m[0].get("marked", False) for m in received(streams, 5)]
    assert marked == [False, False, True, True, True]


def test_a_call_in_a_row_that_does_not_fit_raises(streams: Celery) -> None:
    """As the first one would."""
    task = streams.tasks["one"]
    for _ in range(3):
        task.delay(1)
    with pytest.raises(TypeError, match="x"):
        task.delay()
    with pytest.raises(EncodeError):
        task.delay(object())
    assert len(received(streams, 3)) == 3


def test_many_are_like_one(app: Celery) -> None:
    """Each of many is what `delay` would have sent, in order."""
    task = app.tasks["anything"]
    for args in ARGUMENTS:
        task.delay(*args)
    expected = [shape_of(message) for message in received(app, len(ARGUMENTS))]

    results = task.delay_many(ARGUMENTS)

    messages = received(app, len(ARGUMENTS))
    assert [m[0]["id"] for m in messages] == [result.id for result in results]
    assert [shape_of(message) for message in messages] == expected
    assert all(has_one_id(message) for message in messages)
    assert len({result.id for result in results}) == len(ARGUMENTS)


def test_options_hold_for_all(streams: Celery) -> None:
    """Here: keyword arguments of each, a queue and an ETA for all."""
    task = streams.tasks["anything"]
    calls = [((n,), {"key": n}) for n in range(3)]
    task.apply_async_many(calls, countdown=3600, priority=3)

    with streams.connection_for_read() as connection:
        delayed = connection.default_channel.commands.execute_command(
            "ZCARD", "unstuck:delayed:celery"
        )
    assert delayed == 3
    assert received(streams, 0) == []


def test_nothing_is_sent_when_one_call_is_wrong(app: Celery) -> None:
    """The error says which."""
    task = app.tasks["one"]
    with pytest.raises(TypeError, match=r"number 2 .* missing 1 .* Nothing was sent"):
        task.delay_many([(1,), (2,), ()])
    assert received(app, 0) == []


def test_nothing_is_sent_when_one_call_cannot_be_encoded(streams: Celery) -> None:
    """The error says which."""
    with pytest.raises(EncodeError, match=r"number 1 .* Nothing was sent"):
        streams.tasks["one"].delay_many([(1,), (object(),)])
    assert received(streams, 0) == []


def test_none_is_many_as_well(app: Celery) -> None:
    """No calls, no messages."""
    assert app.tasks["one"].delay_many([]) == []


def test_what_the_broker_does_not_take_is_named(streams: Celery, valkey: Any) -> None:
    """A server that is full: each that failed, with the reason."""
    task = streams.tasks["one"]
    task.delay(0)
    expected = pytest.raises(NotAllSent, match="2 of 2 tasks were not sent")
    with valkey.setting(maxmemory=1), expected as raised:
        task.delay_many([(1,), (2,)])

    assert sorted(raised.value.failed) == [0, 1]
    assert raised.value.results == [None, None]
    assert len(received(streams, 1)) == 1


def test_many_without_a_broker_raise_at_once() -> None:
    """As one would: kombu's OperationalError."""
    with closing_app(STREAMS + "redis://127.0.0.1:1/0") as app:
        with pytest.raises(OperationalError):
            app.tasks["one"].delay_many([(1,), (2,)])
        with pytest.raises(OperationalError):
            app.tasks["one"].delay(1)


def test_ten_thousand_take_a_few_round_trips(streams: Celery, valkey: Any) -> None:
    """One pipeline for a thousand each."""
    task = streams.tasks["one"]
    task.delay(0)
    with valkey.client() as client:
        before = client.info("stats")["total_reads_processed"]
        task.delay_many([(n,) for n in range(10_000)])
        reads = client.info("stats")["total_reads_processed"] - before

    # A megabyte in a pipeline is read in several pieces, a message in none of its own.
    assert reads < 5_000
    with streams.connection_for_read() as connection:
        assert (
            connection.default_channel.queue_declare("celery").message_count == 10_001
        )


def test_a_call_in_a_row_into_a_full_server_raises_as_the_first_would(
    streams: Celery, valkey: Any
) -> None:
    """kombu's OperationalError, and all is well when there is room again."""
    task = streams.tasks["one"]
    for _ in range(3):
        task.delay(1)
    with valkey.setting(maxmemory=1), pytest.raises(OperationalError):
        task.delay(2)
    task.delay(3)

    assert [payload[0] for _, payload, _ in received(streams, 4)] == [
        [1],
        [1],
        [1],
        [3],
    ]


def test_a_result_store_that_is_away_is_named(valkey: Any, own_valkey: Any) -> None:
    """In a row as for the first call, and for many."""
    valkey.flush()
    with closing_app(STREAMS + valkey.url(0)) as app:
        app.conf.update(task_ignore_result=False, result_backend=own_valkey.url(1))
        task = app.tasks["one"]
        # Results are not asked for here, and need not be forgotten one by one.
        app.backend.remove_pending_result = lambda *_: None
        for _ in range(3):
            task.delay(1)
        own_valkey.stop()

        def send_some() -> None:
            # What is written first may go into a connection that is dead.
            for _ in range(3):
                task.delay(2)

        with pytest.raises(OperationalError, match="result store"):
            send_some()
        with pytest.raises(OperationalError, match="result store"):
            task.delay_many([(3,), (4,)])

        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()


@pytest.mark.parametrize("scheme", ["", STREAMS])
def test_one_by_one_stops_where_the_broker_is_away(valkey: Any, scheme: str) -> None:
    """What was sent before is said, and that what comes after was not."""
    valkey.flush()
    with valkey.client() as client, closing_app(scheme + valkey.url(0)) as app:
        task = app.tasks["one"]
        task.delay(0)

        def fill(body: Any = None, **_: Any) -> None:
            if body[0] == (2,):
                client.config_set("maxmemory", 1)

        signals.before_task_publish.connect(fill)
        try:
            with pytest.raises(
                NotAllSent, match="2 of 3 tasks were not sent"
            ) as raised:
                task.delay_many([(1,), (2,), (3,)])
        finally:
            signals.before_task_publish.disconnect(fill)
            client.config_set("maxmemory", 0)

        assert [payload[0] for _, payload, _ in received(app, 2)] == [[0], [1]]
    assert sorted(raised.value.failed) == [1, 2]
    assert [bool(result) for result in raised.value.results] == [True, False, False]
