"""Rules for the tables in the database."""

from __future__ import annotations

from collections.abc import Iterator

from unstuck.doctor.facts import Seen
from unstuck.doctor.rule import Found, Level, found, rule

MIGRATE = "`python manage.py migrate unstuck --database {alias}`"


@rule(
    "D040",
    Level.ERROR,
    title="migrations that were not applied",
    says="The database {alias!r} lacks {many} of our migrations: {names}.",
    why="Recorders cannot store letters and facts: letters wait on the broker, facts are "
    "dropped, and pages fail.",
    remedy=MIGRATE,
)
def unapplied(seen: Seen) -> Iterator[Found]:
    """D040."""
    yield from _names(seen, seen.database.unapplied if seen.database else ())


@rule(
    "D041",
    Level.ERROR,
    title="tables that are not there",
    says="The database {alias!r} has no {names}, though our migrations were applied.",
    why="Somebody has deleted them, or the migrations were faked: what shall be stored "
    "there is not.",
    remedy="restore them from a backup, or make them anew: `python manage.py sqlmigrate "
    "unstuck NUMBER --database {alias}`, which prints how",
)
def missing(seen: Seen) -> Iterator[Found]:
    """D041: only what no missing migration explains."""
    if seen.database and not seen.database.unapplied:
        yield from _names(seen, seen.database.missing)


@rule(
    "D042",
    Level.WARNING,
    title="a database that is ahead of this code",
    says="The database {alias!r} has {many} migrations that this code does not know: {names}.",
    why="Other hosts run a newer unstuck. What this one writes may lack columns that they "
    "need.",
    remedy="`pip install --upgrade unstuck`, here, and deploy",
)
def ahead(seen: Seen) -> Iterator[Found]:
    """D042: mostly in the middle of a deploy, or after half of a rollback."""
    yield from _names(seen, seen.database.ahead if seen.database else ())


def _names(seen: Seen, names: tuple[str, ...]) -> Iterator[Found]:
    if names:
        alias = seen.here.database
        yield found("database", alias=alias, many=len(names), names=", ".join(names))
