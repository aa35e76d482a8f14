"""Rules for what the archive tells: letters, recorders, nodes that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from unstuck.doctor.facts import Seen
from unstuck.doctor.rule import Found, Level, found, rule
from unstuck.models import Node

FEWEST_LETTERS = 10
"""In an hour; fewer are no trend."""

TIMES = 3
"""So much more than usual is growing."""

MOST_LAG = 60.0

MISSED_FOR = timedelta(days=1)
"""So long a node that is lost is missed; a host that is gone for good has another name."""


@rule(
    "D050",
    Level.WARNING,
    title="dead letters that grow",
    says="{count} dead letters within the last hour; in the day before it were "
    "{usual:.1f} an hour.",
    why="Something fails that did not: a deploy, a service that is away, bad input.",
    remedy="`python manage.py unstuck dead list --grouped --since 1h`",
)
def letters_grow(seen: Seen) -> Iterator[Found]:
    """D050."""
    if seen.archive is None:
        return
    letters = seen.archive.letters
    usual = letters.day_before / 24
    if letters.last_hour >= FEWEST_LETTERS and letters.last_hour > TIMES * usual:
        yield found(
            "letters", since=letters.first, count=letters.last_hour, usual=usual
        )


@rule(
    "D051",
    Level.ERROR,
    title="letters that wait on the broker for long",
    says="Dead letters wait in {queue} and are not archived.",
    why="Nobody sees them, and what they tell. No recorder runs, or the database refuses "
    "them.",
    remedy="`python manage.py unstuck dead archive`",
)
def letters_wait(seen: Seen) -> Iterator[Found]:
    """D051: recorders find it; without any, nobody did, and there is nobody to archive."""
    queue = seen.here.letters
    archive = seen.archive
    if archive is None:
        return
    since = archive.letters_wait_since
    wait = any(each.waiting for each in seen.queues if each.name == queue)
    nobody = not any(not row.is_lost for row in archive.nodes)
    if since or (wait and nobody):
        yield found("letters", since=since, queue=queue)


@rule(
    "D052",
    Level.WARNING,
    title="a recorder that is behind",
    says="What {node} has to tell has waited for {lag:.0f} s to be stored.",
    why="The dashboard and the alerts are as late; when its memory is full, facts are "
    "dropped. Letters are not.",
    remedy="journalctl, or the log of {node}, says what the database has against it; `python "
    "manage.py dbshell --database {alias}`",
)
def recorder_behind(seen: Seen) -> Iterator[Found]:
    """D052."""
    for row in seen.archive.nodes if seen.archive else ():
        if not row.is_lost and row.lag_seconds > MOST_LAG:
            since = row.seen_at - timedelta(seconds=row.lag_seconds)
            lag, alias = row.lag_seconds, seen.here.database
            yield found(row.name, since=since, node=row.name, lag=lag, alias=alias)


@rule(
    "D053",
    Level.WARNING,
    title="facts that were dropped",
    says="{count} runs, minutes or incidents of {node} are missing in the archive.",
    why="They came faster than the database takes them, or it does not take them at all: "
    "charts and counts are too low.",
    remedy="the log of {node} says why; `python manage.py dbshell --database {alias}`",
)
def facts_dropped(seen: Seen) -> Iterator[Found]:
    """D053: since its recorder started."""
    for row in seen.archive.nodes if seen.archive else ():
        if not row.is_lost and row.missing_facts:
            count, alias = row.missing_facts, seen.here.database
            yield found(
                row.name, since=row.started_at, node=row.name, count=count, alias=alias
            )


@rule(
    "D054",
    Level.ERROR,
    title="a node that is lost",
    says="{node} was last seen {ago:.0f} s ago and did not say goodbye.",
    why="It was killed, its host is gone, or its recorder does not reach the database. "
    "Its tasks run elsewhere, and its queues have a worker less.",
    remedy="`celery -A {app} worker -Q {queues}`, on {host} or elsewhere",
)
def lost(seen: Seen) -> Iterator[Found]:
    """D054: one that answers is D055."""
    heard = {node.name for node in seen.nodes}
    for row in seen.archive.nodes if seen.archive else ():
        is_missed = row.is_lost and seen.now - row.seen_at < MISSED_FOR
        if is_missed and row.name not in heard:
            yield found(
                row.name,
                since=row.seen_at,
                node=row.name,
                ago=(seen.now - row.seen_at).total_seconds(),
                app=seen.here.app,
                queues=",".join(row.queues),
                host=row.host,
            )


@rule(
    "D055",
    Level.ERROR,
    title="a node that the archive does not see",
    says="{node} runs, and its recorder writes nothing into the database {alias!r}.",
    why="It uses another database, or does not reach this one: what fails there is not "
    "archived, and no page or alert tells of it.",
    remedy="`python manage.py unstuck doctor`, on {host}, with the environment of the worker",
)
def unseen(seen: Seen) -> Iterator[Found]:
    """D055: after the time that a recorder has to write its first row."""
    if seen.archive is None:
        return
    seen_there = {row.name for row in seen.archive.nodes if not row.is_lost}
    for node in seen.nodes:
        is_old = seen.now - node.started_at > Node.LOST_AFTER
        if is_old and node.name not in seen_there:
            yield found(
                node.name,
                since=node.started_at,
                node=node.name,
                alias=seen.here.database,
                host=node.host,
            )
