"""On Redis Streams short tasks are taken ahead of the prefetch limit, and given back."""

from __future__ import annotations

import time

from tests.integration.sending import send
from tests.node import Site
from tests.sites import MakeSite
from tests.waiting import eventually

ENOUGH = 60
"""Short runs after which a task is expected to be short."""

LONG = 8


def ended(site: Site, ids: list[str]) -> bool:
    """Whether all of these have come to their end."""
    ends = {event["id"] for event in site.events("end")}
    return ends >= set(ids)


def test_nothing_waits_behind_a_task_that_turns_out_long(
    streams_site: MakeSite,
) -> None:
    """What its node took ahead goes to the other node at once, and runs once."""
    site = streams_site()
    with site.node("-c", "1", "-n", "a@test"), site.node("-c", "1", "-n", "b@test"):
        short = [send(site, "sleep", 0) for _ in range(2 * ENOUGH)]
        eventually(lambda: ended(site, short), 30)
        for _ in range(2):
            long = send(site, "sleep", LONG)
            behind = [send(site, "sleep", 0) for _ in range(20)]
            began = time.monotonic()

            eventually(lambda: ended(site, behind), 30)  # noqa: B023

            assert time.monotonic() - began < LONG / 2
            assert not ended(site, [long])
            eventually(lambda: ended(site, [long]), 2 * LONG)  # noqa: B023
            short = [send(site, "sleep", 0) for _ in range(ENOUGH)]
            eventually(lambda: ended(site, short), 30)  # noqa: B023

    runs = [event["id"] for event in site.events("run")]
    assert len(runs) == len(set(runs))
    assert site.letters() == []
