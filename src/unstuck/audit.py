"""Entries of the audit: who did what, when and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unstuck import conf
from unstuck.core.errors import BrokerUnreachable, ControlError
from unstuck.fields import worded
from unstuck.letters.redact import clean, storable
from unstuck.models import AuditEntry
from unstuck.recorder.sound import short


class InDoubt(ControlError):
    """It was done, or it was not."""


@dataclass(slots=True)
class Deed:
    """What is done while its audit entry is there already."""

    details: dict[str, Any]
    """Of the entry, as it will be."""

    is_done: bool = False
    """Something was done, which no error changes."""

    is_in_doubt: bool = False
    """Somebody is asked to do it, and has not answered."""

    def begins(self) -> None:
        """It may be done from now on, whatever fails."""
        self.is_in_doubt = True

    def ends(self) -> None:
        """It is known by now what was done."""
        self.is_in_doubt = False

    @contextmanager
    def in_doubt_but_for(self, refusal: type[Exception]) -> Iterator[None]:
        """Somebody is asked to do it: any other error leaves in doubt what he did."""
        self.begins()
        try:
            yield
        except refusal:
            self.ends()
            raise
        self.ends()


def record(
    what: str, target: str, *, who: str, why: str, details: Mapping[str, Any]
) -> AuditEntry:
    """Write an entry; of texts that no database takes, what can be written of them."""
    return AuditEntry.objects.using(conf.current().database).create(
        who=short(who),
        what=what,
        why=clean(why),
        target=short(target),
        details=storable(details),
    )


@contextmanager
def recorded(
    what: str, target: str, *, who: str, why: str, details: Mapping[str, Any]
) -> Iterator[Deed]:
    """An entry that is written first, as what is done must be written somewhere.

    It goes again if nothing was done, and says so if nobody knows. Raises ``InDoubt`` for
    a broker that was lost when somebody may have heard what he is to do.
    """
    entry = record(what, target, who=who, why=why, details=details)
    deed = Deed(dict(details))
    try:
        yield deed
    except BaseException as error:
        if deed.is_in_doubt or isinstance(error, InDoubt):
            deed.details["unknown"] = worded(error)
        elif not deed.is_done:
            entry.delete()
            raise
        _complete(entry, deed)
        if deed.is_in_doubt and isinstance(error, BrokerUnreachable):
            raise InDoubt(f"Nobody can say whether it was done: {error}") from error
        raise
    _complete(entry, deed)


def _complete(entry: AuditEntry, deed: Deed) -> None:
    entry.details = storable(deed.details)
    entry.save()
