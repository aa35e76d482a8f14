"""A process that holds a lock: `python -m tests.contract.lock_holder NAME LEASE`."""

from __future__ import annotations

import os
import sys

import django

from unstuck import LockError, lock
from unstuck.locks import backends


def main(name: str, lease: str) -> None:
    """Hold it until a line comes in; then say what became of it."""
    django.setup()
    backends.use(backends.at(os.environ["LOCK_URL"]))
    try:
        with lock(name, lease=float(lease)):
            print("held", flush=True)
            sys.stdin.readline()
    except LockError as error:
        print(type(error).__name__)
    else:
        print("left")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    main(*sys.argv[1:])
