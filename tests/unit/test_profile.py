"""Every safe default takes effect, and gives way to what the project says."""

from __future__ import annotations

from typing import Any

import celery
import kombu
import pytest
from celery.app import defaults

from tests.unit.worker.projects import empty, project
from unstuck import Celery
from unstuck.profile import (
    AMQP_OPTIONS,
    PROFILE,
    PUBLISH_SECONDS,
    REDIS_OPTIONS,
    transport_options,
)

INTERFACE: dict[str, Any] = {
    "task_time_limit": 300,
    "task_soft_time_limit": 270,
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "worker_pool": "unstuck.pool:TaskPool",
    "worker_max_tasks_per_child": 100,
    "task_max_retries": 3,
    "task_default_retry_delay": 60,
    "task_retry_backoff": False,
    "task_retry_backoff_max": 3600,
    "task_retry_jitter": True,
    "task_publish": "at_once",
    "worker_soft_shutdown_timeout": 25,
}
"""The table of interface.md; how long the broker may block follows below."""

SINCE_5_7 = {"broker_pool_acquire_timeout"}
"""Celery 5.6 does not know it and waits for a free connection without end."""

OURS = {
    "task_max_retries",
    "task_default_retry_delay",
    "task_retry_backoff",
    "task_retry_backoff_max",
    "task_retry_jitter",
    "task_publish",
}
"""Settings that stock Celery does not have."""

PINNED = {"broker_connection_timeout"}
"""Celery's own values that a promise of ours rests on, whatever Celery makes of them."""

OTHER: dict[str, Any] = {
    "task_time_limit": 77,
    "task_soft_time_limit": 33,
    "task_acks_late": False,
    "task_reject_on_worker_lost": False,
    "worker_prefetch_multiplier": 9,
    "worker_pool": "prefork",
    "worker_max_tasks_per_child": None,
    "task_max_retries": 12,
    "task_default_retry_delay": 5,
    "task_retry_backoff": 2,
    "task_retry_backoff_max": 99,
    "task_retry_jitter": False,
    "task_publish": "on_commit",
    "worker_soft_shutdown_timeout": 0,
    "broker_connection_timeout": 30,
    "broker_connection_retry_on_startup": False,
    "broker_connection_max_retries": 7,
    "worker_enable_prefetch_count_reduction": True,
    "broker_pool_acquire_timeout": None,
    "task_publish_retry_policy": {"max_retries": 9},
    "redis_socket_connect_timeout": 30,
    "redis_socket_timeout": 120,
    "result_backend_transport_options": {"retry_policy": {"max_retries": 9}},
}
"""What a project could want instead."""


@pytest.fixture(autouse=True)
def _no_broker_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)


@pytest.mark.parametrize(("name", "value"), INTERFACE.items())
def test_a_default_of_the_interface_is_in_force(name: str, value: Any) -> None:
    """Where the project says nothing, the value of interface.md holds."""
    assert project().conf[name] == value
    assert getattr(project().conf, name) == value


@pytest.mark.parametrize(("name", "value"), OTHER.items())
@pytest.mark.parametrize("namespace", ["CELERY", None])
def test_the_project_wins(name: str, value: Any, namespace: str | None) -> None:
    """Its own value holds, with the namespace of Django projects and without one."""
    app = project(namespace=namespace, **{name: value})

    assert app.conf[name] == value


def test_this_test_has_another_value_for_each_default() -> None:
    """A new row needs one here."""
    assert set(OTHER) == {row.name for row in PROFILE}
    for row in PROFILE:
        assert OTHER[row.name] != row.value


@pytest.mark.parametrize("row", PROFILE, ids=lambda row: row.name)
def test_each_row_is_a_setting_that_somebody_reads(row: Any) -> None:
    """A typing error would be a default without effect."""
    known = {*defaults.DEFAULTS, *SINCE_5_7}
    assert (row.name in known) is (row.name not in OURS)


@pytest.mark.parametrize("row", PROFILE, ids=lambda row: row.name)
def test_each_row_says_why_and_differs_from_celery(row: Any) -> None:
    """A default that changes nothing would be a promise of somebody else's."""
    assert row.why
    same = row.name in defaults.DEFAULTS and defaults.DEFAULTS[row.name] == row.value
    assert same is (row.name in PINNED)


def test_the_soft_default_is_nine_tenths_of_the_hard_one() -> None:
    """The two rows agree with the rule."""
    by_name = {row.name: row.value for row in PROFILE}

    assert by_name["task_soft_time_limit"] == 0.9 * by_name["task_time_limit"]


def test_stock_celery_is_left_alone() -> None:
    """Only our class has our defaults."""
    stock = celery.Celery("stock", set_as_current=False)
    project().conf.task_time_limit  # noqa: B018 - loads our settings

    assert stock.conf.task_time_limit is None
    assert "task_max_retries" not in stock.conf


def test_two_apps_do_not_share_a_layer() -> None:
    """Each has its own settings over its own defaults."""
    one, other = project(task_time_limit=60), project()

    assert (one.conf.task_time_limit, other.conf.task_time_limit) == (60, 300)


# What a broker's silence can cost.


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://h", REDIS_OPTIONS),
        ("rediss://h", REDIS_OPTIONS),
        ("redis+socket:///run/redis.sock", REDIS_OPTIONS),
        ("sentinel://h", REDIS_OPTIONS),
        ("unstuck+redis://h", REDIS_OPTIONS),
        ("valkey://h", REDIS_OPTIONS),
        ("amqp://h", AMQP_OPTIONS),
        ("amqps://h", AMQP_OPTIONS),
        ("pyamqp://h", AMQP_OPTIONS),
        (None, AMQP_OPTIONS),
        ("memory://", {}),
        ("sqs://", {}),
    ],
)
def test_each_broker_gets_the_options_that_it_knows(
    url: str | None, options: Any
) -> None:
    """An option of another transport would be ignored at best."""
    assert transport_options(url) == options


@pytest.mark.parametrize(
    ("url", "options"), [("redis://h", REDIS_OPTIONS), ("amqp://h", AMQP_OPTIONS)]
)
def test_connections_are_bounded(url: str, options: Any) -> None:
    """Those that publish and those that consume."""
    app = project(url)

    for connection in (app.connection_for_write(), app.connection_for_read()):
        assert {**connection.transport_options, **options} == (
            connection.transport_options
        )
        assert connection.connect_timeout == 4


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("redis://h", {"socket_connect_timeout": 2, "socket_keepalive": True}),
        ("amqp://h", {"confirm_publish": True, "write_timeout": PUBLISH_SECONDS}),
    ],
)
@pytest.mark.parametrize("namespace", ["CELERY", None])
def test_one_option_of_the_project_does_not_take_the_others_away(
    url: str, kept: dict[str, Any], namespace: str | None
) -> None:
    """A dict is one value to Celery; to us each key is one."""
    own = {"socket_timeout": 99, "read_timeout": 99, "visibility_timeout": 1}

    app = project(url, namespace, broker_transport_options=own)

    options = app.conf.broker_transport_options
    assert {**options, **own, **kept} == options
    assert app.connection_for_write().transport_options["socket_timeout"] == 99


def test_one_option_of_the_result_store_does_not_take_the_others_away() -> None:
    """Likewise for `result_backend_transport_options`."""
    app = project(result_backend_transport_options={"global_keyprefix": "shop_"})

    options = app.conf.result_backend_transport_options
    assert options["global_keyprefix"] == "shop_"
    assert options["retry_policy"]["max_retries"] == 1


def test_options_that_are_set_on_the_app_are_laid_over_ours_too() -> None:
    """As `app.conf.x = …` in proj/celery.py, before the first use."""
    app = project("redis://h")
    app.conf.broker_transport_options = {"socket_timeout": 99}

    assert app.conf.broker_transport_options == {**REDIS_OPTIONS, "socket_timeout": 99}


def test_options_that_are_set_later_are_laid_over_ours_too() -> None:
    """The same line after something has read a setting."""
    app = project("redis://h")
    app.conf.task_time_limit  # noqa: B018 - loads the settings
    app.conf.broker_transport_options = {"socket_timeout": 99}

    options = app.connection_for_write().transport_options
    assert options["socket_connect_timeout"] == 2


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_brokers_can_be_given(kind: type) -> None:
    """Celery fails over between them; one transport, one set of options."""
    urls = kind(["redis://a", "redis://b"])

    assert transport_options(urls) == REDIS_OPTIONS


def test_several_brokers_in_one_string_are_bounded_too() -> None:
    """Separated by semicolons, as kombu reads it."""
    assert transport_options("redis://a;redis://b") == REDIS_OPTIONS


def test_a_publish_waits_for_no_confirm_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every way to send goes through `send_task`; a caller's own timeout wins."""
    app = project()
    seen: list[Any] = []
    publish = kombu.Producer.publish

    def watch(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(options.get("confirm_timeout"))
        return publish(self, *args, **options)

    monkeypatch.setattr(kombu.Producer, "publish", watch)

    @app.task(shared=False)
    def send() -> None: ...

    send.delay()
    send.s().apply_async()
    app.send_task("by.name")
    send.apply_async(confirm_timeout=1)
    empty(app)

    assert seen == [PUBLISH_SECONDS] * 3 + [1]


# When tasks are bound.


def test_periodic_tasks_can_be_set_up_as_celery_s_guide_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`on_after_configure` uses tasks, and so binds them: our layer must be there."""
    app = project()

    @app.on_after_configure.connect
    def setup(sender: Celery, **_: Any) -> None:
        sender.add_periodic_task(10.0, tick.s(), name="tick")

    @app.task(shared=False)
    def tick() -> None: ...

    schedule = app.conf.beat_schedule

    assert "raised" not in caplog.text
    assert "tick" in schedule
    assert (tick.acks_late, tick.max_retries, tick.time_limit) == (True, 3, 300)
