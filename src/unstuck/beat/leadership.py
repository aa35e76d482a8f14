"""Which beat sends: the one that holds a lock, and knows that it does.

A lease is believed only by our own clock and only with a margin, and the server is asked
before each message: a beat that was stopped, or cut off, has stopped sending by the time
another one may begin.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Protocol

from unstuck.core.errors import LockBusy, LockError
from unstuck.fields import Fields
from unstuck.locks import backends, holding, taking
from unstuck.locks.holding import Holding

logger = logging.getLogger(__name__)

LEASE_SECONDS = 6.0
MARGIN_SECONDS = 1.0

NAME = "unstuck.beat:"
"""What the lock of an app's beats is called, before the name of the app."""


class Leadership(Protocol):
    """The right to send, and the notes of whoever had it."""

    @property
    def is_ours(self) -> bool:
        """Whether nobody else can have it now."""

    def ask(self) -> bool:
        """Take it, if nobody has it; whether it is ours."""

    def confirm(self) -> None:
        """Make sure of it for long enough to send something. Raises ``LockError``."""

    def give_up(self) -> None:
        """Let the next one have it at once."""

    def notes(self) -> dict[str, str]:
        """What those who had it wrote down. Raises ``LockError``."""

    def note(self, notes: Mapping[str, str]) -> None:
        """Write it down for whoever has it next. Raises ``LockError``."""


class Elected:
    """Leadership by a lock, which dies with its holder."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._held: Holding | None = None
        self._is_unreachable = False

    @property
    def is_ours(self) -> bool:
        """Whether nobody else can have the lock now."""
        held = self._held
        if held is None or held.lost:
            return False
        return time.monotonic() < held.renewed_at + held.lease - MARGIN_SECONDS

    def ask(self) -> bool:
        """Take the lock, if nobody has it; what keeps locks may be away."""
        self.give_up()
        try:
            self._held = taking.take(self._name, wait=0, lease=LEASE_SECONDS)
        except LockBusy:
            self._say_reached()
        except LockError as error:
            self._say_unreachable(error)
        else:
            self._say_reached()
        return self.is_ours

    def confirm(self) -> None:
        """Renew the lease, so that a whole one is ahead."""
        if self._held is not None and self.is_ours:
            holding.renew([self._held.claim], self._held.lease)
        if not self.is_ours:
            raise LockError("another beat may lead by now", name=self._name)

    def give_up(self) -> None:
        """Release the lock; if that cannot be told, its lease will end."""
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(LockError):
                taking.give_back([held], None)

    def notes(self) -> dict[str, str]:
        """What those who held the lock wrote down."""
        return backends.current().notes(self._name)

    def note(self, notes: Mapping[str, str]) -> None:
        """Write it down, unless somebody else holds the lock by now."""
        held = self._held
        if held is not None and not held.backend.note(held.claim, notes):
            held.lost = True

    def _say_unreachable(self, error: LockError) -> None:
        if not self._is_unreachable:
            logger.error(
                "Beat cannot ask whether another one leads, and sends nothing until it "
                "can: %(fields)s",
                Fields(error=error),
            )
        self._is_unreachable = True

    def _say_reached(self) -> None:
        if self._is_unreachable:
            logger.warning("Beat can ask again which one leads")
        self._is_unreachable = False


class Alone:
    """Leadership where there is no place for a lock: every beat believes it leads."""

    is_ours = True

    def ask(self) -> bool:
        """It is ours."""
        return True

    def confirm(self) -> None:
        """It is ours."""

    def give_up(self) -> None:
        """Nobody waits for it."""

    def notes(self) -> dict[str, str]:
        """None."""
        return {}

    def note(self, notes: Mapping[str, str]) -> None:
        """Nobody reads them."""


def leadership_of(name: str) -> Leadership:
    """Leadership of the beats of this name, by the locks of the project."""
    if backends.have_a_place():
        return Elected(name)
    logger.warning(
        "This project has no place for locks, neither Redis nor our tables in PostgreSQL "
        'or SQLite: run one beat only, two would send everything twice. UNSTUCK["LOCK_URL"] '
        "may name a Redis."
    )
    return Alone()


def name_for(app: object) -> str:
    """What the beats of this app are called together."""
    return NAME + str(getattr(app, "main", None) or "celery")
