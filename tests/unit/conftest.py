"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit import dead
from unstuck import Celery


@pytest.fixture
def app() -> Iterator[Celery]:
    """A Celery app of ours, in use, on an empty broker in this process."""
    with dead.celery_app() as app:
        yield app
