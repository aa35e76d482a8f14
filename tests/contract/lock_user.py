"""A process that takes locks at random: `python -m tests.contract.lock_user LEDGER NAMES`.

Each line of the ledger is written at once: `in NAME FENCE PID` when it has a lock, `out NAME
FENCE PID` while it still has it.
"""

from __future__ import annotations

import os
import random
import sys
import time

import django

from unstuck import LockError, lock
from unstuck.locks import backends


def main(ledger: str, *names: str) -> None:
    """Until somebody kills it."""
    django.setup()
    backends.use(backends.at(os.environ["LOCK_URL"]))
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        name = random.choice(names)
        try:
            with lock(name, wait=30, lease=3) as held:
                said = f"{name} {held.fence} {os.getpid()}\n"
                os.write(file, f"in {said}".encode())
                time.sleep(random.uniform(0, 0.02))
                held.check()
                os.write(file, f"out {said}".encode())
        except LockError as error:
            os.write(file, f"{type(error).__name__} {name} 0 {os.getpid()}\n".encode())


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    main(*sys.argv[1:])
