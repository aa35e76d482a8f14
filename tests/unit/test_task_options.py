"""What a task, a call and the project say, and which of them wins.

A call wins over its task, a task over its project, the project over our defaults.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import celery
import pytest
from celery.contrib.django.task import DjangoTask
from celery.exceptions import (
    MaxRetriesExceededError,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
)
from django.apps import apps
from kombu.exceptions import EncodeError, OperationalError
from kombu.utils.imports import symbol_by_name

from tests.unit.worker.projects import empty, project, take
from unstuck import Celery
from unstuck.core.backoff import RetryDelay
from unstuck.core.errors import DeadlockDetected, LockBusy, SettingsError
from unstuck.core.limits import Limits
from unstuck.worker.echoes import Echoes
from unstuck.worker.policy import limits_of, policy_of, retry_delay_of
from unstuck.worker.request import Request
from unstuck.worker.steps import Preflight
from unstuck.worker.strategy import default as our_strategy
from unstuck.worker.task import Task


@pytest.fixture(autouse=True)
def _a_broker_of_our_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    yield
    empty(project())


def task_of(app: Celery, **options: Any) -> Any:
    """A task with these options, as `@app.task(…)` makes it."""

    @app.task(shared=False, **options)
    def send(*args: Any, **kwargs: Any) -> None: ...

    return send


def limits_at_the_pool(
    app: Celery, task: Any, worker: Celery | None = None, **call: Any
) -> Limits:
    """Send a task, receive it, and see under which limits the pool is to run it."""
    task.apply_async(**call)
    message = take(app)
    worker = worker or app
    worker.consumer_in_charge = SimpleNamespace(
        waiting=set(),
        app=worker,
        task_consumer=None,
        later=None,
        connection_number=lambda: 1,
        policy_of=policy_of,
        echoes=Echoes(),
    )
    request = Request(message, app=worker, task=worker.tasks[task.name], hostname="n")
    seen: dict[str, Any] = {}
    pool = SimpleNamespace(apply_async=lambda *_, **options: seen.update(options))
    request.execute_using_pool(pool)
    return Limits(hard=seen["timeout"], soft=seen["soft_timeout"])


@contextmanager
def in_a_worker(task: Any, **request: Any) -> Iterator[None]:
    """Within this block the task runs as in a worker."""
    known = {"id": "1", "args": [], "kwargs": {}, "retries": 0, "is_eager": False}
    task.push_request(called_directly=False, **{**known, **request})
    try:
        yield
    finally:
        task.pop_request()


def countdown_of(task: Any, retries: int = 0, **call: Any) -> float:
    """How long `self.retry()` waits after so many retries."""
    with in_a_worker(task, retries=retries), pytest.raises(Retry) as retried:
        task.retry(**call)
    return float(retried.value.when)


# Time limits.


@pytest.mark.parametrize(
    ("settings", "options", "call", "limits"),
    [
        pytest.param({}, {}, {}, Limits(300, 270), id="our default"),
        pytest.param({"task_time_limit": 100}, {}, {}, Limits(100, 90), id="project"),
        pytest.param(
            {"task_time_limit": 100},
            {"time_limit": 60},
            {},
            Limits(60, 54),
            id="task over project",
        ),
        pytest.param(
            {"task_time_limit": 100},
            {"time_limit": 60},
            {"time_limit": 30},
            Limits(30, 27),
            id="call over task",
        ),
        pytest.param(
            {"task_soft_time_limit": 100}, {}, {}, Limits(300, 100), id="soft project"
        ),
        pytest.param(
            {"task_soft_time_limit": 100},
            {"soft_time_limit": 60},
            {},
            Limits(300, 60),
            id="soft task over project",
        ),
        pytest.param(
            {"task_soft_time_limit": 100},
            {"soft_time_limit": 60},
            {"soft_time_limit": 30},
            Limits(300, 30),
            id="soft call over task",
        ),
        pytest.param(
            {"task_time_limit": 300, "task_soft_time_limit": 270},
            {"time_limit": 60},
            {},
            Limits(60, 54),
            id="the project's soft limit never defeats a task's hard one",
        ),
        pytest.param(
            {}, {}, {"time_limit": 60}, Limits(60, 54), id="a call's hard limit alone"
        ),
        pytest.param(
            {}, {"time_limit": 3600}, {}, Limits(3600, 3240), id="a long task"
        ),
        pytest.param(
            {"task_time_limit": 3600}, {}, {}, Limits(3600, 3240), id="a long project"
        ),
        pytest.param(
            {},
            {},
            {"time_limit": 3600},
            Limits(3600, 3240),
            id="a long call",
        ),
        pytest.param(
            {"task_soft_time_limit": 100},
            {"time_limit": 3600},
            {},
            Limits(3600, 100),
            id="a soft limit that somebody gave stays",
        ),
        pytest.param(
            {},
            {"time_limit": 60, "soft_time_limit": 59},
            {},
            Limits(60, 54),
            id="a soft limit too near to the hard one",
        ),
        pytest.param(
            {"task_time_limit": None}, {}, {}, Limits(None, 270), id="no hard limit"
        ),
        pytest.param(
            {"task_soft_time_limit": None},
            {},
            {},
            Limits(300, None),
            id="no soft limit",
        ),
        pytest.param(
            {"task_time_limit": None, "task_soft_time_limit": None},
            {},
            {},
            Limits(),
            id="no limit",
        ),
        pytest.param(
            {"task_time_limit": None},
            {"time_limit": 60},
            {},
            Limits(60, 54),
            id="a task's limit where the project has none",
        ),
    ],
)
def test_the_limits_in_force_at_the_pool(
    settings: dict[str, Any],
    options: dict[str, Any],
    call: dict[str, Any],
    limits: Limits,
) -> None:
    """The nearest one given, and soft at most 90 % of hard, from `apply_async` on."""
    app = project(**settings)
    task = task_of(app, **options)

    assert limits_at_the_pool(app, task, **call) == limits


@pytest.mark.parametrize("hard", [1, 60, 269, 270, 271])
def test_a_small_limit_of_a_task_does_not_raise_in_the_caller(hard: int) -> None:
    """Stock: `@shared_task(time_limit=60)` under the global 270 is a ValueError."""
    app = project(task_time_limit=300, task_soft_time_limit=270)
    task = task_of(app, time_limit=hard)

    task.apply_async()

    assert task.soft_time_limit == pytest.approx(0.9 * hard)


def test_limits_are_told_by_the_task() -> None:
    """Dashboards and others read them there."""
    task = task_of(project(), time_limit=60)

    assert (task.time_limit, task.soft_time_limit) == (60, 54)
    assert task.own_limits() == Limits(60, None)


def test_a_call_is_resolved_for_any_observer() -> None:
    """The threads pool asks the same question as main."""
    app = project()
    task = task_of(app)

    assert limits_of(task, app, Limits(hard=60)) == Limits(60, 54)
    assert limits_of(task, app, Limits(hard=3600)) == Limits(3600, 3240)


def test_limits_of_task_annotations_are_the_task_s() -> None:
    """`CELERY_TASK_ANNOTATIONS` is how operators set options of somebody else's task."""
    app = project(task_annotations={"*": {"time_limit": 60}})

    assert limits_at_the_pool(app, task_of(app)) == Limits(60, 54)


def test_other_options_of_task_annotations_are_the_task_s() -> None:
    """They win over our defaults, too."""
    app = project(task_annotations={"*": {"max_retries": 9, "acks_late": False}})
    task = task_of(app)

    assert (task.max_retries, task.acks_late) == (9, False)


@pytest.mark.parametrize("option", ["time_limit", "soft_time_limit"])
def test_a_limit_of_the_wrong_type_is_none_in_a_django_project(option: str) -> None:
    """The module can be imported, so that a check can say what is wrong in it."""
    task = task_of(project(task_time_limit=100), **{option: "60"})

    assert (task.time_limit, task.soft_time_limit) == (100, 90)


def test_a_limit_of_the_wrong_type_is_an_error_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are no checks there."""
    app = project()
    monkeypatch.setattr("unstuck.conf.in_django", lambda: False)

    with pytest.raises(
        SettingsError, match="time_limit of the task own = '60' must be"
    ):
        repr(task_of(app, name="own", time_limit="60").time_limit)


def test_limits_of_the_command_line_are_the_project_s() -> None:
    """`celery worker --time-limit=60`: over the settings, under the tasks."""
    app = project()
    plain, own = task_of(app), task_of(app, name="own", time_limit=90)

    Preflight(SimpleNamespace(app=app), time_limit=60)

    assert limits_at_the_pool(app, plain) == Limits(60, 54)
    assert limits_at_the_pool(app, own) == Limits(90, 81)


def test_a_worker_says_so_when_the_app_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It works all the same; its dead letters wait on the broker."""
    app = project()
    Preflight(SimpleNamespace(app=app))
    assert not caplog.messages
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "unstuck")

    Preflight(SimpleNamespace(app=app))

    (message,) = caplog.messages
    assert '"unstuck" is not in INSTALLED_APPS' in message


def test_limits_of_a_worker_hold_for_messages_of_others() -> None:
    """A web server that knows no limit must not decide those of a worker."""
    web, worker = project(), project()
    for app in (web, worker):
        task_of(app, name="report")

    Preflight(SimpleNamespace(app=worker), time_limit=3600)

    limits = limits_at_the_pool(web, web.tasks["report"], worker)
    assert limits == Limits(3600, 3240)


# Retries.


@pytest.mark.parametrize(
    ("settings", "options", "most"),
    [
        ({}, {}, 3),
        ({"task_max_retries": 5}, {}, 5),
        ({"task_max_retries": 5}, {"max_retries": 7}, 7),
        ({"task_max_retries": 5}, {"max_retries": 0}, 0),
        ({"task_max_retries": None}, {}, None),
        ({"task_max_retries": 5}, {"max_retries": None}, None),
        ({}, {"max_retries": None}, None),
    ],
)
def test_who_says_how_many_retries(
    settings: dict[str, Any], options: dict[str, Any], most: int | None
) -> None:
    """Task, then project, then 3; None is for ever and not "not said"."""
    task = task_of(project(**settings), **options)

    assert task.max_retries == most
    assert policy_of(task).max_retries == most


def test_retries_end_where_the_project_says() -> None:
    """CELERY_TASK_MAX_RETRIES is real."""
    task = task_of(project(task_max_retries=1))

    assert countdown_of(task, retries=0) == 60
    with in_a_worker(task, retries=1), pytest.raises(MaxRetriesExceededError):
        task.retry()


def test_a_call_wins_over_the_task_s_retries() -> None:
    """`self.retry(max_retries=1)`."""
    task = task_of(project(), max_retries=9)

    with in_a_worker(task, retries=1), pytest.raises(MaxRetriesExceededError):
        task.retry(max_retries=1)


def test_a_task_may_retry_for_ever() -> None:
    """`max_retries=None`, as in Celery."""
    task = task_of(project(), max_retries=None)

    assert countdown_of(task, retries=10**6) == 60


@pytest.mark.parametrize(
    ("settings", "options", "call", "seconds"),
    [
        ({}, {}, {}, 60),
        ({"task_default_retry_delay": 5}, {}, {}, 5),
        (
            {"task_default_retry_delay": 5},
            {"default_retry_delay": 7},
            {},
            7,
        ),
        (
            {"task_default_retry_delay": 5},
            {"default_retry_delay": 7},
            {"countdown": 2},
            2,
        ),
        ({}, {"default_retry_delay": 0}, {}, 0),
        ({}, {}, {"countdown": 0}, 0),
        ({"task_retry_backoff": True}, {}, {"countdown": 2}, 2),
        ({"task_default_retry_delay": 7200}, {}, {}, 7200),
    ],
)
def test_who_says_how_long_a_retry_waits(
    settings: dict[str, Any],
    options: dict[str, Any],
    call: dict[str, Any],
    seconds: float,
) -> None:
    """Call, task, project, then 60 s; constant, at each attempt."""
    task = task_of(project(**settings), **options)

    assert countdown_of(task, **call) == seconds
    assert countdown_of(task, retries=2, **call) == seconds


def test_a_retry_at_an_instant_is_the_call_s() -> None:
    """`self.retry(eta=…)`."""
    task = task_of(project())
    eta = datetime(2030, 1, 1)

    with in_a_worker(task), pytest.raises(Retry) as retried:
        task.retry(eta=eta)

    assert retried.value.when == eta


def test_a_retry_is_on_the_broker_when_it_is_raised() -> None:
    """The next attempt, under the same id."""
    app = project()
    task = task_of(app)

    countdown_of(task, retries=1)

    headers = take(app).headers
    assert (headers["id"], headers["retries"]) == ("1", 2)
    assert headers["eta"]


def delays(task: Any, most: int = 8) -> list[float]:
    """What `self.retry()` waits after 0, 1, 2 … retries."""
    task.max_retries = None
    return [countdown_of(task, retries=retries) for retries in range(most)]


def test_with_backoff_the_delay_doubles_up_to_an_hour() -> None:
    """CELERY_TASK_RETRY_BACKOFF = True, from the delay of retries."""
    app = project(task_retry_backoff=True, task_retry_jitter=False)

    waits = delays(task_of(app))

    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_backoff_starts_with_the_task_s_own_delay() -> None:
    """The setting says how it grows, the task where it starts."""
    app = project(task_retry_backoff=True, task_retry_jitter=False)

    assert delays(task_of(app, default_retry_delay=1), 3) == [1, 2, 4]


def test_a_factor_stretches_the_delay() -> None:
    """CELERY_TASK_RETRY_BACKOFF = 2: twice the delay, doubling."""
    app = project(
        task_retry_backoff=2, task_retry_jitter=False, task_retry_backoff_max=300
    )

    assert delays(task_of(app), 4) == [120, 240, 300, 300]


@pytest.mark.parametrize("dice", [0.0, 0.25, 0.999])
def test_a_doubled_delay_has_full_jitter(
    dice: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn between nothing and the whole, so that retries do not come in step."""
    monkeypatch.setattr("unstuck.worker.task.random.random", lambda: dice)
    task = task_of(project(task_retry_backoff=True))

    assert delays(task, 3) == pytest.approx([60 * dice, 120 * dice, 240 * dice])


def test_a_task_s_own_backoff_keeps_celery_s_meaning() -> None:
    """`retry_backoff=5`: 5 s, doubled, at most 600 s, for `self.retry()` as well."""
    task = task_of(project(), retry_backoff=5, retry_jitter=False)

    waits = delays(task, 9)

    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600]


def test_a_task_s_own_backoff_has_its_own_maximum_and_jitter() -> None:
    """`retry_backoff=True` starts with a second."""
    task = task_of(
        project(), retry_backoff=True, retry_backoff_max=3, retry_jitter=True
    )

    assert retry_delay_of(task) == RetryDelay(
        initial=timedelta(seconds=1),
        doubles=True,
        maximum=timedelta(seconds=3),
        jitter=True,
    )


@pytest.mark.parametrize(
    "off",
    [
        False,
        pytest.param(
            0,
        ),
    ],
)
def test_a_task_can_refuse_the_project_s_backoff(off: Any) -> None:
    """`retry_backoff=False` and 0 are Celery's words for none."""
    app = project(task_retry_backoff=True, task_retry_jitter=False)

    assert delays(task_of(app, retry_backoff=off), 3) == [60, 60, 60]


def test_a_task_s_maximum_and_jitter_win_over_the_project_s() -> None:
    """Each task option wins on its own."""
    app = project(task_retry_backoff=True)
    task = task_of(app, retry_backoff_max=100, retry_jitter=False)

    assert delays(task, 3) == [60, 100, 100]


def autoretry(task: Any, retries: int = 0) -> float:
    """How long an automatic retry waits."""
    with in_a_worker(task, retries=retries), pytest.raises(Retry) as retried:
        task()
    return float(retried.value.when)


@pytest.mark.parametrize(
    ("settings", "options", "waits"),
    [
        ({}, {}, [60, 60]),
        ({"task_default_retry_delay": 5}, {}, [5, 5]),
        ({"task_retry_backoff": True, "task_retry_jitter": False}, {}, [60, 120]),
        ({}, {"retry_backoff": 3, "retry_jitter": False}, [3, 6]),
        ({}, {"retry_kwargs": {"countdown": 2}}, [2, 2]),
    ],
)
def test_autoretry_waits_as_self_retry_does(
    settings: dict[str, Any], options: dict[str, Any], waits: list[float]
) -> None:
    """`autoretry_for` goes through the same delay."""
    app = project(**settings)

    @app.task(shared=False, autoretry_for=(OSError,), **options)
    def send() -> None:
        raise OSError

    assert [autoretry(send, retries) for retries in (0, 1)] == waits


def test_autoretry_ends_where_the_project_says() -> None:
    """Then the error itself comes out."""
    app = project(task_max_retries=1)

    @app.task(shared=False, autoretry_for=(OSError,))
    def send() -> None:
        raise OSError("still down")

    assert autoretry(send, retries=0) == 60
    with in_a_worker(send, retries=1), pytest.raises(OSError, match="still down"):
        send()


# A retry that the broker does not take.


def refusing(monkeypatch: pytest.MonkeyPatch, app: Celery, error: Exception) -> None:
    """Make the broker of this app refuse everything."""

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(app, "send_task", refuse)


@pytest.mark.parametrize("error", [OperationalError("gone"), ConnectionError("gone")])
def test_a_retry_that_cannot_be_published_is_queued_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock Celery throws the task away (`Reject(requeue=False)`)."""
    app = project()
    task = task_of(app)
    refusing(monkeypatch, app, error)

    with in_a_worker(task), pytest.raises(Reject) as rejected:
        task.retry(exc=LookupError("why"))

    assert rejected.value.requeue is True
    assert rejected.value.reason is error
    assert rejected.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [EncodeError("no"), TypeError("no JSON"), ValueError("no")]
)
def test_a_retry_that_can_never_be_published_fails(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queueing it again would be a loop without end: the error is the task's."""
    app = project()
    task = task_of(app)
    refusing(monkeypatch, app, error)

    with in_a_worker(task), pytest.raises(type(error)) as raised:
        task.retry()

    assert raised.value is error


def test_arguments_that_cannot_be_encoded_fail_the_task() -> None:
    """For real: `self.retry(args=[object()])`."""
    task = task_of(project())

    with in_a_worker(task), pytest.raises((EncodeError, TypeError)):
        task.retry(args=[object()])


def test_an_at_most_once_task_is_not_queued_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With acks_late=False its message is gone already: the error is the task's."""
    app = project()
    task = task_of(app, acks_late=False)
    error = OperationalError("gone")
    refusing(monkeypatch, app, error)

    with in_a_worker(task), pytest.raises(OperationalError) as raised:
        task.retry()

    assert raised.value is error


def test_a_reject_of_the_task_s_own_passes_through() -> None:
    """`self.retry(exc=Reject(…))` with no retry left raises just that."""
    task = task_of(project(), max_retries=0)
    own = Reject("mine", requeue=False)

    with in_a_worker(task), pytest.raises(Reject) as raised:
        task.retry(exc=own)

    assert raised.value is own


def test_outside_a_worker_a_retry_raises_the_error() -> None:
    """A task that is called as a plain function, as in Celery."""
    task = task_of(project())

    with pytest.raises(LookupError, match="why"):
        task.retry(exc=LookupError("why"))


# Soft limits that are retried.


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        ({}, SoftTimeLimitExceeded),
        ({"retry_on_limit": True}, Retry),
        ({"retry_on_limit": True, "max_retries": 0}, SoftTimeLimitExceeded),
        ({"retry_on_limit": True, "acks_late": False}, SoftTimeLimitExceeded),
    ],
)
def test_a_soft_limit_is_retried_where_the_task_says_so(
    options: dict[str, Any], ending: type[Exception]
) -> None:
    """`retry_on_limit=True`, while attempts are left and running twice is allowed."""
    app = project()

    @app.task(shared=False, **options)
    def slow() -> None:
        raise SoftTimeLimitExceeded

    with in_a_worker(slow), pytest.raises(ending):
        slow()


@pytest.mark.parametrize(
    ("options", "request_", "ending"),
    [
        ({}, {}, Retry),
        ({}, {"retries": 3}, DeadlockDetected),
        ({"max_retries": 0}, {}, DeadlockDetected),
        ({"acks_late": False}, {}, DeadlockDetected),
        ({}, {"is_eager": True}, DeadlockDetected),
    ],
)
def test_a_deadlock_is_retried(
    options: dict[str, Any], request_: dict[str, Any], ending: type[Exception]
) -> None:
    """While attempts are left and running twice is allowed; soon, whatever the delay is."""
    app = project(task_default_retry_delay=3600)

    @app.task(shared=False, **options)
    def move() -> None:
        raise DeadlockDetected("a waits for b, b waits for a")

    with in_a_worker(move, **request_), pytest.raises(ending) as raised:
        move()

    assert 1 <= getattr(raised.value, "when", 1) <= 3


@pytest.mark.parametrize(
    "error",
    [
        LockBusy("held", name="a", holder="b"),
        DeadlockDetected("circle", name="a", cycle=["b"]),
    ],
)
def test_an_error_of_a_lock_can_be_sent_and_read(error: Any) -> None:
    """By pickle as a child answers main, and by JSON as results are stored."""
    again = pickle.loads(pickle.dumps(error))
    backend = project().backend
    stored = backend.exception_to_python(backend.prepare_exception(error, "json"))

    assert (type(again), vars(again), str(again)) == (
        type(error),
        vars(error),
        str(error),
    )
    assert (type(stored), str(stored)) == (type(error), str(error))


def test_a_retry_on_limit_of_the_task_wins_over_the_project_s(settings: Any) -> None:
    """False is said, None is not."""
    settings.UNSTUCK = {"RETRY_ON_SOFT_LIMIT": True, "RETRY_ON_HARD_LIMIT": True}
    app = project()

    silent = policy_of(task_of(app))
    refuses = policy_of(task_of(app, name="other", retry_on_limit=False))

    assert (silent.retry_on_soft_limit, silent.retry_on_hard_limit) == (True, True)
    assert (refuses.retry_on_soft_limit, refuses.retry_on_hard_limit) == (False, False)


def test_strikes_of_the_task_win_over_the_project_s(settings: Any) -> None:
    """`max_strikes=1`, then MAX_STRIKES, then 3."""
    app = project()
    task, own = task_of(app), task_of(app, name="own", max_strikes=1)
    assert policy_of(task).max_strikes == 3

    settings.UNSTUCK = {"MAX_STRIKES": 9}

    assert policy_of(task).max_strikes == 9
    assert policy_of(own).max_strikes == 1


# Acknowledging.


@pytest.mark.parametrize(
    ("settings", "options", "late"),
    [
        ({}, {}, True),
        ({"task_acks_late": False}, {}, False),
        ({"acks_late": False}, {}, False),
        ({"task_acks_late": False}, {"acks_late": True}, True),
        ({"acks_late": False}, {"acks_late": True}, True),
        ({"task_acks_late": True}, {"acks_late": False}, False),
        ({}, {"acks_late": False}, False),
    ],
)
def test_who_says_whether_to_acknowledge_late(
    settings: dict[str, Any], options: dict[str, Any], late: bool
) -> None:
    """Task, then project under both names, then True. A call has no say in it."""
    task = task_of(project(**settings), **options)

    assert task.acks_late is late
    assert policy_of(task).at_most_once is not late


@pytest.mark.parametrize(
    ("settings", "options", "rerun"),
    [
        ({}, {}, True),
        ({"task_reject_on_worker_lost": False}, {}, False),
        ({"task_reject_on_worker_lost": False}, {"reject_on_worker_lost": True}, True),
        ({}, {"reject_on_worker_lost": False}, False),
    ],
)
def test_who_says_whether_a_lost_task_runs_again(
    settings: dict[str, Any], options: dict[str, Any], rerun: bool
) -> None:
    """Task, then project, then True. A call has no say in it."""
    task = task_of(project(**settings), **options)

    assert task.reject_on_worker_lost is rerun
    assert policy_of(task).rerun_after_child_lost is rerun


# Base classes of the project's own.


class Own(celery.Task):
    """A base class as projects have them."""

    max_retries = 7
    acks_late = False
    time_limit = 60

    def greeting(self) -> str:
        """What the project's tasks can do beside."""
        return f"hello from {self.name}"

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """A hook that calls on."""
        super().before_start(task_id, args, kwargs)


class Counting(celery.Task):
    """A base class that overrides what ours does, and calls on."""

    calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Count, then run."""
        type(self).calls += 1
        return super().__call__(*args, **kwargs)

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Always in two seconds."""
        return super().retry(*args, **{**kwargs, "countdown": 2})


def is_ours(task: Any) -> bool:
    """Whether a worker runs this task under our rules."""
    strategy = symbol_by_name(task.Strategy)
    request = symbol_by_name(task.Request)
    return isinstance(task, Task) and (strategy, request) == (our_strategy, Request)


@pytest.mark.parametrize("base", [None, celery.Task, Own, Counting, DjangoTask, Task])
def test_a_task_of_any_base_class_is_ours(base: Any) -> None:
    """And is still one of its base."""
    task = task_of(project(), base=base)

    assert is_ours(task)
    assert isinstance(task, base or celery.Task)
    assert countdown_of(task) in (60, 2)


def test_a_base_class_keeps_its_ways() -> None:
    """Its options and methods come before our defaults, under the options of a task."""
    app = project()
    task = task_of(app, base=Own, name="shop.own")
    other = task_of(app, base=Own, name="shop.other", max_retries=1, time_limit=30)

    assert (task.max_retries, task.acks_late) == (7, False)
    assert (task.time_limit, task.soft_time_limit) == (60, 54)
    assert task.greeting() == "hello from shop.own"
    assert task.default_retry_delay == 60
    task.before_start("1", (), {})
    assert (other.max_retries, other.time_limit, other.soft_time_limit) == (1, 30, 27)


def test_a_base_class_overrides_ours_and_calls_on() -> None:
    """`super()` in the project's class is our class."""
    app = project()

    @app.task(shared=False, base=Counting, retry_on_limit=True)
    def slow() -> None:
        raise SoftTimeLimitExceeded

    with in_a_worker(slow), pytest.raises(Retry) as retried:
        slow()

    assert retried.value.when == 2
    assert slow.__class__.calls == 1


def test_a_base_class_is_not_changed_itself() -> None:
    """Stock apps in the same process go on with it."""
    task_of(project(), base=Own)

    assert not issubclass(Own, Task)
    assert Own.Strategy == celery.Task.Strategy


@pytest.mark.parametrize("task_cls", [Own, f"{__name__}:Own"])
def test_a_base_class_of_the_whole_app_keeps_its_ways(task_cls: Any) -> None:
    """`Celery(task_cls=…)`, as a class and by name."""
    app = Celery("shop", set_as_current=False, broker="memory://", task_cls=task_cls)

    task = task_of(app)

    assert is_ours(task)
    assert isinstance(task, Own)
    assert (task.max_retries, task.time_limit, task.soft_time_limit) == (7, 60, 54)


def test_tasks_of_a_django_project_can_wait_for_the_commit() -> None:
    """Celery's DjangoTask is the base of all tasks there, beside ours."""
    task = task_of(project())

    assert is_ours(task)
    assert isinstance(task, DjangoTask)
    assert callable(task.delay_on_commit)


@pytest.mark.parametrize("as_instance", [True, False])
def test_a_class_based_task_is_ours(as_instance: bool) -> None:
    """`app.register_task`, with its own options."""

    class Report(celery.Task):
        name = "shop.report"
        max_retries = None
        time_limit = 60

        def run(self, number: int) -> int:
            return number + 1

    app = project()

    task = app.register_task(Report() if as_instance else Report)

    assert app.tasks["shop.report"] is task
    assert is_ours(task)
    assert isinstance(task, Report)
    assert (task.max_retries, task.time_limit, task.soft_time_limit) == (None, 60, 54)
    assert task(1) == 2
    assert limits_at_the_pool(app, task, args=(1,)) == Limits(60, 54)


def test_a_class_based_task_is_named_as_in_celery() -> None:
    """Our class beneath it does not show in the name."""

    class Report(celery.Task):
        def run(self) -> None: ...

    task = project().register_task(Report())

    assert task.name == f"{__name__}.Report"
    assert type(task).__name__ == "Report"


def test_a_class_that_inherits_from_a_registered_one_has_its_own_limits() -> None:
    """What a class says wins over what it inherits, also once that is bound."""
    app = project()

    class Short(celery.Task):
        name = "shop.short"
        time_limit = 60

        def run(self) -> None: ...

    class Long(Short):
        name = "shop.long"
        time_limit = 120

    app.register_task(Short())
    task = app.register_task(Long())

    assert (task.time_limit, task.soft_time_limit) == (120, 108)


def test_a_class_that_inherits_from_a_registered_one_of_the_app_does_too() -> None:
    """Likewise for classes that are made from `app.Task`."""
    app = project()

    class Short(app.Task):
        name = "shop.short"
        time_limit = 60

        def run(self) -> None: ...

    class Long(Short):
        name = "shop.long"
        time_limit = 120

    app.register_task(Short())
    task = app.register_task(Long())

    assert (task.time_limit, task.soft_time_limit) == (120, 108)


def test_celery_s_own_tasks_keep_their_options() -> None:
    """`celery.chord_unlock` polls for ever, at the interval of its setting."""
    unlock = project().tasks["celery.chord_unlock"]

    assert is_ours(unlock)
    assert unlock.max_retries is None
    assert unlock.default_retry_delay == 1.0


def test_a_task_called_directly_is_a_plain_function() -> None:
    """No worker, no policy."""
    app = project()

    @app.task(shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    assert add(1, 2) == 3
    assert add.apply((1, 2)).get() == 3
