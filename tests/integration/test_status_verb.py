"""`manage.py unstuck status`: what waits on the broker, and in whose hands the rest is."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.sending import send
from tests.node import Site
from tests.sites import MakeSite
from tests.waiting import eventually


def status(site: Site) -> dict[str, Any]:
    """What the verb says, by queue."""
    code, text = site.unstuck("status", "--json")
    assert code == 0, text
    found = json.loads(text)
    return {facts["name"]: facts for facts in found["queues"]}


def test_streams_tell_all(streams_site: MakeSite) -> None:
    """Waiting, the oldest, in hand by node, delayed; dead letters are a queue as well."""
    site = streams_site()
    with site.node("-c", "1", "-Q", "celery") as node:
        send(site, "sleep", 60)
        eventually(lambda: status(site)["celery"]["reserved"], 20)
        for _ in range(3):
            send(site, "add", 1, 2)
        for _ in range(2):
            send(site, "add", 1, 2, countdown=600)

        facts = status(site)["celery"]

        assert (facts["waiting"], facts["delayed"], facts["untold"]) == (3, 2, [])
        assert 0 <= facts["oldest_seconds"] < 60
        [(name, number)] = facts["reserved"].items()
        assert name.startswith("celery@")
        assert number == 1
        assert status(site)["unstuck.dead"]["waiting"] == 0
        told = site.unstuck("status")[1].splitlines()
        rows = {line.split()[0]: line for line in told if line.strip()}
        assert "no consumer" not in rows["celery"]
        assert rows["media"].endswith("no consumer")
        assert node.main


def test_other_brokers_tell_less(make_site: MakeSite) -> None:
    """And what they do not tell is not passed as none."""
    site = make_site()
    send(site, "add", 1, 2)

    facts = status(site)["celery"]

    assert facts["waiting"] == 1
    if facts["untold"]:
        assert facts["reserved"] is None
        assert "?: this broker does not tell." in site.unstuck("status")[1]
