"""Which dead letters a URL speaks of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext as _

from unstuck import selection
from unstuck.core.verdict import Reason
from unstuck.dashboard.paging import PAGE_SIZE
from unstuck.models import DeadLetter
from unstuck.selection import letters

FIELDS = ("task", "id", "exception", "argument", "reason", "state", "since", "group")
SPANS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
STATES = ("open", "replayed")
LONGEST = 500
"""Of a value: nobody types more, and SQL need not carry it."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What is asked for, field by field, and what is wrong with it."""

    asked: dict[str, str]
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: QueryDict, *, sees_payload: bool) -> Filters:
        """Read them from a URL."""
        values = {name: str(query.get(name) or "").strip() for name in FIELDS}
        asked = {name: value for name, value in values.items() if value}
        return cls(asked, tuple(_problems(asked, sees_payload=sees_payload)))

    def select(
        self, *, sees_payload: bool, now: datetime | None = None
    ) -> QuerySet[DeadLetter]:
        """The letters that fit everything that is asked; ``now`` is when it was asked.

        None where anything is wrong: an action on them must never hit more than meant.
        """
        found, slow = self.split(sees_payload=sees_payload, now=now)
        return found.filter(slow) if slow else found

    def split(
        self, *, sees_payload: bool, now: datetime | None = None
    ) -> tuple[QuerySet[DeadLetter], Q]:
        """The same in two: what an index finds, and what each of these is to be read for.

        The second is empty where nothing needs reading.
        """
        if self.problems:
            return letters().none(), Q()
        found, slow, at = letters(), Q(), now or timezone.now()
        for name, value in self.asked.items():
            condition = _condition(name, value, at, sees_payload=sees_payload)
            if _is_slow(name, value):
                slow &= condition
            else:
                found = found.filter(condition)
        return found, slow

    def as_query(self) -> str:
        """The same as part of a URL."""
        query = QueryDict(mutable=True)
        query.update(self.asked)
        return query.urlencode()


@dataclass(frozen=True, slots=True)
class Chosen:
    """The letters that an action is about: some by their rows, or all that fit."""

    rows: tuple[int, ...]
    filters: Filters
    everything: bool

    @classmethod
    def of(cls, query: QueryDict, *, sees_payload: bool) -> Chosen:
        """Read them from a URL: ``row``, or ``all=1`` and filters."""
        rows = [
            text for text in query.getlist("row") if selection.ROW_ID.fullmatch(text)
        ]
        return cls(
            tuple(dict.fromkeys(int(row) for row in rows[:PAGE_SIZE])),
            Filters.of(query, sees_payload=sees_payload),
            query.get("all") == "1",
        )

    @property
    def is_nothing(self) -> bool:
        """Whether the URL does not say which, or says it wrongly."""
        return bool(self.filters.problems) or not (self.rows or self.everything)

    def select(
        self, *, sees_payload: bool, now: datetime | None = None
    ) -> QuerySet[DeadLetter]:
        """Those letters; of a URL that names none, none."""
        if self.is_nothing:
            return letters().none()
        if self.rows:
            return letters().filter(pk__in=self.rows)
        return self.filters.select(sees_payload=sees_payload, now=now)

    def select_in_any_state(
        self, *, sees_payload: bool, now: datetime
    ) -> QuerySet[DeadLetter]:
        """Likewise, also those that have been replayed since they were chosen."""
        asked = {k: v for k, v in self.filters.asked.items() if k != "state"}
        anyhow = replace(self, filters=Filters(asked, self.filters.problems))
        return anyhow.select(sees_payload=sees_payload, now=now)

    def as_query(self) -> str:
        """The same as part of a URL."""
        if self.rows:
            return "&".join(f"row={row}" for row in self.rows)
        rest = self.filters.as_query()
        return f"all=1&{rest}" if rest else "all=1"


def _problems(asked: dict[str, str], *, sees_payload: bool) -> list[str]:
    problems = [
        _("%(field)s is longer than %(most)s characters.")
        % {"field": name, "most": LONGEST}
        for name, value in asked.items()
        if len(value) > LONGEST or "\x00" in value
    ]
    known: dict[str, tuple[str, ...]] = {
        "reason": tuple(reason.value for reason in Reason),
        "state": STATES,
        "since": tuple(SPANS),
    }
    for name, values in known.items():
        if asked.get(name, values[0]) not in values:
            problems.append(
                _("%(field)s=%(value)s is not known. Known: %(known)s.")
                % {"field": name, "value": asked[name], "known": ", ".join(values)}
            )
    if "argument" in asked and not sees_payload:
        problems.append(
            _("Searching arguments needs the permission %(permission)s.")
            % {"permission": "unstuck.view_payload"}
        )
    return problems


def _condition(name: str, value: str, now: datetime, *, sees_payload: bool) -> Q:
    match name:
        case "task":
            return _named(value)
        case "id":
            return identified(value)
        case "exception":
            said = Q(exception_type__icontains=value)
            # Messages quote arguments: a search in them would tell which ones.
            return (
                said | Q(exception_message__icontains=value) if sees_payload else said
            )
        case "argument":
            return selection.in_arguments(value)
        case "reason":
            return Q(reason=value)
        case "state":
            return Q(replayed_at__isnull=value == "open")
        case "since":
            return Q(buried_at__gte=now - SPANS[value])
        case _:
            return Q(fingerprint=value)


def _is_slow(name: str, value: str) -> bool:
    """Whether no index helps: a text anywhere within a column."""
    return name in {"argument", "exception"} or (
        name == "task" and value.startswith("*")
    )


def _named(value: str) -> Q:
    """A task's whole name, or a part of it where an asterisk stands for the rest."""
    inner = value.strip("*")
    match value.startswith("*"), value.endswith("*"):
        case True, True:
            return Q(task_name__icontains=inner)
        case True, False:
            return Q(task_name__iendswith=inner)
        case False, True:
            return Q(task_name__startswith=inner)
        case _:
            return Q(task_name=value)


def identified(value: str) -> Q:
    """Letters with this row id, task id or letter id, or the beginning of the latter."""
    known = Q(task_id=value) | Q(replayed_as=value) | Q(replay_of=value)
    if selection.ROW_ID.fullmatch(value):
        return known | Q(pk=int(value))
    if len(value) < selection.SHORTEST_PREFIX:
        return known
    known |= Q(task_id__startswith=value)
    if selection.UUID_PREFIX.fullmatch(value):
        known |= selection.lettered(value)
    return known
