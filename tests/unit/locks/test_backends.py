"""Where the locks of a project live. Nothing is connected before a lock is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import celery
import pytest
from celery import _state
from django.test import override_settings

from tests.unit import dead
from unstuck import LocksUnreachable, lock
from unstuck.dev.ports import HOST, free_port
from unstuck.locks import backends


@pytest.fixture(autouse=True)
def _none_before_and_after() -> Iterator[None]:
    backends.use(None)
    yield
    backends.use(None)


@pytest.mark.parametrize(
    "url", ["redis://h:1/2", "unstuck+redis://h:1/2", "redis://h:1/2;redis://i:1/2"]
)
def test_on_the_broker_when_it_is_redis(url: str) -> None:
    """Ours or kombu's own transport."""
    with dead.celery_app(broker_url=url):
        found = backends.current()

        assert "h:1/2" in repr(found)
        assert backends.current() is found


def test_nothing_waits_without_bound() -> None:
    """Also with a Celery that is not ours, where sockets have no timeouts."""
    before = _state._tls.current_app
    app = celery.Celery("stock", broker="redis://h:1/2", set_as_current=True)
    try:
        kwargs = backends.current()._client.connection_pool.connection_kwargs  # type: ignore[attr-defined]
    finally:
        app.close()
        _state._set_current_app(before)

    assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"]) == (4, 2)


def test_where_the_setting_says() -> None:
    """Passwords are not shown."""
    with dead.celery_app(broker_url="redis://h:1/2"):
        with override_settings(UNSTUCK={"LOCK_URL": "redis://:secret@other:7/0"}):
            assert "other:7/0" in repr(backends.current())
            assert "secret" not in repr(backends.current())

        assert "h:1/2" in repr(backends.current())


def test_by_sentinel_with_the_options_of_the_broker() -> None:
    """``master_name`` and ``global_keyprefix`` among them."""
    url = "sentinel://a:1/0;sentinel://b:2/0"
    options = {"master_name": "main", "global_keyprefix": "shop:"}
    with (
        dead.celery_app(broker_transport_options=options),
        override_settings(UNSTUCK={"LOCK_URL": url}),
    ):
        assert "sentinel" in repr(backends.current())


def test_a_server_that_is_not_there() -> None:
    """It is named, without its password, and what to look at."""
    port = free_port()
    url = f"redis://:secret@{HOST}:{port}/0"
    with (
        override_settings(UNSTUCK={"LOCK_URL": url}),
        pytest.raises(LocksUnreachable, match=f"{port}.*LOCK_URL") as error,
        lock("name"),
    ):
        pytest.fail("it was taken")

    assert error.value.name == "name"
    assert "secret" not in str(error.value)
