"""`manage.py unstuck stack`: where a running task stands, from another process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import MakeSite
from tests.integration.sending import send
from tests.waiting import eventually


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_running_task_shows_where_it_stands_and_goes_on(
    redis_site: MakeSite, pool: str
) -> None:
    """Its line, what it waits for, where it runs; and it comes to its end."""
    site = redis_site()
    with site.node(pool=pool):
        task_id = send(site, "sleep", 20)
        eventually(lambda: site.runs(task_id) == 1, 20)

        status, text = site.unstuck("stack", task_id)
        _, document = site.unstuck("stack", task_id, "--json")
        eventually(lambda: site.events("end", id=task_id), 40)

    seen: dict[str, Any] = json.loads(document)
    assert status == 0
    assert "in sleep  <-- here\n    time.sleep(seconds)" in text
    assert (seen["task_id"], seen["task_name"]) == (
        task_id,
        "tests.project.tasks.sleep",
    )
    assert seen["waiting_for"] == ("sleep" if pool == "prefork" else "")
    assert site.runs(task_id) == 1


def test_a_task_that_runs_nowhere_is_said_so(redis_site: MakeSite) -> None:
    """With the nodes that were asked."""
    site = redis_site()
    with site.node():
        status, text = site.unstuck("stack", "nobody")

    assert status == 1
    assert "nobody does not run on any node that answered: celery@" in text


def test_nobody_who_answers_is_said_so(redis_site: MakeSite) -> None:
    """It is not the same as "does not run"."""
    status, text = redis_site().unstuck("stack", "nobody", "--timeout", "0.5")

    assert status == 1
    assert "No worker answered" in text
