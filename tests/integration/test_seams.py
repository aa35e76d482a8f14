"""The points of Celery that we hook are the points that Celery calls.

Each of these fails when an upgrade moves a seam.
"""

from __future__ import annotations

import pytest
from celery.worker.request import create_request_cls

from tests.integration.conftest import MakeSite
from tests.integration.sending import TASKS, send
from tests.waiting import eventually
from unstuck import Celery
from unstuck.worker.consumer import STEPS, Consumer
from unstuck.worker.request import Request


class NoPool:
    """What create_request_cls() looks at."""

    def apply_async(self) -> None:
        """Never called."""


def test_celerys_request_classes_do_not_bypass_ours() -> None:
    """`create_request_cls` defines the two methods that we take away, and no more."""
    app = Celery("seams", broker="memory://", set_as_current=False)

    @app.task(shared=False, name="seams.task")
    def task() -> None: ...

    made = create_request_cls(Request, task, NoPool(), "node", None, app=app)

    assert made.on_success is Request.on_success
    assert made.execute_using_pool is Request.execute_using_pool
    own = {name for name in vars(made) if not name.startswith("__")}
    assert own == set(), "Celery overrides something new: look at it"


def test_our_steps_are_in_the_place_of_celerys() -> None:
    """A step that Celery renames would be its own again."""
    steps = Consumer.Blueprint.default_steps

    assert set(STEPS.values()) <= set(steps)
    assert not set(STEPS) & set(steps)


@pytest.mark.parametrize("name", ["hard_with_base", "kill_with_base"])
def test_hooks_hear_of_an_ending_that_the_child_did_not_survive_once(
    redis_site: MakeSite, name: str
) -> None:
    """`on_failure` is called once; stock Celery calls it never, or reports twice."""
    site = redis_site()
    with site.node("-c", "1") as node:
        task_id = send(site, name)
        site.letter(task_id, 60)

        assert len(site.events("on_failure", id=task_id)) == 1
        assert node.log().count(f"[{task_id}] is buried") == 1


def test_a_result_says_which_process_has_started_its_task(
    streams_site: MakeSite,
) -> None:
    """Celery keeps that number in the tracer; ours are built before children are forked."""
    site = streams_site(CELERY_TASK_TRACK_STARTED=True)
    with site.node("-c", "2"), site.client() as app:
        sent = [send(site, "sleep", 5) for _ in range(2)]
        backend = app.backend
        eventually(lambda: all(site.events(id=s) for s in sent), 20)
        said = [backend.get_task_meta(s, cache=False)["result"]["pid"] for s in sent]

        assert said == [site.events(id=s)[0]["pid"] for s in sent]
        assert len(set(said)) == 2


def test_a_base_class_of_the_projects_own_keeps_its_hooks(
    redis_site: MakeSite,
) -> None:
    """The tracer in the child calls them, and main does not do so again."""
    site = redis_site()
    with site.node():
        task_id = send(site, "fail_with_base")
        site.letter(task_id)

    assert [event["exception"] for event in site.events("on_failure")] == ["ValueError"]


def test_a_call_may_have_a_smaller_limit_than_the_project(
    redis_site: MakeSite,
) -> None:
    """`apply_async(time_limit=2)` ends at 2 s, by the soft limit that comes first."""
    site = redis_site()
    with site.node():
        task_id = send(site, "sleep", 60, time_limit=2)
        letter = site.letter(task_id, 20)

    assert letter["reason"] == "soft_limit"
    assert letter["runtime_seconds"] < 5


def test_the_command_line_may_give_the_limits(redis_site: MakeSite) -> None:
    """`celery worker --time-limit=2` holds for tasks that say nothing themselves."""
    site = redis_site()
    with site.node("--time-limit=2", "--soft-time-limit=1"):
        task_id = send(site, "sleep", 60)
        letter = site.letter(task_id, 20)

    assert letter["reason"] == "soft_limit"
    assert letter["runtime_seconds"] < 5


def test_remote_control_goes_on_working(redis_site: MakeSite) -> None:
    """`inspect ping`, `inspect active` and `control revoke --terminate`."""
    site = redis_site()
    with site.node(), site.client() as app:
        task_id = send(site, "sleep", 60)
        eventually(lambda: site.runs(task_id) == 1, 20)

        assert app.control.ping(timeout=3)
        (active,) = app.control.inspect(timeout=3).active().values()
        assert [task["id"] for task in active] == [task_id]
        app.control.revoke(task_id, terminate=True)
        eventually(lambda: app.backend.get_state(task_id) == "REVOKED", 20)
        eventually(lambda: not site.queue_lengths("celery")["celery"], 10)

        after = app.send_task(TASKS + "add", [1, 2])
        assert site.result(app, after.id) == 3

    assert site.runs(task_id) == 1
    assert site.letters() == []
