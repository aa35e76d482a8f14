"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakSet

import pytest
from celery import _state

from tests.unit import dead
from unstuck import Celery


@pytest.fixture(autouse=True)
def _no_app_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that nobody has collected yet: the only one there is would be in use."""
    monkeypatch.setattr(_state, "_apps", WeakSet())
    monkeypatch.setattr(_state._tls, "current_app", None)


@pytest.fixture
def app() -> Iterator[Celery]:
    """A Celery app of ours, in use, on an empty broker in this process."""
    with dead.celery_app() as app:
        yield app
