"""What tests of the checks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import _state


@pytest.fixture(autouse=True)
def _know_no_tasks_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each app gets the shared tasks of all modules that other tests have imported."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set())


@pytest.fixture(autouse=True)
def _leave_no_app_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a Django project the last app that was made is the one in use, also for others."""
    monkeypatch.setattr(_state, "default_app", _state.default_app)
    before = set(_state._get_active_apps())
    yield
    for app in set(_state._get_active_apps()) - before:
        app.close()
