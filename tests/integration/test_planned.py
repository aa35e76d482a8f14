"""What waits for its time and where a task is, on each broker, with a real node."""

from __future__ import annotations

import json
from typing import Any

import kombu
import pytest

from tests.integration.conftest import MakeSite
from tests.integration.sending import send
from tests.integration.tables import rows
from tests.integration.test_told_nodes import visit
from tests.node import Site
from tests.waiting import eventually
from unstuck import queues
from unstuck.core.broker import lasting

VERBS = """
import io, json
from django.core.management import call_command
answer = []
for words in {commands!r}:
    out, status = io.StringIO(), 0
    try:
        call_command("unstuck", *words, stdout=out, stderr=out)
    except SystemExit as exit_:
        status = exit_.code
    answer.append([status, out.getvalue()])
"""
CHORD = """
from celery import chord
from tests.project.tasks import add, sleep, unique
part = sleep.si(0).set(countdown=600).freeze()
body = add.si(1, 2).freeze()
chord([add.si(1, 2), sleep.si(0).set(countdown=600, task_id=part.id)])(
    add.si(1, 2).set(task_id=body.id)
)
only = unique.apply_async((7,), countdown=600)
answer = [part.id, body.id, only.id]
"""
AGAIN = """
from tests.project.tasks import unique
answer = unique.apply_async((7,)).id
"""
WHY = ("--reason", "asked for")


def said(site: Site, *commands: tuple[str, ...]) -> list[Any]:
    """What verbs say in JSON, or in words where they fail, all in one process."""
    answers = site.python(VERBS.format(commands=[[*c, "--json"] for c in commands]))
    return [json.loads(text) if not status else text for status, text in answers]


def delayed(site: Site) -> int:
    """How many messages wait for their time on the broker."""
    with kombu.Connection(site.broker) as connection:
        channel = lasting(connection.default_channel)
        if channel is not None:
            return int(channel.census("celery").delayed)
        return queues.count_delayed(connection)


def test_streams_list_what_waits_and_bring_it_forward(streams_site: MakeSite) -> None:
    """ETAs and retries with their attempt; run now runs once, what is dropped does not.

    A chord that waits for what is dropped hears of it; a unique task may be sent anew.
    """
    site = streams_site(CELERY_TASK_DEFAULT_RETRY_DELAY=300)
    with site.node("-c", "1"), site.client() as app:
        later = send(site, "sleep", 0, countdown=600)
        never, body, only = site.python(CHORD)
        retried = send(site, "retry_by_settings")
        eventually(lambda: delayed(site) == 4, 40)
        eventually(lambda: rows(site, "SELECT id FROM unstuck_taskrun"), 40)
        [page, stale, forward] = visit(
            site,
            ("planned/?why=retry", {}),
            (f"planned/run/?id={later}&due=1", {"why": "x"}),
            (f"planned/run/?id={later}", {"why": "x"}),
        )
        [waits, dropped, _, again, left] = said(
            site,
            ("planned", "list"),
            ("planned", "drop", never, *WHY),
            ("planned", "drop", only, *WHY),
            ("planned", "run", later, *WHY),
            ("planned", "list"),
        )
        eventually(lambda: site.runs(later) == 1, 30)
        another = site.python(AGAIN)
        eventually(lambda: app.backend.get_state(never) == "REVOKED", 20)
        eventually(lambda: app.backend.get_state(body) == "FAILURE", 20)

    assert f"?id={retried}" in page
    assert f"?id={later}" not in page
    assert "ValueError" in page
    assert "waits for another time by now" in stale
    assert f"{later} is in the queue celery now." in forward
    told = {row["task_id"]: (row["why"], row["attempt"]) for row in waits["planned"]}
    assert told == {never: ("eta", 1), only: ("eta", 1), retried: ("retry", 2)}
    assert another != only
    assert dropped == {"task_id": never, "queue": "celery", "told": []}
    assert "does not wait for its time on the broker (any more)" in again
    assert [row["task_id"] for row in left["planned"]] == [retried]
    assert [site.runs(task_id) for task_id in (never, later)] == [0, 1]


def test_where_a_task_is_on_streams(streams_site: MakeSite) -> None:
    """Running, queued at a place, scheduled, done; in words, and on its page."""
    site = streams_site()
    with site.node("-c", "1"), site.client() as app:
        done = send(site, "add", 1, 2)
        site.result(app, done)
        running = send(site, "sleep", 120)
        eventually(lambda: site.runs(running) == 1, 30)
        queued = [send(site, "sleep", 0) for _ in range(4)][-1]
        scheduled = send(site, "add", 1, 2, countdown=600)
        names = (running, queued, scheduled, done, "nobody")
        found = said(site, *(("where", name) for name in names))
        [shown] = visit(site, (f"task/?id={running}", {}))

    assert [_states(one) for one in found[:4]] == [
        ["running"],
        ["queued"],
        ["scheduled"],
        ["done"],
    ]
    [one] = found[0]["places"]
    assert one["task_name"].endswith(".sleep")
    assert one["pid"]
    assert one["seconds"] >= 0
    assert found[1]["places"][0]["place"] in {3, 4}
    assert all(one["not_asked"] == [] for one in found[:4])
    assert '"places": []' in found[4]
    assert f"running/stack/?id={running}" in shown


def _states(found: Any) -> list[str]:
    return [place["state"] for place in found["places"]]


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_elsewhere_it_is_asked_as_far_as_it_can_be(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """Nodes tell what they hold, RabbitMQ how many wait; a drop is Celery's revoke.

    On Redis the place in a queue is known as well.
    """
    site: Site = request.getfixturevalue(f"{kind}_site")()
    with site.node("-c", "1", "-Q", "celery") as node:
        queued = [send(site, "add", 1, 2, queue="media") for _ in range(2)][-1]
        held = send(site, "add", 1, 2, countdown=600)
        dropped = send(site, "add", 1, 2, countdown=600)
        if kind == "redis":
            eventually(lambda: f"{dropped}] received" in node.log(), 30)
        else:
            eventually(lambda: delayed(site) == 2, 30)
        [found, drop, run, where, waits] = said(
            site,
            ("planned", "list"),
            ("planned", "drop", dropped, *WHY),
            ("planned", "run", held, *WHY),
            ("where", dropped),
            ("where", queued),
        )

    assert len(drop["told"]) == 1
    assert drop["queue"] == ""
    assert "nobody can reach a message that waits for its time" in run
    assert {"revoked", "done"} <= set(_states(where))
    if kind == "redis":
        assert [one["task_id"] for one in found["planned"]] == [held, dropped]
        assert {one["node"] for one in found["planned"]} == set(drop["told"])
        assert "scheduled" in _states(where)
        [place] = waits["places"]
        assert (place["queue"], place["place"]) == ("media", 2)
    else:
        assert (found["planned"], found["in_delay_queues"]) == ([], 2)
        [untold] = where["not_asked"]
        assert untold["what"] == "kind"
