"""Tasks that end in every way there is."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from django.db import connection, transaction

from tests.project import ledger


def _run(task: Any, **facts: Any) -> None:
    ledger.write(
        "run", task=task.name, id=task.request.id, attempt=task.request.retries, **facts
    )


@shared_task(bind=True)
def add(self: Any, x: int, y: int) -> int:
    _run(self)
    return x + y


@shared_task(bind=True)
def fail(self: Any, message: str = "no") -> None:
    _run(self)
    raise ValueError(message)


@shared_task(bind=True)
def secretive(self: Any, password: str, *, data: dict[str, Any]) -> None:
    _run(self)
    raise ValueError("no")


@shared_task(bind=True, max_retries=2, default_retry_delay=0.2)
def retry(self: Any) -> None:
    _run(self)
    try:
        raise ValueError("still no")
    except Exception as error:
        raise self.retry(exc=error)


@shared_task(bind=True, max_retries=1, default_retry_delay=0.2)
def retry_when_told(self: Any, marker: str) -> None:
    _run(self)
    _wait_for(marker)
    raise self.retry(exc=ValueError("still no"))


@shared_task(bind=True)
def fail_when_told(self: Any, marker: str) -> None:
    _run(self)
    _wait_for(marker)
    raise ValueError("no")


def _wait_for(marker: str) -> None:
    while not os.path.exists(marker):
        time.sleep(0.02)


@shared_task(bind=True)
def retry_by_settings(self: Any) -> None:
    _run(self)
    raise self.retry(exc=ValueError("still no"))


@shared_task(bind=True, max_retries=2, default_retry_delay=0.2)
def retry_with_what_cannot_be_sent(self: Any) -> None:
    _run(self)
    raise self.retry(args=[object()])


@shared_task(bind=True)
def sleep(self: Any, seconds: float) -> None:
    _run(self)
    time.sleep(seconds)
    ledger.write("end", id=self.request.id)


@shared_task(bind=True, lock="only:{number}", lock_from="publish", on_busy="skip")
def unique(self: Any, number: int) -> None:
    _run(self)


@shared_task(bind=True)
def sleep_once(self: Any, seconds: float, marker: str) -> None:
    _run(self)
    if not os.path.exists(marker):
        with open(marker, "w"):
            time.sleep(seconds)
    ledger.write("end", id=self.request.id)


@shared_task(bind=True, time_limit=4, soft_time_limit=1)
def soft(self: Any) -> None:
    _run(self)
    for _ in range(1000):
        time.sleep(0.01)


@shared_task(bind=True, time_limit=4, soft_time_limit=1)
def soft_handled(self: Any) -> str:
    _run(self)
    try:
        for _ in range(1000):
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "handled"
    return "never"


@shared_task(
    bind=True,
    time_limit=4,
    soft_time_limit=1,
    retry_on_limit=True,
    default_retry_delay=0.2,
)
def soft_retried(self: Any) -> None:
    _run(self)
    if self.request.retries == 0:
        for _ in range(1000):
            time.sleep(0.01)


@shared_task(bind=True, time_limit=2, soft_time_limit=1)
def hard(self: Any) -> None:
    _run(self)
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


@shared_task(
    bind=True,
    time_limit=2,
    soft_time_limit=1,
    retry_on_limit=True,
    max_retries=1,
    default_retry_delay=0.2,
)
def hard_retried(self: Any) -> None:
    _run(self)
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


@shared_task(bind=True, time_limit=2)
def hold_the_gil(self: Any) -> None:
    _run(self)
    ctypes.PyDLL(None).sleep(600)


@shared_task(bind=True)
def kill(self: Any) -> None:
    _run(self)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True)
def kill_once(self: Any, marker: str) -> str:
    _run(self)
    if not os.path.exists(marker):
        with open(marker, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@shared_task(bind=True)
def segfault(self: Any) -> None:
    _run(self)
    ctypes.string_at(0)


@shared_task(bind=True)
def os_exit(self: Any) -> None:
    _run(self)
    os._exit(7)


@shared_task(bind=True, acks_late=False)
def kill_at_most_once(self: Any) -> None:
    _run(self)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True, acks_late=False)
def add_at_most_once(self: Any, x: int, y: int) -> int:
    _run(self)
    return x + y


@shared_task(bind=True)
def reject(self: Any) -> None:
    _run(self)
    raise Reject("not wanted", requeue=False)


@shared_task(bind=True)
def reject_once(self: Any, marker: str) -> str:
    _run(self)
    if not os.path.exists(marker):
        with open(marker, "w"):
            raise Reject("later", requeue=True)
    return "taken"


@shared_task(bind=True)
def ignore(self: Any) -> None:
    _run(self)
    raise Ignore


@shared_task
def note(*args: Any, **facts: Any) -> None:
    """A callback, errback or chord body: says that it was called."""
    ledger.write("note", args=[repr(arg) for arg in args], **facts)


class Base(Task):
    """A base class of a project's own."""

    def on_failure(
        self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        ledger.write("on_failure", id=task_id, exception=type(exc).__name__)


@shared_task(bind=True, base=Base)
def fail_with_base(self: Any) -> None:
    _run(self)
    raise ValueError("no")


@shared_task(bind=True, base=Base)
def kill_with_base(self: Any) -> None:
    _run(self)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True, base=Base, time_limit=2, soft_time_limit=1)
def hard_with_base(self: Any) -> None:
    _run(self)
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


@shared_task(bind=True)
def add_in_transaction(self: Any, taken_back: bool) -> None:
    """Publishes `add` in a transaction, which is kept or rolled back."""
    try:
        with transaction.atomic():
            _run(self, child=add.delay(1, 2).id)
            if taken_back:
                raise ValueError("no")
    except ValueError:
        pass


@shared_task(bind=True, max_retries=1, default_retry_delay=0.1)
def retry_in_transaction(self: Any) -> None:
    """Its retry rolls the transaction back that it is raised in."""
    with transaction.atomic():
        _run(self)
        add.delay(1, 2)
        if not self.request.retries:
            raise self.retry()


@shared_task(bind=True)
def replace_in_transaction(self: Any) -> None:
    """So does what replaces it."""
    with transaction.atomic():
        _run(self)
        raise self.replace(add.si(3, 4))


def _meet(task: Any, mine: str, others: str, markers: str) -> None:
    """Lock a row, and once the other one is locked, too, that one as well."""
    _run(task)
    with transaction.atomic(), connection.cursor() as cursor:
        update = "UPDATE item SET number = number + 1 WHERE name = %s"
        cursor.execute(update, [mine])
        with open(f"{markers}/{mine}", "w"):
            _wait_for(f"{markers}/{others}")
        cursor.execute(update, [others])


@shared_task(bind=True)
def meet(self: Any, mine: str, others: str, markers: str) -> None:
    _meet(self, mine, others, markers)


@shared_task(bind=True, retry_on_deadlock=True, default_retry_delay=0.2)
def meet_again(self: Any, mine: str, others: str, markers: str) -> None:
    _meet(self, mine, others, markers)
