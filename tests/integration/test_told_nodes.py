"""What operators tell running nodes: from the command line and on the dashboard."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.conftest import MakeSite
from tests.integration.sending import send
from tests.node import Site
from tests.waiting import eventually

VISIT = """
from django.contrib.auth.models import User
from django.test import Client
client = Client(SERVER_NAME="localhost")
client.force_login(User.objects.create_superuser("olga"))
answer = []
for path, said in {visits!r}:
    ask = client.post if said else client.get
    answer.append(ask("/unstuck/" + path, said, follow=True).content.decode())
"""
AUDIT = """
from unstuck.models import AuditEntry
answer = list(AuditEntry.objects.order_by("pk").values("what", "target", "details"))
"""
WORDS = ("--reason", "it hangs", "--timeout", "1", "--json")


def visit(site: Site, *visits: tuple[str, dict[str, str]]) -> list[str]:
    """What pages say to somebody who may everything; a POST where something is said."""
    return list(site.python(VISIT.format(visits=visits)))


def answer(site: Site, *words: str) -> Any:
    """What a verb says in JSON."""
    status, text = site.unstuck(*words, *WORDS)
    assert status == 0, text
    return json.loads(text)


def test_nodes_do_what_they_are_told(redis_site: MakeSite) -> None:
    """A stopped task ends as revoked; a paused queue waits until it is resumed."""
    site = redis_site()
    why = {"why": "it hangs"}
    with site.node("-c", "2"):
        by_page, by_verb = send(site, "sleep", 300), send(site, "sleep", 300)
        eventually(lambda: site.runs(by_page) == site.runs(by_verb) == 1, 20)

        stack, stop, pause = visit(
            site,
            (f"running/stack/?id={by_page}", {}),
            (f"running/stop/?id={by_page}", why),
            ("queues/pause/?name=celery", why),
        )
        stopped = answer(site, "stop", by_verb)
        waits = send(site, "sleep", 0)
        waited = eventually(lambda: site.queue_lengths("celery")["celery"] == 1)
        ran = site.runs(waits)
        resumed = answer(site, "queues", "resume", "celery")
        eventually(lambda: site.events("end", id=waits), 20)
        entries = site.python(AUDIT)

    assert "in sleep  &lt;-- here" in stack
    assert f"{by_page} is stopped on celery@" in stop
    assert "celery is paused on celery@" in pause
    assert len(stopped["stopped_on"]) == 1
    assert (waited, ran) == (True, 0)
    assert (len(resumed["done"]), resumed["silent"]) == (1, [])
    assert [site.runs(task_id) for task_id in (by_page, by_verb)] == [1, 1]
    assert site.events("end", id=by_page) == []
    assert site.letters() == []
    assert [(entry["what"], entry["target"]) for entry in entries] == [
        ("stop task", by_page),
        ("pause queue", "celery"),
        ("stop task", by_verb),
        ("resume queue", "celery"),
    ]
    assert [len(e["details"].get("done", [0])) for e in entries] == [1, 1, 1, 1]
