"""Waiting for something to become true, bounded, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_SECONDS = 0.02


def eventually(probe: Callable[[], T], seconds: float = 10.0) -> T:
    """Call `probe` until it returns something true, and return that.

    An `AssertionError` inside `probe` means "not yet". Once `seconds` are over, the
    last one, or one with the last value, is the failure of the test.
    """
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            value = probe()
            failure = AssertionError(f"still {value!r} after {seconds:g} s")
        except AssertionError as error:
            failure = error
        else:
            if value:
                return value
        if time.monotonic() >= give_up_at:
            raise failure
        time.sleep(PAUSE_SECONDS)
