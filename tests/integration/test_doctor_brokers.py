"""What the doctor finds of brokers that are as it says: a real Redis or Valkey, and a
real RabbitMQ, whose settings a test changes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import kombu
import pytest
import redis

from tests.services import RabbitMQ, Valkey, started
from tests.waiting import eventually
from tests.wire import Wire
from unstuck import Celery
from unstuck.core.clock import system_clock
from unstuck.dev.ports import HOST, free_port
from unstuck.doctor.ask import broker
from unstuck.doctor.ask.here import here_of
from unstuck.doctor.facts import Archive, Letters, Longest, Seen
from unstuck.doctor.rule import Finding, run
from unstuck.doctor.table import TABLE
from unstuck.rabbit.queues import SafeQueue

T = TypeVar("T")

READ_BY_NOBODY = {"D030", "D031"}
"""There is no worker in these tests."""


def nothing() -> None:
    """A task."""


def found_at(
    url: str, api: str | None = None, archive: Archive | None = None
) -> dict[str, Finding]:
    """What is found of a broker, and of the queues of a project that uses it."""
    with closing(Celery("sample", broker=url, set_as_current=False)) as app:
        app.conf.update(task_time_limit=300)
        app.task(name="sample.nothing", shared=False)(nothing)
        here = here_of(app)
        names = sorted({*here.queues, here.letters})
        facts, unasked = broker.ask(app, names, api)
    seen = Seen(
        now=system_clock(), here=here, unasked=unasked, archive=archive, **facts
    )
    found = {each.id[-4:]: each for each in run(TABLE.values(), seen)}
    return {number: found[number] for number in set(found) - READ_BY_NOBODY}


def slowly(probe: Callable[[], T], seconds: float = 60) -> T:
    """The same as ``eventually`` for what costs something to ask."""

    def after_a_while() -> T:
        time.sleep(0.5)
        return probe()

    return eventually(after_a_while, seconds)


# Redis and Valkey.


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    """One whose settings these tests may change."""
    with started(Valkey) as valkey:
        yield valkey


@pytest.fixture
def client(server: Valkey) -> Iterator[redis.Redis]:
    """To change them; all is as before afterwards."""
    server.flush()
    with server.client() as client:
        yield client


@pytest.mark.parametrize("scheme", ["", "unstuck+"])
def test_a_sound_redis(server: Valkey, scheme: str) -> None:
    """It writes an append-only file and evicts nothing."""
    assert found_at(scheme + server.url()) == {}


@pytest.mark.parametrize(
    ("number", "settings", "words"),
    [
        ("D012", {"maxmemory-policy": "allkeys-lru"}, "allkeys-lru"),
        ("D014", {"appendonly": "no"}, "neither"),
        ("D015", {"appendonly": "no", "save": "3600 1"}, "3600 1"),
        ("D017", {"maxmemory": "1100000"}, "its maxmemory"),
        ("D018", {"replicaof": f"{HOST} 1"}, "replica"),
    ],
)
def test_redis_set_otherwise(
    server: Valkey, number: str, settings: dict[str, str], words: str
) -> None:
    """Each setting, and no other finding for it."""
    if "maxmemory" in settings:
        with server.client() as asking:
            used = asking.info("memory")["used_memory"]
        settings = {"maxmemory": str(int(used * 1.05))}
    with contextlib.ExitStack() as changed:
        if "replicaof" in settings:
            client = changed.enter_context(server.client())
            client.replicaof(HOST, 1)
            changed.callback(client.replicaof, "no", "one")
        else:
            changed.enter_context(server.setting(**settings))
        found = found_at(server.url())

    assert set(found) == {number}
    assert words in found[number].what


def test_redis_that_has_evicted_something(server: Valkey, client: redis.Redis) -> None:
    """It goes on saying so when its policy is mended."""
    used = client.info("memory")["used_memory"]
    policy = {"maxmemory-policy": "allkeys-lru", "maxmemory": used + 200_000}
    with server.setting(**policy):
        for number in range(400):
            client.set(f"key{number}", b"x" * 1000)
    found = found_at(server.url())
    client.config_resetstat()

    assert set(found) == {"D013"}
    assert found["D013"].since is not None


def test_redis_that_cannot_save(server: Valkey, client: redis.Redis) -> None:
    """Where its snapshot goes there is a directory."""
    in_its_way = server.directory / "dump.rdb"
    in_its_way.mkdir()
    client.bgsave()
    eventually(lambda: client.info()["rdb_last_bgsave_status"] == "err")
    found = found_at(server.url())
    in_its_way.rmdir()
    client.bgsave()
    eventually(lambda: client.info()["rdb_last_bgsave_status"] == "ok")

    assert set(found) == {"D016"}
    assert "the last snapshot" in found["D016"].what


def test_redis_with_many_clients(server: Valkey) -> None:
    """So that the next one is refused."""
    with contextlib.ExitStack() as held, server.setting(maxclients=100):
        for _ in range(91):
            held.enter_context(server.client()).ping()
        found = found_at(server.url())

    assert set(found) == {"D019"}


def test_redis_that_does_not_tell_all(server: Valkey, client: redis.Redis) -> None:
    """What an ACL forbids to ask is said; an append-only file makes it needless."""
    client.acl_setuser(
        "shop",
        enabled=True,
        passwords=["+pw"],
        keys=["*"],
        channels=["*"],
        commands=["+@all", "-config"],
    )
    url = server.url().replace("redis://", "redis://shop:pw@")
    sound = found_at(url)
    with server.setting(appendonly="no"):
        found = found_at(url)
    client.acl_deluser("shop")

    assert sound == {}
    assert set(found) == {"D008"}
    assert "pw" not in json.dumps(found["D008"].to_wire(), default=str)


class Older(Wire):
    """A way to a server on which it says that it is an old one."""

    def __init__(self, port: int, version: bytes, old: bytes) -> None:
        super().__init__(port)
        self._version, self._old = version, old.ljust(len(version), b"0")

    def _pass_on(self, each: Any, to: Any) -> None:
        with contextlib.suppress(OSError):
            content = each.recv(1_000_000).replace(self._version, self._old)
            if content:
                to.sendall(content)
                return
        for one in (each, to):
            self._pairs.pop(one, None)
            one.close()


def test_redis_that_is_old(server: Valkey, client: redis.Redis) -> None:
    """6.2 is the oldest that Celery takes."""
    told = client.info("server")
    version = str(told.get("valkey_version") or told["redis_version"]).encode()
    with Older(server.port, version, b"6.0.9") as wire:
        found = found_at(f"redis://{HOST}:{wire.port}/0")

    assert set(found) == {"D011"}


def test_redis_that_does_not_tell_what_it_does_when_it_is_full(server: Valkey) -> None:
    """D027: a service that answers INFO in its own way is not passed as fine."""
    name = b"maxmemory_policy"
    with Older(server.port, name, name[::-1]) as wire:
        found = found_at(f"redis://{HOST}:{wire.port}/0")

    assert set(found) == {"D027"}


def test_a_broker_of_another_kind_is_said_not_to_be_asked() -> None:
    """Neither fine nor a crash."""
    with pytest.raises(Exception, match="a broker of the kind"):
        found_at("memory://")


# RabbitMQ.


@pytest.fixture(scope="module")
def api(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The management API of the shared server, which goes without it otherwise."""
    port, plugins = free_port(), rabbitmq.directory / "enabled_plugins"
    before = plugins.read_text()
    ensure = f'rabbit_plugins:ensure("{plugins}")'
    listens = f'[{{port, {port}}}, {{ip, "{HOST}"}}]'
    plugins.write_text("[rabbitmq_management].\n")
    rabbitmq.ctl(
        "eval",
        "application:load(rabbitmq_management), "
        f"application:set_env(rabbitmq_management, tcp_config, {listens}), "
        # Or what is told is up to a quarter of a minute old.
        f"application:set_env(rabbit, collect_statistics_interval, 500), {ensure}.",
    )
    yield f"http://{HOST}:{port}"
    plugins.write_text(before)
    told = "application:set_env(rabbit, collect_statistics_interval, 5000)"
    rabbitmq.ctl("eval", f"{told}, {ensure}.")


@pytest.fixture(scope="module")
def vhost(rabbitmq: RabbitMQ) -> str:
    """With the queues of a project as we declare them."""
    name = rabbitmq.vhost()
    with kombu.Connection(rabbitmq.url(name)) as connection:
        # Its dead letters are declared with it.
        SafeQueue("celery", durable=True)(connection.default_channel).declare()
    return name


def test_rabbitmq_without_memory_and_a_sound_one(
    rabbitmq: RabbitMQ, vhost: str, api: str
) -> None:
    """With the alarm at which it blocks who publishes; nearly; and with enough."""
    url = rabbitmq.url(vhost)
    before = rabbitmq.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().")
    try:
        limit_memory(rabbitmq, 0.25)
        slowly(lambda: set(found_at(url, api)) == {"D025"})
        # How much it uses changes all the time.
        for _ in range(5):
            limit_memory(rabbitmq, 1.05)
            with contextlib.suppress(AssertionError):
                slowly(lambda: set(found_at(url, api)) == {"D026"}, 12)
                break
        else:
            pytest.fail("never nearly full")
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", before.strip())
    slowly(lambda: found_at(url, api) == {})


def limit_memory(rabbitmq: RabbitMQ, share: float) -> None:
    """Let it have so much of what it has just now."""
    used = int(rabbitmq.ctl("eval", "vm_memory_monitor:get_process_memory()."))
    limit = str(int(share * used))
    rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", limit)


def test_a_classic_queue_that_loses_tasks(rabbitmq: RabbitMQ, api: str) -> None:
    """By its arguments and by a policy, which AMQP alone does not tell."""
    vhost = rabbitmq.vhost()
    url = rabbitmq.url(vhost)
    bounds = {"x-message-ttl": 60_000, "x-consumer-timeout": 60_000}
    with kombu.Connection(url) as connection:
        queue = kombu.Queue("celery", queue_arguments=bounds)
        queue(connection.default_channel).declare()
    policy = json.dumps({"max-length": 1000, "expires": 3_600_000})
    rabbitmq.ctl("set_policy", "-p", vhost, "bad", "^celery$", policy)

    slowly(lambda: "D023" in found_at(url, api))
    archive = Archive(
        nodes=(),
        longest=(
            Longest(
                task="sample.nothing", queue="celery", seconds=100.0, at=system_clock()
            ),
        ),
        letters=Letters(last_hour=0, day_before=0, first=None),
        letters_wait_since=None,
    )
    found, told = found_at(url, api, archive), found_at(url, f"http://{HOST}:1")

    of_runs = {"D062", "D063", "D064"}
    assert set(found) == {"D021", "D022", "D023", "D024", *of_runs}
    assert "RabbitMQ waits for 60 s in celery" in found["D062"].what
    assert "an argument of the queue" in found["D022"].what
    assert found["D023"].command == f"rabbitmqctl clear_policy -p {vhost} bad"
    assert set(told) == {"D002", "D021", "D022"}
    assert "Connection refused" in told["D002"].what


def test_an_old_rabbitmq(rabbitmq: RabbitMQ, vhost: str) -> None:
    """One that says so; nothing but AMQP is asked for it."""
    url = rabbitmq.url(vhost)
    with kombu.Connection(url) as connection:
        properties = connection.default_channel.connection.server_properties
    version = properties["version"].encode()
    with Older(rabbitmq.port, version, b"3.8.9") as wire:
        found = found_at(url.replace(str(rabbitmq.port), str(wire.port)))

    assert "3.8.9" in found["D020"].what


def test_who_may_not_ask_rabbitmq(rabbitmq: RabbitMQ, vhost: str, api: str) -> None:
    """What is not told is said; the password is not."""
    url = api.replace("http://", "http://guest:wrong@")
    found = found_at(rabbitmq.url(vhost), url)

    assert set(found) == {"D002"}
    assert "401" in found["D002"].what
    assert "wrong" not in str(found)
