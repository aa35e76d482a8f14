"""A shop that takes orders in transactions, and dies whenever it likes.

    python -m tests.project.orders FIRST COUNT DEADLY SEED

An order is a row and up to three tasks; a third of the orders is rolled back. A share of
``DEADLY`` ends the process between the commit and the sending of its messages.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Any

import django
from django.db import connection, transaction

from tests.project import ledger
from tests.project.app import app
from tests.project.tasks import add

PAUSE_SECONDS = 0.01


class TakenBack(Exception):
    """Rolls an order back."""


def take_orders(first: int, count: int, deadly: float, dice: random.Random) -> None:
    """Take orders, one transaction each."""
    for number in range(first, first + count):
        ledger.write("order", number=number)
        dies = dice.random() < deadly
        try:
            with transaction.atomic():
                take(number, dice, dies)
        except TakenBack:
            pass
        time.sleep(dice.random() * 2 * PAUSE_SECONDS)


def take(number: int, dice: random.Random, dies: bool) -> None:
    """One order, within its transaction."""
    if dies:
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    for _ in range(dice.randint(1, 3)):
        try:
            # A part of it may be taken back as well.
            with transaction.atomic():
                save(number, add.delay(number, 1))
                if dice.random() < 0.1:
                    raise TakenBack
        except TakenBack:
            pass
    if dice.random() < 1 / 3:
        raise TakenBack


def save(number: int, result: Any) -> None:
    """The row that says whether the task must run."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (%s, %s)", [number, result.id])


if __name__ == "__main__":
    django.setup()
    app.finalize()
    first, count, deadly, seed = sys.argv[1:]
    take_orders(int(first), int(count), float(deadly), random.Random(seed))
