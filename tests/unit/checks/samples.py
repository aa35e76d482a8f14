"""Functions of tasks as projects have them. They are read, and never run."""

from __future__ import annotations

import functools
import smtplib
import time
import urllib.request
from typing import Any

import celery
from celery import group
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult, allow_join_result
from django.core.mail import send_mail
from django.db import transaction

requests: Any = None
stripe: Any = None
pay: Any = None


class Polite(celery.Task):
    """A base class with a way of its own to say an option."""

    abstract = True

    @property
    def rate_limit(self) -> str:
        return "10/s"


def with_help(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(None, *args)

    return call


def plain(order: int) -> int:
    return order


def selfish(self: Any, order: int) -> int:
    return order


@with_help
def helped(self: Any, order: int) -> int:
    return order


def nobody() -> None: ...


def waits_at_once() -> Any:
    return pay.delay(1).get()


def waits_by_name() -> Any:
    result = pay.apply_async((1,))
    return result.get(timeout=5)


def waits_by_id(task_id: str) -> Any:
    return AsyncResult(task_id).get()


def waits_for_many() -> Any:
    return group([pay.s(1), pay.s(2)])().get()


def waits_as_allowed() -> Any:
    return pay.delay(1).get(disable_sync_subtasks=False)


def waits_with_leave() -> Any:
    with allow_join_result():
        return pay.delay(1).get()


def sends() -> Any:
    answers = {"a": 1}
    pay.delay(1)
    return answers.get("a")


def reuses_a_name() -> Any:
    result = pay.delay(1)
    result = {"id": result.id}
    again = pay.delay(2)
    return result.get(1), again.get("key")


def deaf() -> None:
    while True:
        try:
            time.sleep(1)
        except Exception:
            continue


def hears() -> None:
    while True:
        try:
            time.sleep(1)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            continue


def gives_up() -> None:
    while True:
        try:
            time.sleep(1)
        except Exception:
            raise


def asks(url: str) -> Any:
    return urllib.request.urlopen(url)


def asks_in_time(url: str) -> Any:
    smtplib.SMTP("localhost", 25, "me", 3)
    return urllib.request.urlopen(url, timeout=3)


def sleeps_long() -> None:
    time.sleep(60 * 10)


def sleeps() -> None:
    time.sleep(1)


def charges(amount: int) -> None:
    stripe.Charge.create(amount=amount)


def charges_once(amount: int, key: str) -> None:
    stripe.Charge.create(amount=amount, idempotency_key=key)


def charges_with_care(amount: int) -> None:
    """Harmless when it runs twice: the shop asks first."""
    stripe.Charge.create(amount=amount)


def mails_all(people: list[str]) -> None:
    for person in people:
        send_mail("Hello", "", "shop@example.com", [person])


def mails_one(person: str) -> None:
    send_mail("Hello", "", "shop@example.com", [person])


def retries_for_ever(self: Any) -> None:
    raise self.retry(max_retries=None)


def retries_later(self: Any) -> None:
    raise self.retry(countdown=2 * 3600)


def retries_soon(self: Any) -> None:
    raise self.retry(countdown=60, max_retries=5)


def joins() -> Any:
    return celery.chord([pay.s(1), pay.s(2)])(pay.s())


def groups() -> Any:
    return group([pay.s(1), pay.s(2)]).delay()


def sent_too_early() -> None:
    with transaction.atomic():
        pay.delay(1)


def sent_in_time() -> None:
    with transaction.atomic():
        transaction.on_commit(lambda: pay.delay(1))
        pay.delay_on_commit(1)
        pay.apply_async((1,), publish="on_commit")
    pay.delay(1)
