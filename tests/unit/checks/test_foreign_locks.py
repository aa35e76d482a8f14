"""W009: tasks that take locks of Redis or of the cache by themselves."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from django.core.cache import cache, caches
from redis.lock import Lock
from redis.lock import Lock as RedisLock

import unstuck
from unstuck import Celery
from unstuck.checks.foreign_locks import foreign_locks
from unstuck.checks.tasks import locks_that_are_not_ours

a_client = redis.Redis()
ours = unstuck.lock


def task_of(function: Any, **options: Any) -> Any:
    """A task that runs this function."""
    app = Celery("shop", set_as_current=False)
    return app.task(name="shop.report", shared=False, **options)(function)


def as_in_the_tips() -> None:
    """The client is a variable of the task."""
    client = redis.StrictRedis()
    lock = client.lock("my_task_lock", timeout=300)
    lock.acquire(blocking=False)


def with_a_client_of_the_module() -> None:
    with a_client.lock("x"):
        pass


def imports_it_itself() -> None:
    from redis import Redis as Client

    with Client().lock("x", timeout=5):
        pass


def makes_the_lock() -> None:
    Lock(a_client, "x").acquire()


def makes_it_by_another_name() -> None:
    with RedisLock(a_client, "x") as held:
        held.extend(1)


def by_the_cache() -> None:
    with cache.lock("x", timeout=5):  # type: ignore[attr-defined]
        pass


def by_a_certain_cache() -> None:
    with caches["default"].lock("x"):  # type: ignore[attr-defined]
        pass


def by_a_key_of_the_cache() -> None:
    if cache.add("x", 1, 60):
        cache.delete("x")


def by_what_is_only_called_so(self: Any = None) -> None:
    self.redis_client.lock("x")


TAKES = [
    as_in_the_tips,
    with_a_client_of_the_module,
    imports_it_itself,
    makes_the_lock,
    makes_it_by_another_name,
    by_the_cache,
    by_a_certain_cache,
    by_a_key_of_the_cache,
    by_what_is_only_called_so,
]


@pytest.mark.parametrize("function", TAKES)
@pytest.mark.parametrize("options", [{}, {"autoretry_for": (ValueError,)}])
def test_a_lock_that_is_not_ours_is_found(
    function: Any, options: dict[str, Any]
) -> None:
    """With the file and the line where it is taken."""
    (found,) = foreign_locks(task_of(function, **options))

    path, _, line = found.where.rpartition(":")
    first = function.__code__.co_firstlineno
    assert path == __file__
    assert first < int(line) <= first + 4
    assert found.name in ("x", "my_task_lock")


def by_ours() -> None:
    with ours("x"), unstuck.lock("y"), unstuck.lock.many(["z"]):
        pass


def within_the_process(self: Any = None) -> None:
    with threading.Lock(), self.door.lock():
        cache.add("seen", 1)
        cache.delete("other")
        a_client.get("x")


@pytest.mark.parametrize("function", [by_ours, within_the_process])
def test_all_else_is_fine(function: Any) -> None:
    """Ours, those of threads, and what caches and clients are for."""
    assert foreign_locks(task_of(function)) == []


def test_a_task_without_source_is_fine() -> None:
    """Made at run time, or of no Python at all."""
    space: dict[str, Any] = {"client": a_client}
    exec("def made():\n    client.lock('x')", space)

    assert foreign_locks(task_of(space["made"])) == []


def test_a_task_that_is_installed_is_fine() -> None:
    """Nobody can change it."""
    task = task_of(redis.Redis.lock)

    assert list(locks_that_are_not_ours(task.app)) == []
    assert foreign_locks(task) == []


def test_the_message_says_what_to_write() -> None:
    """For the tip as it stands: the task, the line, why, and what instead."""
    app = task_of(as_in_the_tips).app

    (message,) = locks_that_are_not_ours(app)

    assert message.id == "unstuck.W009"
    assert message.obj == "shop.report"
    assert "shop.report takes a lock by client.lock(…)" in message.msg
    assert f"{__file__}:" in message.msg
    assert "outlives the timeout" in message.msg
    assert '@shared_task(lock="my_task_lock", on_busy="skip")' in message.hint
    assert 'unstuck.lock("my_task_lock")' in message.hint
