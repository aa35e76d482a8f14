"""Who leads, by our own clock."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.unit import dead
from unstuck import Celery
from unstuck.beat import leadership
from unstuck.beat.leadership import Alone, Elected, leadership_of, name_for
from unstuck.core.errors import LockError
from unstuck.locks import backends
from unstuck.locks.backend import Backend
from unstuck.locks.owner import new_owner, owned_by


@pytest.fixture
def locks(app: Celery, db: None) -> Any:
    """In the database, as the broker is no Redis."""
    backends.use(None)
    yield backends.current()
    backends.use(None)


def test_one_of_two_leads(locks: Backend) -> None:
    """The other one when it is given up; what the first wrote down stays."""
    one, two = Elected("unstuck.beat:a"), Elected("unstuck.beat:a")
    with owned_by(new_owner()):
        assert one.ask()
        one.note({"x": "1"})
        with owned_by(new_owner()):
            assert not two.ask()
            with pytest.raises(LockError, match="another beat may lead"):
                two.confirm()
        one.give_up()
    with owned_by(new_owner()):
        assert two.ask()
        assert two.notes() == {"x": "1"}
        two.give_up()


def test_a_lease_is_not_believed_to_its_end(locks: Backend, monkeypatch: Any) -> None:
    """A second before it is over by our own clock, it is over."""
    one = Elected("unstuck.beat:b")
    with owned_by(new_owner()):
        assert one.ask()
        now = time.monotonic()
        monkeypatch.setattr(leadership.time, "monotonic", lambda: now + 5.1)
        assert not one.is_ours
        with pytest.raises(LockError, match="another beat may lead"):
            one.confirm()
        monkeypatch.undo()
        one.give_up()


def test_whose_lock_was_taken_away_does_not_lead(locks: Backend) -> None:
    """It learns of it when it asks, which it does before it sends."""
    one = Elected("unstuck.beat:c")
    with owned_by(new_owner()):
        assert one.ask()
        locks.evict("unstuck.beat:c")
        with pytest.raises(LockError, match="another beat may lead"):
            one.confirm()
        assert not one.is_ours


@pytest.mark.parametrize("why", ["no tables", "MySQL"])
def test_without_a_place_for_locks_one_beat_sends(
    why: str, settings: Any, caplog: Any, monkeypatch: Any
) -> None:
    """And says that there must not be two."""
    if why == "MySQL":
        monkeypatch.setattr(backends, "BY_VENDOR", {})
    else:
        settings.INSTALLED_APPS = [
            name for name in settings.INSTALLED_APPS if name != "unstuck"
        ]
    backends.use(None)
    with dead.celery_app() as app:
        found = leadership_of(name_for(app))

    assert isinstance(found, Alone)
    assert "run one beat only" in caplog.text
    assert name_for(app) == "unstuck.beat:shop"
    assert found.ask()
    found.confirm()
    assert found.is_ours
    assert found.notes() == {}
