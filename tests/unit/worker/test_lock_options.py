"""What a task says of its lock, and what is said of what is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import celery
import pytest

from tests.unit.worker.projects import project
from unstuck import Celery
from unstuck.checks.tasks import locks_that_cannot_be_taken
from unstuck.core.errors import LockError, SettingsError
from unstuck.core.policy import OnBusy
from unstuck.management.verbs._task_options import in_force_for
from unstuck.worker.policy import policy_of


def task_of(app: Celery | None = None, bind: bool = False, **options: Any) -> Any:
    """A task with these options."""
    app = app or project()

    def report(user_id: int, day: str = "today", *rest: Any) -> None: ...

    def bound(self: Any, user_id: int, day: str = "today", *rest: Any) -> None: ...

    function = bound if bind else report
    return app.task(name="shop.report", shared=False, bind=bind, **options)(function)


def problems(**options: Any) -> list[str]:
    """What the check says of a task with these options."""
    app = project()
    task_of(app, **options)
    found = list(locks_that_cannot_be_taken(app))
    assert {message.id for message in found} <= {"unstuck.E008"}
    assert {message.obj for message in found} <= {"shop.report"}
    return [message.msg for message in found]


@pytest.mark.parametrize("bind", [False, True])
@pytest.mark.parametrize(
    ("lock", "args", "kwargs", "name"),
    [
        ("{task}", (1,), {}, "shop.report"),
        ("report:{user_id}", (1,), {}, "report:1"),
        ("report:{user_id}", (), {"user_id": 1}, "report:1"),
        ("report:{user_id}:{day}", (1,), {}, "report:1:today"),
        ("report:{rest[0]}", (1, "now", "x"), {}, "report:x"),
    ],
)
def test_a_lock_is_named_by_the_arguments(
    bind: bool, lock: str, args: Any, kwargs: Any, name: str
) -> None:
    """However they are given, defaults included."""
    task = task_of(lock=lock, bind=bind)

    assert task.lock_options.name_for(args, kwargs) == name


def test_arguments_of_any_name_can_name_a_lock() -> None:
    """Where the task takes any."""
    app = project()

    @app.task(shared=False, lock="{what}")
    def anything(**kwargs: Any) -> None: ...

    assert anything.lock_options.name_for((), {"what": "x"}) == "x"


def test_an_argument_called_task_wins() -> None:
    """It is what the author sees."""
    app = project()

    @app.task(shared=False, lock="{task}")
    def plan(task: str) -> None: ...

    assert plan.lock_options.name_for(("x",), {}) == "x"


def test_arguments_that_make_no_name_are_told() -> None:
    """With the task, the template and the reason."""
    options = task_of(lock="{user_id[key]}").lock_options

    with pytest.raises(
        LockError, match=r"lock='\{user_id\[key\]\}' of the task shop.rep"
    ):
        options.name_for((5,), {})
    with pytest.raises(TypeError, match="user_id"):
        options.name_for((), {})
    with pytest.raises(LockError, match="can have 255 bytes"):
        task_of(lock="{user_id}").lock_options.name_for(("x" * 256,), {})


def test_the_defaults() -> None:
    """A task waits for an hour; one that says what else to do does not wait."""
    options = task_of(lock="{task}").lock_options
    assert (options.wait, options.lease) == (timedelta(hours=1), 30)
    assert (options.on_busy, options.is_unique) == (OnBusy.WAIT, False)

    assert task_of(lock="{task}", on_busy="skip").lock_options.wait == timedelta(0)
    policy = policy_of(task_of(lock="{task}", on_busy="fail", lock_wait=5))
    assert (policy.on_busy, policy.lock_wait) == (OnBusy.FAIL, timedelta(seconds=5))
    assert task_of().lock_options is None


@pytest.mark.usefixtures("_in_django")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"lock": "{user}"},
            "asks for 'user', which is no argument of the task. Did you ",
        ),
        (
            {"lock": "{user}"},
            "Did you mean 'user_id'? It has user_id, day, rest; {task}",
        ),
        ({"lock": "{user_id!r}"}, "cannot be read: {user_id!r} is not one of {name}"),
        ({"lock": ""}, "lock='' must be the name of a lock"),
        ({"lock": 5}, "lock=5 must be the name of a lock"),
        (
            {"lock": lambda user_id: f"x:{user_id}"},
            "must be the name of a lock as text",
        ),
        ({"lock": str}, "lock=<class 'str'> must be the name of a lock as text, such"),
        (
            {"lock": "x", "on_busy": "skp"},
            "'wait', 'skip', 'retry' or 'fail'. Did you mea",
        ),
        (
            {"lock": "x", "on_busy": True},
            "on_busy=True must be 'wait', 'skip', 'retry' or",
        ),
        (
            {"lock": "x", "lock_from": "publsh"},
            "'run' or 'publish'. Did you mean 'publish",
        ),
        (
            {"lock": "x", "lock_wait": -1},
            "lock_wait=-1 must be a number of seconds from 0 to",
        ),
        ({"lock": "x", "lock_wait": "5"}, "lock_wait='5' must be a number of seconds"),
        (
            {"lock": "x", "lock_lease": 0},
            "lock_lease=0 must be a number of seconds from 1 to",
        ),
        ({"on_busy": "skip"}, "on_busy='skip' does nothing without lock="),
        ({"lock": "x", "lease": 5}, "lease=5 is no option of a task. Did you mean"),
        ({"lock": "x", "lock_wayt": 5}, "Did you mean 'lock_wait'?"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], said: str) -> None:
    """E008: which task, which option, its value, and what to do."""
    (message,) = problems(**options)

    assert message.startswith("The task shop.report: ")
    assert said in message


@pytest.fixture
def _in_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is not refused there: the check tells of it."""
    monkeypatch.setattr("unstuck.conf.in_django", lambda: True)


@pytest.mark.usefixtures("_in_django")
def test_a_task_with_wrong_options_raises_when_it_is_called() -> None:
    """And decides nothing before that."""
    task = task_of(lock="{nobody}")

    assert policy_of(task).lock_wait == timedelta(0)
    with pytest.raises(SettingsError, match="nobody"):
        task.delay(1)
    with pytest.raises(SettingsError, match="as text"):
        task_of(lock=lambda user_id: "x").delay(1)


def test_without_django_a_wrong_task_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no check to tell of it."""
    monkeypatch.setattr("unstuck.conf.in_django", lambda: False)

    with pytest.raises(SettingsError, match="Did you mean 'user_id'"):
        task_of(lock="{user}").delay(1)


@pytest.mark.usefixtures("_in_django")
def test_a_method_of_that_name_is_no_option() -> None:
    """Base classes of projects have had methods called lock before we had the option."""

    class Base(celery.Task):
        def lock(self) -> str:
            return "mine"

        def on_busy(self) -> None: ...

    task = task_of(base=Base)

    assert task.lock() == "mine"
    assert task.lock_options is None
    assert "lock" not in task.said
    assert problems(base=Base) == []


def test_the_options_in_force_are_listed() -> None:
    """With where they come from."""
    task = task_of(lock="{task}", on_busy="skip")

    rows = {row.name: (row.value, row.source) for row in in_force_for(task)}

    assert rows["lock"] == ("{task}", "task option")
    assert rows["on_busy"] == ("skip", "task option")
    assert rows["lock_lease"] == (30, "unstuck")
    assert rows["lock_from"] == ("run", "unstuck")
    assert "lock" not in {row.name for row in in_force_for(task_of())}
