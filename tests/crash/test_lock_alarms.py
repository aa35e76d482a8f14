"""No deadlock is found where none can be, however many take locks at random."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.lock_places import random_nests
from tests.crash.chaos import sized
from unstuck.locks import backends


@pytest.mark.timeout(sized(240, 3600))
def test_a_million_locks_and_no_alarm(valkey: Any) -> None:
    """Of sixteen owners, each takes several within each other, in one order."""
    valkey.flush()
    backend = backends.at(valkey.url(0))
    backends.use(backend)
    try:
        random_nests(backend, owners=16, locks=sized(3000, 1_000_000))
    finally:
        backends.use(None)
