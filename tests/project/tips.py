"""The tasks of tips.md as they stand there, with seconds in place of minutes.

A worker imports them with `-I tests.project.tips`. What stands for "Task Logic" notes
in the ledger that it runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any, NoReturn

import redis
from celery import current_task, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

from tests.project import ledger

REDIS_PORT = "TIPS_REDIS_PORT"
"""The variable that tells where the tip's `redis.StrictRedis()` finds a server."""

logger = get_task_logger(__name__)


def _note(event: str = "run") -> None:
    request = current_task.request
    ledger.write(event, id=request.id, attempt=request.retries, node=request.hostname)


def _hang() -> NoReturn:
    _note()
    while True:
        time.sleep(0.01)


def _deadlock() -> None:
    """Hang in C, where no Python exception can arrive, soft limit included."""
    _note()
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def _wait_for(path: str) -> None:
    _note()
    while not os.path.exists(path):
        time.sleep(0.01)
    _note("end")


# 1.1


@shared_task(time_limit=2)
def hard_time_limit():
    # Task Logic
    _deadlock()


@shared_task
def hang_in_c():
    _deadlock()


# 1.2


@shared_task(soft_time_limit=1)
def soft_time_limit():
    try:
        # Task Logic
        _hang()
    except SoftTimeLimitExceeded:
        # Graceful 종료
        print("Task exceeded soft time limit and will terminate.")


@shared_task(soft_time_limit=1)
def soft_time_limit_not_caught():
    _hang()


@shared_task
def hang_gracefully():
    try:
        _hang()
    except SoftTimeLimitExceeded:
        print("Task exceeded soft time limit and will terminate.")


@shared_task
def hang():
    _hang()


# 2


@shared_task
def log_and_raise():
    try:
        # Task Logic
        _note()
        _divide(1, 0)
    except Exception as e:
        # 예외 로깅
        import logging

        logging.error(f"Task failed: {e}")
        raise e  # 필요시 재시도를 위해 예외를 다시 던질 수 있음


def _divide(x: int, y: int) -> float:
    return x / y


# 3


@shared_task(bind=True, max_retries=3, default_retry_delay=1)
def retry(self):
    try:
        # Task Logic
        _note()
        raise ConnectionError("still away")
    except Exception as e:
        # 예외가 발생하면 재시도
        raise self.retry(exc=e)


@shared_task(bind=True)
def retry_by_settings(self):
    try:
        _note()
        raise ConnectionError("still away")
    except Exception as e:
        raise self.retry(exc=e)


# 4, 5, 6


@shared_task
def wait_for(path: str) -> str:
    _wait_for(path)
    return "done"


@shared_task
def add(x: int, y: int) -> int:
    _note()
    return x + y


@shared_task
def kill() -> None:
    _note()
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def fail_without(path: str) -> str:
    _note()
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    return "done"


# 7


@shared_task
def lock(path: str) -> None:
    client = redis.StrictRedis(port=int(os.environ[REDIS_PORT]))
    lock = client.lock("my_task_lock", timeout=300)  # 5분

    if not lock.acquire(blocking=False):
        logger.warning("Task is already running.")
        return

    try:
        # Task Logic
        _wait_for(path)
    finally:
        lock.release()


# The recommended settings


@shared_task(time_limit=60)
def one_minute() -> list[Any]:
    _note()
    return [current_task.time_limit, current_task.soft_time_limit]
