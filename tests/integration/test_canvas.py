"""A buried member fails its canvas the way Celery's own failure does."""

from __future__ import annotations

import pytest
from celery import chain, chord, group

from tests.integration.conftest import MakeSite
from tests.integration.sending import TASKS
from tests.waiting import eventually

SETTINGS = {"UNSTUCK": {"UNKNOWN_TASK_PATIENCE_SECONDS": 1}}
BURIED = ["fail", "hard", "kill", "reject", "nobody_has_this_task"]


@pytest.mark.parametrize("name", BURIED)
def test_a_buried_member_fails_its_chord_chain_and_errbacks(
    redis_site: MakeSite, name: str
) -> None:
    """The chord does not hang, the chain does not go on, the errback is called once."""
    site = redis_site(**SETTINGS)
    with site.node("-c", "3"), site.client() as app:
        task = app.signature(TASKS + name)
        add = app.signature(TASKS + "add", args=(1, 2))
        body = app.signature(TASKS + "note", kwargs={"who": "body"})
        after = app.signature(TASKS + "note", kwargs={"who": "after"}, immutable=True)
        errback = app.signature(TASKS + "note", kwargs={"who": "errback"})

        chorded = chord([add, task.clone()], body, app=app).apply_async()
        chained = chain(task.clone(), after, app=app).apply_async()
        linked = task.clone().apply_async(link_error=errback)
        grouped = group([add, task.clone()], app=app).apply_async()

        for result in (chorded, chained, chained.parent, linked, grouped.results[1]):
            eventually(lambda r=result: app.backend.get_state(r.id) == "FAILURE", 40)
        eventually(lambda: site.events("note", who="errback"), 20)
        assert site.result(app, grouped.results[0].id) == 3
        eventually(lambda: len(site.letters(task_name=TASKS + name)) == 4, 30)

    assert len(site.events("note", who="errback")) == 1
    assert site.events("note", who="body") == []
    assert site.events("note", who="after") == []


def test_a_canvas_that_loses_a_child_once_still_succeeds(
    redis_site: MakeSite,
) -> None:
    """A loss is no failure: the chord gets all its members and runs its body."""
    site = redis_site()
    with site.node(), site.client() as app:
        lossy = app.signature(
            TASKS + "kill_once", args=(str(site.directory / "marker"),)
        )
        add = app.signature(TASKS + "add", args=(1, 2))
        body = app.signature(TASKS + "note", kwargs={"who": "body"})
        chord([add, lossy], body, app=app).apply_async()

        eventually(lambda: site.events("note", who="body"), 30)

    assert site.events("note", who="body")[0]["args"] == ["[3, 'survived']"]
    assert site.letters() == []
