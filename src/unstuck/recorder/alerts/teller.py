"""Telling, beside the other chores: nobody waits for a target."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Thread

from django.db import connections

from unstuck.core.alerts import Target, without_secrets
from unstuck.core.clock import system_clock
from unstuck.fields import Fields
from unstuck.models import Alert
from unstuck.recorder.alerts import rows
from unstuck.recorder.alerts.message import Message, message_of
from unstuck.recorder.alerts.sending import send
from unstuck.recorder.database import writing

GIVE_UP_SECONDS = 20.0
"""A target that has not taken a message by then has failed."""

MOST_HANGING = 10
"""So many messages are left with a target that does not let them go; then it gets no more:
each holds a thread, and what its function has opened."""

logger = logging.getLogger(__name__)


class Call:
    """One message on its way to one target, in a thread of its own.

    What a target does to us (hang, raise, exit) ends there.
    """

    def __init__(
        self,
        target: Target,
        message: Message,
        told: Sequence[Alert] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``told``: the rows that the message is of."""
        self.target, self.rows = target, told
        self.error = ""
        self.is_given_up = False
        self._message = message
        self._monotonic = monotonic
        self._until = monotonic() + GIVE_UP_SECONDS
        # Nothing waits for it at the end of the process: the next leader tells again.
        self._thread = Thread(target=self._send, name="unstuck alert", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether the target has let us go."""
        return not self._thread.is_alive()

    @property
    def is_late(self) -> bool:
        """Whether it has taken too long."""
        return not self.has_ended and self._monotonic() >= self._until

    def wait(self) -> str:
        """Its error, empty when all went well, after as long as it may take."""
        self._thread.join(max(0.0, self._until - self._monotonic()))
        return self.error if self.has_ended else late()

    def _send(self) -> None:
        try:
            send(self.target.to, self._message)
        except BaseException as error:
            words = f"{type(error).__name__}: {str(error).strip()}"
            self.error = without_secrets(words.replace(self.target.to, "…"))
        finally:
            # A function of the project may have opened some.
            connections.close_all()


def late() -> str:
    """What is said of a target that takes too long."""
    return f"it did not take the message within {GIVE_UP_SECONDS:g} s"


class Teller:
    """Tells each target what is due, one message at a time."""

    def __init__(
        self,
        targets: Sequence[Target],
        clock: Callable[[], datetime] = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._targets = targets
        self._clock, self._monotonic = clock, monotonic
        self._calls: list[Call] = []
        self._failing: set[str] = set()

    def work(self) -> bool:
        """Note what came of messages, and send those that are due.

        Returns at once; there is never more to do.
        """
        self._note()
        with writing() as alias:
            free = [one for one in self._targets if self._is_free(one)]
            found = [(one, rows.due(alias, one, self._clock())) for one in free]
        for target, due in found:
            if due:
                message = message_of(due)
                self._calls.append(Call(target, message, due, self._monotonic))
        return False

    def _note(self) -> None:
        """Store how calls ended. One that never ends is noted, and left to itself."""
        for call in list(self._calls):
            if call.has_ended:
                # Late is well enough, else it would be told again for ever.
                if not (call.is_given_up and call.error):
                    self._store(call, call.error)
                self._calls.remove(call)
            elif call.is_late and not call.is_given_up:
                self._store(call, late())
                call.is_given_up = True
                self._tell_of_those_that_hang(call.target)

    def _is_free(self, target: Target) -> bool:
        own = [call for call in self._calls if call.target.id == target.id]
        return all(call.is_given_up for call in own) and len(own) < MOST_HANGING

    def _tell_of_those_that_hang(self, target: Target) -> None:
        own = [call for call in self._calls if call.target.id == target.id]
        if len(own) == MOST_HANGING:
            logger.error(
                "A target lets no message go, and gets no more until it does or another "
                "recorder leads: %(fields)s",
                Fields(target=target.shown, messages=MOST_HANGING),
            )

    def _store(self, call: Call, error: str) -> None:
        now = self._clock()
        with writing() as alias:
            if error:
                rows.failed(alias, call.rows, error, now)
            else:
                rows.told(alias, call.rows, now)
        self._log(call.target, error)

    def _log(self, target: Target, error: str) -> None:
        """Say it once, whatever it is."""
        if error and target.id not in self._failing:
            self._failing.add(target.id)
            logger.error(
                "Alerts do not reach a target: %(fields)s",
                Fields(target=target.shown, error=error),
            )
        elif not error and target.id in self._failing:
            self._failing.discard(target.id)
            logger.warning(
                "Alerts reach a target again: %(fields)s", Fields(target=target.shown)
            )
