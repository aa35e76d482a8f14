"""Sites on each broker. A database is made once and copied."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest

import unstuck.app  # noqa: F401 - names our transport to kombu
from tests.node import ROOT, Site
from unstuck.rabbit.queues import SafeQueue

MakeSite = Callable[..., Site]

STREAMS = "unstuck+"
"""What makes kombu's URL of a Redis one of our own transport."""


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all tables and no rows."""
    directory = tmp_path_factory.mktemp("migrated")
    site = Site(directory=directory, broker="memory://")
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "-v", "0"],
        env=site.environment,
        cwd=ROOT,
        check=True,
    )
    return directory / "db.sqlite3"


@pytest.fixture
def redis_site(valkey: Any, tmp_path: Path, migrated_database: Path) -> MakeSite:
    """Makes a site on an empty Valkey, results included."""

    def make(**settings: Any) -> Site:
        valkey.flush()
        shutil.copy(migrated_database, tmp_path / "db.sqlite3")
        return Site(
            directory=tmp_path,
            broker=valkey.url(0),
            results=valkey.url(1),
            settings=settings,
        )

    return make


@pytest.fixture
def streams_site(redis_site: MakeSite) -> MakeSite:
    """Makes a site on an empty Valkey, by our own transport."""

    def make(**settings: Any) -> Site:
        site = redis_site(**settings)
        site.broker = STREAMS + site.broker
        return site

    return make


CELERYS_QUEUE = kombu.Queue(
    "celery", kombu.Exchange("celery", type="direct"), routing_key="celery"
)
"""As stock Celery declares it."""


@pytest.fixture
def amqp_site(
    rabbitmq: Any, valkey: Any, tmp_path: Path, migrated_database: Path
) -> MakeSite:
    """Makes a site on a virtual host of RabbitMQ, with results in Valkey.

    Stock Celery was there before us: its queue is a classic one, and stays one.
    """

    def make(queue: kombu.Queue = CELERYS_QUEUE, **settings: Any) -> Site:
        valkey.flush()
        shutil.copy(migrated_database, tmp_path / "db.sqlite3")
        broker = rabbitmq.url(rabbitmq.vhost())
        _declare(broker, queue)
        return Site(
            directory=tmp_path, broker=broker, results=valkey.url(1), settings=settings
        )

    return make


@pytest.fixture
def quorum_site(amqp_site: MakeSite) -> MakeSite:
    """The same where nobody was before us: its queues are quorum queues."""

    def make(**settings: Any) -> Site:
        site = amqp_site(queue=SafeQueue.of(CELERYS_QUEUE), **settings)
        site.client_declares = False
        return site

    return make


@pytest.fixture
def own_amqp_site(own_rabbitmq: Any, tmp_path: Path, migrated_database: Path) -> Site:
    """A site on a RabbitMQ that the test may stop, with a classic queue as above."""
    shutil.copy(migrated_database, tmp_path / "db.sqlite3")
    _declare(own_rabbitmq.url(), CELERYS_QUEUE)
    return Site(directory=tmp_path, broker=own_rabbitmq.url())


@pytest.fixture
def own_quorum_site(own_rabbitmq: Any, tmp_path: Path, migrated_database: Path) -> Site:
    """A site on a RabbitMQ that the test may stop, with a quorum queue as above."""
    shutil.copy(migrated_database, tmp_path / "db.sqlite3")
    _declare(own_rabbitmq.url(), SafeQueue.of(CELERYS_QUEUE))
    return Site(directory=tmp_path, broker=own_rabbitmq.url(), client_declares=False)


def _declare(broker: str, queue: kombu.Queue) -> None:
    with kombu.Connection(broker) as connection:
        queue(connection.default_channel).declare()


@pytest.fixture
def own_redis_site(own_valkey: Any, tmp_path: Path, migrated_database: Path) -> Site:
    """A site on a Valkey that the test may stop."""
    shutil.copy(migrated_database, tmp_path / "db.sqlite3")
    return Site(directory=tmp_path, broker=own_valkey.url(0))


@pytest.fixture
def own_streams_site(own_redis_site: Site) -> Site:
    """A site on a Valkey that the test may stop, by our own transport."""
    own_redis_site.broker = STREAMS + own_redis_site.broker
    return own_redis_site


@pytest.fixture(params=["redis", "streams", "amqp"])
def make_site(request: pytest.FixtureRequest) -> MakeSite:
    """Makes a site on each broker in turn."""
    make: MakeSite = request.getfixturevalue(f"{request.param}_site")
    return make


@pytest.fixture(scope="session")
def migrated_postgresql(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a PostgreSQL database with all tables and no rows."""
    base = postgres.database()
    directory = tmp_path_factory.mktemp("migrated")
    site = Site(directory=directory, broker="memory://", database=base.url)
    site.manage("migrate", "-v", "0")
    return str(base.name)


@pytest.fixture
def sqlite_archive(redis_site: MakeSite) -> MakeSite:
    """Makes a site whose database is a file."""
    return redis_site


@pytest.fixture
def postgresql_archive(
    redis_site: MakeSite, postgres: Any, migrated_postgresql: str
) -> MakeSite:
    """Makes a site on a PostgreSQL database of its own."""

    def make(**settings: Any) -> Site:
        site = redis_site(**settings)
        site.database = postgres.database(migrated_postgresql).url
        return site

    return make
