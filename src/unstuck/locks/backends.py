"""Where locks live: on the broker when it is Redis, else in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kombu
from django.core.signals import setting_changed
from django.db import connections
from kombu.utils.imports import symbol_by_name

from unstuck import conf, profile
from unstuck.core.settings import DATABASE_LOCKS
from unstuck.current import current_app
from unstuck.locks.backend import Backend
from unstuck.locks.statements import BY_VENDOR

OURS = "unstuck+"
"""With it a URL is read by our own transport, which knows more kinds than kombu's."""

_current: Backend | None = None


def current() -> Backend:
    """What keeps the locks of this project, made when it is first asked for.

    Raises ``SettingsError`` with every problem of ``UNSTUCK`` at once.
    """
    global _current
    if _current is None:
        _current = _of_the_project()
    return _current


def use(backend: Backend | None) -> None:
    """Have another one keep the locks from now on; ``None`` for the project's own."""
    global _current
    _current = backend


def at(url: str, options: Mapping[str, Any] | None = None) -> Backend:
    """Locks at a ``LOCK_URL``; ``options`` are transport options, as of a broker."""
    if url == DATABASE_LOCKS:
        backend: Any = symbol_by_name("unstuck.locks.database:DatabaseBackend")
        made: Backend = backend(conf.current().database)
        return made
    bounds = {**profile.REDIS_OPTIONS, **(options or {})}
    ours = url if url.startswith(OURS) else OURS + url
    return _in_redis(kombu.Connection(ours, transport_options=bounds))


def have_a_place() -> bool:
    """Whether this project can keep locks at all: in Redis, or in tables of ours."""
    url = conf.current().lock_url
    in_redis = _broker_in_redis() is not None if url is None else url != DATABASE_LOCKS
    return in_redis or _have_tables()


def _have_tables() -> bool:
    if not conf.has_our_tables():
        return False
    return connections[conf.current().database].vendor in BY_VENDOR


def _of_the_project() -> Backend:
    app, url = current_app(), conf.current().lock_url
    if url is not None:
        return at(url, app.conf.broker_transport_options if app else None)
    broker = _broker_in_redis()
    return at(DATABASE_LOCKS) if broker is None else _in_redis(broker)


def _broker_in_redis() -> Any:
    app = current_app()
    if app is not None:
        broker = app.connection_for_write()
        if broker.transport.driver_type == "redis":
            return broker
    return None


def _in_redis(connection: Any) -> Backend:
    # Who has no Redis need not have its client.
    from unstuck.locks.redis import RedisBackend

    return RedisBackend(connection.transport)


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "UNSTUCK":
        use(None)


setting_changed.connect(_forget)
