"""A rule for clocks: limits, leases, ETAs and alerts are instants."""

from __future__ import annotations

from collections.abc import Iterator

from unstuck.doctor.facts import Seen
from unstuck.doctor.rule import Found, Level, found, rule

SECONDS = 2.0
"""So far clocks that are kept by NTP are never apart."""


@rule(
    "D010",
    Level.WARNING,
    title="a clock that is ahead or behind",
    says="The clock of {whose} is {by:.0f} s {way} that of this host.",
    why="An ETA comes too early or too late, what waits looks older or younger than it is, "
    "and a node that lives can be taken for lost.",
    remedy="`timedatectl set-ntp true`, on the host whose clock is wrong; compare with `date "
    "-u`",
)
def clocks_apart(seen: Seen) -> Iterator[Found]:
    """D010: which of the two is right, nobody here knows."""
    for whose, skew in _skews(seen):
        if skew is not None and abs(skew) > SECONDS:
            way = "ahead of" if skew > 0 else "behind"
            yield found(whose, whose=whose, by=abs(skew), way=way)


def _skews(seen: Seen) -> Iterator[tuple[str, float | None]]:
    broker = seen.redis or seen.rabbit
    if broker:
        yield "the broker", broker.skew
    if seen.database:
        yield "the database", seen.database.skew
    for node in seen.nodes:
        yield node.name, node.skew
